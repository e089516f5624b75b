"""Copy streams without encoding, transcode text subtitles, and find out what a container can hold."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import av
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.format import Flags
from av.stream import Disposition
from av.subtitles.codeccontext import SubtitleCodecContext

from streamderain.media.writing.codecs import format_has
from streamderain.media.writing.packets import duplicate
from streamderain.media.writing.rtp import rtp_takes
from streamderain.media.writing.sink import NullSink

_LOG = logging.getLogger(__name__)

ONE_OF_A_KIND = ("flv",)
"""Formats whose second stream of video or sound only the newest readers find."""

_EXTENDED = {"flv": ("ac3", "eac3", "opus", "flac")}
"""Codecs of sound that a format holds in a form of 2023 (enhanced RTMP), which older players do not hear."""

_LOOK_AHEAD = 200
"""Packets looked at to find where every audio stream begins."""

_TEXT_CODECS = ("mov_text", "subrip", "webvtt", "ass")

_ASS_HEADER = (
    b"[Script Info]\r\nScriptType: v4.00+\r\nPlayResX: 384\r\nPlayResY: 288\r\n\r\n[V4+ Styles]\r\n"
    b"Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, "
    b"Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, "
    b"MarginL, MarginR, MarginV, Encoding\r\nStyle: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,"
    b"100,0,0,1,1,0,2,10,10,10,1\r\n\r\n[Events]\r\n"
    b"Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\r\n"
)

STATISTICS = ("DURATION", "BPS", "NUMBER_OF_", "_STATISTICS_", "encoder", "ENCODER")
"""Metadata that describes the old encode: wrong for a stream encoded anew or trimmed."""


class CopiedStream(Protocol):
    """A copied stream in one target: makes its stream there and its packets fit."""

    source: Any

    def add_to(self, container: OutputContainer) -> Any:
        """Add the stream to a container; return it."""

    def packets(self, packet: av.Packet[Any]) -> Sequence[av.Packet[Any]]:
        """Return what is written for one packet of the source."""


@dataclass
class StreamCopy:
    """Copies packets byte for byte."""

    source: Any

    def add_to(self, container: OutputContainer) -> Any:
        """Add a stream with the source's parameters."""
        return container.add_stream_from_template(self.source, opaque=True)

    def packets(self, packet: av.Packet[Any]) -> Sequence[av.Packet[Any]]:
        """Return the packet itself."""
        return (packet,)


class AdtsToAsc:
    """AAC whose every packet has a header (ADTS, from MPEG-TS), for containers that want one for all.

    Args:
        source: The audio stream.
        first: Its first packet, which tells what the header of the container has to say.

    Raises:
        ValueError: The packet is no such AAC.
    """

    def __init__(self, source: Any, first: av.Packet[Any]) -> None:
        self.source = source
        self._name = describe(source)  # a live source may be gone when it is asked for
        self._filter = BitStreamFilterContext("aac_adtstoasc", source)
        told = [p for p in self._filter.filter(duplicate(first)) if p.has_sidedata("new_extradata")]
        if not told:
            raise ValueError("no AAC header in the first packet")
        self._header = bytes(told[0].get_sidedata("new_extradata"))

    def add_to(self, container: OutputContainer) -> Any:
        """Add a stream with the source's parameters and the header."""
        stream = container.add_stream_from_template(self.source, opaque=True)
        stream.codec_context.extradata = self._header
        return stream

    def packets(self, packet: av.Packet[Any]) -> Sequence[av.Packet[Any]]:
        """Return the packet without its header; none where it is damaged."""
        try:
            plain = self._filter.filter(duplicate(packet))
        except av.error.FFmpegError:
            # One broken packet of sound is no reason to give up the video.
            _LOG.warning("%s: the packet at pts %s is damaged and left out", self._name, packet.pts)
            return ()
        for one in plain:
            one.time_base = packet.time_base
        return plain


class CoverAttachment:
    """A cover picture as an attachment: how Matroska holds one.

    Args:
        source: The cover's stream.
        data: The picture, a whole file of its kind.
    """

    def __init__(self, source: Any, data: bytes) -> None:
        self.source = source
        self._data = data

    def add_to(self, container: OutputContainer) -> Any:
        """Add the attachment, under the source's name for it."""
        codec = self.source.codec_context.name
        name = self.source.metadata.get("filename", "cover.jpg" if codec == "mjpeg" else f"cover.{codec}")
        kind = "image/jpeg" if codec == "mjpeg" else f"image/{codec}"
        return container.add_attachment(name, self.source.metadata.get("mimetype", kind), self._data)

    def packets(self, packet: av.Packet[Any]) -> Sequence[av.Packet[Any]]:
        """Nothing: the picture is in the header."""
        return ()


