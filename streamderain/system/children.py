"""Child processes that end with their parent, however the parent ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from concurrent.futures import Future
from multiprocessing.process import BaseProcess
from queue import SimpleQueue

_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal a process gets when the thread that started it ends."""

_GONE = 1
"""Exit code of a child whose parent was gone before it could ask to be told."""


def die_with_parent(parent_pid: int) -> None:
    """Have this process killed when its parent ends, also by SIGKILL; call it first thing in a child.

    Linux tells the child when the *thread* that started it ends, so that children are started by ``start``,
    or by a thread that lives as long as they do. Elsewhere nothing is done.

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


def start(process: BaseProcess) -> None:
    """Start a process from a thread that lives as long as this process does; see ``die_with_parent``.

    Args:
        process: Of multiprocessing's ``spawn`` context, not started yet.
    """
    started: Future[None] = Future()
    _starter().put((process, started))
    started.result()


_Order = tuple[BaseProcess, "Future[None]"]
_LOCK = threading.Lock()
_orders: dict[int, SimpleQueue[_Order]] = {}


def _starter() -> SimpleQueue[_Order]:
    """The queue of this process's starting thread; a forked child gets a thread of its own."""
    with _LOCK:
        pid = os.getpid()
        if pid not in _orders:
            _orders[pid] = SimpleQueue()
            threading.Thread(target=_start_all, args=(_orders[pid],), name="starter", daemon=True).start()
        return _orders[pid]


def _start_all(orders: SimpleQueue[_Order]) -> None:
    while True:
        process, started = orders.get()
        try:
            process.start()
        except BaseException as error:
            started.set_exception(error)
        else:
            started.set_result(None)
