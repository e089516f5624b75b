"""Writers of tiny media, whole and broken, and a reader to compare results with.

Every file is made on the fly in milliseconds. Nothing here imports streamderain: what the package reads and
writes is checked against an independent reading of the same files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.codec.context import CodecContext
from av.stream import Disposition
from av.subtitles.codeccontext import SubtitleCodecContext
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from tests.support.pictures import texture

FAST: Mapping[str, Mapping[str, str]] = {
    "libx264": {"preset": "ultrafast", "threads": "1", "x264-params": "log=-1"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:frame-threads=1"},
    "libsvtav1": {"preset": "12"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}
"""Encoder options that make tiny files quickly; every `Video` starts from these."""

HDR10_X265 = (
    "hdr10=1:repeat-headers=1:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:"
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400"
)
"""x265 parameters of an HDR10 picture: mastering display, content light level and colour tags."""

ASS_HEADER = (
    b"[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\nFormat: Name, Fontname, Fontsize\r\n"
    b"Style: Default,Arial,20\r\n\r\n[Events]\r\n"
    b"Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\r\n"
)


@dataclass(frozen=True)
class Colour:
    """Colour tags as FFmpeg's numbers; the default is BT.709 limited. BT.2020 PQ is `(9, 9, 16)`."""

    primaries: int = 1
    matrix: int = 1
    transfer: int = 1
    range: int = 1


@dataclass(frozen=True)
class Video:
    """One video stream to write.

    Attributes:
        pts: Presentation times in units of `time_base`; None for 0, 1, 2 ... frames at `rate`.
        time_base: Of the encoder; the muxer may choose another. None for `1 / rate`.
        rotation: Degrees counter-clockwise, as `frame.rotation` reads it back.
        b_frames: Consecutive B-frames; 0 for none.
        gop: Frames from one keyframe to the next.
        start_s: Added to every time.
    """

    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    width: int = 64
    height: int = 48
    frames: int = 10
    rate: Fraction = Fraction(25)
    time_base: Fraction | None = None
    pts: Sequence[int] | None = None
    start_s: Fraction = Fraction(0)
    options: Mapping[str, str] = field(default_factory=dict)
    gop: int = 12
    b_frames: int = 0
    rotation: int = 0
    sar: Fraction | None = None
    colour: Colour | None = None
    interlaced: bool = False
    seed: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def base(self) -> Fraction:
        return self.time_base or 1 / self.rate

    @property
    def times(self) -> list[int]:
        """Presentation times in units of `base`."""
        shift = int(self.start_s / self.base)
        regular = [int(index / self.rate / self.base) for index in range(self.frames)]
        return [pts + shift for pts in (self.pts if self.pts is not None else regular)]


@dataclass(frozen=True)
class Sound:
    """One audio stream to write: a sine tone."""

    codec: str = "aac"
    seconds: float = 0.4
    start_s: Fraction = Fraction(0)
    sample_rate: int = 48000
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Text:
    """One subtitle stream to write; `events` are (start in ms, end in ms, text)."""

    codec: str = "subrip"
    events: Sequence[tuple[int, int, str]] = ((40, 200, "one"), (240, 360, "two"))
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Attachment:
    """A file attached to a Matroska file."""

    name: str = "font.ttf"
    mimetype: str = "application/x-truetype-font"
    data: bytes = b"not really a font"


Chapter = tuple[int, int, str]
"""Start in ms, end in ms, title."""


def picture(index: int, width: int, height: int, pix_fmt: str, *, seed: int = 0) -> av.VideoFrame:
    """Returns picture `index` of the moving texture as a frame of any pixel format, pts unset."""
    rgb = np.ascontiguousarray(texture(index, width, height, seed=seed))
    if pix_fmt == "pal8":
        return _paletted(rgb)
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb48le")
    return frame if pix_fmt == "rgb48le" else frame.reformat(format=pix_fmt, threads=1)


def _paletted(rgb: NDArray[np.uint16]) -> av.VideoFrame:
    """Returns a picture of 256 grays with a palette; swscale cannot make these."""
    codes = np.ascontiguousarray(rgb[..., 0] >> 8).astype(np.uint8)
    palette = np.stack([np.full(256, 255), *[np.arange(256)] * 3], axis=-1).astype(np.uint8)
    return av.VideoFrame.from_ndarray(cast(Any, (codes, palette)), format="pal8")


