"""HDR10 static metadata: read off a frame, given to the encoders that can write it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
from av.filter import Graph
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideType


def side_data(frame: av.VideoFrame) -> dict[SideType, bytes]:
    """A frame's side data by kind, but colour profiles; empty where PyAV has no name for a kind (EXIF)."""
    frame = _without_profile(frame)
    try:
        return {side.type: bytes(side) for side in cast("Iterator[SideData]", iter(frame.side_data))}
    except ValueError:
        return {}


def _without_profile(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame without its colour profile.

    The profile of a PNG has a name, which PyAV frees with its list of side data and FFmpeg with the frame
    once
    more: the process would crash (PyAV 18.1).
    """
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


@dataclass(frozen=True)
class Hdr10:
    """Static HDR metadata.

    Attributes:
        mastering: Chromaticities of R, G, B and white (x, y) in 1/50000, then lowest and highest luminance
            in 1/10000 cd/m2; empty when unknown.
        light: Maximum content and frame-average light level in cd/m2; None when unknown.
    """

    mastering: tuple[int, ...] = ()
    light: tuple[int, int] | None = None


def hdr10_of(frame: av.VideoFrame) -> Hdr10 | None:
    """Static HDR metadata of a frame; None where it has none."""
    data = side_data(frame)
    mastering: tuple[int, ...] = ()
    if (raw := data.get(SideType.MASTERING_DISPLAY_METADATA)) is not None:
        numbers = struct.unpack("22i", raw[:88])
        ratios = [Fraction(n, d or 1) for n, d in zip(numbers[0:20:2], numbers[1:20:2], strict=True)]
        if numbers[20] and numbers[21]:
            scales = [50000] * 8 + [10000] * 2
            mastering = tuple(round(r * s) for r, s in zip(ratios, scales, strict=True))
    light = None
    if (raw := data.get(SideType.CONTENT_LIGHT_LEVEL)) is not None:
        light = struct.unpack("2I", raw[:8])
    return Hdr10(mastering, light) if mastering or light else None


def with_hdr10(
    codec: str, options: tuple[tuple[str, str], ...], hdr: Hdr10 | None
) -> tuple[tuple[str, str], ...]:
    """Adds HDR10 static metadata to encoder options, which is the only way encoders take it."""
    if hdr is None or codec not in ("libx265", "libsvtav1"):
        return options
    parts = []
    if hdr.mastering:
        rx, ry, gx, gy, bx, by, wx, wy, low, high = hdr.mastering
        if codec == "libx265":
            display = f"G({gx},{gy})B({bx},{by})R({rx},{ry})WP({wx},{wy})L({high},{low})"
            parts.append(f"master-display={display}")
        else:
            g, b, r, w = ((x / 50000, y / 50000) for x, y in ((gx, gy), (bx, by), (rx, ry), (wx, wy)))
            points = "".join(
                f"{n}({x:.5f},{y:.5f})" for n, (x, y) in (("G", g), ("B", b), ("R", r), ("WP", w))
            )
            parts.append(f"mastering-display={points}L({high / 10000:.4f},{low / 10000:.4f})")
    if hdr.light is not None:
        name = "max-cll" if codec == "libx265" else "content-light"
        parts.append(f"{name}={hdr.light[0]},{hdr.light[1]}")
    key = "x265-params" if codec == "libx265" else "svtav1-params"
    given = dict(options)
    given[key] = ":".join([*filter(None, [given.get(key)]), *parts])
    return tuple(sorted(given.items()))
