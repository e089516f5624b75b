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
from typing import Any

import psutil

from streamderain.closable import Closable
from streamderain.errors import PipelineError, StreamderainError
from streamderain.events import Complete, Event, Progress
from streamderain.jobs.job import Job, PieceOrder
from streamderain.media.reading.sources import SourceSpec
from streamderain.media.track import CannotBeCut
from streamderain.models import load_model
from streamderain.options import RunOptions
from streamderain.runtime.identity import IdentityEngine
from streamderain.runtime.registry import open_engine
from streamderain.system.allocator import share_arenas
from streamderain.system.process import die_with_parent, portable, start_child

TICK_S = 0.1
"""How long one waits for news."""

_PATIENCE_S = 5.0


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
    """

    order: Order
    frames_out: int = 0
    complete: Complete | None = None
    error: Exception | None = None
    crashed: str = ""


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
        with contextlib.suppress(BrokenPipeError):
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


def news_of(workers: Sequence[Worker]) -> Iterator[tuple[Worker, News]]:
    """Yield what busy workers tell, after waiting a moment for it."""
    busy = {worker.connection: worker for worker in workers if worker.order is not None}
    for connection in wait(list(busy), timeout=TICK_S):
        assert isinstance(connection, Connection)
        worker = busy[connection]
        yield worker, worker.news()


def _serve(
    parent_pid: int, connection: Connection, spec: SourceSpec, targets: list[str], options: RunOptions
) -> None:
    die_with_parent(parent_pid)
    share_arenas()
    # Ctrl-C reaches every process of the terminal; whoever asked ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    engines: dict[bool, Any] = {}
    try:
        while True:
            order = connection.recv()
            connection.send(_answer(connection, order, spec, targets, options, engines))
    except (EOFError, OSError):
        pass  # nobody asks any more
    finally:
        for engine in engines.values():
            engine.close()


def _answer(
    connection: Connection,
    order: Order,
    spec: SourceSpec,
    targets: list[str],
    options: RunOptions,
    engines: dict[bool, Any],
) -> tuple[str, Any]:
    def tell(event: Event) -> None:
        if isinstance(event, Progress):
            connection.send(("progress", event.frames_out))

    try:
        if order.passes not in engines:
            model = load_model(options.engine.model)
            engines[order.passes] = IdentityEngine(model) if order.passes else open_engine(options.engine)
        engine = engines[order.passes]
        job = Job(spec, targets, options=options, engine=engine, piece=order.piece)
        complete = job.run(tell, threading.Event())
        assert complete is not None, "nobody stops it"
    except CannotBeCut as error:
        return "error", error
    except StreamderainError as error:
        return "error", portable(error)
    except Exception as error:
        return "error", PipelineError(f"a piece failed: {error!r}; please report it")
    return "done", replace(complete, passed=complete.frames_out if order.passes else complete.passed)