def write(
    path: Path,
    *video: Video,
    audio: Sequence[Sound] = (),
    subtitles: Sequence[Text] = (),
    attachments: Sequence[Attachment] = (),
    chapters: Sequence[Chapter] = (),
    metadata: Mapping[str, str] | None = None,
    cover: bool = False,
    container: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Writes a media file with every stream asked for, interleaved by time.

    Args:
        path: Where; its suffix chooses the container unless `container` does.
        video: Video streams, in order.
        audio: Audio streams.
        subtitles: Subtitle streams.
        attachments: Attached files (Matroska).
        chapters: Chapters.
        metadata: Tags of the whole file.
        cover: Adds a PNG picture as cover art.
        container: Muxer name.
        options: Muxer options.

    Returns:
        The path.
    """
    with av.open(str(path), "w", format=container, options=dict(options or {})) as out:
        out.metadata.update(metadata or {})
        out.set_chapters([_chapter(number, chapter) for number, chapter in enumerate(chapters)])
        packets: list[av.Packet[Any]] = []
        pictures = [_add_video(out, one) for one in video]
        sounds = [_add_audio(out, one) for one in audio]
        texts = [_add_text(out, one) for one in subtitles]
        for attachment in attachments:
            out.add_attachment(attachment.name, attachment.mimetype, attachment.data)
        art = _add_cover(out) if cover else None
        out.start_encoding()
        for stream, spec in zip(pictures, video, strict=True):
            packets += _encode_video(stream, spec)
        for sound, tone in zip(sounds, audio, strict=True):
            packets += _encode_audio(sound, tone)
        for text, lines in zip(texts, subtitles, strict=True):
            packets += _text_packets(text, lines)
        if art is not None:
            packets.insert(0, _cover_packet(art))
        for packet in sorted(packets, key=_decode_time):
            out.mux(packet)
    return path


def write_video(path: Path, **fields: Any) -> Path:
    """Writes one video stream; `fields` are those of `Video`."""
    return write(path, Video(**fields))


def _chapter(number: int, chapter: Chapter) -> Any:
    start, end, title = chapter
    return {
        "id": number,
        "start": start,
        "end": end,
        "time_base": Fraction(1, 1000),
        "metadata": {"title": title},
    }


def _decode_time(packet: av.Packet[Any]) -> Fraction:
    return (packet.dts or 0) * packet.time_base


def _encoder_options(spec: Video) -> dict[str, str]:
    options = dict(FAST.get(spec.codec, {}))
    if spec.interlaced:
        options["flags"] = "+ildct+ilme"
        if spec.codec == "libx264":
            options["x264-params"] = "log=-1:tff=1"
    if spec.codec in ("libx264", "libx265"):
        options["bf"] = str(spec.b_frames)
    for key, value in spec.options.items():
        merged = key in ("x264-params", "x265-params") and key in options
        options[key] = f"{options[key]}:{value}" if merged else value
    return options


def _add_video(out: av.container.OutputContainer, spec: Video) -> av.VideoStream:
    stream = cast(
        av.VideoStream,
        out.add_stream(spec.codec, rate=spec.rate, options=_encoder_options(spec), time_base=spec.base),
    )
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = spec.width, spec.height, spec.pix_fmt
    context.gop_size = spec.gop
    context.time_base = spec.base
    if spec.codec == "mpeg4":
        context.max_b_frames = spec.b_frames
    if spec.sar is not None:
        context.sample_aspect_ratio = spec.sar
    if spec.colour is not None:
        context.color_primaries, context.colorspace = spec.colour.primaries, spec.colour.matrix
        context.color_trc, context.color_range = spec.colour.transfer, spec.colour.range
    if spec.rotation:
        stream.set_display_rotation(spec.rotation)
    stream.metadata.update(spec.metadata)
    return stream


def _frames(spec: Video) -> Iterator[av.VideoFrame]:
    for index, pts in enumerate(spec.times):
        frame = picture(index, spec.width, spec.height, spec.pix_fmt, seed=spec.seed)
        frame.pts, frame.time_base = pts, spec.base
        if spec.colour is not None:
            frame.color_range, frame.colorspace = spec.colour.range, spec.colour.matrix
            frame.color_primaries, frame.color_trc = spec.colour.primaries, spec.colour.transfer
        yield frame


def _encode_video(stream: av.VideoStream, spec: Video) -> list[av.Packet[Any]]:
    packets = [packet for frame in _frames(spec) for packet in stream.encode(frame)]
    return packets + stream.encode(None)


def _add_audio(out: av.container.OutputContainer, spec: Sound) -> av.AudioStream:
    stream = cast(av.AudioStream, out.add_stream(spec.codec, rate=spec.sample_rate))
    stream.codec_context.layout = "mono"
    stream.metadata.update(spec.metadata)
    return stream


def _encode_audio(stream: av.AudioStream, spec: Sound) -> list[av.Packet[Any]]:
    count = int(spec.seconds * spec.sample_rate)
    tone = (np.sin(np.arange(count) / 20.0) * 8000).astype(np.int16)[None]
    frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
    frame.sample_rate, frame.time_base = spec.sample_rate, Fraction(1, spec.sample_rate)
    frame.pts = int(spec.start_s * spec.sample_rate)
    size = stream.codec_context.frame_size or 1024
    resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", frame_size=size)
    packets = [packet for piece in resampler.resample(frame) for packet in stream.encode(piece)]
    packets += [packet for piece in resampler.resample(None) for packet in stream.encode(piece)]
    return packets + stream.encode(None)


def _add_text(out: av.container.OutputContainer, spec: Text) -> Any:
    if spec.codec == "mov_text":
        stream = out.add_mux_stream(spec.codec, time_base=Fraction(1, 1000))
    else:
        stream = out.add_stream(spec.codec)
        cast(SubtitleCodecContext, stream.codec_context).subtitle_header = ASS_HEADER
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.time_base = Fraction(1, 1000)
    stream.metadata.update(spec.metadata)
    return stream


def _text_packets(stream: Any, spec: Text) -> list[av.Packet[Any]]:
    packets = []
    for number, (start_ms, end_ms, text) in enumerate(spec.events):
        data = text.encode()
        if spec.codec == "ass":
            data = f"{number},0,Default,,0,0,0,,{text}".encode()
        elif spec.codec == "mov_text":
            data = len(data).to_bytes(2, "big") + data
        packet: av.Packet[Any] = av.Packet(data)
        packet.stream, packet.time_base = stream, Fraction(1, 1000)
        packet.pts = packet.dts = start_ms
        packet.duration = end_ms - start_ms
        packets.append(packet)
    return packets


def _add_cover(out: av.container.OutputContainer) -> Any:
    if out.format.name in ("matroska", "webm"):  # there cover art is an attachment with a known name
        out.add_attachment("cover.png", "image/png", png_bytes())
        return None
    stream = out.add_stream("png", rate=1)
    stream.codec_context.width = stream.codec_context.height = 32
    stream.codec_context.pix_fmt = "rgb24"
    stream.disposition = Disposition.attached_pic
    stream.metadata.update({"filename": "cover.png", "mimetype": "image/png"})
    return stream


def _cover_packet(stream: Any) -> av.Packet[Any]:
    packet: av.Packet[Any] = av.Packet(png_bytes())
    packet.stream, packet.time_base = stream, Fraction(1, 1)
    packet.pts = packet.dts = 0
    packet.is_keyframe = True
    return packet


def png_bytes(width: int = 32, height: int = 32, pix_fmt: str = "rgb24", *, index: int = 0) -> bytes:
    """Returns one picture of the texture as the bytes of a PNG file."""
    return image_bytes("png", width, height, pix_fmt, index=index)


def image_bytes(codec: str, width: int, height: int, pix_fmt: str, *, index: int = 0) -> bytes:
    """Returns one picture of the texture as the bytes of an image file (png, mjpeg, tiff, bmp, ...)."""
    context = cast(av.VideoCodecContext, CodecContext.create(codec, "w"))
    context.width, context.height, context.pix_fmt = width, height, pix_fmt
    context.time_base = Fraction(1, 25)
    if codec == "mjpeg":
        context.color_range = 2
    frame = picture(index, width, height, pix_fmt)
    frame.pts = 0
    return b"".join(bytes(packet) for packet in context.encode(frame) + context.encode(None))


def write_image(
    path: Path,
    *,
    codec: str = "png",
    width: int = 64,
    height: int = 48,
    pix_fmt: str = "rgb24",
    index: int = 0,
) -> Path:
    """Writes one picture of the texture as an image file."""
    path.write_bytes(image_bytes(codec, width, height, pix_fmt, index=index))
    return path


def write_sequence(
    folder: Path, *, count: int = 5, first: int = 1, pattern: str = "rain_{:04d}.png", **kind: Any
) -> list[Path]:
    """Writes a numbered run of images into a folder, which is made where missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write_image(folder / pattern.format(number), index=number, **kind)
        for number in range(first, first + count)
    ]


