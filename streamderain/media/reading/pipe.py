"""Read standard input so that waiting for it can be ended."""

from __future__ import annotations

import os
import select
import threading
from time import monotonic

_LOOK_EVERY_S = 0.1


class Pipe:
    """What comes through a pipe. FFmpeg's own reading of one cannot be interrupted while nothing comes.

    Args:
        descriptor: File descriptor to read from.
        stop: Once it is set, the stream ends: from there on there is nothing more to read.
        silent_s: It also ends where nothing comes for so long; None waits for ever.
    """

    def __init__(self, descriptor: int, stop: threading.Event, *, silent_s: float | None = None) -> None:
        self._descriptor = descriptor
        self._silent_s = silent_s
        self._stop = stop
        self._ended = False
        self._was_stopped = False

    @property
    def was_stopped(self) -> bool:
        """Whether `stop` ended it, before it was at its own end."""
        return self._was_stopped

    def end(self) -> None:
        """End the stream now, also while another thread waits for data. Idempotent."""
        self._ended = True

    def close(self) -> None:
        """Release what feeds the pipe. Idempotent."""

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, waiting for the first; none at the end."""
        began = monotonic()
        while not (self._ended or self._stop.is_set()):
            if self._silent_s is not None and monotonic() - began > self._silent_s:
                return b""
            ready, _, _ = select.select([self._descriptor], [], [], _LOOK_EVERY_S)
            if ready:
                return os.read(self._descriptor, size)
        self._was_stopped = not self._ended
        return b""
