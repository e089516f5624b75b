"""Video files and pipes as sources of frames."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from streamderain.addresses import display_name, is_address
from streamderain.closable import Closable
from streamderain.errors import ConfigError, DecodeError
from streamderain.frame import NO_LEAD, Frame, Lead, StreamInfo
from streamderain.media.ending import early_ending
from streamderain.media.jpeg import jpeg_fault
from streamderain.media.lane import DEFAULT_RATE, Lane
from streamderain.media.opening import is_pipe
from streamderain.media.pixels import geometry_of
from streamderain.media.reading import COPIED, Reading, is_cover
from streamderain.media.trim import Clip, Item, Trim, clip_of
from streamderain.options import ReadOptions

BACK_OFF_S = (Fraction(1), Fraction(5), Fraction(30))
"""How long before a cut, and the lead-in of its piece, reading begins: where a seek lands too late the next
is tried, then the beginning."""

Packet = Any


@dataclass(frozen=True, slots=True)
class VideoTrack:
    """One video stream with what an encoder copies from it.

    Attributes:
        info: What the pipeline needs to know.
        stream: The container's stream: sample aspect ratio, metadata, disposition.
        first: The first decoded frame, in the format all frames come in: colour tags, rotation, side data.
    """

    info: StreamInfo
    stream: av.VideoStream
    first: av.VideoFrame


class FileSource(Closable):
    """Yields the frames of every video stream of a file or pipe, and the packets of streams that are copied.

    Decodes until every video stream has given its first picture, so that what it says of them is true.

    Args:
        path: A file, ``-`` for standard input, or a URL.
        options: What is read of it.
        lead: How many frames around a piece (``-ss``, ``-t``) are read as well, marked as not to be written.
        stop: Once it is set, a pipe ends, also while it is being opened.

    Attributes:
        path: What was opened; ``-`` for standard input.
        name: Its name for messages and reports, without credentials.
        tracks: The video streams, in order of position.
        copied: Audio, subtitle, data and attachment streams and cover art, in the container's order.
        offset_s: What was subtracted from every time; 0 without a start.
        end_s: End of the clip on the source's own clock; None without a length.
        warnings: What the user should know; grows while reading.
        damage: What was found broken so far.

    Raises:
        OpenError: Not there, not readable, or nothing with video in it.
        DecodeError: It has video, but no picture of it can be decoded.
        UnsupportedFormat: Interlaced without ``deinterlace``, encrypted, or pictures of an unknown kind.
        ConfigError: The clip begins behind the end.
    """

    def __init__(
        self, path: str, options: ReadOptions, lead: Lead = NO_LEAD, stop: threading.Event | None = None
    ) -> None:
        self.path = path
        self.name = display_name(path) if path == "-" or is_address(path) else Path(path).name
        self.warnings: list[str] = []
        self.end_s: Fraction | None = None
        self._closed = False
        self._options = options
        self._lead = lead
        self._stop = stop or threading.Event()
        self._primed: deque[Item] = deque()
        self._reading = Reading(path, options, self._stop)
        try:
            self._prepare()
        except BaseException:
            self._reading.container.close()
            raise

    def _prepare(self) -> None:
        reading = self._reading
        self.warnings += reading.warnings
        clip = clip_of(self._options.start_s, self._options.duration_s, begin_s=_begin_s(reading.container))
        self.end_s = clip.end_s
        self.tracks = self._make_tracks(clip)
        if clip.start_s is None:
            self._start(clip)
        else:
            self._start_at(clip, clip.start_s)
        self.tracks = self._make_tracks(clip) if self._reading is not reading else self.tracks
        self.offset_s = self._trim.offset_s or Fraction(0)
        self.damage = self._reading.damage
        self.damage.forget_before(float(self.offset_s))
        self.copied = tuple(stream for stream in self.container.streams if _is_copied(stream))
        self._fault = self._jpeg_fault()
        if self._fault == "missing":
            raise DecodeError(f"{self.name} ends before its picture begins; copy it again from the camera")

    @property
    def is_live(self) -> bool:
        """Whether it is an address whose end nobody knows: a camera, not a file on a server."""
        return is_address(self.path) and not self.container.duration

    @property
    def container(self) -> InputContainer:
        """The open container: its metadata and chapters."""
        return self._reading.container

    @property
    def streams(self) -> tuple[StreamInfo, ...]:
        """The video streams, in order of position."""
        return tuple(track.info for track in self.tracks)

    def peek(self, stream_index: int) -> Packet | None:
        """Return the first packet of a stream among those read ahead; None where there is none yet."""
        primed = (item for item in self._primed if not isinstance(item, Frame))
        packets = (*primed, *self._reading.ahead)
        return next((packet for packet in packets if packet.stream_index == stream_index), None)

    @property
    def is_complete(self) -> bool:
        """Whether all frames that will be written were read, so that only lead-out may follow."""
        end_s = self._trim.clip.end_s
        return end_s is not None and all(self._has_ended(lane, end_s) for lane in self._reading.lanes)

    def _has_ended(self, lane: Lane, end_s: Fraction) -> bool:
        """Returns whether the last packet that was read of a stream reaches the end of the clip."""
        last_s = self._reading.ends_s.get(lane.stream.index)
        step_s = 1 / (lane.rate or DEFAULT_RATE)
        return last_s is not None and last_s >= end_s - step_s / 2

    @property
    def was_stopped(self) -> bool:
        """Whether ``stop`` ended the source before its own end."""
        return self._reading.was_stopped

    def end(self) -> bool:
        """Ends a source that brings nothing more: what the decoder still holds is given, then comes the end.

        Returns:
            Whether that can be done: a pipe can be ended, a network connection cannot.
        """
        return self._reading.end()

    def frames(self, copy: Callable[[Packet], None]) -> Iterator[Frame]:
        """Yields the frames of all video streams as they are decoded; calls ``copy`` with copied packets.

        Times of both are moved by ``offset_s``. Broken stretches are skipped and recorded in ``damage``.

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

    def close(self) -> None:
        """Releases the file. Idempotent; may be called while ``frames`` is suspended.

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
        self._reading.container.close()

    def _jpeg_fault(self) -> str:
        stream = self.tracks[0].stream
        is_jpeg = _is_image(self.container) and stream.codec_context.name == "mjpeg"
        return jpeg_fault(Path(self.path).read_bytes()) if is_jpeg and Path(self.path).is_file() else ""

    def _start(self, clip: Clip) -> None:
        self._trim = Trim(clip, streams=len(self._reading.lanes), lead=self._lead)
        self._items = self._all_items()

    def _all_items(self) -> Generator[Item]:
        yield from self._reading.items(self._trim)

    def _start_at(self, clip: Clip, start_s: Fraction) -> None:
        """Reads up to the first kept frame, after a seek where one lands early enough."""
        lane = self._reading.lanes[0]
        first = self._reading.firsts[lane.stream.index]
        seekable = not is_pipe(self.path) and first.pts is not None
        for back_off_s in BACK_OFF_S if seekable else ():
            target_s = start_s - back_off_s - self._lead.before / (lane.rate or DEFAULT_RATE)
            if target_s <= _begin_s(self._reading.container):
                break
            try:
                self._reading.seek(target_s)
            except (av.error.FFmpegError, OSError):
                break
            if self._prime(clip) and self._came_early_enough():
                return
        if seekable and self._reading.was_moved:
            self._reading.container.close()
            self._reading = Reading(self.path, self._options, self._stop)
        if not self._prime(clip):
            raise ConfigError(
                f"nothing of {self.name} lies at or after {self._options.start_s:g} s (-ss): it is shorter, "
                "or what follows cannot be decoded"
            )

    def _prime(self, clip: Clip) -> bool:
        """Reads until the first frame of the clip is known; returns whether there is one."""
        self._start(clip)
        self._primed.clear()
        for item in self._items:
            self._primed.append(item)
            if isinstance(item, Frame) and item.emit:
                return True
        return False

    def _came_early_enough(self) -> bool:
        """Returns whether a seek left all of the lead-in, and a frame more: deinterlacing looks at that."""
        before = next(item.index for item in self._primed if isinstance(item, Frame) and item.emit)
        return before > self._lead.before

    def _make_tracks(self, clip: Clip) -> tuple[VideoTrack, ...]:
        tracks = []
        for lane in self._reading.lanes:
            first = lane.describe(self._reading.firsts[lane.stream.index])
            tracks.append(VideoTrack(_info(lane, first, self._reading.container, clip), lane.stream, first))
        return tuple(tracks)

    def _conclude(self) -> None:
        """Says at the end what was repaired, and whether the file ended too early."""
        reading = self._reading
        for lane in reading.lanes:
            self.warnings += lane.notes()
        if reading.repaired_packets:
            self.warnings.append(
                f"{reading.repaired_packets} packets of copied streams had times out of order"
            )
        if reading.continuity.jumps:
            self.warnings.append(
                f"times began anew {reading.continuity.jumps} times (joined files?); they were carried on"
            )
        if self._fault:
            self.damage.cut_short("the picture is damaged: a part of it is missing or wrong")
        ended_early = reading.was_ended or reading.was_stopped
        if reading.reached_end and not ended_early and (ending := early_ending(reading)):
            self.damage.cut_short(ending)


def _is_copied(stream: Any) -> bool:
    return stream.type in COPIED or (stream.type == "video" and is_cover(stream))


def _begin_s(container: InputContainer) -> Fraction:
    """Returns the first timestamp of a container in seconds, exactly: what ``-ss 0`` means."""
    starts = [
        stream.start_time * stream.time_base
        for stream in (*container.streams.video, *container.streams.audio)
        if stream.start_time is not None
        and stream.time_base
        and not (stream.type == "video" and is_cover(stream))
    ]
    return min(starts, default=Fraction(0))


def _info(lane: Lane, first: av.VideoFrame, container: InputContainer, clip: Clip) -> StreamInfo:
    rate = None if _is_image(container) else lane.rate
    duration_s = _duration_s(lane, container)
    frames = 1 if _is_image(container) else lane.stream.frames or None
    if frames is None and duration_s is not None and rate:
        frames = round(duration_s * rate)
    if duration_s is not None and (clip.start_s is not None or clip.end_s is not None):
        begin_s = _begin_s(container)
        start_s = (clip.start_s or begin_s) - begin_s
        end_s = min(duration_s, duration_s if clip.end_s is None else clip.end_s - begin_s)
        share = max(Fraction(0), end_s - start_s) / duration_s if duration_s else Fraction(1)
        frames = None if frames is None else round(frames * share)
        duration_s *= share
    return StreamInfo(
        position=lane.position,
        codec=lane.stream.codec_context.name,
        pix_fmt=first.format.name,
        geometry=geometry_of(first),
        time_base=lane.time_base,
        rate_fps=rate,
        frames=frames,
        duration_s=None if duration_s is None else float(duration_s),
    )


def _duration_s(lane: Lane, container: InputContainer) -> Fraction | None:
    if lane.stream.duration:
        return lane.stream.duration * lane.time_base
    return Fraction(container.duration, av.time_base) if container.duration else None


def _is_image(container: InputContainer) -> bool:
    one_picture = container.name.lower().endswith((".avif", ".heic", ".heif")) and len(container.streams) == 1
    return one_picture or container.format.name == "image2" or container.format.name.endswith("_pipe")
