"""Training for int8: what is simulated is what the exported graph computes."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch

from streamderain.errors import ConfigError
from streamderain.nets.export import export_core
from streamderain.nets.fast import FastNet
from streamderain.nets.luma import Answer, core_window, rain_prior, residual_planes
from trainer.checkpoint import read_checkpoint
from trainer.config import PhaseConfig, TrainConfig, parse_config
from trainer.data.library import Library
from trainer.data.paired import BatchMaker
from trainer.export.model_folder import Trained
from trainer.export.quantise import quantise_core
from trainer.methods.supervised import Supervised
from trainer.networks.quantisation_aware import Int8Planes, quantised_weight
from trainer.run.loop import one_device, train

INT8 = (PhaseConfig(until=1.0, losses={"squared": 1.0}, residual_slope=0.1, int8=True),)


def through_the_int8_graph(folder: Path, window: torch.Tensor, validity: torch.Tensor) -> torch.Tensor:
    """The residual that the exported graph computes; (N, 1, H, W)."""
    blocks = core_window(window)
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(folder / "model.int8.onnx"), "CPU", settings)
    inputs = {"window": blocks, "prior": rain_prior(blocks), "validity": validity}
    got = compiled({name: tensor.numpy() for name, tensor in inputs.items()})
    return residual_planes(blocks, Answer(*(torch.from_numpy(got[name]) for name in Answer._fields)))


def test_what_is_simulated_is_what_the_exported_graph_computes(
    trained: Trained, library: Library, tmp_path: Path
) -> None:
    network = copy.deepcopy(trained.network)
    ranges: dict[str, torch.Tensor] = {}
    planes = Int8Planes(network, ranges)
    maker = BatchMaker(library, trained.config.data, batch=8, seed=2)
    with torch.no_grad():
        batches = [maker.batch(step) for step in range(6)]
        for batch in batches:
            planes.simulate(torch.from_numpy(batch.window), torch.from_numpy(batch.validity))
        export_core(trained.network, tmp_path / "model.onnx")
        found = {name: float(value) for name, value in ranges.items()}
        quantise_core(tmp_path / "model.onnx", tmp_path / "model.int8.onnx", batches, ranges=found)
        batch = batches[3]
        window, validity = torch.from_numpy(batch.window), torch.from_numpy(batch.validity)
        exported = through_the_int8_graph(tmp_path, window, validity)
        residual_in_float = window[:, 1:2] - _unbounded(planes(window, validity), window)
        simulated = window[:, 1:2] - _unbounded(planes.simulate(window, validity), window)
    error_of_float = float((residual_in_float - exported.relu()).abs().mean())
    error = float((simulated - exported.relu()).abs().mean())
    assert error < 0.4 * error_of_float, (error, error_of_float)


def _unbounded(clean: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    return torch.minimum(clean, window[:, 1:2])  # slope 0: light is never added


def test_every_quantised_activation_has_a_range(trained: Trained, maker: BatchMaker) -> None:
    ranges: dict[str, torch.Tensor] = {}
    planes = Int8Planes(copy.deepcopy(trained.network), ranges)
    batch = maker.batch(0)
    window, validity = torch.from_numpy(batch.window), torch.from_numpy(batch.validity)
    planes(window, validity)
    assert not ranges  # in float nothing is measured
    planes.simulate(window, validity)
    middle = {f"middle.{i}" for i in range(4)}
    assert ranges.keys() == {"head", "down", "merge", "sum"} | middle
    before = {name: float(value) for name, value in ranges.items()}
    planes.simulate(window * 0.1, validity)
    assert all(float(ranges[name]) >= value for name, value in before.items()), "they only widen"
    assert float(ranges["head"]) == before["head"]


def test_weights_are_rounded_per_output_channel() -> None:
    torch.manual_seed(0)
    for layer, axis in ((torch.nn.Conv2d(4, 6, 3), 0), (torch.nn.ConvTranspose2d(6, 4, 2), 1)):
        for halved, most in ((False, 127), (True, 63.5)):
            rounded = quantised_weight(layer, halved=halved).detach().movedim(axis, 0).flatten(1)
            exact = layer.weight.detach().movedim(axis, 0).flatten(1)
            scale = exact.abs().amax(dim=1, keepdim=True) / most
            steps = (exact / scale).numpy()
            found = (rounded / scale).numpy()
            np.testing.assert_allclose(found, np.rint(found), atol=1e-3)
            assert np.abs(found - steps).max() < 0.501


def test_gradients_pass_the_rounding(trained: Trained, maker: BatchMaker) -> None:
    network = copy.deepcopy(trained.network)
    network.requires_grad_(True)
    network.residual_slope = 0.1
    planes = Int8Planes(network, {})
    batch = maker.batch(0)
    window, validity, target = (torch.from_numpy(a) for a in (batch.window, batch.validity, batch.target))
    gradients = []
    for forward in (planes, planes.simulate):
        network.zero_grad()
        (forward(window, validity) - target).square().mean().backward()
        assert all(p.grad is not None and p.grad.any() for p in network.parameters())
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert float(torch.nn.functional.cosine_similarity(*gradients, dim=0)) > 0.8


def test_a_resumed_run_rounds_like_the_whole_one(
    config: TrainConfig, maker: BatchMaker, tmp_path: Path
) -> None:
    int8 = dataclasses.replace(config, phases=INT8)
    train(int8, maker, tmp_path / "whole")
    train(int8, maker, tmp_path / "parts", stop_after=3)
    train(int8, maker, tmp_path / "parts", resume=True)
    whole, parts = (
        read_checkpoint(tmp_path / n / "checkpoints/last.safetensors")[0] for n in ("whole", "parts")
    )
    assert any(name.startswith("extra.") for name in whole)
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name


def test_training_in_int8_lowers_the_loss_of_int8(trained: Trained, library: Library, tmp_path: Path) -> None:
    values = trained.config.as_dict() | {"workers": 0}
    values["phases"] = [{**values["phases"][0], "int8": True}]
    config = parse_config(values, where="test")
    maker = BatchMaker(library, config.data, batch=8, seed=1)
    fresh = Supervised(config, one_device(config)).state.modules["average"]
    average = train(config, maker, tmp_path / "run").modules["average"]

    def loss_in_int8(network: FastNet) -> float:
        planes, losses = Int8Planes(copy.deepcopy(network), {}), []
        planes.network.residual_slope = config.phases[0].residual_slope
        for step in range(500, 510):
            batch = maker.batch(step)
            window, validity, target = (
                torch.from_numpy(a) for a in (batch.window, batch.validity, batch.target)
            )
            with torch.no_grad():
                losses.append(float((planes.simulate(window, validity) - target).square().mean()))
        return float(np.mean(losses))

    assert isinstance(fresh, FastNet)
    assert isinstance(average, FastNet)
    assert loss_in_int8(average) < 0.5 * loss_in_int8(fresh)


def test_int8_needs_pairs(config: TrainConfig) -> None:
    values = config.as_dict() | {"method": "translation"}
    values["phases"] = [{"until": 1.0, "losses": {"adversarial": 1.0}, "int8": True}]
    with pytest.raises(ConfigError, match="int8 phases need method pairs"):
        parse_config(values, where="test")