# ---- broken media


def truncate(path: Path, *, keep: float = 0.6) -> Path:
    """Cuts a file short, keeping this share of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def flip_bits(path: Path, *, start: float = 0.5, end: float = 0.6, every: int = 7, seed: int = 0) -> Path:
    """Flips a bit in every `every`-th byte between two shares of the file's length."""
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for position in range(int(len(data) * start), int(len(data) * end), every):
        data[position] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    return path


def remux(source: Path, target: Path, *, drop: Sequence[int] = (), spoil: Sequence[int] = ()) -> Path:
    """Copies the first video stream, leaving out some packets and overwriting the inside of others.

    Args:
        source: The file to copy.
        target: Where to; its suffix chooses the container.
        drop: Numbers of packets to leave out, from 0.
        spoil: Numbers of packets whose bytes from the tenth on are replaced by noise.
    """
    rng = np.random.default_rng(1)
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for number, packet in enumerate(container.demux(video=0)):
            if packet.dts is None or number in drop:
                continue
            if number in spoil:
                packet = _spoilt(packet, rng)
            packet.stream = stream
            out.mux(packet)
    return target


def _spoilt(packet: av.Packet[Any], rng: np.random.Generator) -> av.Packet[Any]:
    data = bytearray(bytes(packet))
    data[10:] = rng.integers(0, 256, max(0, len(data) - 10), dtype=np.uint8).tobytes()
    spoilt: av.Packet[Any] = av.Packet(bytes(data))
    spoilt.pts, spoilt.dts, spoilt.duration = packet.pts, packet.dts, packet.duration
    spoilt.time_base, spoilt.is_keyframe = packet.time_base, packet.is_keyframe
    return spoilt


