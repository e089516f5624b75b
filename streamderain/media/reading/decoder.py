"""Decode one video stream from packets to frames, and repair its timestamps."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import av

from streamderain.errors import UnsupportedFormat
from streamderain.frame import Frame
from streamderain.media.pixels import component_planes, converted, working_format
from streamderain.media.reading.damage import Damage, Gap
from streamderain.media.reading.deinterlace import Deinterlacer
from streamderain.media.reading.timestamps import Timeline

ONE_PACKET_ONE_PICTURE = {
    "h264",
    "hevc",
    "mpeg2video",
    "mjpeg",
    "prores",
    "dnxhd",
    "ffv1",
    "png",
    "vp9",
    "libdav1d",
}
"""Decoders whose every packet holds one picture that is shown: one that does not come is lost."""

RAW_STREAMS = {"h264", "hevc", "vvc", "evc", "m4v", "mpegvideo", "obu", "vc1", "cavsvideo", "avs2", "avs3"}
"""Demuxers of streams without a container."""

PENDING_AT_MOST = 512
"""Packets whose picture is awaited; more than any decoder holds back."""

CLEAN_AFTER_S = 3.0
"""Where no keyframe comes, pictures of a live source count as clean this long after the last fault."""

DEFAULT_RATE = Fraction(25)

DECODER_THREADS_AT_MOST = 8

Packet = Any


@dataclass(slots=True)
class _Due:
    """What is known of a frame while it is inside the deinterlacer."""

    pts: int
    cut: bool
    duration: int


def _rate_of(stream: av.VideoStream) -> Fraction | None:
    """Return frames per second: the average of the whole file, or the codec's own word in a raw stream."""
    if stream.container.format.name in RAW_STREAMS:  # where the average is FFmpeg's default, 25
        return stream.guessed_rate or stream.average_rate
    return stream.average_rate or stream.guessed_rate or stream.base_rate


def _kind_of(picture: av.VideoFrame) -> tuple[int, int, str]:
    return picture.width, picture.height, picture.format.name


