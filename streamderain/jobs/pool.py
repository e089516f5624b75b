"""Work on several pieces of a file at once, each in a process of its own that holds one engine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Protocol

import psutil

from streamderain.closable import Closable
from streamderain.errors import PipelineError, StreamderainError
from streamderain.events import Complete, Event, Observer, Progress
from streamderain.jobs.job import Job, PieceOrder
from streamderain.media.reading.sources import SourceSpec
from streamderain.media.track import CannotBeCut
from streamderain.models import load_model
from streamderain.options import RunOptions
from streamderain.runtime.base import Engine
from streamderain.runtime.identity import IdentityEngine
from streamderain.runtime.registry import open_engine
from streamderain.system.allocator import share_arenas
from streamderain.system.memory import available_bytes
from streamderain.system.process import die_with_parent, portable, start_child

TICK_S = 0.1
"""How long one waits for news."""

_PATIENCE_S = 5.0
_MEMORY_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Jobs:
    """How many pieces are worked on at once.

    Attributes:
        count: So many.
        threads: The engine's in each of them; 0 for all.
        why: Why so many, for people.
    """

    count: int
    threads: int
    why: str


@dataclass(frozen=True, slots=True)
class Order:
    """Asks a worker for a piece.

    Attributes:
        piece: Which, and where its packets go.
        passes: Let its frames through unprocessed.
    """

    piece: PieceOrder
    passes: bool = False


@dataclass(frozen=True, slots=True)
class News:
    """What happened to an order.

    Attributes:
        order: Which.
        frames_out: Frames written so far.
        complete: What was done, once it is whole.
        error: Why it cannot be done.
        crashed: How the process ended, for people, where it did without a word.
        lost: Whether the machine it was on is gone: the piece has no part in that.
    """

    order: Order
    frames_out: int = 0
    complete: Complete | None = None
    error: Exception | None = None
    crashed: str = ""
    lost: bool = False


class Worker(Closable):
    """A process that derains one piece after the other.

    Args:
        spec: The source.
        targets: Of the whole run: they decide how pieces are encoded.
        options: Of the run.
    """

    def __init__(self, spec: SourceSpec, targets: Sequence[str], options: RunOptions) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, there = context.Pipe()
        arguments = (os.getpid(), there, spec, list(targets), options)
        self._process = context.Process(target=_serve, args=arguments, name="piece")
        start_child(self._process.start)
        there.close()
        self.order: Order | None = None
        self.peak_bytes = 0

    def begin(self, order: Order) -> None:
        """Have the worker make a piece; it tells by its connection."""
        self.order = order
        # Where it is gone already, `news` tells.
        with contextlib.suppress(ConnectionError):
            self.connection.send(order)

    def news(self) -> News:
        """Return what the worker tells; its connection must have something, or be closed."""
        order = self.order
        assert order is not None
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            return News(order, crashed=self._ended())
        self._note_memory()
        if kind == "progress":
            return News(order, frames_out=value)
        self.order = None
        if kind == "done":
            return News(order, frames_out=value.frames_out, complete=value)
        return News(order, error=value)

    def close(self) -> None:
        """End the process, whatever it does. Idempotent."""
        self.connection.close()
        if self._process.is_alive():
            self._process.kill()
        self._process.join(_PATIENCE_S)

    def _note_memory(self) -> None:
        try:
            resident = psutil.Process(self._process.pid).memory_info().rss
        except psutil.Error:
            return
        self.peak_bytes = max(self.peak_bytes, resident)

    def _ended(self) -> str:
        self._process.join(_PATIENCE_S)
        code = self._process.exitcode
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


class Pool(Protocol):
    """Whoever works on pieces."""

    def begin(self, order: Order) -> bool:
        """Hand out a piece; return whether anybody could take it."""

    def news(self) -> Iterator[News]:
        """Yield what those who are busy tell, after waiting a moment for it."""

    def notes(self) -> list[str]:
        """Return what the user should know of how the work went."""

    def close(self) -> None:
        """End all work; what is not finished is lost. Idempotent."""


class LocalPool(Closable):
    """Processes of this machine.

    Args:
        spec: The source.
        targets: Of the whole run.
        options: Of the run.
        jobs: How many there may be.
    """

    def __init__(self, spec: SourceSpec, targets: Sequence[str], options: RunOptions, jobs: Jobs) -> None:
        self._spec, self._targets, self._jobs = spec, targets, jobs
        self._options = replace(options, engine=replace(options.engine, threads=jobs.threads))
        self._workers: list[Worker] = []
        self._peak_bytes = 0

    def begin(self, order: Order) -> bool:
        """See `Pool`."""
        worker = next((worker for worker in self._workers if worker.order is None), None)
        if worker is None:
            if len(self._workers) >= min(self._jobs.count, self._fitting()):
                return False
            worker = Worker(self._spec, self._targets, self._options)
            self._workers.append(worker)
        worker.begin(order)
        return True

    def news(self) -> Iterator[News]:
        """See `Pool`."""
        busy = {worker.connection: worker for worker in self._workers if worker.order is not None}
        for connection in wait(list(busy), timeout=TICK_S):
            assert isinstance(connection, Connection)
            worker = busy[connection]
            news = worker.news()
            if news.crashed:
                worker.close()
                self._workers.remove(worker)
            self._peak_bytes = max(self._peak_bytes, worker.peak_bytes)
            yield news

    def notes(self) -> list[str]:
        """See `Pool`."""
        most = self._options.work.max_memory_bytes
        if most is None or self._peak_bytes <= most:
            return []
        return [f"one job alone took {self._peak_bytes / 1e6:.0f} MB, more than --max-memory"]

    def close(self) -> None:
        """See `Pool`."""
        for worker in self._workers:
            worker.close()
        self._workers.clear()

    def _fitting(self) -> int:
        """Return how many workers memory holds: one, until that one's need is known."""
        if not self._peak_bytes:
            return 1
        most = self._options.work.max_memory_bytes
        taken = self._peak_bytes * len(self._workers)
        room = _MEMORY_SHARE * available_bytes() if most is None else most - taken
        return len(self._workers) + max(0, int(room // self._peak_bytes))


def _serve(
    parent_pid: int, connection: Connection, spec: SourceSpec, targets: list[str], options: RunOptions
) -> None:
    die_with_parent(parent_pid)
    share_arenas()
    # Ctrl-C reaches every process of the terminal; whoever asked ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    maker = PieceMaker(spec, targets, options)

    def tell(event: Event) -> None:
        if isinstance(event, Progress):
            connection.send(("progress", event.frames_out))

    try:
        while True:
            order = connection.recv()
            result = maker.make(order, tell)
            connection.send(("done" if isinstance(result, Complete) else "error", result))
    except (EOFError, OSError):
        pass  # nobody asks any more
    finally:
        maker.close()


class PieceMaker(Closable):
    """Makes pieces, one after the other, with one engine.

    Args:
        spec: The source.
        targets: Of the whole run.
        options: Of the run.
    """

    def __init__(self, spec: SourceSpec, targets: Sequence[str], options: RunOptions) -> None:
        self._spec, self._targets, self._options = spec, list(targets), options
        self._engines: dict[bool, Engine] = {}

    def make(self, order: Order, tell: Observer = lambda event: None) -> Complete | Exception:
        """Make a piece; return what was done, or why it cannot be, so that it can be sent elsewhere.

        Args:
            order: Which.
            tell: Receives events on the way.
        """
        try:
            job = Job(
                self._spec,
                self._targets,
                options=self._options,
                engine=self._engine(passes=order.passes),
                piece=order.piece,
            )
            complete = job.run(tell, threading.Event())
        except CannotBeCut as error:
            return error
        except StreamderainError as error:
            return portable(error)
        except Exception as error:
            return PipelineError(f"a piece failed: {error!r}; please report it")
        assert complete is not None, "nobody stops it"
        return replace(complete, passed=complete.frames_out if order.passes else complete.passed)

    def close(self) -> None:
        """Close what was opened. Idempotent."""
        for engine in self._engines.values():
            engine.close()

    def _engine(self, *, passes: bool) -> Engine:
        if passes not in self._engines:
            chosen = self._options.engine
            engine = IdentityEngine(load_model(chosen.model)) if passes else open_engine(chosen)
            self._engines[passes] = engine
        return self._engines[passes]
