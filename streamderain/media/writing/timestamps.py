"""Rescale timestamps to a container's clock, and keep them rising."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import av


class TimestampRescaler:
    """Places packets on a container's clock; no two frames ever share a place.

    A container whose clock holds every time of the source exactly leaves all as it is. Where it does not
    (whole milliseconds in Matroska), times are rounded, and a frame that would land on the place of the one
    before it is moved on by one tick.

    Args:
        source: Seconds per tick of the packets.
        target: Seconds per tick of the container.
        strict: Whether the container refuses equal decoding times.
    """

    def __init__(self, source: Fraction, target: Fraction, *, strict: bool = True) -> None:
        self.exact = (source / target).denominator == 1
        self._ratio = source / target
        self._target = target
        self._strict = strict
        self._places: dict[int, int] = {}
        self._last_pts: int | None = None
        self._last_dts: int | None = None

    def note(self, pts: int) -> None:
        """Take the pts of a frame, in order of presentation, before its packet comes."""
        if self.exact:
            return
        place = round(pts * self._ratio)
        if self._last_pts is not None and place <= self._last_pts:
            place = self._last_pts + 1
        self._last_pts = self._places[pts] = place

    def place(self, packet: av.Packet[Any]) -> None:
        """Rewrite the packet's times in ticks of the container."""
        if self.exact or packet.pts is None:
            return
        pts = self._places.pop(packet.pts, round(packet.pts * self._ratio))
        # Rounding keeps order, so dts stays at or before every later pts.
        dts = min(pts, round((packet.pts if packet.dts is None else packet.dts) * self._ratio))
        if self._last_dts is not None:
            dts = max(dts, self._last_dts + self._strict)
        self._last_dts = dts
        packet.duration = round((packet.duration or 0) * self._ratio)
        packet.time_base = self._target
        packet.pts, packet.dts = max(pts, dts), dts


class MonotonicTimestamps:
    """Keeps the decoding times of a copied stream rising, as muxers demand.

    Args:
        strict: Whether the container refuses equal decoding times.
        from_zero: Whether no time may lie before zero.
    """

    def __init__(self, *, strict: bool = True, from_zero: bool = False) -> None:
        self._strict = strict
        self._last: Fraction | None = Fraction(-int(strict)) if from_zero else None

    def place(self, packet: av.Packet[Any], time_base: Fraction) -> None:
        """Rewrite the packet's times in ticks of `time_base` where they would not rise."""
        if packet.dts is None:
            packet.dts = packet.pts
        if packet.dts is None:
            # A cover picture: it has no time, and muxers want one.
            packet.pts = packet.dts = 0
        tick = round(packet.dts * packet.time_base / time_base)
        if self._last is not None and tick < self._last + self._strict:
            tick = int(self._last) + self._strict
            pts = tick if packet.pts is None else max(tick, round(packet.pts * packet.time_base / time_base))
            packet.duration = round((packet.duration or 0) * packet.time_base / time_base)
            packet.time_base = time_base
            packet.pts, packet.dts = pts, tick
        self._last = Fraction(tick)


_TIMECODE = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.])(\d+)")


def later_timecode(text: str, by_s: Fraction, rate_fps: Fraction) -> str:
    """Return the SMPTE time code (ST 12) of a later frame.

    Args:
        text: `HH:MM:SS:FF`; a semicolon or dot before the frames says that numbers are dropped: two at the
            beginning of each minute but every tenth at 29.97 frames/s, four at 59.94. Anything else comes
            back as it is.
        by_s: How much later, in seconds.
        rate_fps: Frames per second.
    """
    match = _TIMECODE.fullmatch(text)
    if match is None or not by_s:
        return text
    hours, minutes, seconds, frames = (int(match[place]) for place in (1, 2, 3, 5))
    a_second = round(rate_fps)
    dropped = a_second // 15 if match[4] != ":" and a_second % 30 == 0 else 0
    all_minutes = 60 * hours + minutes
    number = (60 * all_minutes + seconds) * a_second + frames - dropped * (all_minutes - all_minutes // 10)
    number += round(by_s * rate_fps)
    tens, rest = divmod(number, 600 * a_second - 9 * dropped)
    number += 9 * dropped * tens + dropped * (max(0, rest - dropped) // (60 * a_second - dropped))
    seconds, frames = divmod(number, a_second)
    clock = f"{seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{clock}{match[4]}{frames:0{len(match[5])}}"


def before_zero(packet: av.Packet[Any]) -> bool:
    """Return whether more than half of a packet lies before zero."""
    return packet.pts is not None and packet.pts + (packet.duration or 0) / 2 < 0


@contextmanager
def times_restored(packet: av.Packet[Any]) -> Iterator[None]:
    """Give the packet its stream and times back afterwards: muxing rewrites them, and others share it."""
    stream, time_base = packet.stream, packet.time_base
    times = packet.pts, packet.dts, packet.duration
    try:
        yield
    finally:
        packet.stream, packet.time_base = stream, time_base
        packet.pts, packet.dts, packet.duration = times
