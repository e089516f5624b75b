"""The session that all engines share: temporal window, order, waiting, and copies of planes."""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamderain import motion
from streamderain.errors import EngineError, InferenceError
from streamderain.frame import Geometry, Plane, Planes
from streamderain.models import ModelCard
from streamderain.runtime.adapters.luma import luma_of, luma_scale
from streamderain.runtime.base import EndOfSession, Session, SessionOptions, Token
from streamderain.runtime.window import Window, WindowFrames


@dataclass(slots=True)
class _Pending:
    token: Token
    result: Future[Planes]


class WindowedSession(Session):
    """The part that engines share: the window, the order, the waiting. Subclasses copy in and infer.

    Args:
        model: Gives the window's shape.
        geometry: What frames look like.
        options: How to work.
        workers: How many frames the engine computes at a time, each on a thread of its own.
    """

    def __init__(
        self, model: ModelCard, geometry: Geometry, options: SessionOptions, *, workers: int
    ) -> None:
        self.model = model
        self.geometry = geometry
        self.strength = options.strength
        self._trace = options.trace
        self._window: Window[Any] = Window(model.before, model.after, causal=options.causal)
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="derain")
        self._lookahead = 0 if options.causal else model.after
        self._capacity = (options.depth or workers + 1) + self._lookahead
        self._changed = threading.Condition()
        self._pending: deque[_Pending] = deque()
        self._waiting: deque[Token] = deque()  # pushed, look-ahead not complete
        self._ended = False
        self._aborted = False
        self._busy_s = 0.0

    @abstractmethod
    def _copy_in(self, planes: Planes) -> Any:
        """Copy what the model reads of a frame into memory of the session."""

    @abstractmethod
    def _same(self, one: Any, other: Any) -> bool:
        """Return whether two copied frames are equal, so that one says nothing new about the other."""

    @abstractmethod
    def _prepare(self, window: WindowFrames[Any]) -> Any:
        """Make of a window what is computed: align its neighbours. Runs on a worker thread."""

    @abstractmethod
    def _inferred(self, prepared: Any, validity: tuple[float, ...]) -> AbstractContextManager[Any]:
        """Compute one frame; what it gives is copied out before the context ends.

        Runs on a worker thread and ends only when the device is done.
        """

    @abstractmethod
    def _copy_out(self, result: Any) -> Planes:
        """Copy a computed frame out of the session's memory."""

    def push(self, planes: Planes, token: Token, *, cut: bool = False, emit: bool = True) -> None:
        """See `Session.push`."""
        self._check(planes)
        with self._changed:
            while not (self._ended or self._aborted) and self._in_flight() >= self._capacity:
                self._changed.wait()
            if self._ended or self._aborted:
                raise EndOfSession
        started = perf_counter()
        copied = self._copy_in(planes)
        if self._trace is not None and emit:
            self._trace.add("copy-in", perf_counter() - started)
        with self._changed:
            if self._aborted:
                raise EndOfSession
            if emit:
                self._waiting.append(token)
            last = self._window.last
            repeated = not cut and last is not None and self._same(last, copied)
            self._submit(self._window.push(copied, cut=cut, emit=emit, repeated=repeated))

    def pop(self, timeout_s: float | None = None) -> tuple[Token, Planes] | None:
        """See `Session.pop`."""
        with self._changed:
            there = self._changed.wait_for(
                lambda: self._pending or self._aborted or (self._ended and not self._waiting), timeout_s
            )
            if self._aborted or (there and not self._pending):
                raise EndOfSession
            if not there:
                return None
            oldest = self._pending[0]
        try:
            planes = oldest.result.result(timeout_s)
        except FutureTimeoutError:
            return None
        except CancelledError:
            raise EndOfSession from None
        with self._changed:
            if self._aborted:
                raise EndOfSession
            self._pending.popleft()
            self._changed.notify_all()
        return oldest.token, planes

    def flush(self) -> None:
        """See `Session.flush`."""
        with self._changed:
            if self._ended or self._aborted:
                return
            self._ended = True
            self._submit(self._window.flush())

    def abort(self) -> list[Token]:
        """See `Session.abort`."""
        with self._changed:
            left = [pending.token for pending in self._pending] + list(self._waiting)
            self._aborted = True
            for pending in self._pending:
                pending.result.cancel()
            self._pending.clear()
            self._waiting.clear()
            self._changed.notify_all()
        return left

    def close(self) -> None:
        """See `Session.close`."""
        self.abort()
        self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def components(self) -> int:
        """See `Session.components`."""
        geometry = self.geometry
        return geometry.luma_planes if self.model.input == "luma" else len(geometry.plane_shapes)

    @property
    def busy_s(self) -> float:
        """See `Session.busy_s`."""
        return self._busy_s / self._workers

    def _in_flight(self) -> int:
        return len(self._pending) + len(self._waiting)

    def _submit(self, windows: Sequence[WindowFrames[Any]]) -> None:
        for window in windows:
            token = self._waiting.popleft()
            self._pending.append(_Pending(token, self._pool.submit(self._work, window)))
        self._changed.notify_all()

    def _work(self, window: WindowFrames[Any]) -> Planes:
        started = perf_counter()
        try:
            prepared = self._prepare(window)
            aligned = perf_counter()
            with self._inferred(prepared, window.validity) as result:
                computed = perf_counter()
                planes = self._copy_out(result)
                if self._trace is not None:
                    self._trace.add("align", aligned - started)
                    self._trace.add("network", computed - aligned)
                    self._trace.add("copy-out", perf_counter() - computed)
            return planes
        except EngineError:
            raise
        except Exception as error:
            raise InferenceError(
                f"the engine failed on a frame of {self.geometry.width}x{self.geometry.height}: {error}; "
                "try another --engine, or --precision f32"
            ) from error
        finally:
            with self._changed:
                self._busy_s += perf_counter() - started

    def _check(self, planes: Planes) -> None:
        expected = self.geometry.plane_shapes[: self.components]
        if tuple(plane.shape for plane in planes[: self.components]) != expected:
            size = f"{self.geometry.width}x{self.geometry.height}"
            raise InferenceError(
                f"the session was opened for frames of {size}, whose planes are {list(expected)}, and "
                f"got {[plane.shape for plane in planes]}; open a session per geometry"
            )


