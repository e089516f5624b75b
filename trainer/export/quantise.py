"""Quantise an exported core to int8 for CPUs, after training, with NNCF.

Activations after a ReLU become unsigned, which OpenVINO runs as int8 and TensorRT refuses: this file is for
CPUs. The subtraction of the residual is the adapter's, outside int8: the picture itself never passes through
a quantiser, only what is taken away from it. The validity's bias stays in float32.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.compose
import onnx.utils
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from streamderain.nets.export import INPUT_NAMES, OUTPUT_NAMES
from streamderain.nets.luma import core_window
from trainer.data.paired import Batch
from trainer.networks.int8_rules import INPUT_SCALE, OUTLIERS, SUM_RANGE

_WINDOW, _PRIOR, _VALIDITY = INPUT_NAMES
_ODDS = "odds"
_INT8_OPS = ("Conv", "ConvTranspose", "Relu")


def quantise_core(
    source: Path, target: Path, batches: Sequence[Batch], *, ranges: Mapping[str, float] | None = None
) -> None:
    """Quantise an exported core to int8 (weights per channel, activations per tensor).

    Args:
        source: The float32 core, as `streamderain.nets.export.export_core` writes it.
        target: Where the int8 core goes (ONNX with QuantizeLinear and DequantizeLinear).
        batches: Training batches that show the ranges of the activations.
        ranges: Those that int8 training ended with (`trainer.networks.quantisation_aware`), used instead.
            Then biases stay as they were trained, too; otherwise they are corrected for what rounding shifts.
    """
    import nncf  # slow to import, and only needed here

    nncf.set_log_level(logging.ERROR)
    # The prior goes its own way to outputs of its own, in float. NNCF fails on graphs with such a part.
    parts = onnx.utils.Extractor(onnx.load(str(source)))
    prior = parts.extract_model([_PRIOR], [name for name in OUTPUT_NAMES if name.startswith(_ODDS)])
    model = parts.extract_model(
        [_WINDOW, _VALIDITY], [name for name in OUTPUT_NAMES if not name.startswith(_ODDS)]
    )
    items = list(calibration_items(batches))
    quantised = nncf.quantize(
        model,
        nncf.Dataset(items),
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(items),
        fast_bias_correction=False,
        ignored_scope=nncf.IgnoredScope(names=float_nodes(model)),
        advanced_parameters=_parameters(correct_biases=ranges is None),
    )
    set_input_scale(quantised)
    if ranges is not None:
        set_ranges(quantised, ranges)
    unquantise_added(quantised)
    whole = onnx.compose.merge_models(quantised, prior, io_map=[])
    onnx.checker.check_model(whole)
    onnx.save(whole, str(target))


def _parameters(*, correct_biases: bool) -> Any:
    from nncf.quantization import advanced_parameters, range_estimator

    collector = range_estimator.StatisticsCollectorParameters
    statistics, aggregators = range_estimator.StatisticsType, range_estimator.AggregatorType
    return advanced_parameters.AdvancedQuantizationParameters(
        # The largest over all samples: NNCF's own choice, the mean of the samples' largest values, clips just
        # the pictures with much rain. Of each sample all values but a thousandth: the largest few make the
        # step coarse for all others. See docs/decisions/0003-fast-network.md for what this is worth.
        activations_range_estimator_params=range_estimator.RangeEstimatorParameters(
            min=collector(statistics.MIN, aggregators.MIN),
            max=collector(statistics.QUANTILE, aggregators.MAX, quantile_outlier_prob=OUTLIERS),
        ),
        # CPUs without VNNI add pairs of products in 16 bits. Half the range for the first layer's weights
        # keeps these sums from saturating, which costs 0.6 dB in heavy rain there; VNNI loses nothing by it.
        overflow_fix=advanced_parameters.OverflowFix.FIRST_LAYER,
        disable_bias_correction=not correct_biases,
    )


def calibration_items(batches: Sequence[Batch]) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield the named inputs of what is quantised for every sample of some batches, one at a time."""
    for batch in batches:
        blocks = core_window(torch.from_numpy(batch.window))
        for window, validity in zip(blocks.numpy(), batch.validity, strict=True):
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
    constants[scale].CopyFrom(numpy_helper.from_array(np.asarray(INPUT_SCALE), scale))
    constants[zero].CopyFrom(numpy_helper.from_array(np.zeros((), np.uint8), zero))


def set_ranges(model: Any, ranges: Mapping[str, float]) -> None:
    """Set the steps of the quantisers behind ReLUs, in place.

    Args:
        model: The quantised core.
        ranges: Largest activation by the name of the convolution before the ReLU, `SUM_RANGE` for the sum.

    Raises:
        KeyError: A quantiser has no range.
    """
    producers = {output: node for node in model.graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    # A convolution's third input is the layer's bias, which quantising does not rename.
    layers = {n.output[0]: n.input[2].removesuffix(".bias") for n in model.graph.node if n.op_type == "Conv"}
    for node in model.graph.node:
        relu = producers.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
        if relu is None or relu.op_type != "Relu":
            continue
        step = np.float32(ranges[layers.get(relu.input[0], SUM_RANGE)] / 255.0)
        constants[node.input[1]].CopyFrom(numpy_helper.from_array(np.asarray(step), node.input[1]))


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
    """Return names of the nodes that NNCF must leave alone.

    All but the convolutions and what lies between them: what is computed from codes before the first one,
    the validity's bias, and what makes the correction of the last one's output.
    """
    upsampled = {out for node in model.graph.node if node.op_type == "ConvTranspose" for out in node.output}
    return sorted(
        node.name
        for node in model.graph.node
        if node.op_type not in _INT8_OPS and not (node.op_type == "Add" and upsampled & set(node.input))
    )
