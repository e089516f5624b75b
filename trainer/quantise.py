"""Int8 for CPUs: post-training quantisation of the exported core with NNCF.

Activations after a ReLU become unsigned, which OpenVINO runs as int8 and TensorRT refuses: this file is for
CPUs. The subtraction of the residual is the adapter's, outside int8: the picture itself never passes through
a quantiser, only what is taken away from it. The validity's bias stays in float32.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch.nn import functional

from streamderain.nets.fast import BLOCK
from trainer.batches import Batch

_FRAME_INPUTS = ("window",)
_INPUT_SCALE = np.float32(1.0 / 255.0)
"""Step of the quantised inputs: one 8-bit code, so that 8-bit video enters the network exactly."""

_FLOAT_OPS = ("Sub", "Clip", "Gemm", "Unsqueeze")


def quantise_core(source: Path, target: Path, batches: Sequence[Batch]) -> None:
    """Quantise an exported core to int8 (weights per channel, activations per tensor).

    Args:
        source: The float32 core, as `streamderain.nets.export.export_core` writes it.
        target: Where the int8 core goes (ONNX with QuantizeLinear and DequantizeLinear).
        batches: Training batches that show the ranges of the activations.
    """
    import nncf  # slow to import, and only needed here

    nncf.set_log_level(logging.ERROR)
    model = onnx.load(str(source))
    items = list(calibration_items(batches))
    quantised = nncf.quantize(
        model,
        nncf.Dataset(items),
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(items),
        fast_bias_correction=False,
        ignored_scope=nncf.IgnoredScope(names=_float_nodes(model)),
    )
    set_input_scales(quantised)
    onnx.checker.check_model(quantised)
    onnx.save(quantised, str(target))


def calibration_items(batches: Sequence[Batch]) -> Iterator[dict[str, NDArray[np.float32]]]:
    """The core's named inputs for every sample of some batches, one at a time."""
    for batch in batches:
        blocks = functional.pixel_unshuffle(torch.from_numpy(batch.window), BLOCK).numpy()
        for window, validity in zip(blocks, batch.validity, strict=True):
            yield {"window": window[None], "validity": validity[None]}


def set_input_scales(model: Any) -> None:
    """Set the quantisers of the three frame inputs to steps of one 8-bit code, zero at 0, in place."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and _reads_frame(model, node):
            scale, zero = constants[node.input[1]], constants[node.input[2]]
            scale.CopyFrom(numpy_helper.from_array(np.asarray(_INPUT_SCALE), scale.name))
            zero.CopyFrom(numpy_helper.from_array(np.zeros((), np.uint8), zero.name))


def _reads_frame(model: Any, node: Any) -> bool:
    """Whether a node's input is a frame, directly or through a QuantizeLinear."""
    source = node.input[0]
    if source in _FRAME_INPUTS:
        return True
    producer = next((n for n in model.graph.node if source in n.output), None)
    if producer is None or producer.op_type != "QuantizeLinear":
        return False
    return producer.input[0] in _FRAME_INPUTS


def _float_nodes(model: Any) -> list[str]:
    """Names of the nodes that stay in float32, the addition of the validity's bias among them."""
    producers = {output: node for node in model.graph.node for output in node.output}
    names = [node.name for node in model.graph.node if node.op_type in _FLOAT_OPS]
    for node in model.graph.node:
        if node.op_type == "Add" and any(
            name in producers and producers[name].op_type == "Unsqueeze" for name in node.input
        ):
            names.append(node.name)
    return names
