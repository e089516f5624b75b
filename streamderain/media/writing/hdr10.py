"""Read HDR10 static metadata from a frame and pass it to the encoders that can write it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction

import av
from av.sidedata.sidedata import Type as SideType

from streamderain.media.side_data import side_data


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
    """Return the static HDR metadata of a frame; None where it has none."""
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
    """Add HDR10 static metadata to encoder options, which is the only way encoders take it."""
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
