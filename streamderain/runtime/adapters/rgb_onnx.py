"""The RGB adapter as an ONNX graph around a core, for TensorRT."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from streamderain.frame import Geometry
from streamderain.models import ModelCard
from streamderain.runtime.adapters.onnx_graph import GraphBuilder, Value, check_core
from streamderain.runtime.adapters.rgb import Matrix, padded_size, resamplings, rgb_scale, working_size
from streamderain.runtime.adapters.tensor_names import STRENGTH, clean_name, frame_name

_PICTURE, _CHANGE = "picture", "change"


def rgb_graph(
    core: onnx.ModelProto, *, model: ModelCard, geometry: Geometry, half: bool, max_size: int
) -> onnx.ModelProto:
    """Build the adapter of `adapters/rgb.py` around a core.

    Args:
        core: See `onnx_graph.load_core`.
        model: Its card.
        geometry: What frames look like.
        half: Whether the core computes in half precision; the adapter never does.
        max_size: Longest side that the core sees, px; 0 for the frame's own.

    Returns:
        A graph with inputs `frame.0.<component>`, uint8 (height, width), deeper planes (height, width, 2),
        low byte first, and `strength` (1,); and one output `clean.<component>` like each.
    """
    check_core(core, model, (_PICTURE, _CHANGE))
    graph = GraphBuilder()
    scale, ways = rgb_scale(geometry), resamplings(geometry, max_size)
    shapes = geometry.plane_shapes
    codes = [graph.codes(frame_name(0, c), shape, geometry) for c, shape in enumerate(shapes)]
    strength = graph.input(STRENGTH, [1])
    units = [
        _product(graph, graph.shifted(graph.scaled(plane, factor), offset), way.rows, way.columns)
        for plane, factor, offset, way in zip(codes, scale.scales, scale.offsets, ways, strict=True)
    ]
    picture = _clamped(graph, graph.op("Concat", *_mixed(graph, units, scale.to_rgb), axis=1))
    inner = working_size(geometry, max_size)
    outer = padded_size(model, geometry, max_size)
    beyond = [0] * 6 + [outer[1] - inner[1], outer[0] - inner[0]]
    extended = graph.op("Pad", picture, graph.whole(beyond), mode="edge") if any(beyond) else picture
    made = graph.inline(core, {_PICTURE: extended}, half=half)[_CHANGE]
    made = graph.part(graph.part(made, 2, 0, inner[1]), 3, 0, inner[0])
    change = graph.op("Sub", _clamped(graph, graph.op("Add", picture, made)), picture)
    changes = graph.ops("Split", change, outputs=3, axis=1, num_outputs=3)
    whole = _mixed(graph, changes, scale.from_rgb)
    for number, (plane, value, factor, way) in enumerate(zip(codes, whole, scale.scales, ways, strict=True)):
        back = graph.scaled(_product(graph, value, way.rows_back, way.columns_back), 1 / factor)
        changed = graph.op("Add", plane, graph.op("Mul", back, strength))
        graph.emit_codes(clean_name(number), changed, shapes[number], geometry)
    return graph.model(f"{model.name} with adapter")


def _clamped(graph: GraphBuilder, value: Value) -> Value:
    return graph.op("Clip", value, graph.constant(0.0), graph.constant(1.0))


def _product(graph: GraphBuilder, value: Value, rows: Matrix | None, columns: Matrix | None) -> Value:
    value = value if rows is None else graph.op("MatMul", graph.constant(rows[None, None]), value)
    return value if columns is None else graph.op("MatMul", value, graph.constant(columns[None, None]))


def _mixed(graph: GraphBuilder, planes: Sequence[Value], weights: Sequence[Sequence[float]]) -> list[Value]:
    """Return weighted sums of planes, one for each row of weights."""
    return [
        graph.sum([graph.scaled(plane, weight) for plane, weight in zip(planes, row, strict=True) if weight])
        for row in weights
    ]