def without_moov(path: Path, **fields: Any) -> Path:
    """Writes an mp4 whose index is missing, as left by a recorder that lost its power."""
    write_video(path, **fields)
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"moov") - 4])
    return path


def size_change(
    path: Path, *, sizes: Sequence[tuple[int, int]] = ((64, 48), (96, 64)), frames: int = 8
) -> Path:
    """Writes a transport stream whose picture size changes in the middle."""
    parts = []
    for number, (width, height) in enumerate(sizes):
        part = path.with_name(f"{path.stem}.part{number}.ts")
        start = Fraction(number * frames, 25)
        write_video(part, width=width, height=height, frames=frames, start_s=start)
        parts.append(part.read_bytes())
        part.unlink()
    path.write_bytes(b"".join(parts))
    return path


def joined(path: Path, *parts: Path) -> Path:
    """Joins files byte by byte (transport streams may be), so that times start over."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def garbage(path: Path, *, size: int = 20_000) -> Path:
    """Writes noise."""
    path.write_bytes(np.random.default_rng(7).integers(0, 256, size, dtype=np.uint8).tobytes())
    return path


def text_file(path: Path) -> Path:
    """Writes plain text."""
    path.write_text("The rain in Spain stays mainly in the plain.\n" * 200)
    return path


def audio_only(path: Path, **fields: Any) -> Path:
    """Writes a file with sound and no video."""
    return write(path, audio=[Sound(**fields)])


def zero_frames(path: Path) -> Path:
    """Writes a file whose video stream holds no picture."""
    return write(path, Video(frames=0))


def encrypted(path: Path) -> Path:
    """Writes an mp4 with common encryption (the kind behind DRM)."""
    key = "0123456789abcdef0123456789abcdef"
    scheme = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    return write(path, Video(), options=scheme)


# ---- reading back


@dataclass(frozen=True)
class VideoFacts:
    """What a video stream holds, read independently of streamderain."""

    codec: str
    pix_fmt: str
    width: int
    height: int
    times: tuple[Fraction | None, ...]
    rotation: int
    sar: Fraction | None
    colour: Colour
    side_data: tuple[str, ...]
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class CopiedFacts:
    """What a stream that is copied holds: sha256 of each packet's bytes, and their times in seconds."""

    kind: str
    codec: str | None
    digests: tuple[str, ...]
    times: tuple[Fraction | None, ...]
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Facts:
    """Everything of a file that a result is compared with."""

    video: tuple[VideoFacts, ...]
    copied: tuple[CopiedFacts, ...]
    chapters: tuple[tuple[Fraction, Fraction, str], ...]
    attachments: tuple[Attachment, ...]
    metadata: Mapping[str, str]

    def of_kind(self, kind: str) -> list[CopiedFacts]:
        """Returns the copied streams of one kind; cover art is `"picture"`."""
        return [facts for facts in self.copied if facts.kind == kind]


