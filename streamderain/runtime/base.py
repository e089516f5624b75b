"""The seam between the pipeline and whatever removes the rain.

An *engine* is a live runtime on a device with one model; a *session* is one stream of frames of one geometry
on it. Sessions own the temporal window, the copies and the concurrency; the pipeline only pushes and pops.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import Any, Self

from streamderain.errors import EngineError, InferenceError
from streamderain.frame import Geometry, Planes
from streamderain.models import ModelCard
from streamderain.runtime.window import Job, Window
from streamderain.trace import Trace

Token = Any
"""Whatever the caller wants back with the result."""


class EndOfSession(Exception):
    """No more results will come: the session was flushed and drained, aborted, or closed."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a session works.

    Attributes:
        depth: Frames in flight beyond the model's look-ahead; 0 lets the engine choose.
        causal: True never waits for later frames: their place is a copy of the current one, marked invalid.
        strength: How much of the found rain is taken away, 0..1.
        trace: Receives how long copies and the network take, in seconds of each emitted frame.
    """

    depth: int = 0
    causal: bool = False
    strength: float = 1.0
    trace: Trace | None = None


class Closable(ABC):
    """Something to be closed after use, best by ``with``."""

    @abstractmethod
    def close(self) -> None:
        """Releases what it holds. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Session(Closable):
    """One stream of frames of one geometry. push and pop may run on different threads."""

    @abstractmethod
    def push(self, planes: Planes, token: Token, *, cut: bool = False, emit: bool = True) -> None:
        """Gives a frame; waits only while all slots are full.

        Args:
            planes: The frame's colour components in the session's geometry. What is needed is copied.
            token: Comes back with the result.
            cut: The frame does not follow the one before: pending frames are finished without look-ahead.
            emit: False feeds the temporal window only; the token never comes back.

        Raises:
            EndOfSession: The session was flushed, aborted or closed.
            InferenceError: The planes do not fit the geometry.
        """

    @abstractmethod
    def pop(self, timeout_s: float | None = None) -> tuple[Token, Planes] | None:
        """Returns the oldest result, or None when ``timeout_s`` passed without one.

        The planes are those the model writes (luma alone, or R, G, B), contiguous, in the geometry's dtype;
        they are valid until the next pop.

        Raises:
            EndOfSession: Nothing more will come.
            EngineError: The frame failed.
        """

    @abstractmethod
    def flush(self) -> None:
        """Says that no more frames will be pushed; the look-ahead drains. Idempotent."""

    @abstractmethod
    def abort(self) -> list[Token]:
        """Stops, wakes every waiting call, and returns the tokens not popped, oldest first."""

    @property
    @abstractmethod
    def busy_s(self) -> float:
        """Seconds of work so far, as if one frame ran at a time at the engine's full throughput."""


class Engine(Closable):
    """A live runtime on a device with one model.

    Attributes:
        name: The engine's name.
        device: What it runs on, for people.
        precision: What it computes in.
        model: The model's card.
    """

    name: str
    device: str
    precision: str
    model: ModelCard

    @abstractmethod
    def session(self, geometry: Geometry, options: SessionOptions | None = None) -> Session:
        """Opens a session for frames of one geometry.

        Raises:
            PlanBuildError: The model does not compile for this geometry.
            DeviceMemoryError: The device has too little memory for it.
        """

    @abstractmethod
    def close(self) -> None:
        """Releases the runtime. Idempotent; sessions must be closed before."""


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
        """Copies what the model reads of a frame into memory of the session."""

    @abstractmethod
    def _same(self, one: Any, other: Any) -> bool:
        """Whether two copied frames are equal, so that one says nothing new about the other."""

    @abstractmethod
    def _inferred(self, job: Job[Any]) -> AbstractContextManager[Any]:
        """Computes one frame; what it gives is copied out before the context ends.

        Runs on a worker thread and ends only when the device is done.
        """

    @abstractmethod
    def _copy_out(self, result: Any) -> Planes:
        """Copies a computed frame out of the session's memory."""

    def push(self, planes: Planes, token: Token, *, cut: bool = False, emit: bool = True) -> None:
        """See :meth:`Session.push`."""
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
        """See :meth:`Session.pop`."""
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
        """See :meth:`Session.flush`."""
        with self._changed:
            if self._ended or self._aborted:
                return
            self._ended = True
            self._submit(self._window.flush())

    def abort(self) -> list[Token]:
        """See :meth:`Session.abort`."""
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
        """See :meth:`Session.close`."""
        self.abort()
        self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def busy_s(self) -> float:
        """See :meth:`Session.busy_s`."""
        return self._busy_s / self._workers

    def _in_flight(self) -> int:
        return len(self._pending) + len(self._waiting)

    def _submit(self, jobs: Sequence[Job[Any]]) -> None:
        for job in jobs:
            token = self._waiting.popleft()
            self._pending.append(_Pending(token, self._pool.submit(self._work, job)))
        self._changed.notify_all()

    def _work(self, job: Job[Any]) -> Planes:
        started = perf_counter()
        try:
            with self._inferred(job) as result:
                computed = perf_counter()
                planes = self._copy_out(result)
                if self._trace is not None:
                    self._trace.add("network", computed - started)
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
        needed = 3 if self.geometry.is_rgb else 1
        expected = (self.geometry.height, self.geometry.width)
        if len(planes) < needed or any(plane.shape != expected for plane in planes[:needed]):
            raise InferenceError(
                f"the session was opened for frames of {expected[1]}x{expected[0]} with {needed} full-size "
                f"planes and got {[plane.shape for plane in planes]}; open a session per geometry"
            )
