"""Demux an open container: packets in order, decoded or copied."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from time import monotonic
from typing import Any, cast

import av
from av.stream import Disposition
from av.video.frame import PictureType

from streamderain.addresses import display_name
from streamderain.errors import UnsupportedFormat
from streamderain.media.reading.container import is_pipe, no_video, nothing_decoded, open_container, pipe_of
from streamderain.media.reading.damage import Damage
from streamderain.media.reading.decoder import VideoDecoder, decoder_threads
from streamderain.media.reading.timestamps import Continuity
from streamderain.media.reading.trim import Item, Trim
from streamderain.media.track import CannotBeCut
from streamderain.options import ReadOptions

LOOK_AHEAD_BYTES = 64 << 20
"""Compressed data kept while each stream's first picture is sought; one without is left out then."""

READ_ERRORS_AT_MOST = 8
"""Read errors in a row, without a packet between them, after which the source counts as ended."""

OVERRUN_S = Fraction(10)
"""How far past the end of a time_range the slowest stream is waited for."""

COPIED = ("audio", "subtitle", "data", "attachment")

Packet = Any


class TooLate(Exception):
    """Reading began behind the picture that decoding was to begin with."""


@dataclass(slots=True)
class _Read:
    """What was read ahead: a packet, or the end of a stream, with its pictures where already decoded."""

    stream_index: int
    packet: Packet | None
    pictures: list[av.VideoFrame] | None


def is_cover(stream: Any) -> bool:
    """Return whether a video stream is an attached picture rather than a video."""
    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


