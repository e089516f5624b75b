"""Deinterlace frames."""

from __future__ import annotations

from fractions import Fraction

import av
from av.filter import Graph


class Deinterlacer:
    """FFmpeg's bwdif, one frame out for each frame in, in order; progressive frames pass unchanged.

    It needs the frame after, so each comes out when the next goes in. Times are not taken from the filter,
    which counts in other units: the caller keeps them.
    """

    def __init__(self, frame: av.VideoFrame, threads: int) -> None:
        self._graph = Graph()
        self._graph.threads = threads
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
        )
        bwdif = self._graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        self._graph.link_nodes(source, bwdif, self._graph.add("buffersink")).configure()
        self._count = 0

    def push(self, frame: av.VideoFrame | None) -> list[av.VideoFrame]:
        """Give a frame, or None after the last; return those that became ready."""
        if frame is not None:
            frame.pts, frame.time_base = self._count, Fraction(1, 1000)
            self._count += 1
        self._graph.vpush(frame)
        ready = []
        while True:
            try:
                ready.append(self._graph.vpull())
            except (av.error.BlockingIOError, av.error.EOFError):
                return ready
