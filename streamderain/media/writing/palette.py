"""Reduce pictures to palettes of 256 colours, for GIF."""

from __future__ import annotations

from fractions import Fraction

import av
from av.filter import Graph

from streamderain.media.pixels import converted

PALETTE_FORMAT = "pal8"

_WORKING_FORMAT = "bgra"


class Palette:
    """Reduces pictures to a palette of their own by FFmpeg's palettegen and paletteuse, with error diffusion.

    Transparency is kept where it is full; one graph serves pictures of one size.
    """

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._size = (0, 0)

    def reduced(self, picture: av.VideoFrame) -> av.VideoFrame:
        """Return a copy of a picture of any format as `pal8`."""
        size = picture.width, picture.height
        if self._graph is None or size != self._size:
            self._graph, self._size = _built(*size), size
        pts, time_base, duration = picture.pts, picture.time_base, picture.duration
        coloured = converted(picture, _WORKING_FORMAT)
        self._graph.vpush(coloured)
        result = self._graph.vpull()
        result.pts, result.time_base, result.duration = pts, time_base, duration
        return result


def _built(width: int, height: int) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=width, height=height, format=av.VideoFormat(_WORKING_FORMAT), time_base=Fraction(1, 1000)
    )
    split = graph.add("split")
    generate = graph.add("palettegen", "stats_mode=single")
    use = graph.add("paletteuse", "new=1:dither=sierra2_4a")
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(generate, 0, 0)
    split.link_to(use, 1, 0)
    generate.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph
