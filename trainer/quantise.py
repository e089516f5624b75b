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

from streamderain.nets.export import INPUT_NAMES
from streamderain.nets.fast import core_window
from trainer.batches import Batch

_WINDOW, _VALIDITY = INPUT_NAMES
_INPUT_SCALE = np.float32(1.0 / 255.0)
"""Step of the first convolution's input: one 8-bit code, so that 8-bit video enters the network exactly."""

_INT8_OPS = ("Conv", "ConvTranspose", "Relu")


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
        ignored_scope=nncf.IgnoredScope(names=float_nodes(model)),
        advanced_parameters=_ranges(),
    )
    set_input_scale(quantised)
    unquantise_added(quantised)
    onnx.checker.check_model(quantised)
    onnx.save(quantised, str(target))


def _ranges() -> Any:
    from nncf.quantization import advanced_parameters, range_estimator

    collector = range_estimator.StatisticsCollectorParameters
    statistics, aggregators = range_estimator.StatisticsType, range_estimator.AggregatorType
    return advanced_parameters.AdvancedQuantizationParameters(
        # The largest over all samples: NNCF's own choice, the mean of the samples' largest values, clips just
        # the pictures with much rain. Of each sample all values but a thousandth: the largest few make the
        # step coarse for all others. See docs/decisions/0003-fast-network.md for what this is worth.
        activations_range_estimator_params=range_estimator.RangeEstimatorParameters(
            min=collector(statistics.MIN, aggregators.MIN),
            max=collector(statistics.QUANTILE, aggregators.MAX, quantile_outlier_prob=1e-3),
        ),
        # CPUs without VNNI add pairs of products in 16 bits. Half the range for the first layer's weights
        # keeps these sums from saturating, which costs 0.6 dB in heavy rain there; VNNI loses nothing by it.
        overflow_fix=advanced_parameters.OverflowFix.FIRST_LAYER,
    )


def calibration_items(batches: Sequence[Batch]) -> Iterator[dict[str, NDArray[np.float32]]]:
    """The core's named inputs for every sample of some batches, one at a time."""
    for batch in batches:
        blocks = core_window(torch.from_numpy(batch.window)).numpy()
        for window, validity in zip(blocks, batch.validity, strict=True):
            yield {_WINDOW: window[None], _VALIDITY: validity[None]}


def set_input_scale(model: Any) -> None:
    """Set the first convolution's input quantiser to steps of one 8-bit code with zero at 0, in place.

    What it reads are codes and differences of codes, never negative: that is exact for 8-bit video.

    Raises:
        ValueError: The convolution reads through no quantiser, or through one that shares its constants.
    """
    producers = {output: node for node in model.graph.node for output in node.output}
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    dequantise = producers.get(first.input[0])
    if dequantise is None or dequantise.op_type != "DequantizeLinear":
        raise ValueError(f"{first.name} reads its input through no quantiser")
    scale, zero = dequantise.input[1:3]
    sharing = [node.name for node in model.graph.node if scale in node.input or zero in node.input]
    if len(sharing) != 2:
        raise ValueError(f"{sharing} share the constants of the quantiser before {first.name}")
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants[scale].CopyFrom(numpy_helper.from_array(np.asarray(_INPUT_SCALE), scale))
    constants[zero].CopyFrom(numpy_helper.from_array(np.zeros((), np.uint8), zero))


def unquantise_added(model: Any) -> None:
    """Let additions read the transposed convolution's float output, in place.

    Its values reach far below zero, where the ReLU after the addition drops them: a quantiser that spans them
    all was the largest error of the whole graph. The convolution itself still computes in int8.
    """
    outputs = {node.output[0] for node in model.graph.node if node.op_type == "ConvTranspose"}
    quantisers = [n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] in outputs]
    for quantise in quantisers:
        dequantise = next(n for n in model.graph.node if quantise.output[0] in n.input)
        for reader in (n for n in model.graph.node if dequantise.output[0] in n.input):
            inputs = [quantise.input[0] if i == dequantise.output[0] else i for i in reader.input]
            reader.input[:] = inputs
        model.graph.node.remove(quantise)
        model.graph.node.remove(dequantise)


def float_nodes(model: Any) -> list[str]:
    """Names of the nodes that NNCF must leave alone.

    All but the convolutions and what lies between them: what is computed from codes before the first one, the
    validity's bias, and what makes the residual of the last one's output.
    """
    upsampled = {out for node in model.graph.node if node.op_type == "ConvTranspose" for out in node.output}
    return sorted(
        node.name
        for node in model.graph.node
        if node.op_type not in _INT8_OPS and not (node.op_type == "Add" and upsampled & set(node.input))
    )
