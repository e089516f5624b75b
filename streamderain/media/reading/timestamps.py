"""Repair timestamps of packets and frames where a muxer would refuse them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

BACKWARD_JUMP_S = Fraction(1)
"""Decode times that fall back by more than this began anew, as in files that were joined."""

PAUSE_S = Fraction(1)
"""A step longer than this, and than `PAUSE_STEPS` usual ones, parts what lies before from what follows."""

PAUSE_STEPS = 5


class Timeline:
    """Gives every frame of one stream a time, strictly increasing.

    Args:
        step: Usual distance of two frames, in units of the stream's time base.
        time_base: Seconds per unit.
    """

    def __init__(self, step: Fraction, time_base: Fraction) -> None:
        self.step = step
        self._pause = max(PAUSE_S / time_base, PAUSE_STEPS * step)
        self._last: int | None = None
        self._anchor = Fraction(0)
        self._known = False
        self.repaired = 0
        self.invented = 0

    def place(self, pts: int | None) -> int:
        """Return the time of the next frame, in units of the time base.

        A missing time is counted on from the last one by the frame rate; one that does not increase becomes
        the next possible. Both are counted, but for missing times after known ones: the last frames that
        come out of a decoder often have none.
        """
        if pts is None:
            self._anchor = self._anchor if self._last is None else self._anchor + self.step
            placed = round(self._anchor)
            self.invented += not self._known
        else:
            placed = pts
            self._known = True
        if self._last is not None and placed <= self._last:
            placed = self._last + 1
            self.repaired += 1
        if pts is not None or placed != round(self._anchor):
            self._anchor = Fraction(placed)
        self._last = placed
        return placed

    def is_pause(self, pts: int) -> bool:
        """Return whether a frame at this time would follow the last one only after a pause."""
        return self._last is not None and pts - self._last > self._pause


class Continuity:
    """Carries times on where they begin anew in the middle of a file, for all streams by the same amount."""

    def __init__(self) -> None:
        self._last: dict[int, Fraction] = {}
        self._shift: dict[int, Fraction] = {}
        self._common = Fraction(0)
        self.jumps = 0

    def mend(self, packet: Any) -> None:
        """Shift a packet's times in place where its stream began anew."""
        if packet.dts is None or not packet.time_base:
            return
        stream, base = packet.stream_index, packet.time_base
        raw = packet.dts * base
        shift = self._shift.get(stream, self._common)
        last = self._last.get(stream)
        if last is not None and raw + shift < last - BACKWARD_JUMP_S:
            shift = self._new_shift(raw, last)
        self._shift[stream] = shift
        self._last[stream] = max(raw + shift, last) if last is not None else raw + shift
        if shift:
            units = round(shift / base)
            packet.dts += units
            if packet.pts is not None:
                packet.pts += units

    def _new_shift(self, raw: Fraction, last: Fraction) -> Fraction:
        """Return the shift another stream found for the same jump where it fits, else a new one."""
        if abs(raw + self._common - last) > BACKWARD_JUMP_S:
            self._common = last - raw
            self.jumps += 1
        return self._common