class TranscodedSubtitles:
    """Rewrites text subtitles in a codec the target holds; text and times stay, styles may not.

    Args:
        source: The subtitle stream.
        codec: Encoder name, such as `"mov_text"`.
    """

    def __init__(self, source: Any, codec: str) -> None:
        self.source = source
        self._name = describe(source)
        self.codec = codec
        decoder = av.CodecContext.create(source.codec_context.codec.name, "r")
        assert isinstance(decoder, SubtitleCodecContext)
        self._decoder = decoder
        if source.codec_context.extradata:
            decoder.extradata = source.codec_context.extradata
        self._encoder: SubtitleCodecContext | None = None

    def add_to(self, container: OutputContainer) -> Any:
        """Add a stream of the other codec."""
        stream = container.add_stream(self.codec)
        context = stream.codec_context
        assert isinstance(context, SubtitleCodecContext)
        self._decoder.open(strict=False)
        context.subtitle_header = self._decoder.subtitle_header or _ASS_HEADER
        context.time_base = stream.time_base = self.source.time_base
        self._encoder = context
        return stream

    def packets(self, packet: av.Packet[Any]) -> Sequence[av.Packet[Any]]:
        """Return the same text in the other codec; none for a packet without text."""
        assert self._encoder is not None
        try:
            text = self._decoder.decode2(packet)
        except av.error.InvalidDataError:
            # One broken line of text is no reason to give up the video.
            _LOG.warning("%s: the text at pts %s is damaged and left out", self._name, packet.pts)
            return ()
        if text is None or not text.rects:
            return ()
        written = self._encoder.encode_subtitle(text)
        written.time_base = packet.time_base
        written.pts = written.dts = packet.pts
        written.duration = packet.duration
        return (written,)


def choose_copied_streams(
    source: Any,
    muxer: str,
    *,
    video: Sequence[av.VideoStream],
    options: dict[str, str],
) -> tuple[list[CopiedStream], list[str]]:
    """Try every copied stream against the real muxer.

    Args:
        source: The open source, with its copied streams.
        muxer: FFmpeg's name of the container format.
        video: Streams of the open encoders.
        options: Muxer options.

    Returns:
        The streams that fit, as the target will hold them, and warnings that name the others.
    """
    taken: list[CopiedStream] = []
    warnings: list[str] = []
    for stream in source.copied:
        if _is_remade(stream):
            continue
        heard = stream.type == "audio" and any(one.source.type == "audio" for one in taken)
        forms = (
            [] if (heard and muxer in ONE_OF_A_KIND) or _is_damaged(stream) else _forms(stream, muxer, source)
        )
        copied_stream = next((p for p in forms if fits([*taken, p], muxer, video, options)), None)
        if copied_stream is None and _is_damaged(stream):
            warnings.append(f"the header of {describe(stream)} is damaged: it is left out")
            continue
        if copied_stream is None:
            hint = "" if muxer == "matroska" else " (.mkv holds nearly everything)"
            warnings.append(f"{muxer} cannot hold {describe(stream)}: it is left out{hint}")
            continue
        taken.append(copied_stream)
        if stream.type == "audio" and stream.codec_context.name in _EXTENDED.get(muxer, ()):
            warnings.append(
                f"{muxer} holds {describe(stream)} in a form of 2023, which older players do not hear "
                "(.mkv is read everywhere)"
            )
        if isinstance(copied_stream, TranscodedSubtitles) and stream.codec_context.codec.name in (
            "ass",
            "ssa",
        ):
            warnings.append(
                f"{describe(stream)} becomes {copied_stream.codec}: text and times stay, styles do not"
            )
    return taken, warnings


def fits(
    copied_streams: Sequence[CopiedStream],
    muxer: str,
    video: Sequence[av.VideoStream],
    options: dict[str, str],
) -> bool:
    """Return whether the muxer writes a header with these streams."""
    if muxer == "rtsp":
        return all(rtp_takes(one.source.codec_context.name) for one in copied_streams)
    sink = NullSink()
    container = av.open(sink, "w", format=muxer, container_options=options)
    try:
        for template in video:
            container.add_stream_from_template(template, opaque=True)
        for copied_stream in copied_streams:
            stream = copied_stream.add_to(container)
            copy_tags(stream, copied_stream.source, keep_statistics=True)
        container.start_encoding()
    except (av.error.FFmpegError, ValueError, OSError):
        return False
    finally:
        sink.closed = True
        container.close()
    return True


