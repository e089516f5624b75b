"""The luma adapter as an ONNX graph around a core, warping included, for TensorRT.

Planes come in as they are and leave as they are: everything between is part of the plan. Where the device
lacks memory for whole frames several graphs work through strips of rows one after the other, each with as
many rows around it as the network looks at, so that nothing shows where they meet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from streamderain.frame import Geometry
from streamderain.models import ModelCard
from streamderain.runtime.adapters.luma import (
    PRIOR_BLOCKS,
    PRIOR_FLOOR,
    PRIOR_LIMIT,
    LumaScale,
    luma_scale,
)
from streamderain.runtime.adapters.onnx_graph import GraphBuilder, Value, check_core, reach
from streamderain.runtime.adapters.tensor_names import FLOWS, STRENGTH, VALIDITY, clean_name, frame_name
from streamderain.runtime.blocks import padded

_OUTPUTS = ("logits", "odds", "logits_of_rest", "odds_of_rest", "correction")
_INPUTS = ("window", "prior", "validity")


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that are computed at a time.

    Attributes:
        top: First row of the result.
        bottom: Row behind its last.
        first: First row that is read.
        last: Row behind the last that is read; the plane's edge is repeated below it where the network wants.
    """

    top: int
    bottom: int
    first: int
    last: int


def luma_graph(
    core: onnx.ModelProto, *, model: ModelCard, geometry: Geometry, half: bool, rows: Rows
) -> onnx.ModelProto:
    """Build the adapter of `adapters/luma.py` around a core.

    Args:
        core: See `onnx_graph.load_core`.
        model: Its card.
        geometry: What frames look like.
        half: Whether the core computes in half precision; the adapter never does.
        rows: Which rows of the frame, see `strips_of`.

    Returns:
        A graph with inputs `frame.<number>.<component>`, uint8 (height, width), deeper planes
        (height, width, 2), low byte first; `flows` (neighbours, 2, rows, columns) float32 as in
        `LumaAdapter.forward`, where the model wants neighbours aligned; `validity` (1, neighbours);
        `strength` (1,); and for each component one output `clean.<component>` like its input, of `rows`.
    """
    check_core(core, model, (*_INPUTS, *_OUTPUTS))
    graph = GraphBuilder()
    scale, size = luma_scale(geometry), (geometry.height, geometry.width)
    window = [
        [graph.codes(frame_name(frame, c), size, geometry) for c in range(geometry.luma_planes)]
        for frame in range(model.before + 1 + model.after)
    ]
    lumas = [_luma(graph, components, scale) for components in window]
    current = lumas.pop(model.before)
    flows = None
    if model.alignment == "flow":
        cell = model.flow.edge_px(geometry.width, geometry.height)
        flows = _whole_flows(graph, geometry, neighbours=len(lumas), cell=cell)
    validity = graph.input(VALIDITY, [1, len(lumas)])
    strength = graph.scaled(graph.input(STRENGTH, [1]), scale.gain)
    beyond = (-(rows.last - rows.first) % model.multiple, -geometry.width % model.multiple)
    around = [
        graph.part(luma, 2, rows.first, rows.last)
        if flows is None
        else _warped(graph, luma, graph.part(flows, 0, number, number + 1), rows, geometry)
        for number, luma in enumerate(lumas)
    ]
    now, *others = (
        _units(graph, plane, scale, beyond)
        for plane in (graph.part(current, 2, rows.first, rows.last), *around)
    )
    blocks = _window(graph, now, others, model.block)
    inputs = {
        "window": graph.op("Concat", *blocks, axis=1),
        "prior": _prior(graph, blocks[1], blocks[3]),
        VALIDITY: validity,
    }
    answer = graph.inline(core, inputs, half=half)
    rain = _rain(graph, answer, blocks[1], blocks[2], model.block)
    rain = graph.part(rain, 2, rows.top - rows.first, rows.bottom - rows.first)
    rain = graph.part(rain, 3, 0, geometry.width)
    taken = graph.op("Mul", graph.op("Relu", rain), strength)
    for number, codes in enumerate(window[model.before]):
        clean = graph.op("Sub", graph.part(codes, 2, rows.top, rows.bottom), taken)
        graph.emit_codes(clean_name(number), clean, (rows.bottom - rows.top, geometry.width), geometry)
    return graph.model(f"{model.name} with adapter")


def _luma(graph: GraphBuilder, components: list[Value], scale: LumaScale) -> Value:
    weighed = [graph.scaled(codes, weight) for codes, weight in zip(components, scale.weights, strict=True)]
    return graph.sum(weighed)


