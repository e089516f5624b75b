"""The luma adapter as OpenVINO operations, built around a core when it is compiled.

The host compares the frames and weighs the prior (`streamderain.motion`, `adapters/luma.py`): on a processor
OpenCV's loops over bytes cost half of what the same operations cost in the graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops

from streamderain.errors import ModelError
from streamderain.frame import Geometry
from streamderain.models import ModelCard
from streamderain.runtime.adapters.luma import PRIOR_BLOCKS, LumaScale, luma_scale
from streamderain.runtime.blocks import padded

WINDOW, PRIOR, VALIDITY, STRENGTH = "window", "prior", "validity", "strength"
_DIFFERENCES = 3
_CORE = ({WINDOW, PRIOR, VALIDITY}, {"logits", "odds", "correction"})


def current_name(component: int) -> str:
    """Return the name of the input for R, G or B of the current frame; the window holds its luma."""
    return f"current.{component}"


def adapted_core(core: Any, *, model: ModelCard, geometry: Geometry) -> Any:
    """Build the adapter of `adapters/luma.py` around a core.

    All of it works channels-last, the layout in which blocks arrive and convolutions compute: the two
    transpositions around the core then only rename axes.

    Args:
        core: The model as read from its file.
        model: Its card.
        geometry: What frames look like.

    Returns:
        A model with inputs `window` (1, rows, columns, planes * block * block), codes of the frames, oldest
        first, and of excess, rest and deficit (RGB: of their luma, as f32); `prior` as of the core;
        `validity` (1, neighbours); `strength` (1,); for RGB `current.0` to `current.2`, codes of
        (1, rows, columns, block * block); and one output of such codes per component.
    """
    scale = luma_scale(geometry)
    rows = padded(geometry.height, model.multiple) // model.block
    columns = padded(geometry.width, model.multiple) // model.block
    channels, frames = model.block**2, model.before + 1 + model.after
    planes = frames + _DIFFERENCES
    _check_core(core, model=model, channels=planes * channels)
    core.reshape(
        {
            WINDOW: [1, planes * channels, rows, columns],
            PRIOR: [1, len(PRIOR_BLOCKS), rows, columns],
            VALIDITY: [1, frames - 1],
        }
    )
    dtype = geometry.dtype.type
    strength = _input(STRENGTH, [1], np.float32)
    codes = _input(WINDOW, [1, rows, columns, planes * channels], np.float32 if geometry.is_rgb else dtype)
    floats = ops.convert(codes, "f32")
    core.input(WINDOW).replace(_transposed(_units(floats, frames * channels, scale), [0, 3, 1, 2]).output(0))
    logits, odds, correction = (
        _transposed(core.output(name).get_node().input_value(0), [0, 2, 3, 1])
        for name in ("logits", "odds", "correction")
    )
    parts = ops.variadic_split(floats, np.int64(3), np.array([channels * n for n in (frames, 1, 1, 1)]))
    rain = ops.multiply(correction, np.float32(scale.gain))
    for share, difference in zip(_shares(logits, odds), (parts.output(1), parts.output(2)), strict=True):
        rain = ops.add(rain, ops.multiply(share, difference))
    taken = ops.multiply(ops.relu(rain), strength)
    inputs = [codes, core.input(PRIOR).get_node(), core.input(VALIDITY).get_node(), strength]
    if geometry.is_rgb:
        shape = [1, rows, columns, channels]
        currents = [_input(current_name(c), shape, dtype) for c in range(geometry.luma_planes)]
        inputs += currents
    else:
        begin = model.before * channels
        currents = [ops.slice(codes, [begin], [begin + channels], [1], [3])]
    outputs = [_less(current, taken, scale.top, dtype) for current in currents]
    return ov.Model(outputs, inputs, f"{model.name} with adapter")


def _check_core(core: Any, *, model: ModelCard, channels: int) -> None:
    inputs = {value.get_any_name(): value.get_partial_shape() for value in core.inputs}
    outputs = {value.get_any_name() for value in core.outputs}
    if (set(inputs), outputs) != _CORE or inputs[WINDOW][1] != channels:
        raise ModelError(
            f"the model {model.name} {model.version} in {model.folder} was made for another version of "
            "streamderain; reinstall streamderain, or export the model again"
        )


def _input(name: str, shape: list[int], dtype: Any) -> Any:
    parameter = ops.parameter(shape, dtype, name=name)
    parameter.output(0).set_names({name})
    return parameter


def _transposed(value: Any, order: list[int]) -> Any:
    return ops.transpose(value, np.array(order))


def _units(codes: Any, frames: int, scale: LumaScale) -> Any:
    """Return the core's window on the studio scale; the first `frames` channels are frames' codes."""
    units = ops.multiply(codes, np.float32(scale.scale))
    if not scale.offset:
        return units
    offsets = np.zeros((1, 1, 1, codes.get_output_shape(0)[3]), np.float32)
    offsets[..., :frames] = scale.offset
    return ops.add(units, offsets)


def _shares(logits: Any, odds: Any) -> list[Any]:
    """Return the shares of excess and rest; one number of the prior counts for all samples of a block."""
    both = zip(
        ops.split(logits, np.int64(3), 2).outputs(), ops.split(odds, np.int64(3), 2).outputs(), strict=True
    )
    return [ops.sigmoid(ops.add(logit, prior)) for logit, prior in both]


def _less(codes: Any, taken: Any, top: int, dtype: Any) -> Any:
    """Return codes less what is taken away, rounded and clamped to integers again."""
    left = ops.clamp(ops.subtract(ops.convert(codes, "f32"), taken), 0.0, float(top))
    return ops.convert(ops.round(left, "half_to_even"), "u8" if dtype is np.uint8 else "u16")
