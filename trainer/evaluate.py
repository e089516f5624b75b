"""Evaluating a model on known pairs, with OpenVINO for exported cores and torch for weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from streamderain.errors import ConfigError, ModelNotFound
from streamderain.models import CARD_NAME, read_card
from streamderain.nets.export import OUTPUT_NAMES
from streamderain.nets.families import load_core
from streamderain.nets.fast import MULTIPLE, FastNet, core_window, residual_planes
from trainer.cases import VideoPlan, all_cases
from trainer.scores import Clean, Row, score
from trainer.validate import torch_clean

Codes = NDArray[np.uint8]
Core = Callable[[dict[str, NDArray[np.float32]]], tuple[NDArray[np.float32], ...]]


def evaluate(
    model: Path, dataset: Path, *, precision: str | None = None, plan: VideoPlan | None = None
) -> list[Row]:
    """Score a model on a data set, beside doing nothing.

    Args:
        model: A model folder, an exported core (.onnx) or weights (.safetensors).
        dataset: See `trainer.cases`.
        precision: Which file of a model folder to run: see `model_file`.
        plan: How validation clips are made.
    """
    return score(all_cases(dataset, plan or VideoPlan()), load_clean(model, precision=precision))


def model_file(model: Path, precision: str | None) -> tuple[Path, str]:
    """The file to run, and the name of its precision for reports.

    Args:
        model: A model folder, an exported core (.onnx) or weights (.safetensors).
        precision: For folders: "f32", "int8" (run by OpenVINO), "weights" (run by torch), or None for what
            the OpenVINO engine uses by default.

    Raises:
        ModelNotFound: There is no such file.
        ConfigError: A precision was asked of a single file, which has its own.
    """
    if (model / CARD_NAME).is_file():
        card = read_card(model)
        precision = precision or card.default_precision["openvino"]
        return card.file(precision), precision
    if not model.is_file():
        raise ModelNotFound(
            f"no model at {model}; give a model folder, an .onnx core or .safetensors weights"
        )
    if precision is not None:
        raise ConfigError(f"{model} is one file and computes as it is; leave out the precision {precision}")
    return model, model.name


def load_clean(model: Path, *, precision: str | None = None) -> Clean:
    """Load a model as a function on uint8 windows; arguments as in `model_file`.

    Raises:
        ModelNotFound: There is no such file.
        ConfigError: The file is of no kind that can be run.
    """
    model, _ = model_file(model, precision)
    if model.suffix == ".onnx":
        return core_clean(openvino_core(model))
    if model.suffix == ".safetensors":
        network = load_core("fast", model)
        assert isinstance(network, FastNet)
        return torch_clean(network.eval())
    raise ConfigError(f"{model} is neither an .onnx core nor .safetensors weights")


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
    """A core as a function on uint8 windows: the adapter's padding, unshuffling and rounding, in numpy."""

    def clean(window: Codes, validity: tuple[bool, bool]) -> Codes:
        _, height, width = window.shape
        padded = np.pad(window, ((0, 0), (0, -height % MULTIPLE), (0, -width % MULTIPLE)), mode="edge")
        units = torch.from_numpy(padded.astype(np.float32) / np.float32(255.0))
        blocks = core_window(units[None])
        share, correction = core({"window": blocks.numpy(), "validity": np.array([validity], np.float32)})
        residual = residual_planes(blocks, torch.from_numpy(share), torch.from_numpy(correction))[0, 0]
        plane = units[1] - residual.clamp(min=0.0)
        return np.rint(plane[:height, :width].clamp(0.0, 1.0).numpy() * 255.0).astype(np.uint8)

    return clean
