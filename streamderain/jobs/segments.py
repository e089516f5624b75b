"""Part a file into pieces that are derained one by one, each exactly as it would be in the whole."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from streamderain.frame import Lead
from streamderain.media.reading.piece import Piece
from streamderain.media.reading.scan import StreamScan
from streamderain.media.reading.trim import FINEST_S, TimeRange
from streamderain.media.track import CannotBeCut

_FAR_FRAMES = 32
"""A stream of which fewer pictures come before the one that decoding may begin with is read from its first:
it is as quick, and the file was opened with those already."""


def part(
    streams: Sequence[StreamScan], time_range: TimeRange, *, length_s: Fraction, lead: Lead
) -> list[Piece]:
    """Part a source into pieces of about equal length.

    A piece begins some frames behind a picture that decoding can begin with: these are what its first frames
    are seen beside. So nothing of the piece before is decoded twice but they.

    Args:
        streams: The source's video streams, in order of position.
        time_range: What is derained of it, as `streamderain.media.reading.trim.requested_range` gives it.
        length_s: Least length of a piece, seconds.
        lead: How many frames around a piece decide what becomes of it.

    Returns:
        The pieces, in order; together they hold every frame of the range once.

    Raises:
        CannotBeCut: Nothing of the first stream lies in the range, or it holds nothing to cut at.
    """
    parting = _Parting(streams, time_range, lead)
    pieces = parting.pieces(length_s)
    if len(pieces) < 2:
        raise CannotBeCut(
            f"it has no place to be cut at: no picture that needs no other, {float(length_s):g} s or more "
            "from its beginning and end"
        )
    return pieces


class _Parting:
    def __init__(self, streams: Sequence[StreamScan], time_range: TimeRange, lead: Lead) -> None:
        self._streams, self._range = streams, time_range
        # One more than the window: deinterlacing looks at the frame before.
        self._before = lead.before + 1
        first = streams[0]
        begin = 0 if time_range.start_s is None else _rank(first, time_range.start_s)
        end = len(first.times) if time_range.end_s is None else _rank(first, time_range.end_s)
        if begin >= end:
            raise CannotBeCut("its first video has no picture in what was asked for")
        self._begin, self._end = begin, end
        self._offset_s = Fraction(0) if time_range.start_s is None else first.time_s(begin)

    def pieces(self, length_s: Fraction) -> list[Piece]:
        starts_s = [self._range.start_s, *self._cuts(length_s)]
        ends_s = [*starts_s[1:], self._range.end_s]
        return [
            self._piece(number, TimeRange(start_s, end_s))
            for number, (start_s, end_s) in enumerate(zip(starts_s, ends_s, strict=True))
        ]

    def _cuts(self, length_s: Fraction) -> list[Fraction]:
        first, cuts = self._streams[0], []
        last_s = first.time_s(self._begin)
        end_s = first.time_s(self._end - 1)
        for key in first.keys:
            number = first.rank(int(key) * first.time_base) + self._before
            if number >= self._end:
                break
            time_s = first.time_s(number)
            if number > self._begin and time_s - last_s >= length_s and end_s - time_s >= length_s / 2:
                cuts.append(time_s)
                last_s = time_s
        return cuts

    def _piece(self, number: int, time_range: TimeRange) -> Piece:
        keys: list[int | None] = []
        frames = []
        for stream in self._streams:
            # A start that was asked for is moved to the first frame of the first stream, as without pieces.
            start_s = self._offset_s if number == 0 else time_range.start_s
            first = 0 if time_range.start_s is None or start_s is None else _rank(stream, start_s)
            end = len(stream.times) if time_range.end_s is None else _rank(stream, time_range.end_s)
            frames.append(max(0, end - first))
            keys.append(None if time_range.start_s is None else self._key(stream, first))
        start_s = self._offset_s if number == 0 and time_range.start_s is not None else time_range.start_s
        return Piece(number, TimeRange(start_s, time_range.end_s), self._offset_s, tuple(keys), tuple(frames))

    def _key(self, stream: StreamScan, first: int) -> int | None:
        """Return the last picture that leaves the lead before a frame of that number; None for the first."""
        if first - self._before < _FAR_FRAMES:
            return None
        latest = int(stream.times[first - self._before])
        fitting = stream.keys[stream.keys <= latest]
        if not len(fitting) or stream.rank(int(fitting[-1]) * stream.time_base) < _FAR_FRAMES:
            return None
        return int(fitting[-1])


def _rank(stream: StreamScan, time_s: Fraction) -> int:
    """Return the number of the first frame at or after a time, as `Trim` decides it."""
    return stream.rank(time_s, slack_s=min(stream.time_base / 2, FINEST_S))
