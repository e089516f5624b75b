"""Encode one stream: derained planes in, packets out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from time import perf_counter

import av
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, VideoReformatter

from streamderain.errors import EncodeError
from streamderain.frame import Frame, Planes
from streamderain.media.pixels import UNSPECIFIED, converted, write_planes
from streamderain.media.writing.codecs import EncoderSettings, open_encoder
from streamderain.media.writing.palette import PALETTE_FORMAT, Palette
from streamderain.media.writing.rotation import Rotator
from streamderain.trace import Trace


class VideoEncoder:
    """Writes planes into a writable copy of the decoder's frame and encodes it.

    The frame keeps its chroma (where only luma was derained), its alpha and its side data by construction.

    Args:
        stream: Stream of the open encoder, from `codecs.settle`.
        settings: What it was opened with.
        follow_size: Open a new encoder where the size of the frames changes (images) instead of refusing.
        name: What is encoded, for messages.
        trace: Receives how long it takes to write planes back.
    """

    def __init__(
        self,
        stream: av.VideoStream,
        settings: EncoderSettings,
        *,
        name: str,
        follow_size: bool = False,
        trace: Trace | None = None,
    ) -> None:
        self.stream = stream
        self.settings = settings
        self.listeners: list[Callable[[int], None]] = []
        self._trace = trace
        self._name = name
        self._follow_size = follow_size
        self._reformatter = VideoReformatter()
        self._rotator = Rotator(settings.rotation)
        self._palette = Palette()
        self._last_pts: int | None = None
        self._durations: dict[int, int] = {}
        self._keyframe_s: Fraction | None = None

    def encode(self, frame: Frame, planes: Planes | None) -> Sequence[av.Packet[av.VideoStream]]:
        """Encode one frame.

        Args:
            frame: The source frame; its picture becomes writable and is written to.
            planes: The first colour components, (height, width) of the picture's own code range; None
                passes the picture through.

        Returns:
            The packets that became ready, with `stream` set to this encoder's; maybe none.

        Raises:
            EncodeError: The encoder refuses the frame, or its size changed.
        """
        picture: av.VideoFrame = frame.picture
        if planes is not None:
            started = perf_counter()
            picture.make_writable()
            write_planes(picture, planes)
            if self._trace is not None:
                self._trace.add("write-back", perf_counter() - started)
        pts = self._place(frame)
        for listener in self.listeners:
            listener(pts)
        # Rotated after the conversion: chroma that is shared by neighbours is spread across rows alone.
        picture = self._rotator.rotated(self._coloured(picture))
        self._fit_size(picture, frame)
        # The decoder's choice of I, P and B frames would otherwise be forced.
        picture.pict_type = PictureType.I if self._wants_keyframe(pts) else PictureType.NONE
        duration = picture.duration
        picture.time_base = self.settings.time_base
        picture.pts = pts
        if frame.time_base != self.settings.time_base:
            picture.duration = self._duration(duration * frame.time_base)
        self._durations[pts] = picture.duration
        try:
            return self._encode(picture, frame)
        finally:
            picture.duration = duration  # Another encoder may get this picture next.

    def flush(self) -> Sequence[av.Packet[av.VideoStream]]:
        """Return the packets still inside the encoder.

        Raises:
            EncodeError: The encoder fails on them.
        """
        return self._encode(None, None)

    def close(self) -> None:
        """Release the encoder; its packets must not be touched afterwards. Idempotent."""
        self.stream.container.close()

    def _place(self, frame: Frame) -> int:
        pts = frame.pts
        if frame.time_base != self.settings.time_base:
            # Only where the encoder or container cannot hold the source's time base (said beforehand).
            pts = round(frame.pts * frame.time_base / self.settings.time_base)
            if self._last_pts is not None:
                pts = max(pts, self._last_pts + self.settings.least_step)
        self._last_pts = pts
        return pts

    def _wants_keyframe(self, pts: int) -> bool:
        """Return whether a keyframe is due; by time, since live sources tell wrong rates and leave gaps."""
        every_s = self.settings.keyframe_every_s
        if every_s is None:
            return False
        time_s, last_s = pts * self.settings.time_base, self._keyframe_s
        due = last_s is None or time_s - last_s >= every_s - 1 / (2 * self.settings.rate_fps)
        if due:
            self._keyframe_s = time_s
        return due

    def _duration(self, duration_s: Fraction) -> int:
        settings = self.settings
        if settings.time_base == 1 / settings.rate_fps:
            return 1  # Frames are numbered: one that reached over the next one's place would move it (Ogg).
        return round(duration_s / settings.time_base)

    def _fit_size(self, picture: av.VideoFrame, frame: Frame) -> None:
        settings = self.settings
        if (picture.width, picture.height) != (settings.width, settings.height):
            if not self._follow_size:
                raise EncodeError(
                    f"{self._name}: the picture changes from {settings.width}x{settings.height} to "
                    f"{picture.width}x{picture.height} at pts {frame.pts}; one file cannot hold both. "
                    f"Derain the parts on their own: -t {frame.time_s:.3f}, then -ss {frame.time_s:.3f}"
                )
            self.close()
            self.settings = replace(settings, width=picture.width, height=picture.height)
            self.stream = open_encoder(self.settings)

    def _coloured(self, picture: av.VideoFrame) -> av.VideoFrame:
        settings = self.settings
        wanted = settings.colour.matrix
        other_matrix = wanted != UNSPECIFIED and picture.colorspace not in (UNSPECIFIED, wanted)
        # Converted only where the container cannot say 'full'; see choice.in_range.
        stretched = settings.colour.range == ColorRange.MPEG and _is_full(picture)
        if picture.format.name == settings.pix_fmt and not other_matrix and not stretched:
            return picture
        return self._converted(picture)

    def _converted(self, picture: av.VideoFrame) -> av.VideoFrame:
        if self.settings.pix_fmt == PALETTE_FORMAT:
            return self._palette.reduced(picture)
        target = self.settings.colour
        fitted = converted(
            picture,
            self.settings.pix_fmt,
            matrix=target.matrix,
            color_range=target.range,
            reformatter=self._reformatter,
        )
        fitted.colorspace, fitted.color_range = target.matrix, target.range
        fitted.color_primaries, fitted.color_trc = target.primaries, target.transfer
        return fitted

    def _encode(
        self, picture: av.VideoFrame | None, frame: Frame | None
    ) -> Sequence[av.Packet[av.VideoStream]]:
        try:
            packets = self.stream.codec_context.encode(picture)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            where = (
                "while it was being emptied" if frame is None else f"frame {frame.index} (pts {frame.pts})"
            )
            raise EncodeError(
                f"{self._name}: the encoder {self.settings.codec} failed, {where}: {error}. "
                "Try another --codec"
            ) from error
        for packet in packets:
            packet.stream = self.stream
            # Encoders that reorder frames make all of them as long as the frame rate says.
            if packet.pts is not None:
                packet.duration = self._durations.pop(packet.pts, 0) or packet.duration
        return packets


def _is_full(picture: av.VideoFrame) -> bool:
    named = picture.format.name.startswith("yuvj") or picture.format.is_rgb
    return named or picture.color_range == ColorRange.JPEG
