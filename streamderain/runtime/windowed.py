"""The session that all engines share: temporal window, order, waiting, and copies of planes."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from streamderain.errors import EngineError, InferenceError
from streamderain.frame import Geometry, Plane, Planes
from streamderain.models import ModelCard
from streamderain.runtime.base import EndOfSession, Session, SessionOptions, Token
from streamderain.runtime.window import Window, WindowFrames


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """A frame as a session keeps it.

    Attributes:
        planes: Copies of the components it reads, in native byte order, contiguous.
        memory: What their memory belongs to, where that is to be given back after the last use.
    """

    planes: Planes
    memory: Any = None


@dataclass(slots=True)
class _Pending:
    token: Token
    result: Future[Any]


class WindowedSession(Session):
    """The part that engines share: the window, the order, the waiting. Subclasses compute.

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

    def _copy_in(self, planes: Planes) -> Any:
        """Keep what the model reads of a frame, and what is worked out of it once."""
        return self._stored(planes)

    def _stored(self, planes: Planes) -> StoredFrame:
        """Copy what the model reads of a frame into memory of the session, unshifted."""
        return StoredFrame(tuple(self._copied(plane) for plane in planes[: self.components]))

    @abstractmethod
    def _computed(self, window: WindowFrames[Any]) -> Any:
        """Compute one frame, or have it computed, on a worker thread; return what `_delivered` wants."""

    def _delivered(self, result: Future[Any], timeout_s: float | None) -> Planes:
        """Wait for what `_computed` returned, and return the planes.

        Raises:
            TimeoutError: It took longer than `timeout_s`.
        """
        planes: Planes = result.result(timeout_s)
        return planes

    def push(self, planes: Planes, token: Token, *, cut: bool = False, emit: bool = True) -> None:
        """See `Session.push`."""
        self._check(planes)
        with self._changed:
            # What is not emitted takes no slot.
            while emit and not (self._ended or self._aborted) and self._in_flight() >= self._capacity:
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
            # A frame equal to the one before says nothing new about it.
            repeated = not cut and last is not None and same_planes(last.planes, copied.planes)
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
            planes = self._delivered(oldest.result, timeout_s)
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

    def _copied(self, plane: Plane) -> Plane:
        """Return a copy of a plane's codes, unshifted, in native byte order, contiguous."""
        native = plane.astype(self.geometry.dtype, order="C")
        return native >> self.geometry.shift if self.geometry.shift else native

    def _shifted(self, planes: Iterable[Plane]) -> Planes:
        """Return codes as the geometry holds them."""
        shift = self.geometry.shift
        return tuple(plane << shift if shift else plane for plane in planes)

    def _in_flight(self) -> int:
        return len(self._pending) + len(self._waiting)

    def _submit(self, windows: Sequence[WindowFrames[Any]]) -> None:
        for window in windows:
            token = self._waiting.popleft()
            self._pending.append(_Pending(token, self._pool.submit(self._work, window)))
        self._changed.notify_all()

    def _work(self, window: WindowFrames[Any]) -> Any:
        started = perf_counter()
        try:
            return self._computed(window)
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


class SynchronousSession(WindowedSession):
    """Computes each frame on a worker thread that waits for the device."""

    def _prepare(self, window: WindowFrames[Any]) -> Any:
        """Make of a window what is computed: the current frame, unless neighbours are to be aligned."""
        return window.frames[self.model.before].planes

    @abstractmethod
    def _inferred(self, prepared: Any, validity: tuple[float, ...]) -> AbstractContextManager[Any]:
        """Compute one frame; what it gives is copied out before the context ends, the device done."""

    @abstractmethod
    def _copy_out(self, result: Any) -> Planes:
        """Copy a computed frame out of the session's memory."""

    def _computed(self, window: WindowFrames[Any]) -> Planes:
        started = perf_counter()
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


def same_planes(one: tuple[Plane, ...], other: tuple[Plane, ...]) -> bool:
    """Return whether two copied frames hold the same codes. A sparse look settles nearly every case."""
    sparse = all((a[::16] == b[::16]).all() for a, b in zip(one, other, strict=True))
    return sparse and all((a == b).all() for a, b in zip(one, other, strict=True))
