"""Evaluating a model on known pairs, with OpenVINO for exported cores and torch for weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from streamderain.errors import ConfigError, ModelNotFound
from streamderain.models import CARD_NAME, read_card
from streamderain.nets.families import load_core
from streamderain.nets.fast import BLOCK, MULTIPLE, FastNet
from trainer.cases import VideoPlan, all_cases
from trainer.scores import Clean, Row, score
from trainer.validate import torch_clean

Codes = NDArray[np.uint8]
Core = Callable[[dict[str, NDArray[np.float32]]], NDArray[np.float32]]


def evaluate(
    model: Path, dataset: Path, *, precision: str = "f32", plan: VideoPlan | None = None
) -> list[Row]:
    """Score a model on a data set, beside doing nothing.

    Args:
        model: A model folder, an exported core (.onnx) or weights (.safetensors).
        dataset: See `trainer.cases`.
        precision: Which file of a model folder to run: "f32", "int8" (OpenVINO) or "weights" (torch).
        plan: How validation clips are made.
    """
    return score(all_cases(dataset, plan or VideoPlan()), load_clean(model, precision=precision))


def load_clean(model: Path, *, precision: str = "f32") -> Clean:
    """Load a model as a function on uint8 windows.

    Raises:
        ModelNotFound: There is no such file.
        ConfigError: The file is of no kind that can be run.
    """
    if (model / CARD_NAME).is_file():
        model = read_card(model).file(precision)
    if not model.is_file():
        raise ModelNotFound(
            f"no model at {model}; give a model folder, an .onnx core or .safetensors weights"
        )
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

    def run(inputs: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = compiled(inputs)[0]
        return result

    return run


def core_clean(core: Core) -> Clean:
    """A core as a function on uint8 windows: the adapter's padding, unshuffling and rounding, in numpy."""

    def clean(window: Codes, validity: tuple[bool, bool]) -> Codes:
        _, height, width = window.shape
        padded = np.pad(window, ((0, 0), (0, -height % MULTIPLE), (0, -width % MULTIPLE)), mode="edge")
        units = torch.from_numpy(padded.astype(np.float32) / np.float32(255.0))
        blocks = functional.pixel_unshuffle(units[None], BLOCK).numpy()
        residual = torch.from_numpy(core({"window": blocks, "validity": np.array([validity], np.float32)}))
        plane = units[1] - functional.pixel_shuffle(residual, BLOCK)[0, 0]
        return np.rint(plane[:height, :width].clamp(0.0, 1.0).numpy() * 255.0).astype(np.uint8)

    return clean
