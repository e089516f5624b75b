"""Loading what is to be evaluated as a function on cases: OpenVINO for exported cores, torch for weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from streamderain.errors import ConfigError, ModelNotFound
from streamderain.models import CARD_NAME, read_card
from streamderain.nets.export import OUTPUT_NAMES
from streamderain.nets.fast import MULTIPLE, core_window, residual_planes
from trainer.cases import Case, VideoPlan, all_cases
from trainer.checkpoint import checkpoint_path, is_checkpoint
from trainer.generator_weights import holds_generator
from trainer.scores import Clean, Row, score
from trainer.validate import network_clean

Codes = NDArray[np.uint8]
Core = Callable[[dict[str, NDArray[np.float32]]], tuple[NDArray[np.float32], ...]]
_OWN = ("weights", "checkpoint")
"""What is computed by torch as it is stored: there is no choice of precision."""


def evaluate(
    model: Path, dataset: Path, *, precision: str | None = None, plan: VideoPlan | None = None
) -> list[Row]:
    """Score a model on a data set, beside doing nothing: the rows that go into cards.

    Args:
        model: See `model_file`.
        dataset: See `trainer.cases`.
        precision: See `model_file`.
        plan: How validation clips are made.
    """
    return score(all_cases(dataset, plan or VideoPlan()), load_clean(model, precision=precision))


def model_file(model: Path, precision: str | None) -> tuple[Path, str]:
    """What to run, and the name of its precision for reports.

    Args:
        model: A model folder, an exported core (.onnx), weights (.safetensors), a folder with the shards of
            a generator, a run's folder or a checkpoint.
        precision: For folders with a card: "f32", "int8" (run by OpenVINO), "weights" (run by torch), or None
            for what the OpenVINO engine uses by default.

    Returns:
        A file, or the folder of a generator or run.

    Raises:
        ModelNotFound: There is no such file.
        ConfigError: A precision was asked of something that has its own.
    """
    if (model / CARD_NAME).is_file() and (card := read_card(model)).family != "generator":
        precision = precision or card.default_precision["openvino"]
        return card.file(precision), precision
    if model.is_dir() and holds_generator(model):
        found = "weights"
    elif is_checkpoint(checkpoint_path(model)):
        found = "checkpoint"
    elif model.is_file():
        found = model.name
    else:
        raise ModelNotFound(
            f"no model at {model}; give a model folder, an .onnx core, .safetensors weights or a run"
        )
    if precision not in (None, found):
        raise ConfigError(
            f"{model} has one precision and computes as it is; leave out the precision {precision}"
        )
    return model, found


def load_clean(model: Path, *, precision: str | None = None, device: str = "cpu") -> Clean:
    """Load a model as a function on cases.

    Args:
        model: See `model_file`.
        precision: See `model_file`.
        device: Where torch computes; OpenVINO computes on the CPU.

    Raises:
        ModelNotFound: There is no such file.
        OpenError: Weights are damaged, or a shard is missing.
        ConfigError: The file is of no kind that can be run, or the device is not there.
    """
    found, _ = model_file(model, precision)
    if found.suffix == ".onnx":
        return core_clean(openvino_core(found))
    if found.is_file() and found.suffix != ".safetensors":
        raise ConfigError(f"{found} is neither an .onnx core nor .safetensors weights")
    from trainer.networks import load_network  # knows every family of networks that can be trained

    network = load_network(found).eval()
    try:
        return network_clean(network.to(device))
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"torch cannot compute on {device!r} ({error}); choose cpu or cuda") from error


def openvino_core(path: Path) -> Core:
    """An exported core as a function of its named inputs, run by OpenVINO."""
    import openvino  # not needed to train

    # Without the hint CPUs with bf16 units would silently compute the float parts in bf16.
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(inputs: dict[str, NDArray[np.float32]]) -> tuple[NDArray[np.float32], ...]:
        results = compiled(inputs)
        return tuple(results[name] for name in OUTPUT_NAMES)

    return run


def core_clean(core: Core) -> Clean:
    """A core as a function on cases: the adapter's padding, unshuffling and rounding, in numpy."""

    def clean(case: Case) -> Codes:
        _, height, width = case.window.shape
        padded = np.pad(case.window, ((0, 0), (0, -height % MULTIPLE), (0, -width % MULTIPLE)), mode="edge")
        units = torch.from_numpy(padded.astype(np.float32) / np.float32(255.0))
        blocks = core_window(units[None])
        share, correction = core(
            {"window": blocks.numpy(), "validity": np.array([case.validity], np.float32)}
        )
        residual = residual_planes(blocks, torch.from_numpy(share), torch.from_numpy(correction))[0, 0]
        plane = units[1] - residual.clamp(min=0.0)
        return np.rint(plane[:height, :width].clamp(0.0, 1.0).numpy() * 255.0).astype(np.uint8)

    return clean
