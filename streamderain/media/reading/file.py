"""Files, pipes and addresses as sources of frames."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from streamderain.addresses import display_name, is_address
from streamderain.errors import ConfigError, DecodeError
from streamderain.frame import NO_LEAD, Frame, Lead, StreamInfo
from streamderain.media.jpeg import jpeg_fault
from streamderain.media.pixels import geometry_of
from streamderain.media.reading.container import is_pipe
from streamderain.media.reading.damage import Damage
from streamderain.media.reading.decoder import DEFAULT_RATE, VideoDecoder
from streamderain.media.reading.demuxer import COPIED, Demuxer, TooLate, is_cover
from streamderain.media.reading.one_connection import OneConnection
from streamderain.media.reading.piece import Piece
from streamderain.media.reading.trim import Item, TimeRange, Trim, requested_range
from streamderain.media.reading.truncation import truncation
from streamderain.media.track import VideoTrack
from streamderain.options import ReadOptions

BACK_OFF_S = (Fraction(1), Fraction(5), Fraction(30))
"""How long before a cut, and the lead-in of its piece, demuxer begins: where a seek lands too late the next
is tried, then the beginning."""

Packet = Any


class FileSource(OneConnection):
    """Yields the frames of every video stream of a file or pipe, and the packets of streams that are copied.

    Decodes until every video stream has given its first picture, so that what it says of them is true.

    Args:
        path: A file, `-` for standard input, or a URL.
        options: What is read of it.
        lead: How many frames around a piece (`-ss`, `-t`) are read as well, marked as not to be written.
        stop: Once it is set, a pipe ends, also while it is being opened.
        patience_s: See `Demuxer`.
        piece: What is read of a file instead of all that `options` ask for; nothing is copied then.

    Attributes:
        path: What was opened; `-` for standard input.
        name: Its name for messages and reports, without credentials.
        tracks: The video streams, in order of position.
        copied: Audio, subtitle, data and attachment streams and cover art, in the container's order.
        time_range: What was asked for, on the source's own clock.
        end_s: Its end; None without a length.
        warnings: What the user should know; grows while reading.

    Raises:
        OpenError: Not there, not readable, or nothing with video in it.
        DecodeError: It has video, but no picture of it can be decoded.
        UnsupportedFormat: Interlaced without `deinterlace`, encrypted, or pictures of an unknown kind.
        ConfigError: The piece begins behind the end.
    """

    image_paths: tuple[Path, ...] = ()

    def __init__(
        self,
        path: str,
        options: ReadOptions,
        lead: Lead = NO_LEAD,
        stop: threading.Event | None = None,
        *,
        patience_s: float | None = None,
        piece: Piece | None = None,
    ) -> None:
        self.path = path
        self.name = display_name(path) if path == "-" or is_address(path) else Path(path).name
        self.warnings: list[str] = []
        self._closed = False
        self._options = options
        self._lead = lead
        self._stop = stop or threading.Event()
        self._primed: deque[Item] = deque()
        self._demuxer = Demuxer(path, options, self._stop, patience_s)
        try:
            demuxer = self._demuxer
            self.warnings += demuxer.warnings
            time_range = requested_range(
                options.start_s, options.duration_s, begin_s=_begin_s(demuxer.container)
            )
            self.time_range, self.end_s = time_range, time_range.end_s
            self.tracks = self._make_tracks(time_range)  # refuses what cannot be derained
            if piece is None:
                self._begin(time_range)
            else:
                self._begin_piece(piece)
            if self._demuxer is not demuxer:  # opened anew
                self.tracks = self._make_tracks(time_range)
            self.copied = tuple(stream for stream in self.container.streams if _is_copied(stream))
            self.damage.forget_before(float(self._trim.start_s or 0))
            self._is_live = is_address(path) and not self.container.duration
            self._fault = self._jpeg_fault()
            if self._fault == "missing":
                raise DecodeError(
                    f"{self.name} ends before its picture begins; copy it again from the camera"
                )
        except BaseException:
            self._demuxer.close()
            raise

    @property
    def is_live(self) -> bool:
        """Whether it is an address whose end nobody knows: a camera, not a file on a server."""
        return self._is_live

    @property
    def is_open_playlist(self) -> bool:
        """Whether it is a playlist (HLS) to which segments are still added."""
        return self.container.format.name == "hls" and not self.container.duration

    def be_patient(self, patience_s: float) -> None:
        """Read as a live source's connection from now on; see `Demuxer`."""
        self._demuxer.be_patient(patience_s)

    @property
    def damage(self) -> Damage:
        """What was found broken so far."""
        return self._demuxer.damage

    @property
    def offset_s(self) -> Fraction:
        """What is subtracted from every time; 0 without a start."""
        return self._trim.offset_s or Fraction(0)

    @property
    def container(self) -> InputContainer:
        """The open container: its metadata and chapters."""
        return self._demuxer.container

    @property
    def streams(self) -> tuple[StreamInfo, ...]:
        """The video streams, in order of position."""
        return tuple(track.info for track in self.tracks)

    def peek(self, stream_index: int) -> Packet | None:
        """Return the first packet of a stream among those read ahead; None where there is none yet."""
        primed = (item for item in self._primed if not isinstance(item, Frame))
        packets = (*primed, *self._demuxer.ahead)
        return next((packet for packet in packets if packet.stream_index == stream_index), None)

    @property
    def is_complete(self) -> bool:
        """Whether all frames that will be written were read, so that only lead-out may follow."""
        end_s = self._trim.time_range.end_s
        return end_s is not None and all(
            self._has_ended(decoder, end_s) for decoder in self._demuxer.decoders
        )

    def _has_ended(self, decoder: VideoDecoder, end_s: Fraction) -> bool:
        """Return whether the last packet that was read of a stream reaches the end of the piece."""
        last_s = self._demuxer.ends_s.get(decoder.stream.index)
        step_s = 1 / (decoder.rate or DEFAULT_RATE)
        return last_s is not None and last_s >= end_s - step_s / 2

    @property
    def was_stopped(self) -> bool:
        """Whether `stop` ended the source before its own end."""
        return self._demuxer.was_stopped

    def end(self) -> bool:
        """End a source that brings nothing more: what the decoder still holds is given, then comes the end.

        Returns:
            Whether that can be done: a pipe can be ended, a network connection cannot.
        """
        return self._demuxer.end()

    def frames(self, copy: Callable[[Packet], None]) -> Iterator[Frame]:
        """Yield the frames of all video streams as they are decoded; call `copy` with copied packets.

        Times of both are moved by `offset_s`. Broken stretches are skipped and recorded in `damage`.

        Raises:
            UnsupportedFormat: Size or pixel format change in the middle.
        """
        while True:
            item = self._primed.popleft() if self._primed else next(self._items, None)
            if item is None:
                break
            if isinstance(item, Frame):
                yield item
            else:
                copy(item)
        self._conclude()

    def copied_packets(self) -> Iterator[Packet]:
        """Yield the packets that `frames` would give to `copy`, without decoding anything."""
        self._demuxer.decodes = False
        while (item := self._primed.popleft() if self._primed else next(self._items, None)) is not None:
            if not isinstance(item, Frame):
                yield item
        self._conclude()

    def close(self) -> None:
        """Release the file. Idempotent; may be called while `frames` is suspended.

        Streams of the container are not to be touched afterwards: FFmpeg has freed them.
        """
        if self._closed:
            return
        try:
            self._items.close()
        except ValueError:
            return  # another thread is reading at this moment; closing under it would crash the process
        self._closed = True
        self._primed.clear()
        self.copied = ()
        self._demuxer.close()

    def _jpeg_fault(self) -> str:
        stream = self.tracks[0].stream
        is_jpeg = _is_image(self.container) and stream.codec_context.name == "mjpeg"
        return jpeg_fault(Path(self.path).read_bytes()) if is_jpeg and Path(self.path).is_file() else ""

    def _begin(self, time_range: TimeRange) -> None:
        """Make ready to yield the frames of a piece: from the beginning, or from the first one of it."""
        if time_range.start_s is None:
            self._start(time_range)
        else:
            self._start_at(time_range, time_range.start_s)

    def _begin_piece(self, piece: Piece) -> None:
        """Make ready to yield the frames of a piece, decoded from its own pictures on."""
        keys_s = [
            key * decoder.time_base
            for key, decoder in zip(piece.keys, self._demuxer.decoders, strict=True)
            if key is not None
        ]
        # One that begins with the file cannot be sought: the others are read from there, too.
        for back_off_s in (Fraction(0), *BACK_OFF_S) if len(keys_s) == len(piece.keys) else ():
            self._demuxer.copies = False
            try:
                self._demuxer.seek(min(keys_s) - back_off_s)
                self._demuxer.begin_at(piece.keys)
                self._prime(piece.time_range, piece.offset_s)
            except TooLate:
                continue
            except (av.error.FFmpegError, OSError):
                break
            return
        if self._demuxer.was_moved:
            self._demuxer.close()
            self._demuxer = Demuxer(self.path, self._options, self._stop)
        self._demuxer.copies = False
        self._demuxer.begin_at(piece.keys)
        self._prime(piece.time_range, piece.offset_s)

    def _start(self, time_range: TimeRange, offset_s: Fraction | None = None) -> None:
        streams = len(self._demuxer.decoders)
        self._trim = Trim(time_range, streams=streams, lead=self._lead, offset_s=offset_s)
        self._items = self._all_items()

    def _all_items(self) -> Generator[Item]:
        yield from self._demuxer.items(self._trim)

    def _start_at(self, time_range: TimeRange, start_s: Fraction) -> None:
        """Read up to the first kept frame, after a seek where one lands early enough."""
        decoder = self._demuxer.decoders[0]
        first = self._demuxer.firsts[decoder.stream.index]
        seekable = not is_pipe(self.path) and first.pts is not None
        for back_off_s in BACK_OFF_S if seekable else ():
            target_s = start_s - back_off_s - self._lead.before / (decoder.rate or DEFAULT_RATE)
            if target_s <= _begin_s(self._demuxer.container):
                break
            try:
                self._demuxer.seek(target_s)
            except (av.error.FFmpegError, OSError):
                break
            if self._prime(time_range) and self._came_early_enough():
                return
        if seekable and self._demuxer.was_moved:
            self._demuxer.close()
            self._demuxer = Demuxer(self.path, self._options, self._stop)
        if not self._prime(time_range):
            raise ConfigError(
                f"nothing of {self.name} lies at or after {self._options.start_s:g} s (-ss): it is shorter, "
                "or what follows cannot be decoded"
            )

    def _prime(self, time_range: TimeRange, offset_s: Fraction | None = None) -> bool:
        """Read until the first frame of the piece is known; return whether there is one."""
        self._start(time_range, offset_s)
        self._primed.clear()
        for item in self._items:
            self._primed.append(item)
            if isinstance(item, Frame) and item.emit:
                return True
        return False

    def _came_early_enough(self) -> bool:
        """Return whether a seek left all of the lead-in, and a frame more: deinterlacing looks at that."""
        before = next(item.index for item in self._primed if isinstance(item, Frame) and item.emit)
        return before > self._lead.before

    def _make_tracks(self, time_range: TimeRange) -> tuple[VideoTrack, ...]:
        tracks = []
        for decoder in self._demuxer.decoders:
            first = decoder.describe(self._demuxer.firsts[decoder.stream.index])
            tracks.append(
                VideoTrack(_info(decoder, first, self._demuxer.container, time_range), decoder.stream, first)
            )
        return tuple(tracks)

    def _conclude(self) -> None:
        """Say at the end what was repaired, and whether the file ended too early."""
        demuxer = self._demuxer
        for decoder in demuxer.decoders if demuxer.decodes else ():
            self.warnings += decoder.notes()
        if demuxer.repaired_packets:
            self.warnings.append(
                f"{demuxer.repaired_packets} packets of copied streams had times out of order"
            )
        if demuxer.continuity.jumps:
            self.warnings.append(
                f"times began anew {demuxer.continuity.jumps} times (joined files?); they were carried on"
            )
        if self._fault:
            self.damage.cut_short("the picture is damaged: a part of it is missing or wrong")
        ended_early = demuxer.was_ended or demuxer.was_stopped
        # What is missing at the end of a file is told by what copies its other streams.
        is_whole = demuxer.copies
        if is_whole and demuxer.reached_end and not ended_early and (ending := truncation(demuxer)):
            self.damage.cut_short(ending)


