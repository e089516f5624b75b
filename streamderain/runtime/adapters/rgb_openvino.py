"""The RGB adapter as OpenVINO operations, built around a core when it is compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamderain.errors import ModelError
from streamderain.frame import Geometry
from streamderain.models import ModelCard
from streamderain.runtime.adapters.luma_openvino import STRENGTH, named_input, rounded_codes
from streamderain.runtime.adapters.rgb import Matrix, padded_size, resamplings, rgb_scale
from streamderain.runtime.openvino_library import ops, ov

PICTURE, CHANGE = "picture", "change"


def component_name(component: int) -> str:
    """Return the name of the input for a component."""
    return f"component.{component}"


def adapted_rgb_core(core: Any, *, model: ModelCard, geometry: Geometry, max_size: int) -> Any:
    """Build the adapter of `adapters/rgb.py` around a core.

    Args:
        core: The model as read from its file.
        model: Its card.
        geometry: What frames look like.
        max_size: Longest side that the core sees, px; 0 for the frame's own.

    Returns:
        A model with inputs `component.<number>` (1, 1, height, width), codes, and `strength` (1,); and one
        output of codes per component.
    """
    _check_core(core, model)
    scale, ways = rgb_scale(geometry), resamplings(geometry, max_size)
    width, height = padded_size(model, geometry, max_size)
    core.reshape({PICTURE: [1, 3, height, width]})
    strength = named_input(STRENGTH, [1], np.float32)
    inputs = [
        named_input(component_name(number), [1, 1, *shape], geometry.dtype.type)
        for number, shape in enumerate(geometry.plane_shapes)
    ]
    codes = [ops.convert(value, "f32") for value in inputs]
    units = [
        _product(ops.add(ops.multiply(value, np.float32(factor)), np.float32(offset)), way.rows, way.columns)
        for value, factor, offset, way in zip(codes, scale.scales, scale.offsets, ways, strict=True)
    ]
    picture = ops.clamp(ops.concat(_mixed(units, scale.to_rgb), axis=1), 0.0, 1.0)
    change = _change(core, picture, width=width, height=height)
    changes = _mixed(ops.split(change, np.int64(1), 3).outputs(), scale.from_rgb)
    outputs = []
    for value, made, factor, way in zip(codes, changes, scale.scales, ways, strict=True):
        whole = ops.multiply(_product(made, way.rows_back, way.columns_back), np.float32(1 / factor))
        changed = ops.add(value, ops.multiply(whole, strength))
        outputs.append(rounded_codes(changed, scale.top, geometry.dtype.type))
    return ov.Model(outputs, [*inputs, strength], f"{model.name} with adapter")


def _check_core(core: Any, model: ModelCard) -> None:
    names = [value.get_any_name() for value in (*core.inputs, *core.outputs)]
    if names != [PICTURE, CHANGE]:
        raise ModelError(
            f"the model {model.name} {model.version} in {model.folder} was made for another version of "
            "streamderain; reinstall streamderain, or export the model again"
        )


def _change(core: Any, picture: Any, *, width: int, height: int) -> Any:
    """Return what the core changes of a picture, kept in 0..1; the core sees it extended."""
    _, _, inner_height, inner_width = picture.get_output_shape(0)
    extended = ops.pad(picture, [0] * 4, [0, 0, height - inner_height, width - inner_width], "edge")
    core.input(PICTURE).replace(extended.output(0))
    made = core.output(CHANGE).get_node().input_value(0)
    inner = ops.slice(made, [0, 0], [inner_height, inner_width], [1, 1], [2, 3])
    return ops.subtract(ops.clamp(ops.add(picture, inner), 0.0, 1.0), picture)


def _product(value: Any, rows: Matrix | None, columns: Matrix | None) -> Any:
    value = value if rows is None else ops.matmul(rows[None, None], value, False, False)
    return value if columns is None else ops.matmul(value, columns[None, None], False, False)


def _mixed(planes: Sequence[Any], weights: Sequence[Sequence[float]]) -> list[Any]:
    """Return weighted sums of planes, one for each row of weights."""
    sums = []
    for row in weights:
        terms = [ops.multiply(plane, np.float32(weight)) for plane, weight in zip(planes, row, strict=True)]
        total = terms[0]
        for term in terms[1:]:
            total = ops.add(total, term)
        sums.append(total)
    return sums
