"""Drive a session from one thread, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from streamderain.closable import Closable
from streamderain.frame import Geometry, Planes
from streamderain.options import EngineOptions
from streamderain.pipeline.cuts import CutDetector
from streamderain.runtime.base import EndOfSession, Engine, SessionOptions

IN_FLIGHT = 3
"""Frames pushed before the first one is popped: one of look-ahead, two to keep the engine busy."""


class InlineSession(Closable):
    """One session driven from one thread: pushes until enough are in flight, then pops one per push."""

    def __init__(self, engine: Engine, geometry: Geometry, options: EngineOptions | None = None) -> None:
        wanted = SessionOptions.of(options or EngineOptions(), depth=IN_FLIGHT)
        self._session = engine.session(geometry, wanted)
        self._cuts = CutDetector(geometry)
        self._in_flight = 0

    def close(self) -> None:
        """Close the session."""
        self._session.close()

    def push(self, planes: Planes, token: Any, *, cut: bool = False, emit: bool = True) -> Iterator[Any]:
        """Give a frame; yield at most one (token, planes)."""
        cut = self._cuts.is_cut(planes[0]) or cut
        self._session.push(planes, token, cut=cut, emit=emit)
        self._in_flight += emit
        if self._in_flight == IN_FLIGHT:
            self._in_flight -= 1
            yield self._session.pop()

    def drain(self) -> Iterator[Any]:
        """Yield what is left."""
        self._session.flush()
        while True:
            try:
                yield self._session.pop()
            except EndOfSession:
                return
