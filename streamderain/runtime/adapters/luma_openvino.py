"""The luma adapter as OpenVINO operations, built around a core when it is compiled.

The host compares the frames and weighs the prior (`streamderain.motion`, `adapters/luma.py`): on a processor
OpenCV's loops over bytes cost half of what the same operations cost in the graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from streamderain.errors import ModelError
from streamderain.frame import Geometry
from streamderain.models import ModelCard
from streamderain.runtime.adapters.luma import PRIOR_BLOCKS, LumaScale, luma_scale
from streamderain.runtime.blocks import padded
from streamderain.runtime.openvino_library import ops, ov

WINDOW, PRIOR, VALIDITY, STRENGTH = "window", "prior", "validity", "strength"
EXCESS, REST = "excess", "rest"
_PLANES = 4
_INPUTS = {WINDOW, PRIOR, VALIDITY}
_OUTPUTS = {"logits", "odds", "logits_of_rest", "odds_of_rest", "correction"}


def current_name(component: int) -> str:
    """Return the name of the input for a component of the current frame."""
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
        A model with inputs `window` (1, rows, columns, 4 * block * block), codes of the current frame,
        excess, rest and deficit (RGB: of luma, as f32); `excess` and `rest` once more, (1, rows, columns,
        block * block), since cutting them out of the window costs more than writing them twice;
        `current.<component>` like them, codes; `prior` as of the core; `validity` (1, neighbours);
        `strength` (1,); and one output of codes per component.
    """
    scale = luma_scale(geometry)
    rows = padded(geometry.height, model.multiple) // model.block
    columns = padded(geometry.width, model.multiple) // model.block
    channels = model.block**2
    _check_core(core, model=model, channels=_PLANES * channels)
    core.reshape(
        {
            WINDOW: [1, _PLANES * channels, rows, columns],
            PRIOR: [1, len(PRIOR_BLOCKS), rows, columns],
            VALIDITY: [1, model.before + model.after],
        }
    )
    dtype = geometry.dtype.type
    strength = named_input(STRENGTH, [1], np.float32)
    luma_dtype, plane = np.float32 if geometry.is_rgb else dtype, [1, rows, columns, channels]
    codes = named_input(WINDOW, [1, rows, columns, _PLANES * channels], luma_dtype)
    differences = [named_input(name, plane, luma_dtype) for name in (EXCESS, REST)]
    currents = [named_input(current_name(c), plane, dtype) for c in range(geometry.luma_planes)]
    core.input(WINDOW).replace(_transposed(_units(codes, channels, scale), [0, 3, 1, 2]).output(0))
    answer = {
        name: _transposed(core.output(name).get_node().input_value(0), [0, 2, 3, 1]) for name in _OUTPUTS
    }
    rain = ops.multiply(answer["correction"], np.float32(scale.gain))
    for difference, suffix in zip(differences, ("", "_of_rest"), strict=True):
        share = ops.sigmoid(ops.add(answer[f"logits{suffix}"], answer[f"odds{suffix}"]))
        rain = ops.add(rain, ops.multiply(share, ops.convert(difference, "f32")))
    taken = ops.multiply(ops.relu(rain), strength)
    outputs = [
        rounded_codes(ops.subtract(ops.convert(current, "f32"), taken), scale.top, dtype)
        for current in currents
    ]
    inputs = [codes, *differences, *currents, *(core.input(name).get_node() for name in (PRIOR, VALIDITY))]
    return ov.Model(outputs, [*inputs, strength], f"{model.name} with adapter")


def _check_core(core: Any, *, model: ModelCard, channels: int) -> None:
    inputs = {value.get_any_name(): value.get_partial_shape() for value in core.inputs}
    outputs = {value.get_any_name() for value in core.outputs}
    if (set(inputs), outputs) != (_INPUTS, _OUTPUTS) or inputs[WINDOW][1] != channels:
        raise ModelError(
            f"the model {model.name} {model.version} in {model.folder} was made for another version of "
            "streamderain; reinstall streamderain, or export the model again"
        )


def named_input(name: str, shape: list[int], dtype: Any) -> Any:
    """Return a graph's input."""
    parameter = ops.parameter(shape, dtype, name=name)
    parameter.output(0).set_names({name})
    return parameter


def _transposed(value: Any, order: list[int]) -> Any:
    return ops.transpose(value, np.array(order))


def _units(codes: Any, current: int, scale: LumaScale) -> Any:
    """Return the core's window on the studio scale; the first `current` channels are a frame's codes."""
    units = ops.multiply(ops.convert(codes, "f32"), np.float32(scale.scale))
    if not scale.offset:
        return units
    offsets = np.zeros((1, 1, 1, codes.get_output_shape(0)[3]), np.float32)
    offsets[..., :current] = scale.offset
    return ops.add(units, offsets)


def rounded_codes(values: Any, top: int, dtype: Any) -> Any:
    """Return floats as integer codes in 0..top."""
    whole = ops.round(ops.clamp(values, 0.0, float(top)), "half_to_even")
    return ops.convert(whole, "u8" if dtype is np.uint8 else "u16")
