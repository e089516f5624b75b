"""Keep the encoded packets of a piece in a file, exactly as the encoder gave them.

No container holds every codec's packets with any clock and without change, so this is a plain list of them:
a line of JSON that says whose they are, then for each packet a fixed header and its data. The last record
says how many there are. A file has its name only once it is whole and on the disk; each record
has a checksum, since a disk may forget.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av

from streamderain.errors import MediaError
from streamderain.media.track import CannotBeCut
from streamderain.media.writing.encoder import VideoEncoder
from streamderain.media.writing.packets import duplicate
from streamderain.media.writing.sink import PartialFile

VERSION = 1

_HEADER = struct.Struct("<4sBBqqqI")
"""Mark, stream, flags, pts, dts, duration, bytes of data."""

_CHECK = struct.Struct("<I")
_PACKET, _END = b"pckt", b"end."
_KEYFRAME = 1
_NO_TIME = -(2**63)

_TOLD_ONLY = {"quality_stats"}
"""Kinds of side data that no muxer writes: they tell how the encoder fared."""


class BrokenPiece(MediaError):
    """A piece is not what was written: it has to be made again.

    Attributes:
        number: Which piece it is, from 0; None where nobody knows.
    """

    number: int | None = None


@dataclass(frozen=True, slots=True)
class PieceHead:
    """What a piece says of its packets.

    Attributes:
        time_bases: Seconds per unit of the times of each stream.
        setups: For each stream, a hash of what decoders are told before the first packet.
    """

    time_bases: tuple[Fraction, ...]
    setups: tuple[str, ...]


def head_of(encoders: Sequence[VideoEncoder]) -> PieceHead:
    """Return what pieces of these encoders say of their packets."""
    return PieceHead(
        tuple(Fraction(encoder.stream.codec_context.time_base) for encoder in encoders),
        tuple(_setup(encoder) for encoder in encoders),
    )


def _setup(encoder: VideoEncoder) -> str:
    context = encoder.stream.codec_context
    made_of = context.name.encode() + b"\0" + (context.extradata or b"")
    return hashlib.sha256(made_of).hexdigest()[:32]


class PieceOutlet:
    """Writes the packets of a piece. Everything runs on one thread.

    Args:
        path: Where it lies once it is whole; a file of that name is replaced.
        encoders: Whose packets they are.

    Raises:
        OpenError: The folder cannot be written to.
        OutputFull: The disk is full.
    """

    may_pause = False
    drops = False
    stale_after_s: float | None = None
    lost = 0

    def __init__(self, path: Path, encoders: Sequence[VideoEncoder]) -> None:
        self.name = self.path = str(path)
        self._sink = PartialFile(path, overwrite=True)
        self._numbers = {encoder.stream: number for number, encoder in enumerate(encoders)}
        self._count = 0
        head = head_of(encoders)
        told = {
            "streamderain piece": VERSION,
            "time_bases": [str(base) for base in head.time_bases],
            "setups": head.setups,
        }
        self._write(json.dumps(told).encode() + b"\n")

    @property
    def partial(self) -> str | None:
        """See `Outlet`."""
        return str(self._sink.partial)

    @property
    def worked(self) -> bool:
        """See `Outlet`."""
        return self._count > 0

    @property
    def written_bytes(self) -> int:
        """See `Outlet`."""
        return self._sink.written_bytes

    def duplicate(self, packet: Any) -> Any:
        """See `Outlet`."""
        return duplicate(packet)

    def mux(self, packets: Sequence[Any]) -> None:
        """Write encoded packets.

        Raises:
            OutputFull: The disk is full.
            MediaError: The write failed otherwise.
        """
        for packet in packets:
            self._write(_record(packet, self._numbers[packet.stream]))
            self._count += 1

    def copy(self, packet: Any) -> None:
        """Ignore a copied packet: those of the whole file are copied once."""

    def finish(self) -> None:
        """Complete the piece, bring it to the disk and give it its name.

        Raises:
            OutputFull: The disk is full.
            MediaError: The write failed otherwise.
        """
        self._write(_checked(_HEADER.pack(_END, 0, 0, self._count, 0, 0, 0)))
        self._sink.keep()

    def leave(self) -> str | None:
        """See `Outlet`; half a piece is worth nothing."""
        self._sink.discard()
        return None

    def abort(self) -> None:
        """See `Outlet`."""
        self._sink.discard()

    def _write(self, data: bytes) -> None:
        try:
            self._sink.write(data)
        except OSError:
            self._sink.check()
            raise


def _record(packet: Any, number: int) -> bytes:
    kinds = {side.data_type for side in packet.iter_sidedata()} - _TOLD_ONLY
    if kinds:
        raise CannotBeCut(f"its encoder adds {', '.join(sorted(kinds))} to its packets")
    header = _HEADER.pack(
        _PACKET,
        number,
        _KEYFRAME if packet.is_keyframe else 0,
        _NO_TIME if packet.pts is None else packet.pts,
        _NO_TIME if packet.dts is None else packet.dts,
        packet.duration or 0,
        packet.size,
    )
    return _checked(header + bytes(packet))


def _checked(record: bytes) -> bytes:
    return record + _CHECK.pack(zlib.crc32(record))


class PieceReader:
    """Reads a piece.

    Args:
        path: A file of `PieceOutlet`.

    Attributes:
        head: What it says of its packets.

    Raises:
        BrokenPiece: It is not there, or no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                self.head, self._begin = self._read_head(file)
        except (OSError, ValueError, KeyError) as error:
            raise BrokenPiece(f"the piece {path} cannot be read ({error})") from error

    def packets(self) -> Iterator[tuple[int, av.Packet[Any]]]:
        """Yield the number of each packet's stream, and the packet; its `stream` is not set.

        Raises:
            BrokenPiece: It is not what was written.
        """
        count = 0
        with self._path.open("rb") as file:
            file.seek(self._begin)
            while True:
                header = self._take(file, _HEADER.size)
                mark, number, flags, pts, dts, duration, size = _HEADER.unpack(header)
                if mark not in (_PACKET, _END) or number >= len(self.head.time_bases):
                    raise self._broken()
                data = self._take(file, size)
                self._check(file, header + data)
                if mark == _END:
                    if pts != count:
                        raise self._broken()
                    return
                count += 1
                yield number, _packet(data, flags, pts, dts, duration, self.head.time_bases[number])

    def _read_head(self, file: BinaryIO) -> tuple[PieceHead, int]:
        told = json.loads(file.readline(1 << 16))
        if told["streamderain piece"] != VERSION:
            raise ValueError("it is of another version of streamderain")
        head = PieceHead(tuple(map(Fraction, told["time_bases"])), tuple(told["setups"]))
        return head, file.tell()

    def _take(self, file: BinaryIO, size: int) -> bytes:
        data = file.read(size)
        if len(data) != size:
            raise self._broken()
        return data

    def _check(self, file: BinaryIO, record: bytes) -> None:
        (wanted,) = _CHECK.unpack(self._take(file, _CHECK.size))
        if zlib.crc32(record) != wanted:
            raise self._broken()

    def _broken(self) -> BrokenPiece:
        return BrokenPiece(f"the piece {self._path} is not what was written: the disk lost a part of it")


def _packet(
    data: bytes, flags: int, pts: int, dts: int, duration: int, time_base: Fraction
) -> av.Packet[Any]:
    packet: av.Packet[Any] = av.Packet(data)
    packet.time_base = time_base
    packet.pts = None if pts == _NO_TIME else pts
    packet.dts = None if dts == _NO_TIME else dts
    packet.duration = duration
    packet.is_keyframe = bool(flags & _KEYFRAME)
    return packet
