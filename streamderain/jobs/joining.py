"""Join the packets of finished pieces with what is copied from the source, without decoding anything."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from streamderain.events import TargetResult
from streamderain.media.reading.file import FileSource
from streamderain.media.writing.encoder import VideoEncoder
from streamderain.media.writing.outputs import MediaOutput, packet_path
from streamderain.media.writing.piece_file import BrokenPiece, PieceHead, PieceReader, head_of
from streamderain.pipeline.protocols import Outlet

Packet = Any

_ASKED_EVERY = 256
"""So many packets are written between two looks whether the run was stopped."""


def join(
    source: FileSource,
    outputs: Sequence[MediaOutput],
    pieces: Sequence[Path],
    goes_on: Callable[[], bool],
    hold: Callable[[str], None],
) -> tuple[TargetResult, ...] | None:
    """Write the targets.

    Args:
        source: Open at its beginning, or where the run begins; gives what is copied.
        outputs: Open; their encoders encoded nothing, they tell of the streams.
        pieces: The pieces in order; see `packet_path`.
        goes_on: Asked now and then; where it says no, what is written is given up.
        hold: Told the paths of all that is written, before any of it gets its name.

    Returns:
        What became of each target; None where it was given up.

    Raises:
        BrokenPiece: A piece is not what was written; its `number` tells which.
        MediaError: A target cannot be written. None is left half.
    """
    outlets = [outlet for output in outputs for outlet in output.outlets]
    try:
        groups = [_Group(output, number, pieces) for number, output in enumerate(outputs)]
        for count, packet in enumerate(source.copied_packets()):
            if count % _ASKED_EVERY == 0 and not goes_on():
                _abort(outlets)
                return None
            for group in groups:
                group.write_until(_time_s(packet))
            for number, outlet in enumerate(outlets):
                outlet.copy(packet if number == len(outlets) - 1 else outlet.duplicate(packet))
        for group in groups:
            while group.write_until(None, at_most=_ASKED_EVERY):
                if not goes_on():
                    _abort(outlets)
                    return None
        for outlet in outlets:
            if outlet.partial is not None:
                hold(outlet.partial)
        for outlet in outlets:
            outlet.finish()
    except BaseException:
        _abort(outlets)
        raise
    return tuple(TargetResult(outlet.name, outlet.path, "whole") for outlet in outlets)


def _abort(outlets: Sequence[Outlet]) -> None:
    for outlet in outlets:
        outlet.abort()


def _time_s(packet: Packet) -> Fraction | None:
    stamp = packet.dts if packet.dts is not None else packet.pts
    return None if stamp is None or not packet.time_base else stamp * packet.time_base


class _Group:
    """The packets of one encode on their way into its targets."""

    def __init__(self, output: MediaOutput, number: int, pieces: Sequence[Path]) -> None:
        self._outlets = output.outlets
        self._packets = _all_packets(output.encoders, number, pieces)
        self._next = next(self._packets, None)

    def write_until(self, time_s: Fraction | None, *, at_most: int | None = None) -> bool:
        """Write what is decoded before a time in seconds, or all; return whether anything is left."""
        written = 0
        while self._next is not None and written != at_most:
            packet = self._next
            if time_s is not None and (_time_s(packet) or Fraction(0)) > time_s:
                return True
            for number, outlet in enumerate(self._outlets):
                last = number == len(self._outlets) - 1
                outlet.mux([packet if last else outlet.duplicate(packet)])
            self._next = next(self._packets, None)
            written += 1
        return self._next is not None


def _all_packets(encoders: Sequence[VideoEncoder], group: int, pieces: Sequence[Path]) -> Iterator[Packet]:
    """Yield the packets of all pieces in order of decoding, told to those who listen to the encoders."""
    order = [_DecodingOrder() for _ in encoders]
    head = head_of(encoders)
    for number, piece in enumerate(pieces):
        try:
            by_stream = _read(packet_path(piece, group), encoders, head)
        except BrokenPiece as error:
            error.number = number
            raise
        for encoder, packets, placed in zip(encoders, by_stream, order, strict=True):
            for pts in sorted(packet.pts for packet in packets if packet.pts is not None):
                for listener in encoder.listeners:
                    listener(pts)
            placed.place(packets)
        yield from heapq.merge(*by_stream, key=lambda packet: _time_s(packet) or Fraction(0))


def _read(path: Path, encoders: Sequence[VideoEncoder], head: PieceHead) -> list[list[Packet]]:
    """Return the packets of one piece, by stream."""
    reader = PieceReader(path)
    if reader.head != head:
        raise BrokenPiece(f"the piece {path} was encoded in another way than this version would")
    by_stream: list[list[Packet]] = [[] for _ in encoders]
    for stream, packet in reader.packets():
        packet.stream = encoders[stream].stream
        by_stream[stream].append(packet)
    return by_stream


@dataclass(slots=True)
class _DecodingOrder:
    """Keeps the decoding times of one stream rising from piece to piece.

    Each encoder begins some frames before its first picture is shown, where the piece before still decodes:
    with equal steps these times meet exactly, with others they may overlap. Then the first ones of the piece
    wait until those before are decoded, which is still before they are shown: no picture of the piece before
    is shown later than the first of this one.
    """

    last: int | None = None

    def place(self, packets: Sequence[Packet]) -> None:
        """Set decoding times of a piece in place, in units of the stream."""
        for packet in packets:
            if packet.dts is None:
                continue
            if self.last is not None and packet.dts <= self.last:
                packet.dts = self.last + 1
            self.last = packet.dts
