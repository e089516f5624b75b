"""Write a container file from encoded and copied packets."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
from av.format import Flags

from streamderain.errors import EncodeError
from streamderain.media.side_data import display_matrix
from streamderain.media.track import MediaSource, VideoTrack
from streamderain.media.writing.codecs import format_has
from streamderain.media.writing.encoder import VideoEncoder
from streamderain.media.writing.packets import duplicate
from streamderain.media.writing.sink import PartialFile, Sink, StandardOutput
from streamderain.media.writing.stream_copy import CopiedStream, copy_tags
from streamderain.media.writing.timestamps import (
    MonotonicTimestamps,
    TimestampRescaler,
    before_zero,
    later_timecode,
    times_restored,
)

_T = TypeVar("_T")

_MADE_BY_MUXER = {"major_brand", "minor_version", "compatible_brands", "encoder", "ENCODER"}

FROM_ZERO = ("avi",)
"""Formats that count all from zero. To make room for sound that begins before it (AAC from an mp4 does, by
21 ms) their muxer would move the pictures by a whole frame, all but the first."""

MOV_FAMILY = ("mp4", "mov", "ipod", "3gp", "3g2", "psp", "f4v")
"""Formats of FFmpeg's mov muxer, which have edit lists and so times before zero."""


_FRAGMENT_US = 1_000_000
"""A fragment or cluster is at least so long. A kill costs at most this much, a group of pictures
(`choice.gop_size`) and what the encoder holds."""

_FINEST_TICKS = 1_000_000
"""A movie's clock ticks at most so often a second: the 32-bit counters of old readers hold no long film
otherwise."""

_FRAGMENTS = {"min_frag_duration": str(_FRAGMENT_US)}
"""With `frag_keyframe`: fragments begin at key frames. One that begins inside a group of B-frames can leave
the last picture in the fragment before, and FFmpeg then takes the length of the whole file from the last
fragment alone: readers drop that picture."""


