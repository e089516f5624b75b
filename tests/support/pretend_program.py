"""Programs on the pretend driver: what a GPU would compute is computed on the thread of its stream.

To be imported where `LD_LIBRARY_PATH` leads to the pretend driver, see `tests.support.pretend_gpu`.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from streamderain.errors import InferenceError
from streamderain.frame import Geometry
from streamderain.runtime import plans, tensorrt
from streamderain.runtime.plan_cache import PlanCache

_driver = ctypes.CDLL("libcuda.so.1")
_driver.pretend_count.restype = ctypes.c_long
_HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_driver.cuLaunchHostFunc.argtypes = [ctypes.c_void_p, _HostFunction, ctypes.c_void_p]
_TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}

graphs: dict[str, bytes] = {}
"""Every graph that was asked for, by its checksum."""


def counts() -> dict[str, int]:
    """Return what the driver did so far, and what memory is in use."""
    names = ("copies", "launches", "waits", "device_bytes", "device_peak", "pinned_blocks")
    return {name: _driver.pretend_count(number) for number, name in enumerate(names)}


class Launcher:
    """Has functions called on streams; the same one again where the addresses are the same."""

    def __init__(self, work: Callable[[Mapping[str, int]], None]) -> None:
        self._work = work
        self._functions: dict[tuple[tuple[str, int], ...], Any] = {}

    def enqueue(self, addresses: Mapping[str, int], stream: int) -> None:
        """See `Context.enqueue`."""
        key = tuple(addresses.items())
        if key not in self._functions:
            bound = dict(addresses)
            self._functions[key] = _HostFunction(lambda _: self._work(bound))
        if _driver.cuLaunchHostFunc(stream, self._functions[key], None):
            raise InferenceError("the pretend driver refused to launch")


def array_at(address: int, shape: Sequence[int], dtype: Any) -> NDArray[Any]:
    """Return the memory at an address as an array."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)


class OnnxGraph:
    """A graph with its adapter, computed by onnxruntime on one thread."""

    def __init__(self, graph: bytes, *, offset: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._offset = offset

    def compute(self, addresses: Mapping[str, int]) -> None:
        """Compute what is at addresses."""
        inputs = {one.name: self._array(one, addresses).copy() for one in self.session.get_inputs()}
        results = self.session.run(None, inputs)
        for one, result in zip(self.session.get_outputs(), results, strict=True):
            self._array(one, addresses, self._offset)[...] = result

    @staticmethod
    def _array(value: Any, addresses: Mapping[str, int], offset: int = 0) -> NDArray[Any]:
        return array_at(addresses[value.name] + offset, value.shape, _TYPES[value.type])


class OnnxProgram:
    """Stands for loaded plans: their graphs, one after the other."""

    capturable = True

    def __init__(self, loaded: Sequence[plans.Plan], geometry: Geometry) -> None:
        self.scratch_bytes = plans.activation_bytes(loaded)
        row_bytes = geometry.width * geometry.dtype.itemsize
        self.parts = [
            OnnxGraph(
                graphs[plan.stored.key.graph_sha256],
                offset=0 if plan.rows is None else plan.rows.top * row_bytes,
            )
            for plan in loaded
        ]

    def context(self, scratch: int) -> Launcher:
        """See `Program.context`."""
        return Launcher(self._compute)

    def _compute(self, addresses: Mapping[str, int]) -> None:
        for part in self.parts:
            part.compute(addresses)


def install() -> None:
    """Have the tensorrt engine compute on the pretend driver; plans are built and kept as ever."""
    made = plans.PlanMaker._graph

    def graph(maker: plans.PlanMaker, *args: Any) -> bytes:
        data = made(maker, *args)
        graphs[hashlib.sha256(data).hexdigest()] = data
        return data

    def load_program(loaded: Sequence[plans.Plan], geometry: Geometry, cache: PlanCache) -> OnnxProgram:
        return OnnxProgram(loaded, geometry)

    plans.PlanMaker._graph = graph  # type: ignore[method-assign, assignment]
    tensorrt.load_program = load_program  # type: ignore[assignment]
