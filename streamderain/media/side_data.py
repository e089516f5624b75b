"""Read a decoded frame's side data, such as its display matrix."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import av
from av.filter import Graph
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideType


def side_data(frame: av.VideoFrame) -> dict[SideType, bytes]:
    """Return a frame's side data by kind, less colour profiles; none where PyAV cannot name a kind (EXIF)."""
    frame = _without_profile(frame)
    try:
        return {side.type: bytes(side) for side in cast("Iterator[SideData]", iter(frame.side_data))}
    except ValueError:
        return {}


def _without_profile(frame: av.VideoFrame) -> av.VideoFrame:
    """Return the frame without its colour profile.

    The profile of a PNG has a name, which PyAV frees with its list of side data, and FFmpeg once more with
    the frame: the process would crash.
    """
    # PyAV < 19: needed as long as it frees the name.
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base or Fraction(1, 1000),
    )
    graph.link_nodes(
        source, graph.add("sidedata", "mode=delete:type=ICC_PROFILE"), graph.add("buffersink")
    ).configure()
    graph.vpush(frame)
    return graph.vpull()


def display_matrix(frame: av.VideoFrame) -> list[int] | None:
    """Return the nine numbers that say how players turn or mirror the picture; None where they do not."""
    raw = side_data(frame).get(SideType.DISPLAYMATRIX)
    if raw is not None:
        return list(struct.unpack("9i", raw[:36]))
    if not frame.rotation:
        return None
    # PyAV < 19: beside side data that it has no name for (EXIF) only the angle can be read.
    angle = math.radians(frame.rotation)
    cosine, sine = round(math.cos(angle) * (1 << 16)), round(math.sin(angle) * (1 << 16))
    return [cosine, -sine, 0, sine, cosine, 0, 0, 0, 1 << 30]