def muxer_options(muxer: str, *, cover: bool = False, time_bases: Sequence[Fraction] = ()) -> dict[str, str]:
    """Return options every file of this format is written with.

    Args:
        muxer: FFmpeg's name of the format.
        cover: Whether a cover picture is among the streams.
        time_bases: Of the video streams: a clock on which they begin exactly is used where there is one.
    """
    if muxer in MOV_FAMILY:
        return {**_clock(time_bases), **_fragments(cover=cover)}
    if muxer in ("matroska", "webm"):
        # Otherwise the muxer marks streams as default that were not, and keeps five seconds to itself.
        return {"default_mode": "passthrough", "cluster_time_limit": str(_FRAGMENT_US // 1000)}
    return {}


def _clock(time_bases: Sequence[Fraction]) -> dict[str, str]:
    """Set the mov muxer's clock: it writes when streams begin in milliseconds, unless told otherwise."""
    ticks = math.lcm(1000, *(base.denominator for base in time_bases))
    return {"movie_timescale": str(ticks)} if ticks <= _FINEST_TICKS else {}


def _fragments(*, cover: bool) -> dict[str, str]:
    if cover:
        # A fragmented file gets an empty video track beside the cover, which players stumble over. The price
        # of a plain one: it cannot be read if the process is killed.
        return {}
    # Readable after a kill, an ordinary file after a clean end. Without delay_moov the muxer moves all times
    # to begin at 0 and forgets that a stream began late.
    return {"movflags": "hybrid_fragmented+delay_moov+frag_keyframe", **_FRAGMENTS}


class ContainerOutlet:
    """Writes one container. `mux` and `copy` may be called from different threads.

    The header is tried here, so that what the format cannot hold is known before work starts.

    Args:
        sink: Where the bytes go.
        muxer: FFmpeg's name of the format.
        source: Gives metadata, chapters and the video streams' tags.
        encoders: One per video stream; their packets are told apart by their `stream`.
        copied_streams: The copied streams this format can hold.
        options: Muxer options.
        name: Name of the target, for messages.
        drops: See `Outlet`.
        stale_after_s: See `Outlet`.

    Attributes:
        origin_s: Is subtracted from all times; to be set before the first packet.

    Raises:
        EncodeError: The format refuses the video stream.
        OutputFull: The disk is full.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        muxer: str,
        source: MediaSource,
        encoders: Sequence[VideoEncoder],
        copied_streams: Sequence[CopiedStream],
        options: Mapping[str, str],
        name: str,
        drops: bool = False,
        stale_after_s: float | None = None,
    ) -> None:
        self.name = name
        self.path = str(sink.path) if isinstance(sink, PartialFile) else ""
        self._sink = sink
        self._lock = threading.Lock()
        self.may_pause = isinstance(sink, StandardOutput)
        self.lost = 0
        self.drops, self.stale_after_s = drops, stale_after_s
        self.origin_s = Fraction(0)
        self._notes: list[tuple[VideoEncoder, Callable[[int], None]]] = []
        self._closed = False
        self._wrote = False
        self._wrote_video = False
        self._from_zero = muxer in FROM_ZERO
        self._container = av.open(
            sink, "w", format=muxer, container_options=dict(options), buffer_size=1 << 18
        )
        self._video: dict[Any, tuple[Any, TimestampRescaler]] = {}
        self._copied: dict[Any, tuple[Any, CopiedStream, MonotonicTimestamps]] = {}
        self._translated(lambda: self._start(source, encoders, copied_streams))

    @property
    def time_bases(self) -> tuple[Fraction, ...]:
        """The container's clock for each video stream, in seconds per tick."""
        return tuple(stream.time_base for stream, _ in self._video.values())

    @property
    def partial(self) -> str | None:
        """Path of what is written so far; None for standard output."""
        return str(self._sink.partial) if isinstance(self._sink, PartialFile) else None

    @property
    def worked(self) -> bool:
        """Whether anything went out."""
        return self._sink.written_bytes > 0

    @property
    def written_bytes(self) -> int:
        """How much went out so far."""
        return self._sink.written_bytes

    def duplicate(self, packet: av.Packet[Any]) -> av.Packet[Any]:
        """See `media.writing.packets.duplicate`."""
        return duplicate(packet)

    def mux(self, packets: Sequence[av.Packet[Any]]) -> None:
        """Write encoded packets.

        Raises:
            OutputFull: The disk, quota or size limit is full.
            MediaError: The write failed otherwise.
            EncodeError: The format refuses a packet.
        """
        for packet in packets:
            stream, rescaler = self._video[packet.stream]
            with self._lock, times_restored(packet):
                rescaler.place(packet)
                self._write(packet, stream)
                self._wrote_video = True

    def copy(self, packet: av.Packet[Any]) -> None:
        """Write a packet of a copied stream; ignore one this format does not hold.

        Raises:
            OutputFull: The disk, quota or size limit is full.
            MediaError: The write failed otherwise.
            EncodeError: The format refuses the packet.
        """
        # By index: a live source that was lost brings the same streams in a container of their own.
        if packet.stream_index not in self._copied or not packet.size:
            return
        stream, copied_stream, order = self._copied[packet.stream_index]
        if self._from_zero and before_zero(packet):
            return
        with self._lock:
            for written in self._translated(lambda: copied_stream.packets(packet)):
                with times_restored(written) if written is packet else contextlib.nullcontext():
                    order.place(written, stream.time_base)
                    self._write(written, stream)

    def finish(self) -> None:
        """Complete the file, bring it to the disk and give it its name.

        Raises:
            OutputFull: The disk, quota or size limit is full.
            MediaError: The write failed otherwise.
            EncodeError: No packet came.
        """
        with self._lock:
            if not self._wrote:
                # FFmpeg < 9: it crashes on the trailer of some empty files.
                raise EncodeError(f"{self.name}: nothing to write; the source gave no picture and no sound")
            self._closed = True
            self._stop_listening()
            self._translated(self._container.close)
            self._sink.keep()

    def leave(self) -> str | None:
        """End the file as it is and keep it under its partial name. Idempotent, never raises.

        Returns:
            Its path; None where no picture of it can be shown, which is not kept, and for standard output.
        """
        with self._lock:
            if not self._wrote_video:
                self._discard()
                return None
            if self._sink.error is None:
                self._close()  # with the trailer: it becomes an ordinary file
            failed = self._sink.error is not None
            kept = self._sink.leave()
            self._close()
            if kept is not None and failed and not _plays(Path(kept)):
                Path(kept).unlink(missing_ok=True)
                return None
            return kept

    def abort(self) -> None:
        """Remove what was written so far. Idempotent, never raises."""
        with self._lock:
            self._discard()

    def _discard(self) -> None:
        self._sink.discard()
        self._close()

    def _close(self) -> None:
        """Close the container; a sink that was ended before gets no trailer."""
        self._stop_listening()
        if not self._closed:
            self._closed = True
            with contextlib.suppress(Exception):
                self._container.close()

    def _stop_listening(self) -> None:
        # Lists are replaced and not changed: the encoder's thread may be walking over one.
        for encoder, note in self._notes:
            encoder.listeners = [one for one in encoder.listeners if one != note]
        self._notes.clear()

    def _start(
        self, source: MediaSource, encoders: Sequence[VideoEncoder], copied_streams: Sequence[CopiedStream]
    ) -> None:
        self._container.metadata.update(_later(file_metadata(source), source))
        trimmed = source.offset_s != 0 or source.end_s is not None
        items: list[tuple[int, Any, VideoEncoder | None]] = []
        items += [(t.stream.index, t, e) for t, e in zip(source.tracks, encoders, strict=True)]
        items += [(p.source.index, p, None) for p in copied_streams]
        streams: list[tuple[Any, Any, Any]] = []
        # In the source's order: players take the first stream of a kind by default.
        for _, item, encoder in sorted(items, key=lambda entry: entry[0]):
            if encoder is not None:
                streams.append((self._add_video(source, item, encoder), item, encoder))
            else:
                stream = item.add_to(self._container)
                copy_tags(stream, item.source, keep_statistics=not trimmed)
                streams.append((stream, item, None))
        self._container.set_chapters(chapters(source))
        self._container.start_encoding()
        self._register(streams)

    def _add_video(self, source: MediaSource, track: VideoTrack, encoder: VideoEncoder) -> Any:
        stream = self._container.add_stream_from_template(encoder.stream, opaque=True)
        stream.time_base = encoder.settings.time_base
        copy_tags(stream, track.stream, keep_statistics=False)
        stream.metadata.update(_later(stream.metadata, source))
        matrix = display_matrix(track.first)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        if self._container.format.name in MOV_FAMILY and encoder.settings.codec == "libx265":
            # Apple's players take HEVC under this tag only.
            stream.codec_context.codec_tag = "hvc1"
        return stream

    def _register(self, streams: Sequence[tuple[Any, Any, Any]]) -> None:
        strict = not format_has(self._container.format, Flags.ts_nonstrict)  # it takes equal decoding times
        for stream, item, encoder in streams:
            if encoder is None:
                self._copied[item.source.index] = (
                    stream,
                    item,
                    MonotonicTimestamps(strict=strict, from_zero=self._from_zero),
                )
                continue
            rescaler = TimestampRescaler(encoder.settings.time_base, stream.time_base, strict=strict)
            encoder.listeners = [*encoder.listeners, rescaler.note]
            self._notes.append((encoder, rescaler.note))
            self._video[encoder.stream] = (stream, rescaler)

    def _write(self, packet: av.Packet[Any], stream: Any) -> None:
        if self.origin_s and packet.time_base:
            shift = round(self.origin_s / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
        packet.stream = stream
        self._wrote = True
        self._translated(lambda: self._container.mux(packet))

    def _translated(self, action: Callable[[], _T]) -> _T:
        try:
            result = action()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self._sink.check()
            raise EncodeError(
                f"{self.name}: the {self._container.format.name} writer refused: {error}. "
                "Write to .mkv, which holds nearly everything, or report this"
            ) from error
        # FFmpeg < 9: it may have swallowed a failed write.
        self._sink.check()
        return result


def _plays(path: Path) -> bool:
    """Return whether a file cut by a failed write gives a picture: its index may not be written yet."""
    try:
        with av.open(f"file:{path}") as container:
            return next(container.decode(video=0), None) is not None
    except (av.error.FFmpegError, OSError, IndexError):
        return False


def file_metadata(source: MediaSource) -> dict[str, str]:
    """Return the source's tags, without those that describe its container."""
    return {k: v for k, v in source.container.metadata.items() if k not in _MADE_BY_MUXER}


def _later(metadata: Mapping[str, str], source: MediaSource) -> dict[str, str]:
    """Return tags in which time codes are those of the first kept frame."""
    rate_fps = source.tracks[0].info.rate_fps or Fraction(25)
    return {
        name: later_timecode(value, source.offset_s, rate_fps) if name.lower() == "timecode" else value
        for name, value in metadata.items()
    }


def chapters(source: MediaSource) -> list[Any]:
    """Return the source's chapters, moved and cut to what is kept of it."""
    kept = []
    for chapter in source.container.chapters():
        base = chapter["time_base"] or Fraction(1, 1000)
        start = max(chapter["start"] * base - source.offset_s, Fraction(0))
        end = chapter["end"] * base - source.offset_s
        if source.end_s is not None:
            end = min(end, source.end_s - source.offset_s)
        if end > start or (end == start and not source.offset_s and source.end_s is None):
            kept.append(
                {**chapter, "start": round(start / base), "end": round(end / base), "time_base": base}
            )
    return kept