def probe(path: Path) -> Facts:
    """Reads a whole file: all times, digests of copied packets, tags, chapters and attachments."""
    with av.open(f"file:{path}") as container:
        video = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        frames: dict[int, list[av.VideoFrame]] = {stream.index: [] for stream in video}
        packets: dict[int, list[av.Packet[Any]]] = {stream.index: [] for stream in container.streams}
        for packet in container.demux():
            if packet.stream.index in frames:
                with suppress(av.error.InvalidDataError):
                    frames[packet.stream.index] += cast("list[av.VideoFrame]", packet.decode())
            elif packet.size:
                packets[packet.stream.index].append(packet)
        copied = [stream for stream in container.streams if stream.index not in frames]
        return Facts(
            video=tuple(_video_facts(stream, frames[stream.index]) for stream in video),
            copied=tuple(_copied_facts(s, packets[s.index]) for s in copied if s.type != "attachment"),
            chapters=tuple(_chapter_facts(chapter) for chapter in container.chapters()),
            attachments=tuple(
                Attachment(s.name or "", s.mimetype or "", s.data) for s in container.streams.attachments
            ),
            metadata=dict(container.metadata),
        )


def _video_facts(stream: av.VideoStream, frames: list[av.VideoFrame]) -> VideoFacts:
    first = frames[0] if frames else None
    context = stream.codec_context
    base = stream.time_base or Fraction(1)
    return VideoFacts(
        codec=context.name,
        pix_fmt=first.format.name if first else str(context.pix_fmt),
        width=first.width if first else context.width,
        height=first.height if first else context.height,
        times=tuple(None if frame.pts is None else frame.pts * base for frame in frames),
        rotation=first.rotation if first else 0,
        sar=stream.sample_aspect_ratio,
        colour=Colour(context.color_primaries, context.colorspace, context.color_trc, context.color_range),
        side_data=_side_data(first) if first else (),
        metadata=dict(stream.metadata),
    )


def _side_data(frame: av.VideoFrame) -> tuple[str, ...]:
    try:
        return tuple(sorted(item.type.name for item in cast(Any, frame.side_data)))
    except ValueError:  # a kind that this PyAV has no name for, as in a 48-bit TIFF
        return ("unknown",)


def _copied_facts(stream: Any, packets: list[av.Packet[Any]]) -> CopiedFacts:
    kind = "picture" if stream.disposition & Disposition.attached_pic else stream.type
    return CopiedFacts(
        kind=kind,
        codec=None if stream.codec_context is None else stream.codec_context.name,
        digests=tuple(hashlib.sha256(bytes(packet)).hexdigest() for packet in packets),
        times=tuple(None if packet.pts is None else packet.pts * packet.time_base for packet in packets),
        metadata=dict(stream.metadata),
    )


def _chapter_facts(chapter: Any) -> tuple[Fraction, Fraction, str]:
    base = chapter["time_base"]
    return chapter["start"] * base, chapter["end"] * base, chapter["metadata"].get("title", "")


def decoded(path: Path, *, stream: int = 0) -> list[av.VideoFrame]:
    """Returns all frames of one video stream."""
    with av.open(f"file:{path}") as container:
        return list(container.decode(video=stream))


def rgb(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """A frame as RGB, (height, width, 3), with swscale told to be exact."""
    exact = Interpolation.BILINEAR | Interpolation.ACCURATE_RND
    exact |= Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
    packed = frame.reformat(format="rgb24", interpolation=int(exact), threads=1)
    return cast(NDArray[np.uint8], packed.to_ndarray())


def variant(video: Video, **fields: Any) -> Video:
    """Returns a video with some fields changed."""
    return replace(video, **fields)
