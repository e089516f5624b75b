"""A numbered run of images as a source of frames."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
from av.codec.context import CodecContext
from av.container import InputContainer

from streamderain.errors import ConfigError, DecodeError, OpenError
from streamderain.frame import NO_LEAD, Frame, Lead, StreamInfo
from streamderain.media.jpeg import jpeg_fault
from streamderain.media.pixels import converted, geometry_of, working_format
from streamderain.media.reading.container import check_file, open_container
from streamderain.media.reading.damage import Damage
from streamderain.media.reading.decoder import VideoDecoder, decoder_threads
from streamderain.media.reading.one_connection import OneConnection
from streamderain.media.reading.trim import Trim, requested_range
from streamderain.media.track import VideoTrack
from streamderain.options import ReadOptions

HEAD_BYTES = 1 << 16
"""Most image files tell their size within this much; a PNG would otherwise be decoded to learn it."""


def size_of(path: Path) -> tuple[int, int] | None:
    """Return an image's width and height in pixels; None where it cannot be read."""
    try:
        check_file(str(path))
        with path.open("rb") as file:
            head = io.BytesIO(file.read(HEAD_BYTES))
        return _size_in(head) or _size_in(f"file:{path}")
    except (OpenError, OSError):
        return None


def _size_in(file: io.BytesIO | str) -> tuple[int, int] | None:
    try:
        with av.open(file) as container:
            sizes = [(stream.width, stream.height) for stream in container.streams.video]
    except (av.error.FFmpegError, OSError):
        return None
    return sizes[0] if sizes and all(sizes[0]) else None


_Image = tuple[av.VideoFrame, bool]
"""A picture, and whether a part of it is missing or wrong."""