@dataclass(frozen=True, slots=True)
class LumaFrame:
    """A frame as a session of a luma model keeps it.

    Attributes:
        planes: Copies of the components it reads, unshifted, in native byte order, contiguous.
        luma: What of them is compared and aligned, see `luma_of`.
        coarse: What the flow looks at; None where neighbours are not aligned.
        number: Of the frame in its session.
    """

    number: int
    planes: Planes
    luma: Plane
    coarse: Plane | None


class LumaSession(WindowedSession, ABC):
    """A session of a luma model: copies planes, and aligns the neighbours of models that ask for it.

    Engines that warp in their graph take the flows (`_stacked_flows`) instead of aligned planes (`_aligned`).
    """

    def __init__(
        self, model: ModelCard, geometry: Geometry, options: SessionOptions, *, workers: int
    ) -> None:
        super().__init__(model, geometry, options, workers=workers)
        self._scale = luma_scale(geometry)
        self._aligns = model.alignment == "flow" and options.alignment
        self._cell = model.flow.edge_px(geometry.width, geometry.height)
        self._one_thread = ExitStack()
        if self._aligns:
            self._one_thread.enter_context(motion.one_thread())
        self._warpers: SimpleQueue[motion.Warper] = SimpleQueue()
        self._copied_frames = itertools.count()
        self._flows_between = FlowsBetween(self._cell, kept=2 * (workers + model.before + model.after))

    def close(self) -> None:
        """See `Session.close`."""
        super().close()
        self._one_thread.close()

    def _copy_in(self, planes: Planes) -> LumaFrame:
        copies = tuple(self._copied(plane) for plane in planes[: self.components])
        luma = luma_of(copies, self._scale)
        coarse = None
        if self._aligns:
            coarse = motion.coarse(luma, cell=self._cell, shift=self.geometry.bits - 8)
        return LumaFrame(next(self._copied_frames), copies, luma, coarse)

    def _copied(self, plane: Plane) -> Plane:
        native = plane.astype(self.geometry.dtype, order="C")
        return native >> self.geometry.shift if self.geometry.shift else native

    def _same(self, one: LumaFrame, other: LumaFrame) -> bool:
        return same_planes(one.planes, other.planes)

    def _flows(self, window: WindowFrames[LumaFrame]) -> list[motion.Flow | None]:
        """Return the flow to each neighbour, oldest first; None where it is not to be moved."""
        before = self.model.before
        current = window.frames[before]
        neighbours = (*window.frames[:before], *window.frames[before + 1 :])
        found = [
            self._flows_between(current, neighbour) if self._aligns and valid else None
            # The later ones first: the flow from an earlier one is just being estimated for that one's sake.
            for neighbour, valid in reversed(list(zip(neighbours, window.validity, strict=True)))
        ]
        return found[::-1]

    def _aligned(self, window: WindowFrames[LumaFrame]) -> list[Plane]:
        """Return the luma of the window, oldest first, neighbours warped onto the current frame."""
        vectors = self._flows(window)
        vectors.insert(self.model.before, None)
        return [
            frame.luma if flow is None else self._warped(frame.luma, flow)
            for frame, flow in zip(window.frames, vectors, strict=True)
        ]

    def _warped(self, luma: Plane, vectors: motion.Flow) -> Plane:
        try:
            warper = self._warpers.get_nowait()
        except Empty:
            warper = motion.Warper(self.geometry.width, self.geometry.height, cell=self._cell)
        try:
            return warper.warp(luma, vectors)
        finally:
            self._warpers.put(warper)

    def _stacked_flows(self, window: WindowFrames[LumaFrame]) -> NDArray[np.float32]:
        """Return the flow to each neighbour, (neighbours, 2, rows, columns), zeros where none is moved."""
        shape = (-(-self.geometry.height // self._cell), -(-self.geometry.width // self._cell), 2)
        stack = [np.zeros(shape, np.float32) if one is None else one for one in self._flows(window)]
        return np.ascontiguousarray(np.stack(stack).transpose(0, 3, 1, 2))


class FlowsBetween:
    """Flows between frames, each pair's estimated once: from the older to the newer, and inverted.

    Two frames are computed at a time, and both need the flow between them: the second waits for the first.

    Args:
        cell: Edge of a cell, px.
        kept: How many pairs are remembered.
    """

    def __init__(self, cell: int, *, kept: int) -> None:
        self._cell, self._kept = cell, kept
        self._lock = threading.Lock()
        self._onward: dict[tuple[int, int], Future[motion.Flow]] = {}

    def __call__(self, one: LumaFrame, other: LumaFrame) -> motion.Flow:
        """Return the flow from one frame to another."""
        if one.number < other.number:
            return self._estimated(one, other)
        return motion.inverse(self._estimated(other, one), cell=self._cell)

    def _estimated(self, older: LumaFrame, newer: LumaFrame) -> motion.Flow:
        key = (older.number, newer.number)
        with self._lock:
            known = self._onward.get(key)
            if known is None:
                mine = self._onward[key] = Future()
                while len(self._onward) > self._kept:
                    self._onward.pop(next(iter(self._onward)))
        if known is not None:
            return known.result()
        assert older.coarse is not None
        assert newer.coarse is not None
        try:
            mine.set_result(motion.flow(older.coarse, newer.coarse, cell=self._cell))
        except BaseException as error:
            mine.set_exception(error)
        return mine.result()


def same_planes(one: tuple[Plane, ...], other: tuple[Plane, ...]) -> bool:
    """Return whether two copied frames hold the same codes. A sparse look settles nearly every case."""
    sparse = all((a[::16] == b[::16]).all() for a, b in zip(one, other, strict=True))
    return sparse and all((a == b).all() for a, b in zip(one, other, strict=True))
