"""Build ONNX graphs around cores, for runtimes that compile whole graphs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from streamderain.errors import ModelError, PlanBuildError
from streamderain.frame import Geometry
from streamderain.models import ModelCard

OPSET, IR_VERSION = 18, 10
"""What the parsers of TensorRT 10.16 and later read."""

_CORE = "core."
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_WEIGHTED = (*_CONVOLUTIONS, "Gemm")
_QUANTISED = ("QuantizeLinear", "DequantizeLinear")

Value = str
"""Name of a tensor in the graph."""


def load_core(path: Path, model: ModelCard) -> onnx.ModelProto:
    """Read a core with its weights, wherever they lie.

    Raises:
        PlanBuildError: It was quantised for processors, which TensorRT would compute wrongly.
    """
    core = onnx.load(str(path))
    types = {tensor.name: tensor.data_type for tensor in core.graph.initializer}
    for node in core.graph.node:
        zero_points = node.input[2:3] if node.op_type in _QUANTISED else ()
        if any(types.get(name) == TensorProto.UINT8 for name in zero_points):
            raise PlanBuildError(
                f"the quantised graph of {model.name} ({path.name}) has unsigned zero points, as processors "
                "want them; TensorRT takes such graphs and computes wrong pictures, so it is refused. Use "
                "--precision f16 or f32"
            )
    return core


def check_core(core: onnx.ModelProto, model: ModelCard, names: Iterable[str]) -> None:
    """Check that a core has the inputs and outputs that its adapter binds.

    Raises:
        ModelError: It was made for another version.
    """
    found = {value.name for value in (*core.graph.input, *core.graph.output)}
    if found != set(names):
        raise ModelError(
            f"the model {model.name} {model.version} in {model.folder} was made for another version of "
            "streamderain; reinstall streamderain, or export the model again"
        )


class GraphBuilder:
    """Collects the nodes of one graph."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[Any, ...], Value] = {}
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: Sequence[int], kind: int = TensorProto.FLOAT) -> Value:
        """Add an input."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def constant(self, values: Any, dtype: Any = np.float32) -> Value:
        """Return a constant, the same one for the same values."""
        array = np.asarray(values, dtype)
        key = (array.tobytes(), array.shape, array.dtype.str)
        if key not in self._constants:
            name = self._constants[key] = f"constant.{len(self._constants)}"
            self._initializers[name] = numpy_helper.from_array(array, name)
        return self._constants[key]

    def whole(self, values: Any) -> Value:
        """Return a constant of whole numbers, such as axes and shapes."""
        return self.constant(values, np.int64)

    def op(self, kind: str, *inputs: Value, **attributes: Any) -> Value:
        """Add an operation; return its only output."""
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: Value, outputs: int, **attributes: Any) -> list[Value]:
        """Add an operation of several outputs."""
        name = f"adapter.{len(self._nodes)}.{kind}"
        values = [name if outputs == 1 else f"{name}.{number}" for number in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), values, name=name, **attributes))
        return values

    def sum(self, terms: Sequence[Value]) -> Value:
        """Add values up."""
        total, *others = terms
        for term in others:
            total = self.op("Add", total, term)
        return total

    def scaled(self, value: Value, factor: float) -> Value:
        """Multiply by a number; by 1 nothing is done."""
        return value if factor == 1.0 else self.op("Mul", value, self.constant(factor))

    def shifted(self, value: Value, offset: float) -> Value:
        """Add a number; where it is 0 nothing is done."""
        return value if offset == 0.0 else self.op("Add", value, self.constant(offset))

    def part(self, value: Value, axis: int, start: int, stop: int) -> Value:
        """Cut a range out of one axis."""
        limits = [self.whole([number]) for number in (start, stop, axis)]
        return self.op("Slice", value, *limits)

    def codes(self, name: str, shape: tuple[int, int], geometry: Geometry) -> Value:
        """Add an input for a plane; return its codes as (1, 1, height, width) floats, unshifted.

        TensorRT has no 16-bit integers: deeper planes are pairs of bytes, (height, width, 2), low byte first.
        """
        deep = geometry.bits > 8
        plane = self.input(name, [*shape, 2] if deep else shape, TensorProto.UINT8)
        value = self.op("Cast", plane, to=TensorProto.FLOAT)
        if deep:
            low, high = (self.op("Gather", value, self.whole(byte), axis=2) for byte in (0, 1))
            value = self.op("Add", low, self.scaled(high, 256.0))
        if geometry.shift:
            value = self.op("Floor", self.scaled(value, 0.5**geometry.shift))
        return self.op("Unsqueeze", value, self.whole([0, 1]))

    def emit_codes(self, name: str, value: Value, shape: tuple[int, int], geometry: Geometry) -> None:
        """Add an output for a plane of (1, 1, height, width) floats: rounded to codes, halves to even."""
        top = 2**geometry.bits - 1
        kept = self.op("Clip", value, self.constant(0.0), self.constant(float(top)))
        whole = self.op("Squeeze", self.op("Round", kept), self.whole([0, 1]))
        deep = geometry.bits > 8
        if deep:
            whole = self.scaled(whole, float(2**geometry.shift))
            high = self.op("Floor", self.scaled(whole, 1 / 256))
            low = self.op("Sub", whole, self.scaled(high, 256.0))
            pair = [self.op("Unsqueeze", byte, self.whole([2])) for byte in (low, high)]
            whole = self.op("Concat", *pair, axis=2)
        self._nodes.append(helper.make_node("Cast", [whole], [name], name=name, to=TensorProto.UINT8))
        sizes = [*shape, 2] if deep else list(shape)
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8, sizes))

    def inline(
        self, core: onnx.ModelProto, inputs: Mapping[str, Value], *, half: bool, copy: int = 0
    ) -> dict[str, Value]:
        """Add a core's nodes; return its outputs by name. Weights are shared by all copies.

        Args:
            core: See `load_core`; not changed.
            inputs: What its inputs are, by name.
            half: Compute in half precision from the first convolution to the last, see `_halves`.
            copy: Number of this copy.
        """
        own = f"{_CORE}{copy}."
        renamed = compose.add_prefix_graph(core.graph, own, rename_initializers=False)
        places = {f"{own}{name}": value for name, value in inputs.items()}
        for tensor in core.graph.initializer:
            places[tensor.name] = f"{_CORE}{tensor.name}"
            if places[tensor.name] not in self._initializers:
                kept = onnx.TensorProto()
                kept.CopyFrom(tensor)
                kept.name = places[tensor.name]
                self._initializers[kept.name] = kept
        for node in renamed.node:
            del node.metadata_props[:]
            node.input[:] = [places.get(name, name) for name in node.input]
        nodes = list(renamed.node)
        outputs = {value.name: f"{own}{value.name}" for value in core.graph.output}
        if half:
            nodes = self._halved(nodes, set(outputs.values()))
        self._nodes += nodes
        return outputs

    def _halved(self, nodes: Sequence[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
        """Return nodes that compute in half precision between the first and the last convolution."""
        halves = _halves(nodes)
        weights = {
            node.output[0]: node.input[0]
            for node in nodes
            if node.op_type == "Cast" and self._is_half(node.input[0])
        }
        made: dict[tuple[str, int], str] = {}
        result: list[onnx.NodeProto] = []
        in_half = {name for node, half in zip(nodes, halves, strict=True) if half for name in node.output}

        def cast(name: str, to: int) -> str:
            key = (name, to)
            if key not in made:
                made[key] = f"{name}.{'half' if to == TensorProto.FLOAT16 else 'float'}"
                result.append(helper.make_node("Cast", [name], [made[key]], name=made[key], to=to))
            return made[key]

        def halved(name: str) -> str:
            tensor = self._initializers.get(name)
            if name in weights:
                return str(weights[name])
            if name in in_half or not name or (tensor and tensor.data_type != TensorProto.FLOAT):
                return name
            if tensor:
                values = numpy_helper.to_array(tensor).astype(np.float16)
                self._initializers[f"{name}.half"] = numpy_helper.from_array(values, f"{name}.half")
                return f"{name}.half"
            return cast(name, TensorProto.FLOAT16)

        for node, half in zip(nodes, halves, strict=True):
            node.input[:] = [
                halved(name) if half else cast(name, TensorProto.FLOAT) if name in in_half else name
                for name in node.input
            ]
            leaving = [name for name in node.output if half and name in outputs]
            for name in leaving:
                node.output[list(node.output).index(name)] = f"{name}.half"
            result.append(node)
            for name in leaving:
                back = helper.make_node("Cast", [f"{name}.half"], [name], name=name, to=TensorProto.FLOAT)
                result.append(back)
                in_half.discard(name)
        return result

    def _is_half(self, name: str) -> bool:
        tensor = self._initializers.get(name)
        return tensor is not None and tensor.data_type == TensorProto.FLOAT16

    def model(self, name: str) -> onnx.ModelProto:
        """Return the graph, checked."""
        nodes = _needed(self._nodes, {value.name for value in self._outputs})
        used = {value for node in nodes for value in node.input}
        kept = [tensor for key, tensor in self._initializers.items() if key in used]
        graph = helper.make_graph(nodes, name, self._inputs, self._outputs, kept)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="streamderain"
        )
        onnx.checker.check_model(model)
        return model


def _needed(nodes: Sequence[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes that something wanted depends on, in order."""
    wanted = set(wanted)
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def _halves(nodes: Sequence[onnx.NodeProto]) -> list[bool]:
    """Tell for each node whether it computes in half precision: what multiplies by weights, and all between.

    What comes before and behind are sums of squares, logarithms and differences of codes, which half
    precision would lose.
    """
    weighted = [node.op_type in _WEIGHTED for node in nodes]
    behind: set[str] = set()
    follows = []
    for node, is_one in zip(nodes, weighted, strict=True):
        follows.append(bool(behind.intersection(node.input)))
        if is_one or follows[-1]:
            behind.update(node.output)
    ahead: set[str] = set()
    leads = []
    for node, is_one in zip(reversed(nodes), reversed(weighted), strict=True):
        leads.append(bool(ahead.intersection(node.output)))
        if is_one or leads[-1]:
            ahead.update(node.input)
    return [one or (a and b) for one, a, b in zip(weighted, follows, reversed(leads), strict=True)]


def reach(core: onnx.ModelProto) -> int:
    """Return how far away, in samples of the inputs, something may be that changes an output.

    Only for networks of convolutions and pointwise operations.
    """
    found: dict[str, tuple[float, float]] = {value.name: (1.0, 0.0) for value in core.graph.input}
    for node in core.graph.node:
        known = [found[name] for name in node.input if name in found]
        if not known:
            continue
        step, far = max(one[0] for one in known), max(one[1] for one in known)
        if node.op_type in _CONVOLUTIONS:
            attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
            stride, edge = attributes.get("strides", [1])[0], attributes["kernel_shape"][0]
            if node.op_type == "Conv":
                far, step = far + edge // 2 * attributes.get("dilations", [1])[0] * step, step * stride
            else:
                step = step / stride
                far += (edge - 1) * step
        for name in node.output:
            found[name] = (step, far)
    return math.ceil(max(found[value.name][1] for value in core.graph.output))