_PHOTOGRAPHS = (".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".webp", ".avif")
"""What cameras write; numbered files of these kinds need not be a video."""


class ImageSequence(OneConnection):
    """Yields numbered images as the frames of one video; nothing is copied beside them.

    Images are decoded a few ahead, in parallel. One that cannot be decoded is skipped, which leaves a gap in
    the times, and recorded in `damage`; a hole in the numbers leaves none, but no window
    spans it.

    Args:
        paths: The images in order.
        name: For messages and reports.
        options: The frame rate, and which piece is read.
        lead: How many images around the piece are read as well.

    Raises:
        OpenError: The first image is not there or not readable.
        DecodeError: The first image cannot be decoded.
        UnsupportedFormat: Its pictures are of a kind that is not handled.
        ConfigError: The piece begins behind the last image.
    """

    copied: tuple[Any, ...] = ()
    is_live = False
    is_complete = False
    was_stopped = False

    def __init__(
        self, paths: tuple[Path, ...], *, name: str, options: ReadOptions, lead: Lead = NO_LEAD
    ) -> None:
        self.image_paths = paths
        self.path = str(paths[0])
        self.name = name
        self.damage = Damage()
        self.warnings = _said_of(paths)
        self.rate = Fraction(options.image_rate_fps).limit_denominator(1001)
        self._time_range = requested_range(options.start_s, options.duration_s, begin_s=Fraction(0))
        self._lead = lead
        self._range = self._wanted()
        self.end_s = self._time_range.end_s
        self.container: InputContainer = open_container(self.path)
        stream = self.container.streams.video[0]
        self._codec = stream.codec_context.name
        self._decoder = VideoDecoder(
            stream,
            position=0,
            name=name,
            damage=self.damage,
            deinterlace=options.deinterlace,
            threads=1,
            rate=self.rate,
        )
        try:
            self._first, _ = _decode(paths[0], self._codec)
            first = self._decoder.describe(self._first)
            self._format = av.VideoFormat(working_format(self._first.format.name) or self._first.format.name)
        except BaseException:
            self.container.close()
            raise
        self._trim = Trim(self._time_range, streams=1, lead=lead)
        self.tracks: tuple[VideoTrack, ...] = (VideoTrack(self._info(first), stream, first),)
        self._pool = ThreadPoolExecutor(decoder_threads(), thread_name_prefix="images")

    @property
    def offset_s(self) -> Fraction:
        """What is subtracted from every time: that of the first kept frame."""
        known = self._trim.offset_s
        return self._kept.start / self.rate if known is None else known

    @property
    def streams(self) -> tuple[StreamInfo, ...]:
        """The one video stream."""
        return (self.tracks[0].info,)

    def frames(self, copy: Callable[[Any], None]) -> Iterator[Frame]:
        """Yield the frames in order; `copy` is never called.

        Raises:
            UnsupportedFormat: An image has another size than the first, or a format the first's cannot hold.
        """
        for number, image in self._decoded():
            if self._is_after_hole(number):
                self._decoder.cut_next()
            try:
                picture, broken = image.result()
            except (DecodeError, OpenError) as error:
                self._decoder.missed(number)
                if number in self._kept:
                    self.warnings.append(str(error))
                continue
            if broken:
                self._decoder.spoil(number)
            picture = self._like_the_first(picture)
            picture.pts = number
            for frame in self._decoder.accept(picture):
                if number == self._kept.start:
                    self.damage.forget_before(float(self._time_range.start_s or 0))
                yield from self._trim.video(frame)
        for frame in self._decoder.finish():
            yield from self._trim.video(frame)

    def peek(self, stream_index: int) -> None:
        """Return nothing: no packets are copied."""

    def end(self) -> bool:
        """Return images never keep one waiting: there is nothing to end."""
        return False

    def close(self) -> None:
        """Release the images. Idempotent."""
        self._pool.shutdown(cancel_futures=True)
        self.container.close()

    def _like_the_first(self, picture: av.VideoFrame) -> av.VideoFrame:
        """Convert where nothing is lost: tools that shrink PNGs store gray ones or few colours as such."""
        same_size = (picture.width, picture.height) == (self._first.width, self._first.height)
        same_kind = picture.format.name == self._first.format.name
        if same_size and (same_kind or _holds(self._format, picture.format)):
            return converted(picture, self._format.name, threads=1)
        return picture

    def _wanted(self) -> range:
        """Return the images to decode: those of the clip and those around it that decide them."""
        start = -(-(self._time_range.start_s or Fraction(0)) * self.rate // 1)
        end = (
            len(self.image_paths)
            if self._time_range.end_s is None
            else -(-self._time_range.end_s * self.rate // 1)
        )
        self._kept = range(int(start), min(len(self.image_paths), int(end)))
        if not self._kept:
            start_s, length_s = float(self._time_range.start_s or 0), float(len(self.image_paths) / self.rate)
            raise ConfigError(
                f"{self.name} has {len(self.image_paths)} images, {length_s:g} s at {float(self.rate):g} "
                f"frames/s: nothing lies at or after {start_s:g} s"
            )
        first, last = self._kept.start - self._lead.before, self._kept.stop + self._lead.after
        return range(max(0, first), min(len(self.image_paths), last))

    def _decoded(self) -> Iterator[tuple[int, Future[_Image]]]:
        """Yield numbers and pictures to come, a few decoded ahead."""
        ahead: deque[tuple[int, Future[_Image]]] = deque()
        for number in self._range:
            ahead.append((number, self._pool.submit(_decode, self.image_paths[number], self._codec)))
            if len(ahead) > decoder_threads():
                yield ahead.popleft()
        yield from ahead

    def _is_after_hole(self, number: int) -> bool:
        if number == 0:
            return False
        here, before = (
            int("".join(c for c in self.image_paths[n].stem if c.isdigit()) or 0)
            for n in (number, number - 1)
        )
        return here != before + 1

    def _info(self, first: av.VideoFrame) -> StreamInfo:
        return StreamInfo(
            position=0,
            codec=self._codec,
            pix_fmt=first.format.name,
            geometry=geometry_of(first),
            time_base=1 / self.rate,
            rate_fps=self.rate,
            frames=len(self._kept),
            duration_s=float(len(self._kept) / self.rate),
        )


def _said_of(paths: tuple[Path, ...]) -> list[str]:
    if paths[0].suffix.lower() not in _PHOTOGRAPHS:
        return []
    return [
        f"{len(paths)} numbered pictures ({paths[0].name} to {paths[-1].name}) are taken for one video: "
        f"each is "
        "derained with the help of its neighbours. Photographs that stand alone need --stills"
    ]


def _holds(target: av.VideoFormat, source: av.VideoFormat) -> bool:
    """Return whether RGB of one format holds all that RGB, gray or a palette of another does."""
    colours = [component for component in source.components if not component.is_alpha]
    has_alpha = len(colours) < len(source.components)
    return (
        target.is_rgb
        and (source.is_rgb or len(colours) == 1)
        and target.components[0].bits >= colours[0].bits
        and (not has_alpha or len(target.components) == 4)
    )


def _decode(path: Path, codec: str) -> _Image:
    """Decode an image file.

    Returns:
        The picture, and whether a part of it is missing or wrong.

    Raises:
        OpenError: It is not there or not readable.
        DecodeError: It cannot be decoded.
    """
    check_file(str(path))
    try:
        data = path.read_bytes()
        context = cast(av.VideoCodecContext, CodecContext.create(codec, "r"))
        frames = context.decode(av.Packet(data)) + context.decode(None)
    except (av.error.FFmpegError, OSError):
        frames = []
    if not frames:
        return _decode_by_container(path), False  # named like the others, but of another kind
    fault = jpeg_fault(data) if codec == "mjpeg" else ""
    if fault == "missing":
        raise DecodeError(f"the image {path} ends before its picture begins; copy it again from the camera")
    return frames[0], bool(fault)


def _decode_by_container(path: Path) -> av.VideoFrame:
    try:
        with open_container(str(path)) as container:
            return next(container.decode(video=0))
    except (av.error.FFmpegError, OSError, StopIteration) as error:
        raise DecodeError(f"the image {path} cannot be decoded; it is damaged or cut short") from error