def _is_copied(stream: Any) -> bool:
    return stream.type in COPIED or (stream.type == "video" and is_cover(stream))


def _begin_s(container: InputContainer) -> Fraction:
    """Return the first timestamp of a container in seconds, exactly: what `-ss 0` means."""
    starts = [
        stream.start_time * stream.time_base
        for stream in (*container.streams.video, *container.streams.audio)
        if stream.start_time is not None
        and stream.time_base
        and not (stream.type == "video" and is_cover(stream))
    ]
    return min(starts, default=Fraction(0))


def _info(
    decoder: VideoDecoder, first: av.VideoFrame, container: InputContainer, time_range: TimeRange
) -> StreamInfo:
    rate = None if _is_image(container) else decoder.rate
    duration_s = _duration_s(decoder, container)
    frames = 1 if _is_image(container) else decoder.stream.frames or None
    if frames is None and duration_s is not None and rate:
        frames = round(duration_s * rate)
    if duration_s is not None and (time_range.start_s is not None or time_range.end_s is not None):
        begin_s = _begin_s(container)
        start_s = (time_range.start_s or begin_s) - begin_s
        end_s = min(duration_s, duration_s if time_range.end_s is None else time_range.end_s - begin_s)
        share = max(Fraction(0), end_s - start_s) / duration_s if duration_s else Fraction(1)
        frames = None if frames is None else round(frames * share)
        duration_s *= share
    return StreamInfo(
        position=decoder.position,
        codec=decoder.stream.codec_context.name,
        pix_fmt=first.format.name,
        geometry=geometry_of(first),
        time_base=decoder.time_base,
        rate_fps=rate,
        frames=frames,
        duration_s=None if duration_s is None else float(duration_s),
    )


def _duration_s(decoder: VideoDecoder, container: InputContainer) -> Fraction | None:
    if decoder.stream.duration:
        return decoder.stream.duration * decoder.time_base
    return Fraction(container.duration, av.time_base) if container.duration else None


def _is_image(container: InputContainer) -> bool:
    one_picture = container.name.lower().endswith((".avif", ".heic", ".heif")) and len(container.streams) == 1
    return one_picture or container.format.name == "image2" or container.format.name.endswith("_pipe")
