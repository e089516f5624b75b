"""The luma adapter as OpenVINO operations, built around a core when it is compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops

from streamderain.errors import ModelError
from streamderain.frame import Geometry
from streamderain.models import ModelCard
from streamderain.runtime.adapters.luma import (
    PRIOR_BLOCKS,
    PRIOR_FLOOR,
    PRIOR_LIMIT,
    LumaScale,
    luma_scale,
    window_names,
)
from streamderain.runtime.blocks import padded


def input_name(window_name: str, component: int) -> str:
    """Return the name of the input for one component of one frame of the window."""
    return f"{window_name}.{component}"


def adapted_core(core: Any, *, model: ModelCard, geometry: Geometry) -> Any:
    """Build the adapter of `adapters/luma.py` around a core.

    All of it works channels-last, the layout in which blocks arrive and convolutions compute: the two
    transpositions around the core then only rename axes.

    Args:
        core: The model as read from its file.
        model: Its card.
        geometry: What frames look like.

    Returns:
        A model with inputs `<window name>.<component>` of (1, rows, columns, block * block) codes,
        `validity` (1, neighbours) and `strength` (1,); one output of codes per component.
    """
    scale = luma_scale(geometry)
    rows = padded(geometry.height, model.multiple) // model.block
    columns = padded(geometry.width, model.multiple) // model.block
    channels = model.block**2
    names = window_names(model)
    _check_core(core, model=model, channels=(len(names) + 3) * channels)
    core.reshape(
        {
            "window": [1, (len(names) + 3) * channels, rows, columns],
            "prior": [1, len(PRIOR_BLOCKS), rows, columns],
            "validity": [1, len(names) - 1],
        }
    )
    dtype = geometry.dtype.type
    parameters = [
        [ops.parameter([1, rows, columns, channels], dtype, name=input_name(name, c)) for name in names]
        for c in range(geometry.luma_planes)
    ]
    strength = ops.parameter([1], np.float32, name="strength")
    lumas = [_luma(frame, scale) for frame in zip(*parameters, strict=True)]
    excess, rest, deficit = _differences(lumas, current=model.before)
    window = _units(lumas, [excess, rest, deficit], scale=scale, channels=channels)
    core.input("window").replace(_transposed(window, [0, 3, 1, 2]).output(0))
    core.input("prior").replace(_prior(excess, deficit, unit=scale.scale).output(0))
    validity = core.input("validity").get_node()
    shares, correction = (
        _transposed(core.output(name).get_node().input_value(0), [0, 2, 3, 1])
        for name in ("shares", "correction")
    )
    seen = ops.multiply(shares, ops.concat([excess, rest], 3))
    halves = ops.split(seen, np.int64(3), 2)
    known = ops.add(halves.output(0), halves.output(1))
    rain = ops.add(known, ops.multiply(correction, np.float32(scale.gain)))
    taken = ops.multiply(ops.relu(rain), strength)
    outputs = [_less(component[model.before], taken, scale.top, dtype) for component in parameters]
    flat = [*(parameter for component in parameters for parameter in component), strength]
    for parameter in flat:
        parameter.output(0).set_names({parameter.get_friendly_name()})
    return ov.Model(outputs, [*flat, validity], f"{model.name} with adapter")


def _check_core(core: Any, *, model: ModelCard, channels: int) -> None:
    inputs = {value.get_any_name(): value.get_partial_shape() for value in core.inputs}
    outputs = {value.get_any_name() for value in core.outputs}
    fits = set(inputs) == {"window", "prior", "validity"} and outputs == {"shares", "correction"}
    if not fits or inputs["window"][1] != channels:
        raise ModelError(
            f"the model {model.name} {model.version} in {model.folder} was made for another version of "
            "streamderain; reinstall streamderain, or export the model again"
        )


def _transposed(value: Any, order: list[int]) -> Any:
    return ops.transpose(value, np.array(order))


def _luma(components: Sequence[Any], scale: LumaScale) -> Any:
    """Return the luma of one frame in codes: the integers, or the weighted sum of R, G and B as f32."""
    if len(components) == 1:
        return components[0]
    weighted = [
        ops.multiply(ops.convert(component, "f32"), np.float32(weight))
        for component, weight in zip(components, scale.weights, strict=True)
    ]
    return ops.add(ops.add(weighted[0], weighted[1]), weighted[2])


def _differences(lumas: Sequence[Any], *, current: int) -> tuple[Any, Any, Any]:
    """Return excess, rest and deficit of `streamderain.nets.fast.core_window` in codes, as f32."""
    floats = [ops.convert(luma, "f32") for luma in lumas]
    now = floats.pop(current)
    brighter, darker = floats[0], floats[0]
    for neighbour in floats[1:]:
        brighter, darker = ops.maximum(brighter, neighbour), ops.minimum(darker, neighbour)
    excess = ops.relu(ops.subtract(now, brighter))
    rest = ops.subtract(ops.relu(ops.subtract(now, darker)), excess)
    return excess, rest, ops.relu(ops.subtract(darker, now))


def _prior(excess: Any, deficit: Any, *, unit: float) -> Any:
    """Return the prior of `adapters/luma.py`, (1, squares, rows, columns), from differences in codes."""

    def mean(codes: Any) -> Any:
        units = ops.multiply(codes, np.float32(unit))
        return _transposed(ops.reduce_mean(units, np.array([3]), keep_dims=True), [0, 3, 1, 2])

    means = [mean(excess), mean(deficit)]
    floor, found = np.float32(PRIOR_FLOOR), []
    for edge in PRIOR_BLOCKS:
        half = [edge // 2] * 2
        around = [ops.avg_pool(one, [1, 1], half, half, [edge, edge], exclude_pad=True) for one in means]
        rain = ops.relu(ops.subtract(around[0], around[1]))
        odds = ops.subtract(ops.log(ops.add(rain, floor)), ops.log(ops.add(around[1], floor)))
        found.append(ops.clamp(odds, -PRIOR_LIMIT, PRIOR_LIMIT))
    return ops.concat(found, 1)


def _units(lumas: Sequence[Any], differences: Sequence[Any], *, scale: LumaScale, channels: int) -> Any:
    """Return the core's window on the studio scale: the frames and their differences beside each other."""
    kind = lumas[0].get_element_type()
    if kind != ov.Type.f32:
        # Eight-bit codes stay bytes until the first convolution, which then reads a quarter of the memory.
        differences = [ops.convert(one, kind.get_type_name()) for one in differences]
    parts = [*lumas, *differences]
    codes = ops.convert(ops.concat(parts, 3), "f32")
    units = ops.multiply(codes, np.float32(scale.scale))
    if not scale.offset:
        return units
    offsets = np.zeros((1, 1, 1, channels * len(parts)), np.float32)
    offsets[..., : channels * len(lumas)] = scale.offset
    return ops.add(units, offsets)


def _less(codes: Any, taken: Any, top: int, dtype: Any) -> Any:
    """Return codes less what is taken away, rounded and clamped to integers again."""
    left = ops.clamp(ops.subtract(ops.convert(codes, "f32"), taken), 0.0, float(top))
    return ops.convert(ops.round(left, "half_to_even"), "u8" if dtype is np.uint8 else "u16")