def strips_of(
    core: onnx.ModelProto, *, model: ModelCard, height: int, count: int, multiple: int
) -> list[Rows]:
    """Divide frames into strips of rows, each with as many rows around it as change its result.

    Args:
        core: See `onnx_graph.load_core`.
        model: Its card.
        height: Of the frames, px.
        count: How many strips are wanted; fewer come where frames are low.
        multiple: Strips begin at multiples of so many rows, themselves of the multiple of `model`.
    """
    around = max(reach(core), max(PRIOR_BLOCKS) // 2) * model.block
    margin = padded(around, model.multiple)
    step = padded(-(-height // count), multiple)
    return [
        Rows(top, min(top + step, height), max(0, top - margin), min(top + step + margin, height))
        for top in range(0, height, step)
    ]


def _whole_flows(graph: GraphBuilder, geometry: Geometry, *, neighbours: int, cell: int) -> Value:
    """Return each neighbour's flow for every pixel and beyond: those of a cell move alike."""
    cells = (-(-geometry.height // cell), -(-geometry.width // cell))
    return graph.op(
        "Resize",
        graph.input(FLOWS, [neighbours, 2, *cells]),
        "",
        graph.constant([1.0, 1.0, cell, cell]),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _warped(graph: GraphBuilder, luma: Value, flow: Value, rows: Rows, geometry: Geometry) -> Value:
    """Return rows of a neighbour warped onto the current frame: bilinear, borders clamped.

    Args:
        graph: Receives the operations.
        luma: (1, 1, height, width).
        flow: (1, 2, height, width) or larger, px.
        rows: Which rows.
        geometry: What frames look like.
    """
    x = np.arange(geometry.width, dtype=np.float32)[None, None, :]
    y = np.arange(rows.first, rows.last, dtype=np.float32)[None, :, None]
    inner = graph.part(graph.part(flow, 2, rows.first, rows.last), 3, 0, geometry.width)
    places = []
    for axis, (grid, length) in enumerate(((x, geometry.width), (y, geometry.height))):
        vectors = graph.op("Squeeze", graph.part(inner, 1, axis, axis + 1), graph.whole([1]))
        # Centres of samples, as -1..1 over the plane's edges.
        place = graph.scaled(graph.op("Add", vectors, graph.constant(grid)), 2 / length)
        places.append(graph.op("Unsqueeze", graph.shifted(place, 1 / length - 1), graph.whole([3])))
    moved = graph.op(
        "GridSample",
        luma,
        graph.op("Concat", *places, axis=3),
        mode="bilinear",
        padding_mode="border",
        align_corners=0,
    )
    return moved if geometry.is_rgb else graph.op("Round", moved)


def _units(graph: GraphBuilder, plane: Value, scale: LumaScale, beyond: tuple[int, int]) -> Value:
    """Return a plane on the studio scale, its last row and column repeated as often as is said."""
    if any(beyond):
        plane = graph.op("Pad", plane, graph.whole([0] * 6 + list(beyond)), mode="edge")
    return graph.shifted(graph.scaled(plane, scale.scale), scale.offset)


def _window(graph: GraphBuilder, current: Value, neighbours: list[Value], block: int) -> list[Value]:
    """Return the blocks of the current frame, excess, rest and deficit, see `nets.luma.core_window`."""
    brightest, darkest = neighbours[0], neighbours[0]
    for other in neighbours[1:]:
        brightest, darkest = graph.op("Max", brightest, other), graph.op("Min", darkest, other)
    above, excess, deficit = (
        graph.op("Relu", graph.op("Sub", one, other))
        for one, other in ((current, darkest), (current, brightest), (darkest, current))
    )
    planes = (current, excess, graph.op("Sub", above, excess), deficit)
    # One plane at a time: of several, SpaceToDepth would mix the order.
    return [graph.op("SpaceToDepth", plane, blocksize=block) for plane in planes]


def _prior(graph: GraphBuilder, excess: Value, deficit: Value) -> Value:
    """Weigh excess against deficit around each block, see `nets.luma.rain_prior`."""
    means = [graph.op("ReduceMean", blocks, graph.whole([1])) for blocks in (excess, deficit)]
    both = graph.op("Concat", *means, axis=1)
    found = []
    for edge in PRIOR_BLOCKS:
        around = graph.op(
            "AveragePool", both, kernel_shape=[edge] * 2, pads=[edge // 2] * 4, count_include_pad=0
        )
        bright, misfit = graph.ops("Split", around, outputs=2, axis=1, num_outputs=2)
        rain = graph.op("Relu", graph.op("Sub", bright, misfit))
        odds = [graph.op("Log", graph.shifted(value, PRIOR_FLOOR)) for value in (rain, misfit)]
        limits = (graph.constant(-PRIOR_LIMIT), graph.constant(PRIOR_LIMIT))
        found.append(graph.op("Clip", graph.op("Sub", *odds), *limits))
    return graph.op("Concat", *found, axis=1)


def _rain(graph: GraphBuilder, answer: dict[str, Value], excess: Value, rest: Value, block: int) -> Value:
    """Return the light that is rain, before what is negative of it is dropped, as a plane."""
    total = answer["correction"]
    for blocks, suffix in ((excess, ""), (rest, "_of_rest")):
        logits = graph.op("Add", answer[f"logits{suffix}"], answer[f"odds{suffix}"])
        total = graph.op("Add", total, graph.op("Mul", graph.op("Sigmoid", logits), blocks))
    return graph.op("DepthToSpace", total, blocksize=block, mode="DCR")
