"""Trim a source (`-ss`, `-t`) to the frame, with the sound in sync."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from streamderain.frame import NO_LEAD, Frame, Lead

HELD_AT_MOST = 48
"""Frames of other streams that wait for the first stream's first frame; then they wait no longer."""

FINEST_S = Fraction(1, 2000)

_SHOWN = ("subtitle", "data")
"""Kinds of streams whose packets hold for as long as they last: texts, positions, time codes."""

Packet = Any
Item = Frame | Packet


@dataclass(frozen=True, slots=True)
class TimeRange:
    """A piece of a source, in seconds of the source's own clock.

    Attributes:
        start_s: Where it begins; None for the beginning, with all times left as they are.
        end_s: Where it ends; None for the end.
    """

    start_s: Fraction | None
    end_s: Fraction | None


def requested_range(start_s: float, duration_s: float | None, *, begin_s: Fraction) -> TimeRange:
    """Return the piece that `-ss` and `-t` ask for in a source whose first timestamp is `begin_s`."""
    start = _exact(start_s)
    end = None if duration_s is None else begin_s + start + _exact(duration_s)
    return TimeRange(begin_s + start if start else None, end)


def _exact(seconds: float) -> Fraction:
    """Return the simple fraction a float stands for: 0.1 + 0.2 is 3/10."""
    return Fraction(seconds).limit_denominator(1_000_000)


class Trim:
    """Passes on the items inside a piece, their times moved so that the result starts at zero.

    The first kept frame of the first video stream becomes zero. In every other stream the same time is taken
    off, rounded once to that stream's own units, so that no two times can fall together.

    Args:
        time_range: The piece.
        streams: How many video streams there are.
        lead: How many frames before and behind the piece are passed on as well, marked as not to be written.
        offset_s: What is taken off all times, where that is known beforehand.

    Attributes:
        time_range: The piece.
        offset_s: What is taken off all times; None until the first kept frame is known.
        start_s: Where the piece begins: with the first kept frame, once that is known and not said before.
    """

    def __init__(
        self,
        time_range: TimeRange,
        *,
        streams: int,
        lead: Lead = NO_LEAD,
        offset_s: Fraction | None = None,
    ) -> None:
        self.time_range = time_range
        self.offset_s = Fraction(0) if time_range.start_s is None and offset_s is None else offset_s
        self.start_s = time_range.start_s
        self._done_video: set[int] = set()
        self._done_copied: set[int] = set()
        self._lead = lead
        self._lead_in: list[deque[Frame]] = [deque(maxlen=lead.before) for _ in range(streams)]
        self._lead_out = [0] * streams
        self._begun = [time_range.start_s is None] * streams
        self._held: deque[Item] = deque()
        self._held_frames = 0

    def video(self, frame: Frame) -> Iterator[Item]:
        """Take a frame; yield what is now known to belong to the piece, in order."""
        time_s = frame.pts * frame.time_base
        start_s = self.start_s
        if start_s is not None and not self._begun[frame.stream] and time_s < start_s - _slack(frame):
            self._lead_in[frame.stream].append(frame)
        elif self.time_range.end_s is not None and time_s >= self.time_range.end_s - _slack(frame):
            yield from self._after_end(frame)
        elif self.offset_s is None and frame.stream != 0 and self._held_frames < HELD_AT_MOST:
            self._held.append(frame)
            self._held_frames += 1
        else:
            if self.offset_s is None:
                self.offset_s = self.start_s = time_s
                yield from self._release()
            yield from self._begin(frame)

    def _after_end(self, frame: Frame) -> Iterator[Frame]:
        """Pass on the frames right behind the piece, which decide its last ones."""
        wanted = self._lead.after if self._begun[frame.stream] and self.offset_s is not None else 0
        if self._lead_out[frame.stream] < wanted:
            frame.emit = False
            yield self._shifted(frame)
        self._lead_out[frame.stream] += 1
        if self._lead_out[frame.stream] >= wanted:
            self._done_video.add(frame.stream)

    def packet(self, packet: Packet) -> Iterator[Item]:
        """Take a packet of a copied stream; yield what is now known to belong to the piece."""
        if self.time_range.start_s is None and self.time_range.end_s is None:
            yield packet
        elif self.offset_s is None:
            if self._end_s(packet) > (self.time_range.start_s or 0):
                self._held.append(packet)
        elif self._inside(packet):
            yield self._moved(packet)

    def finish(self) -> Iterator[Item]:
        """Yield what waited for a first stream that has nothing inside the piece."""
        if self.offset_s is None and self._held_frames:
            first = next(item for item in self._held if isinstance(item, Frame))
            self.offset_s = self.start_s = first.pts * first.time_base
            yield from self._release()

    def _release(self) -> Iterator[Item]:
        held, self._held = self._held, deque()
        for item in held:
            yield from self.video(item) if isinstance(item, Frame) else self.packet(item)

    def _begin(self, frame: Frame) -> Iterator[Frame]:
        if not self._begun[frame.stream]:
            self._begun[frame.stream] = True
            for lead in self._lead_in[frame.stream]:
                lead.emit = False
                yield self._shifted(lead)
            self._lead_in[frame.stream].clear()
        yield self._shifted(frame)

    def _shifted(self, frame: Frame) -> Frame:
        if self.offset_s:
            frame.pts -= round(self.offset_s / frame.time_base)
            frame.picture.pts = frame.pts
        return frame

    def _inside(self, packet: Packet) -> bool:
        """Return whether a packet belongs to the piece; what lasts a while also where only its end does."""
        if packet.pts is None:
            return packet.dts is None or packet.dts * packet.time_base >= (self.offset_s or 0)
        time_s = packet.pts * packet.time_base
        if self.time_range.end_s is not None and time_s >= self.time_range.end_s:
            self._done_copied.add(packet.stream_index)
            return False
        if self.time_range.start_s is None:
            return True
        begun_before = packet.stream.type in _SHOWN and self._end_s(packet) > (self.offset_s or 0)
        return time_s >= (self.offset_s or 0) or bool(begun_before)

    def is_video_done(self, position: int) -> bool:
        """Return whether nothing more is wanted of a video stream, by position."""
        return position in self._done_video

    def is_copied_done(self, stream_index: int) -> bool:
        """Return whether a copied stream, by index in the container, has reached the end of the piece."""
        return stream_index in self._done_copied

    @staticmethod
    def _end_s(packet: Packet) -> Fraction:
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None:
            return Fraction(0)
        return Fraction((time + (packet.duration or 0)) * packet.time_base)

    def _moved(self, packet: Packet) -> Packet:
        units = round((self.offset_s or Fraction(0)) / packet.time_base)
        if not units:
            return packet
        if packet.pts is not None:
            packet.pts -= units
        if packet.dts is not None:
            packet.dts -= units
        if packet.pts is not None and packet.pts < 0 and packet.stream.type in _SHOWN:
            packet.duration = max(0, (packet.duration or 0) + packet.pts)
            packet.pts = packet.dts = 0
        return packet


def _slack(frame: Frame) -> Fraction:
    """Return how far a coarse time base may have rounded the frame's time away from what was asked for."""
    return min(frame.time_base / 2, FINEST_S)