class Demuxer:
    """An open container being read from front to back.

    Args:
        path: What was opened.
        options: How to read it.
        stop: Once it is set, a pipe ends, and so does what has a limit of patience.
        patience_s: The longest time without a picture, after which a live connection ends, as it does at the
            first read error; None for files, which are read as far as anything comes.

    Attributes:
        decodes: Whether `items` gives frames; what is copied comes all the same.
        copies: Whether it gives packets to copy.
        was_ended: Whether `end` ended it, before its own end.

    Raises:
        MediaError: It cannot be opened, or holds no video that can be decoded.
    """

    def __init__(
        self, path: str, options: ReadOptions, stop: threading.Event, patience_s: float | None = None
    ) -> None:
        self.path = path
        self._stop, self._patience_s = stop, patience_s
        self._picture_at = monotonic()
        self._pipe = pipe_of(path, stop)
        self.was_ended = False
        self.decodes = self.copies = True
        self._keys: dict[int, int] = {}
        self._unseen: set[int] = set()
        try:
            self.container = open_container(path, self._pipe, options)
        except BaseException:
            self._close_pipe()
            raise
        self.damage = Damage()
        self.warnings: list[str] = []
        self.repaired_packets = 0
        self._options = options
        self._ahead: deque[_Read] = deque()
        self._packets = self._demux()
        self._ended = False
        self._last_dts: dict[int, int] = {}
        self.ends_s: dict[int, Fraction] = {}
        self.continuity = Continuity()
        self.was_moved = False
        try:
            self.decoders = self._make_decoders()
            self.firsts = self._look_ahead()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the container, and what feeds it. Idempotent."""
        self.container.close()
        self._close_pipe()

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            self._pipe.close()

    def _make_decoders(self) -> list[VideoDecoder]:
        streams = [stream for stream in self.container.streams.video if not is_cover(stream)]
        if not streams:
            raise no_video(self.path, self.container)
        if any(stream.disposition & Disposition.dependent for stream in streams):
            raise UnsupportedFormat(
                f"{display_name(self.path)} is made of tiles (HEIC); convert it to PNG or JPEG first"
            )
        decodable = [stream for stream in streams if stream.codec_context is not None]
        self.warnings += [
            f"video stream {stream.index} is in a codec that FFmpeg has no decoder for: it is left out"
            for stream in streams
            if stream.codec_context is None
        ]
        for stream in decodable:
            stream.codec_context.thread_count = decoder_threads()
            # Threads that share a picture delay nothing; those that take one each hold all of theirs back.
            stream.thread_type = cast(Any, "AUTO" if self._patience_s is None else "SLICE")
        return [self._decoder(stream, position) for position, stream in enumerate(decodable)]

    def _decoder(self, stream: av.VideoStream, position: int) -> VideoDecoder:
        return VideoDecoder(
            stream,
            position=position,
            name=display_name(self.path),
            damage=self.damage,
            deinterlace=self._options.deinterlace,
            threads=decoder_threads(),
            clean_only=self._patience_s is not None,
        )

    def _look_ahead(self) -> dict[int, av.VideoFrame]:
        """Decode until every video stream has given a picture; keep what was read for `items`.

        Returns:
            The first picture of each video stream, by stream index.
        """
        decoders = {decoder.stream.index: decoder for decoder in self.decoders}
        firsts: dict[int, av.VideoFrame] = {}
        encrypted = False
        size = 0
        for packet in self._packets:
            index = packet.stream_index
            decoder = decoders.get(index)
            waiting = decoder is not None and index not in firsts
            encrypted = encrypted or (waiting and packet.has_sidedata("encryption_info"))
            if encrypted:
                break
            pictures = decoder.decode(packet) if decoder is not None and waiting else None
            if pictures:
                firsts[index] = pictures[0]
            self._ahead.append(_Read(index, packet, pictures))
            size += packet.size
            if len(firsts) == len(decoders) or size > LOOK_AHEAD_BYTES:
                break
        else:
            self._ended = True
        if self._ended:
            for index, decoder in decoders.items():
                if index not in firsts and (pictures := decoder.decode(None)):
                    firsts[index] = pictures[0]
                    self._ahead.append(_Read(index, None, pictures))
        if not firsts:
            raise nothing_decoded(self.path, self.container, encrypted=encrypted)
        self._leave_out(firsts)
        return firsts

    def _leave_out(self, firsts: dict[int, av.VideoFrame]) -> None:
        """Drop video streams that gave no picture, and close ranks."""
        for decoder in [decoder for decoder in self.decoders if decoder.stream.index not in firsts]:
            self.warnings.append(
                f"video {decoder.position} ({decoder.stream.codec_context.name}) gave no picture and is left "
                "out"
            )
            self.decoders.remove(decoder)
        for position, decoder in enumerate(self.decoders):
            decoder.position = position

    @property
    def ahead(self) -> list[Packet]:
        """Packets that were read ahead."""
        return [read.packet for read in self._ahead if read.packet is not None]

    @property
    def was_stopped(self) -> bool:
        """Whether `stop` ended it, before its own end."""
        return self._pipe is not None and self._pipe.was_stopped

    def end(self) -> bool:
        """End a pipe that brings nothing more; return whether the source is one."""
        self.was_ended = self._pipe is not None
        if self._pipe is not None:
            self._pipe.end()
        return self.was_ended

    def be_patient(self, patience_s: float) -> None:
        """Read as a live connection from now on; see `patience_s` of the class."""
        self._patience_s = patience_s

    def seek(self, to_s: Fraction) -> None:
        """Go to a keyframe at or before a time; everything read so far is forgotten.

        Raises:
            FFmpegError: The container cannot.
        """
        decoder = self.decoders[0]
        self.container.seek(int(to_s / decoder.time_base), stream=decoder.stream)
        self._packets.close()
        self._packets = self._demux()
        self._ahead.clear()
        self._ended = False
        self.damage = Damage()
        self.continuity = Continuity()
        self.was_moved = True
        self._last_dts.clear()
        self.decoders = [self._decoder(decoder.stream, decoder.position) for decoder in self.decoders]

    def begin_at(self, keys: Sequence[int | None]) -> None:
        """Decode each video stream from a picture on that needs no other; what comes before is passed over.

        To be called after `seek`, or when nothing was read yet; `items` raises `TooLate` where such a picture
        does not follow, and `CannotBeCut` where it needs others after all.

        Args:
            keys: Their presentation times, in order of position; None begins at the first packet.
        """
        marks = zip(self.decoders, keys, strict=True)
        self._keys = {decoder.stream.index: key for decoder, key in marks if key is not None}
        self._unseen = set(self._keys)

    def items(self, trim: Trim) -> Iterator[Item]:
        """Yield frames and packets to copy, in the order of the container, until the end or the piece's."""
        by_index = {decoder.stream.index: decoder for decoder in self.decoders}
        for read in self._reads():
            if read.packet is not None and self._is_over(read.packet, trim):
                break
            decoder = by_index.get(read.stream_index)
            if decoder is not None:
                yield from self._decoded(read, decoder, trim)
            elif read.packet is not None and self.copies:
                yield from self._copied(read.packet, trim)
        for decoder in self.decoders if self.decodes else ():
            yield from self._drained(decoder, trim)
        yield from trim.finish()

    def _decoded(self, read: _Read, decoder: VideoDecoder, trim: Trim) -> Iterator[Item]:
        if read.packet is not None:
            self._note_end(read.packet)
            decoder.packets += not self.decodes
        if not self.decodes or trim.is_video_done(decoder.position):
            return
        if read.packet is not None and self._is_before_key(read.packet, decoder):
            return
        pictures = decoder.decode(read.packet) if read.pictures is None else read.pictures
        yield from self._accept(decoder, pictures, trim)

    def _drained(self, decoder: VideoDecoder, trim: Trim) -> Iterator[Item]:
        """Yield what a stream's decoder and deinterlacer still hold."""
        if not trim.is_video_done(decoder.position):
            yield from self._accept(decoder, decoder.decode(None), trim)
        if not trim.is_video_done(decoder.position):
            for frame in decoder.finish():
                yield from trim.video(frame)

    def _accept(self, decoder: VideoDecoder, pictures: list[av.VideoFrame], trim: Trim) -> Iterator[Item]:
        if pictures:
            self._picture_at = monotonic()
        for picture in pictures:
            if not self._is_after_key(picture, decoder):
                continue
            for frame in decoder.accept(picture):
                yield from trim.video(frame)

    def _is_before_key(self, packet: Packet, decoder: VideoDecoder) -> bool:
        """Return whether a packet comes before the one that decoding begins with."""
        index = packet.stream_index
        if index not in self._unseen:
            return False
        key = self._keys[index]
        if packet.pts == key and packet.is_keyframe:
            self._unseen.discard(index)
            decoder.stream.codec_context.flush_buffers()
            return False
        # Some containers tell no decoding times; then the next such picture tells.
        decoded = packet.pts if packet.is_keyframe else packet.dts
        if decoded is not None and decoded > key:
            raise TooLate
        return True

    def _is_after_key(self, picture: av.VideoFrame, decoder: VideoDecoder) -> bool:
        """Return whether a picture is the one that decoding begins with, or shown after it.

        Those that are shown before it and stored behind it lean on pictures that were not decoded.
        """
        index = decoder.stream.index
        key = self._keys.get(index)
        if key is None:
            return True
        if picture.pts is None or picture.pts < key:
            return False
        if picture.pict_type != PictureType.I:
            raise CannotBeCut(
                f"its picture at {float(key * decoder.time_base):.3f} s is marked as one that decoding can "
                "begin with, and leans on others"
            )
        del self._keys[index]
        decoder.forget_before(key)
        return True

    def _reads(self) -> Iterator[_Read]:
        while self._ahead:
            yield self._ahead.popleft()
        for packet in self._packets:
            yield _Read(packet.stream_index, packet, None)
        self._ended = True

    @property
    def reached_end(self) -> bool:
        """Whether the container was read to its end."""
        return self._ended and not self._ahead

    def _is_over(self, packet: Packet, trim: Trim) -> bool:
        """Return whether nothing that is still to come belongs to the piece."""
        end_s = trim.time_range.end_s
        if end_s is None or packet.dts is None:
            return False
        if packet.dts * packet.time_base > end_s + OVERRUN_S:
            return True
        sounds = self.container.streams.audio
        decoders_done = all(trim.is_video_done(decoder.position) for decoder in self.decoders)
        return decoders_done and all(
            trim.is_copied_done(s.index) or s.index not in self._last_dts for s in sounds
        )

    def _copied(self, packet: Packet, trim: Trim) -> Iterator[Item]:
        stream = packet.stream
        if stream.type == "video":
            if is_cover(stream):
                packet.pts = packet.dts = 0
                yield packet
            return
        if stream.type not in COPIED or not self._with_times(packet):
            return
        self._note_end(packet)
        yield from trim.packet(packet)

    def _with_times(self, packet: Packet) -> bool:
        """Make a copied packet's times acceptable to a muxer; return whether it has any."""
        kind, index = packet.stream.type, packet.stream_index
        last = self._last_dts.get(index)
        if packet.dts is None:
            packet.dts = packet.pts if packet.pts is not None else last
        if packet.dts is None:
            return False
        if packet.pts is None:
            packet.pts = packet.dts
        least = None if last is None else last + (1 if kind == "audio" else 0)
        if least is not None and packet.dts < least:
            packet.dts = least
            self.repaired_packets += 1
        packet.pts = max(packet.pts, packet.dts)
        self._last_dts[index] = packet.dts
        return True

    def _has_no_patience_left(self) -> bool:
        if self._patience_s is None:
            return False
        return self._stop.is_set() or monotonic() - self._picture_at > self._patience_s

    def _note_end(self, packet: Packet) -> None:
        if packet.pts is not None:
            end_s = (packet.pts + (packet.duration or 0)) * packet.time_base
            index = packet.stream_index
            self.ends_s[index] = max(self.ends_s.get(index, end_s), end_s)

    def _demux(self) -> Generator[Packet]:
        """Yield packets that hold data; go on after read errors as long as anything comes."""
        errors = 0
        while True:
            try:
                for packet in self.container.demux():
                    if packet.size:
                        errors = 0
                        self.continuity.mend(packet)
                        yield packet
                    if self._has_no_patience_left():
                        return
                return
            except IndexError:
                # PyAV < 19: after the last packet it stumbles over a stream that FFmpeg found mid-file.
                return
            except (av.error.FFmpegError, OSError) as error:
                errors += 1
                if self._patience_s is not None:
                    return
                if errors >= READ_ERRORS_AT_MOST or is_pipe(self.path):
                    self.damage.cut_short(f"reading stopped early: {getattr(error, 'strerror', error)}")
                    return