def first_sounds(
    source: Any, copied_streams: Sequence[CopiedStream]
) -> list[tuple[CopiedStream, av.Packet[Any]]]:
    """Return the first packet of every copied audio stream: some lie before zero, and no header tells.

    Args:
        source: The open source.
        copied_streams: The copied streams.

    Returns:
        Streams and packets; none for pipes, and none for a clip, whose times begin anew.
    """
    sounds = {p.source.index: p for p in copied_streams if p.source.type == "audio"}
    if source.offset_s or not sounds:
        return []
    found = _first_packets(source.path, set(sounds))
    return [(sounds[index], packet) for index, packet in found.items()]


def first_packet(source: Any, stream_index: int) -> av.Packet[Any] | None:
    """Return the first packet of a stream of an open source; None where a pipe has not brought it yet."""
    peeked: av.Packet[Any] | None = source.peek(stream_index)
    return peeked or _first_packets(source.path, {stream_index}).get(stream_index)


def _first_packets(path: str, indices: set[int]) -> dict[int, av.Packet[Any]]:
    """Return the first packet with a time of some streams of a file, which is opened anew; none for pipes."""
    found: dict[int, av.Packet[Any]] = {}
    if not Path(path).is_file():
        return found
    with contextlib.suppress(av.error.FFmpegError, OSError), av.open(f"file:{path}") as container:
        for packet in itertools.islice(container.demux(), _LOOK_AHEAD):
            if packet.pts is not None and packet.stream.index in indices:
                found.setdefault(packet.stream.index, packet)
            if len(found) == len(indices):
                break
    return found


def copy_tags(stream: Any, source: Any, *, keep_statistics: bool) -> None:
    """Copy metadata and dispositions to a new stream."""
    metadata = dict(source.metadata)
    if not keep_statistics:
        metadata = {k: v for k, v in metadata.items() if not k.startswith(STATISTICS)}
    stream.metadata.update({**metadata, **stream.metadata})
    stream.disposition = int(source.disposition)


def describe(stream: Any) -> str:
    """Return a copied stream in words: kind, number, codec and language."""
    kind = "cover picture" if stream.disposition & Disposition.attached_pic else stream.type
    context = stream.codec_context
    known = context is not None and context.codec is not None
    codec = context.codec.name if known else getattr(stream, "name", None)  # which only data streams have
    language = f", {stream.metadata['language']}" if "language" in stream.metadata else ""
    return f"{kind} stream {stream.index} ({codec or 'unknown'}{language})"


def _forms(stream: Any, muxer: str, source: Any) -> list[CopiedStream]:
    if stream.disposition & Disposition.attached_pic:
        return _cover_forms(stream, muxer, source.path)
    if _is_wrapped(stream) and format_has(av.ContainerFormat(muxer, "w"), Flags.global_header):
        first = first_packet(source, stream.index)
        with contextlib.suppress(ValueError, av.error.FFmpegError):
            return [] if first is None else [AdtsToAsc(stream, first)]
        return []
    forms: list[CopiedStream] = [StreamCopy(stream)]
    if stream.type == "subtitle" and stream.codec_context is not None and stream.codec_context.codec.text_sub:
        forms += [TranscodedSubtitles(stream, codec) for codec in _TEXT_CODECS]
    return forms


def _is_damaged(stream: Any) -> bool:
    """Return whether a stream of sound has no channels or no rate: readers would stumble over it."""
    context = stream.codec_context
    return stream.type == "audio" and context is not None and not (context.channels and context.sample_rate)


def _is_wrapped(stream: Any) -> bool:
    """Return whether a stream is AAC with a header in every packet: the container told none for all."""
    context = stream.codec_context
    return stream.type == "audio" and context is not None and context.name == "aac" and not context.extradata


def _cover_forms(stream: Any, muxer: str, path: str) -> list[CopiedStream]:
    if muxer == "matroska":
        data = _cover_bytes(stream, path)
        return [CoverAttachment(stream, data)] if data else []
    # Others take the stream as a video track and forget that it is a cover.
    return [StreamCopy(stream)] if muxer in ("mp4", "ipod") else []


def _cover_bytes(stream: Any, path: str) -> bytes:
    """Return the picture of a cover stream; empty where the source cannot be read twice (a pipe)."""
    if not Path(path).is_file():
        return b""
    try:
        with av.open(f"file:{path}") as container:
            return bytes(next(p for p in container.demux(container.streams[stream.index]) if p.size))
    except (av.error.FFmpegError, OSError, StopIteration):
        return b""


def _is_remade(stream: Any) -> bool:
    """Return whether the muxer makes this stream again by itself.

    A timecode track comes from the video's `timecode` tag, the text track of chapters from the chapters.
    """
    if stream.type != "data":
        return False
    return "timecode" in stream.metadata or (stream.name == "bin_data" and bool(stream.container.chapters()))