def decoder_threads() -> int:
    """Return how many threads a decoder gets: half the cores; engine and encoder want theirs too."""
    return min(DECODER_THREADS_AT_MOST, max(2, len(os.sched_getaffinity(0)) // 2))


class VideoDecoder:
    """Decodes one video stream, repairs its times and counts what is broken.

    Args:
        stream: The stream, of an open container.
        position: Its place among the source's video streams, from 0.
        name: The source's name for messages.
        damage: Where broken stretches are recorded.
        deinterlace: Make interlaced frames progressive.
        threads: Threads the deinterlacer and conversions may use.
        rate: Frames per second that set the time base (numbered images); None for the stream's own.
        clean_only: Leave out pictures that are broken, and those that lean on them: up to the next keyframe.
    """

    def __init__(
        self,
        stream: av.VideoStream,
        *,
        position: int,
        name: str,
        damage: Damage,
        deinterlace: bool,
        threads: int,
        rate: Fraction | None = None,
        clean_only: bool = False,
    ) -> None:
        self.stream = stream
        self.position = position
        self.time_base = 1 / rate if rate else stream.time_base or Fraction(1, 1000)
        self.rate = rate or _rate_of(stream)
        self.packets = 0
        self.decoded = 0
        self.interlaced = 0
        self.first_s: Fraction | None = None
        self._name = name
        self._damage = damage
        self._deinterlace = deinterlace
        self._threads = threads
        self.timeline = Timeline(1 / (self.rate or DEFAULT_RATE) / self.time_base, self.time_base)
        by_time = stream.container.format.name != "avi"  # whose packets have no display times
        self._tracked = by_time and stream.codec_context.name in ONE_PACKET_ONE_PICTURE
        self._pending: set[int] = set()
        self._spoilt: set[int] = set()
        self._kind: tuple[int, int, str] | None = None
        self._odd: av.VideoFrame | None = None
        self._are_files = rate is not None
        self._deinterlacer: Deinterlacer | None = None
        self._due: deque[_Due] = deque()
        self._index = 0
        self._last_s: float | None = None
        self._failed = 0
        self._cut = False
        self._clean_only = clean_only
        self._unclean_since_s: float | None = None
        self._left_out = 0

    def decode(self, packet: Packet | None) -> list[av.VideoFrame]:
        """Decode a packet, or drains the decoder when it is None; broken ones give nothing, and count."""
        if packet is not None:
            self.packets += 1
            self._await(packet)
        frames: list[av.VideoFrame] = []
        try:
            frames = self.stream.codec_context.decode(packet)
        except av.error.EOFError:
            pass
        except (av.error.FFmpegError, OSError):
            self._failed += 1
        self.decoded += len(frames)
        if self.stream.codec_context.is_hwaccel:
            for frame in frames:
                self._restore_tags(frame)
        return frames

    def _restore_tags(self, picture: av.VideoFrame) -> None:
        """Give a picture that came from a GPU the colour tags that were lost on the way."""
        context = self.stream.codec_context
        for tag in ("color_range", "colorspace", "color_primaries", "color_trc"):
            setattr(picture, tag, getattr(context, tag))

    def accept(self, picture: av.VideoFrame) -> Iterator[Frame]:
        """Turn a decoded picture into the frames that become ready: one, an earlier one when deinterlacing.

        Raises:
            UnsupportedFormat: Its size or pixel format differ from those before, or it is interlaced.
        """
        if not self._is_of_one_kind(picture):
            return
        lost = self._lost_before(picture) + self._left_out
        if self._clean_only and not self._is_clean(picture, lost):
            self._left_out = lost + 1
            return
        self._left_out = 0
        stamp = picture.pts if picture.pts is not None else picture.dts
        pause = stamp is not None and self.timeline.is_pause(stamp)
        pts = self.timeline.place(stamp)
        time_s = float(pts * self.time_base)
        if self.first_s is None:
            self.first_s = pts * self.time_base
        broken = picture.is_corrupt or picture.pts in self._spoilt
        if lost:
            self._damage.add(Gap(self.position, self._last_s, time_s, lost))
        if broken:
            self._damage.add(Gap(self.position, self._last_s, time_s, 1, kept=True))
        self._spoilt.discard(cast(int, picture.pts))
        cut = bool(self._cut or pause or lost or broken)
        self._due.append(_Due(pts, cut, self._duration(picture, pts)))
        self._cut = broken  # nor may the next frame lean on a broken one
        self._last_s = time_s
        yield from map(self._frame, self._progressive(picture))

    def _is_clean(self, picture: av.VideoFrame, lost: int) -> bool:
        """Return whether a picture is whole and leans on none that is not.

        After a fault that is the next keyframe; where none comes (streams may refresh their pictures bit by
        bit), it is what follows some seconds without another fault.
        """
        broken = picture.is_corrupt or picture.pts in self._spoilt
        now_s = None if picture.pts is None else float(picture.pts * self.time_base)
        if broken or (lost and not self._left_out and not picture.key_frame):
            self._unclean_since_s = now_s if now_s is not None else self._last_s or 0.0
            self._spoilt.discard(cast(int, picture.pts))
            return False
        since_s = self._unclean_since_s
        if since_s is None:
            return True
        if picture.key_frame or now_s is None or abs(now_s - since_s) > CLEAN_AFTER_S:
            self._unclean_since_s = None
            return True
        return False

    def missed(self, pts: int) -> None:
        """Count a picture that was decoded elsewhere and failed."""
        self._failed += 1
        if self._tracked:
            self._pending.add(pts)

    def spoil(self, pts: int) -> None:
        """Note that a picture that was decoded elsewhere is broken in parts."""
        self._spoilt.add(pts)

    def forget_before(self, pts: int) -> None:
        """Count nothing that failed before a picture: decoding begins with it."""
        self._failed = 0
        self._pending = {pending for pending in self._pending if pending >= pts}
        self._spoilt = {spoilt for spoilt in self._spoilt if spoilt >= pts}

    def cut_next(self) -> None:
        """Keep temporal windows from spanning the frames before and after this moment."""
        self._cut = True

    def finish(self) -> Iterator[Frame]:
        """Yield the frames still inside the deinterlacer, and record what was lost at the very end."""
        if self._deinterlacer is not None:
            yield from map(self._frame, self._deinterlacer.push(None))
        self._failed += self._odd is not None
        if self._failed:
            lost = len(self._pending) if self._tracked else self._failed
            self._damage.add(Gap(self.position, self._last_s, None, max(lost, 1)))
        self._pending.clear()
        self._failed = 0

    def notes(self) -> list[str]:
        """Return what the user should know of this stream once it is read."""
        notes = []
        video = f"video {self.position}"
        if self.timeline.invented:
            rate = float(self.rate or DEFAULT_RATE)
            notes.append(
                f"{video}: {self.timeline.invented} frames have no time; counted on at {rate:g} frames/s"
            )
        if self.timeline.repaired:
            notes.append(
                f"{video}: {self.timeline.repaired} frames had a time not after the one before; moved on"
            )
        if self._deinterlace and not self.interlaced:
            notes.append(f"{video}: no frame is interlaced, so that --deinterlace changed nothing")
        if self.interlaced and not self._deinterlace:
            notes.append(
                f"{video}: {self.interlaced} frames in the middle are interlaced, derained as they are; "
                "pass --deinterlace to make them progressive first"
            )
        return notes

    def describe(self, picture: av.VideoFrame) -> av.VideoFrame:
        """Return the first decoded picture as the frames of this decoder will look.

        Raises:
            UnsupportedFormat: It is interlaced and that was not asked for, or of a kind that is not handled.
        """
        if picture.interlaced_frame:
            self._refuse_interlaced()
        if self._deinterlace:
            pts, base = picture.pts, picture.time_base
            filters = Deinterlacer(picture, self._threads)
            sample = [*filters.push(picture), *filters.push(None)][0]
            picture.pts, sample.pts = pts, pts
            picture.time_base = sample.time_base = base or self.time_base
            picture = sample
        return self._converted(picture)

    def _refuse_interlaced(self) -> None:
        if not self._deinterlace:
            raise UnsupportedFormat(
                f"{self._name}, video {self.position}: the video is interlaced, or flagged so. Pass "
                "--deinterlace (ReadOptions.deinterlace) to turn it into progressive frames first"
            )

    def _await(self, packet: Packet) -> None:
        """Remember whose picture is to come, and whether its packet was flagged as broken."""
        if packet.pts is None or packet.is_discard:
            return
        if packet.is_corrupt:
            self._spoilt.add(packet.pts)
        if self._tracked:
            self._pending.add(packet.pts)
            if len(self._pending) > PENDING_AT_MOST:
                self._pending.remove(min(self._pending))

    def _lost_before(self, picture: av.VideoFrame) -> int:
        """Return how many pictures that should have come before this one did not."""
        failed, self._failed = self._failed, 0
        if not self._tracked or picture.pts is None:
            return failed
        missing = {pts for pts in self._pending if pts < picture.pts}
        self._pending -= missing
        self._pending.discard(picture.pts)
        self._failed = failed if failed and not missing else 0
        at_start = (
            self._last_s is None and not failed
        )  # pictures that lean on ones before the first are not shown
        return 0 if at_start or picture.interlaced_frame else len(missing)

    def _is_of_one_kind(self, picture: av.VideoFrame) -> bool:
        """Return whether a picture has the size and format of those before.

        One alone that differs has a broken header, and is lost; a second one shows that the video changed,
        and so does one where each picture is a file of its own.

        Raises:
            UnsupportedFormat: It changed: the encoder and the engine are made for one kind.
        """
        kind = _kind_of(picture)
        self._kind = self._kind or kind
        self.interlaced += picture.interlaced_frame
        if kind == self._kind:
            self._failed += self._odd is not None
            self._odd = None
            return True
        if self._odd is not None or self._are_files:
            self._refuse_change(self._odd or picture)
        self._odd = picture
        return False

    def _refuse_change(self, picture: av.VideoFrame) -> None:
        kinds = (self._kind or _kind_of(picture), _kind_of(picture))
        before, after = (f"{width}x{height} {pix_fmt}" for width, height, pix_fmt in kinds)
        time_s = "an unknown time" if picture.pts is None else f"{float(picture.pts * self.time_base):.3f} s"
        raise UnsupportedFormat(
            f"{self._name}, video {self.position}: the picture changes from {before} to {after} at frame "
            f"{self._index + len(self._due)} ({time_s}). Split the file there and derain its parts one by one"
        )

    def _duration(self, picture: av.VideoFrame, pts: int) -> int:
        """Return how long a frame is shown, at most to its stream's end: only that tells of the last."""
        duration = picture.duration or round(self.timeline.step)
        begin, length = self.stream.start_time, self.stream.duration
        left = None if begin is None or length is None else begin + length - pts
        return left if left is not None and 0 < left < duration else duration

    def _progressive(self, picture: av.VideoFrame) -> list[av.VideoFrame]:
        if not self._deinterlace:
            return [picture]
        if self._deinterlacer is None:
            self._deinterlacer = Deinterlacer(picture, self._threads)
        return self._deinterlacer.push(picture)

    def _converted(self, picture: av.VideoFrame) -> av.VideoFrame:
        target = working_format(picture.format.name)
        return picture if target is None else converted(picture, target, threads=self._threads)

    def _frame(self, picture: av.VideoFrame) -> Frame:
        picture = self._converted(picture)
        due = self._due.popleft()
        picture.pts, picture.time_base, picture.duration = due.pts, self.time_base, due.duration
        index, self._index = self._index, self._index + 1
        return Frame(
            picture=picture,
            planes=component_planes(picture),
            stream=self.position,
            index=index,
            pts=due.pts,
            time_base=self.time_base,
            cut=due.cut,
        )
