"""Plans on the pretend driver: the graph of each is computed by onnxruntime, on the stream it is enqueued on.

To be imported where `LD_LIBRARY_PATH` leads to the pretend driver; see `pretend_gpu`.
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
    """Return what the driver did so far."""
    names = ("copies", "launches", "waits", "device_bytes", "device_peak", "pinned_blocks")
    return {name: _driver.pretend_count(number) for number, name in enumerate(names)}


def launch(stream: int, work: Callable[[], None]) -> None:
    """Have a function called on a stream; it may be called again where the stream is recorded.

    Raises:
        InferenceError: The driver refused.
    """
    function = _HostFunction(lambda _: work())
    _kept.append(function)
    if _driver.cuLaunchHostFunc(stream, function, None):
        raise InferenceError("the pretend driver refused to launch")


_kept: list[Any] = []
"""Functions that streams may still call; a few bytes each."""


def array_at(address: int, shape: Sequence[int], dtype: Any) -> NDArray[Any]:
    """Return the memory at an address as an array."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)


def onnx_session(graph: bytes) -> onnxruntime.InferenceSession:
    """Return a graph ready to run, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class OnnxContext:
    """Stands for an execution context: computes on the stream what is at the addresses then."""

    def __init__(self, session: onnxruntime.InferenceSession, offset: int) -> None:
        self._session, self._offset = session, offset

    def enqueue(self, addresses: Mapping[str, int], stream: int) -> None:
        bound = dict(addresses)

        def work() -> None:
            inputs = {one.name: self._array(one, bound).copy() for one in self._session.get_inputs()}
            results = self._session.run(None, inputs)
            for one, result in zip(self._session.get_outputs(), results, strict=True):
                self._array(one, bound, self._offset)[...] = result

        launch(stream, work)

    @staticmethod
    def _array(value: Any, addresses: Mapping[str, int], offset: int = 0) -> NDArray[Any]:
        return array_at(addresses[value.name] + offset, value.shape, _TYPES[value.type])


class _Strips:
    def __init__(self, contexts: list[OnnxContext]) -> None:
        self._contexts = contexts

    def enqueue(self, addresses: Mapping[str, int], stream: int) -> None:
        for context in self._contexts:
            context.enqueue(addresses, stream)


class OnnxProgram:
    """Stands for loaded plans."""

    capturable = True

    def __init__(self, loaded: Sequence[plans.Plan], geometry: Geometry) -> None:
        self.scratch_bytes = plans.activation_bytes(loaded)
        row_bytes = geometry.width * geometry.dtype.itemsize
        self._parts = [
            (
                onnx_session(graphs[plan.stored.key.graph_sha256]),
                0 if plan.rows is None else plan.rows.top * row_bytes,
            )
            for plan in loaded
        ]

    def context(self, scratch: int) -> _Strips:
        return _Strips([OnnxContext(session, offset) for session, offset in self._parts])


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
