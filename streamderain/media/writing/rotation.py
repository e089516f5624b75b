"""Rotate and mirror pictures as their display matrix asks, for targets that cannot carry one."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import av
from av.filter import Graph

_SLANT = 0.02
"""Cameras round their matrices; more than this part beside the axes is a real slant."""


def rotation_filters(matrix: Sequence[int]) -> tuple[str, ...] | None:
    """Return the FFmpeg filters that do to a picture what a display matrix asks players to do.

    Args:
        matrix: Nine numbers, as in an mp4; the point (x, y) goes to (ax + cy, bx + dy) with a, b, c, d at
            places 0, 1, 3 and 4.

    Returns:
        Filters in order, none where nothing is asked; None where it is no quarter turn or mirroring.
    """
    a, b, c, d = (matrix[place] for place in (0, 1, 3, 4))
    straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    if max(abs(b), abs(c)) <= _SLANT * straight:
        return ("hflip",) * (a < 0) + ("vflip",) * (d < 0)
    if max(abs(a), abs(d)) <= _SLANT * crossed:
        if b > 0:
            return ("transpose=cclock_flip",) if c > 0 else ("transpose=clock",)
        return ("transpose=clock_flip",) if c < 0 else ("transpose=cclock",)
    return None


def swaps_sides(filters: Sequence[str]) -> bool:
    """Return whether width and height change places."""
    return any(name.startswith("transpose") for name in filters)


class Rotator:
    """Turns pictures of any size and pixel format; the result carries no display matrix any more.

    Args:
        filters: From `rotation_filters`.
    """

    def __init__(self, filters: Sequence[str]) -> None:
        self._filters = tuple(filters)
        self._shape: tuple[int, int, str] | None = None
        self._graph = Graph()

    def rotated(self, picture: av.VideoFrame) -> av.VideoFrame:
        """Give a rotated copy, with the picture's colour tags; the picture itself where nothing is asked."""
        if not self._filters:
            return picture
        shape = (picture.width, picture.height, picture.format.name)
        if shape != self._shape:
            self._shape, self._graph = shape, self._built(picture)
        self._graph.vpush(picture)
        result = self._graph.vpull()
        # The graph is not told the colours, and may unset them.
        result.colorspace, result.color_range = picture.colorspace, picture.color_range
        result.color_primaries, result.color_trc = picture.color_primaries, picture.color_trc
        return result

    def _built(self, picture: av.VideoFrame) -> Graph:
        graph = Graph()
        nodes = [
            graph.add_buffer(
                width=picture.width,
                height=picture.height,
                format=picture.format,
                time_base=picture.time_base or Fraction(1, 1000),
            ),
            # A writer that can tell a rotation (TIFF) would have readers turn the picture again.
            graph.add("sidedata", "mode=delete:type=DISPLAYMATRIX"),
        ]
        for text in self._filters:
            name, _, arguments = text.partition("=")
            nodes.append(graph.add(name, arguments or None))
        graph.link_nodes(*nodes, graph.add("buffersink")).configure()
        return graph
