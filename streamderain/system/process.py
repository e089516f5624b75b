"""Run work in child processes that end with their parent and whose crashes are reported."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any, Generic, Self, TypeVar

from setproctitle import setproctitle

from streamderain.addresses import redact
from streamderain.closable import Closable
from streamderain.errors import EngineError, PipelineError, StreamderainError
from streamderain.system.allocator import share_arenas

T = TypeVar("T")
R = TypeVar("R")

_PATIENCE_S = 5.0
_LISTEN_S = 0.1

_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal a process gets when the thread that started it ends."""

_PR_SET_DUMPABLE = 4
"""prctl(2): whether a core file may be written, and whether other processes may look into the memory."""

_GONE = 1
"""Exit code of a child whose parent was gone before it could ask to be told."""


class Crashed(EngineError):
    """The process ended without a word, mostly in native code.

    Attributes:
        how: The signal that ended it, or its exit code, for people.
    """

    def __init__(self, how: str, *, doing: str) -> None:
        self.how = how
        super().__init__(
            f"the process that {doing} ended by {how}: native code crashed, or memory ran out; "
            "`streamderain doctor` tries each engine on its own, --engine chooses another"
        )


class Isolated(Closable, Generic[T]):
    """Runs a generator in a process of its own, a step each time the next value is asked for.

    Args:
        work: A function of a module that yields; it, its arguments and its values are pickled.
        arguments: What it is called with.
        doing: What it does, for the message of a crash: "measured openvino".

    Raises:
        Crashed: From `next`, when the process is gone.
        StreamderainError: From `next`, what the work raised.
    """

    def __init__(self, work: Callable[..., Iterator[T]], *arguments: Any, doing: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._doing = doing
        # Not daemonic: the work may have children of its own. It ends with this process all the same.
        self._process = context.Process(target=_serve, args=(os.getpid(), there, work, arguments))
        start_child(self._process.start)
        there.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        try:
            self._here.send(True)
            kind, value = self._here.recv()
        except (EOFError, OSError) as error:
            raise Crashed(self._ended(), doing=self._doing) from error
        if kind == "end":
            raise StopIteration
        if kind == "error":
            raise value
        result: T = value
        return result

    def close(self) -> None:
        """End the process. Idempotent."""
        self._here.close()
        self._process.join(_PATIENCE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        self._process.kill()
        self._process.join(_PATIENCE_S)

    def _ended(self) -> str:
        self._process.join(_PATIENCE_S)
        code = self._process.exitcode
        if code is not None and code < 0:
            return signal.Signals(-code).name
        return f"exit code {code}"


class AtOnce(Closable, Generic[T]):
    """Runs a generator several times, each in a process of its own, all at the same time.

    Args:
        work: As for `Isolated`.
        arguments: What each is called with.
        count: How many there are.
        doing: What each does, for the message of a crash.
    """

    def __init__(
        self, work: Callable[..., Iterator[T]], arguments: tuple[Any, ...], *, count: int, doing: str
    ) -> None:
        self._processes = [Isolated(work, *arguments, doing=doing) for _ in range(count)]
        self._told: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        for process in self._processes:
            threading.Thread(target=self._follow, args=(process,), name="at-once", daemon=True).start()

    def values(self, stop: threading.Event) -> Iterator[T]:
        """Yield what any of them yields, until all have ended, or `stop` is set.

        Raises:
            StreamderainError: The first error of any, once all others have ended.
        """
        left, error = len(self._processes), None
        while left:
            try:
                kind, value = self._told.get(timeout=_LISTEN_S)
            except Empty:
                if stop.is_set():
                    return
                continue
            if kind == "value":
                yield value
            else:
                left -= 1
                error = error or value
        if error is not None:
            raise error

    def close(self) -> None:
        """End the processes. Idempotent."""
        for process in self._processes:
            process.kill()

    def _follow(self, process: Isolated[T]) -> None:
        try:
            for value in process:
                self._told.put(("value", value))
        except Exception as error:
            self._told.put(("error", error))
        else:
            self._told.put(("end", None))


def isolated(work: Callable[..., Iterator[T]], *arguments: Any, doing: str) -> T:
    """Return the first value of `work`, computed in a process of its own; see `Isolated`."""
    with Isolated(work, *arguments, doing=doing) as process:
        return next(process)


def _serve(
    parent_pid: int, connection: Connection, work: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]
) -> None:
    die_with_parent(parent_pid)
    share_arenas()
    # Ctrl-C reaches every process of the terminal; whoever asked ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    values = work(*arguments)
    try:
        while connection.recv():
            connection.send(_step(values))
    except (EOFError, OSError):
        pass  # nobody asks any more
    finally:
        close = getattr(values, "close", None)
        if close is not None:
            close()


def _step(values: Iterator[Any]) -> tuple[str, Any]:
    try:
        return "value", next(values)
    except StopIteration:
        return "end", None
    except StreamderainError as error:
        return "error", portable(error)
    except Exception as error:
        return "error", PipelineError(f"a measurement failed: {error!r}; please report it")


def portable(error: StreamderainError) -> StreamderainError:
    """Return the error so that it can be pickled: classes with own arguments become their parents."""
    kind = next(
        cls
        for cls in type(error).__mro__
        if issubclass(cls, StreamderainError) and "__init__" not in vars(cls)
    )
    return kind(str(error))


def die_with_parent(parent_pid: int) -> None:
    """Have this process killed when its parent ends, also by SIGKILL; call it first thing in a child.

    Linux tells the child when the *thread* that started it ends, so that children are started by
    `start_child`, or by a thread that lives as long as they do. Elsewhere nothing is done.

    Args:
        parent_pid: The parent's process number, taken in the parent: it may be gone by now.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        os._exit(_GONE)


def hide_secrets(arguments: Sequence[str]) -> None:
    """Keep secrets in a command line from others: show it without them, and let a crash leave no core file.

    Does nothing where there are none. Until it is called they can be seen: as long as Python takes to start.

    Args:
        arguments: The command line.
    """
    shown = [redact(argument) for argument in arguments]
    if shown != list(arguments):
        setproctitle(" ".join(shown))
        leave_no_core_file()


def leave_no_core_file() -> None:
    """Have the kernel write no core file of this process, whatever happens: its memory holds secrets."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def start_child(start: Callable[[], R]) -> R:
    """Start a process on a thread that lives as long as this process does; see `die_with_parent`.

    Args:
        start: Starts it; what it returns or raises comes back.
    """
    started: Future[R] = Future()
    _starter().put((start, started))
    return started.result()


_Order = tuple[Callable[[], Any], "Future[Any]"]
_LOCK = threading.Lock()
_orders: dict[int, SimpleQueue[_Order]] = {}


def _starter() -> SimpleQueue[_Order]:
    """Return the queue of this process's starting thread; a forked child gets a thread of its own."""
    with _LOCK:
        pid = os.getpid()
        if pid not in _orders:
            _orders[pid] = SimpleQueue()
            threading.Thread(target=_start_all, args=(_orders[pid],), name="starter", daemon=True).start()
        return _orders[pid]


def _start_all(orders: SimpleQueue[_Order]) -> None:
    while True:
        start, started = orders.get()
        try:
            with _main_module_hidden():
                value = start()
        except BaseException as error:
            started.set_exception(error)
        else:
            started.set_result(value)
        del start, started


@contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Have a child not run the program's main module: a script would begin anew in each of its children.

    `multiprocessing` runs it for what is defined there, unless it has neither a file nor a specification.
    Nothing that a child of ours needs lies there.
    """
    names = vars(sys.modules["__main__"])
    kept: dict[str, Any] = {name: names.pop(name) for name in ("__file__", "__spec__") if name in names}
    names["__spec__"] = None
    try:
        yield
    finally:
        names.update(kept)
