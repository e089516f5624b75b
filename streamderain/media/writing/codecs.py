"""Choose and open encoders: pixel formats, checked options, settings.

FFmpeg ignores options it does not know, and some encoders only log bad ones. Everything is therefore
checked against the encoder's own list, and an encoder is really opened before work starts.
"""

from __future__ import annotations

import difflib
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import cast

import av
import av.logging
from av.codec.codec import PixFmtLoss, find_best_pix_fmt_of_list
from av.codec.context import Flags, OptionFlags
from av.container import OutputContainer
from av.format import Flags as FormatFlags
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc

from streamderain.errors import ConfigError, EncodeError
from streamderain.media.pixels import UNSPECIFIED
from streamderain.options import EncodeOptions

_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "libx264": {"crf": "18", "preset": "veryfast"},
    "libx264rgb": {"crf": "18", "preset": "veryfast"},
    "libx265": {"crf": "18", "preset": "veryfast"},
    # Constant quality needs the bit rate at 0; row-mt uses the cores that one tile column leaves idle.
    "libvpx-vp9": {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
    "libsvtav1": {"crf": "24", "preset": "8"},
    # Version 3 has slices with checksums, which is what archives use and what threads can share.
    "ffv1": {"level": "3", "slicecrc": "1", "g": "1"},
    "mjpeg": {"qmin": "1", "qmax": "1", "huffman": "optimal"},
    "mpeg4": {"qmin": "2", "qmax": "2"},
    "mpeg2video": {"qmin": "2", "qmax": "2"},
    "mpeg1video": {"qmin": "2", "qmax": "2"},
    "libwebp": {"lossless": "1"},
    "libwebp_anim": {"lossless": "1"},
}

_CRF_LIMIT = {"libx264": 51, "libx264rgb": 51, "libx265": 51}

_ENCODER_OF: Mapping[str, str] = {
    **dict.fromkeys(("h264", "h.264", "avc", "avc1", "x264"), "libx264"),
    **dict.fromkeys(("h265", "h.265", "hevc", "hvc1", "x265"), "libx265"),
    **dict.fromkeys(("av1", "svtav1", "svt-av1"), "libsvtav1"),
    **dict.fromkeys(("vp9", "libvp9"), "libvpx-vp9"),
}
"""Names of codecs that people give for an encoder's."""

_DEVICE_FORMATS = ("cuda", "vaapi", "qsv", "vulkan", "drm_prime")

_UNUSABLE: Mapping[str, tuple[str, ...]] = {
    # PyAV < 19: listed, but refused when the encoder opens: its x265 is built without alpha, and VP9 has
    # alpha with 4:2:0 only unless one insists.
    "libx265": ("yuva420p", "yuva420p10le"),
    "libvpx-vp9": ("yuva422p", "yuva444p", "gbrap"),
}

_PALETTES = ("pal8", "rgb8", "bgr8", "rgb4_byte", "bgr4_byte")

_ENCODES_VIDEO = OptionFlags.ENCODING_PARAM | OptionFlags.VIDEO_PARAM

_OPENING = threading.Lock()


@dataclass(frozen=True)
class Colour:
    """Colour tags, as FFmpeg numbers them."""

    matrix: int = UNSPECIFIED
    range: int = ColorRange.UNSPECIFIED
    primaries: int = ColorPrimaries.UNSPECIFIED
    transfer: int = ColorTrc.UNSPECIFIED


@dataclass(frozen=True)
class EncoderSettings:
    """All that decides what an encoder writes; outlets whose settings are equal share one encoder.

    Attributes:
        codec: Encoder name, as FFmpeg calls it.
        width: Width in pixels.
        height: Height in pixels.
        pix_fmt: Pixel format it is fed.
        time_base: Seconds per pts unit.
        rate_fps: Nominal frames per second.
        colour: Tags written into the stream.
        aspect: Sample aspect ratio; None when unknown.
        options: Encoder options, all of them.
        global_header: Whether the container keeps the parameter sets.
        chosen: Names of those options that the user gave.
        rotation: Filters every picture goes through first, from `rotation.rotation_filters`.
        least_step: Least distance of two frames, in units of `time_base`.
        keyframe_every_s: A keyframe is asked for after so many seconds; None leaves it to the encoder.
    """

    codec: str
    width: int
    height: int
    pix_fmt: str
    time_base: Fraction
    rate_fps: Fraction
    colour: Colour = field(default_factory=Colour)
    aspect: Fraction | None = None
    options: tuple[tuple[str, str], ...] = ()
    global_header: bool = True
    chosen: tuple[str, ...] = ()
    rotation: tuple[str, ...] = ()
    least_step: int = 1
    keyframe_every_s: Fraction | None = None


def check_encoder_options(options: EncodeOptions) -> None:
    """Check the encoder's name and, where it is named, its options against the encoder's own list.

    Raises:
        ConfigError: No such encoder or pixel format, or an option it does not have.
    """
    if options.pix_fmt is not None:
        check_pix_fmt(options.pix_fmt, codec=options.codec)
    if options.codec is not None:
        encoder_options(options.codec, options)


def encoder_options(codec: str, options: EncodeOptions) -> tuple[tuple[str, str], ...]:
    """Return the default and chosen options of an encoder, sorted by name.

    Args:
        codec: Encoder name.
        options: The user's choice.

    Returns:
        Pairs of name and value.

    Raises:
        ConfigError: The encoder does not exist or has no such option; names what it has.
    """
    codec = find_encoder(codec).name
    known = option_names(codec)
    given = dict(options.extra)
    if options.crf is not None:
        _check_crf(codec, options.crf, known)
        given["crf"] = f"{options.crf:g}"
    if options.preset is not None:
        if "preset" not in known:
            raise ConfigError(f"{codec} has no presets: leave --preset out. {_offer(codec, known)}")
        given["preset"] = options.preset
    if options.max_bitrate is not None:
        # The buffer of a second: a keyframe may take its share of it at once.
        given = {"maxrate": str(options.max_bitrate), "bufsize": str(options.max_bitrate), **given}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else "."
            raise ConfigError(f"{codec} has no option {name!r}{hint} {_offer(codec, known)}")
    merged = {**_DEFAULTS.get(codec, {}), **given}
    if ("b" in options.extra or "qp" in options.extra) and options.crf is None:
        # A bit rate or quantiser asked for by name must not be overruled by the default quality.
        merged.pop("crf", None)
    return tuple(sorted(merged.items()))


def option_names(codec: str) -> list[str]:
    """Return names of the options of an encoder, its own first.

    Raises:
        ConfigError: No such encoder; names near ones.
    """
    supported = av.CodecContext.create(find_encoder(codec)).supported_options
    generic = [o.name for o in supported.generic if o.flags & _ENCODES_VIDEO == _ENCODES_VIDEO]
    return [o.name for o in supported.private] + generic


def format_has(muxer: av.ContainerFormat, flag: FormatFlags) -> bool:
    """Return whether a container format has a property."""
    return bool(muxer.flags & cast(int, flag.value))


def find_encoder(name: str) -> av.Codec:
    """Return the video encoder of that name, or the usual one of a codec of that name (libx264 for h264).

    Raises:
        ConfigError: FFmpeg as built into PyAV has no such video encoder; names near ones.
    """
    try:
        codec = av.Codec(name, "w")
    except ValueError as error:
        raise ConfigError(f"there is no video encoder {name!r}; try {_suggested(name)}") from error
    if codec.type != "video":
        raise ConfigError(
            f"{name!r} encodes {codec.type}, not video; try libx264, libx265, libsvtav1 or ffv1"
        )
    return codec


def pixel_formats(codec: str) -> list[str]:
    """Return the pixel formats an encoder takes from memory, as FFmpeg calls them."""
    formats = find_encoder(codec).video_formats or []
    return [f.name for f in formats if f.name not in _UNUSABLE.get(codec, _DEVICE_FORMATS)]


def choose_pix_fmt(codec: str, source: str) -> tuple[str, PixFmtLoss]:
    """Return the encoder's pixel format that keeps most of the source's.

    Args:
        codec: Encoder name.
        source: Pixel format of the frames.

    Returns:
        The pixel format, and what it loses.
    """
    offered = pixel_formats(codec)
    if codec == "mjpeg":
        # Limited range is not what JPEG readers expect.
        offered = [name for name in offered if name.startswith("yuvj")]
        full = source.replace("yuvj", "yuv").replace("yuv", "yuvj")
        if full in offered:
            return full, PixFmtLoss.NONE
    if codec == "tiff" or codec.startswith("libwebp"):
        # Few readers of TIFF know subsampled YCbCr; lossless WebP is RGB, its YCbCr has no full range.
        offered = [name for name in offered if not name.startswith("yuv")]
    if not offered or source in offered:
        return source, PixFmtLoss.NONE
    plain = source.replace("yuvj", "yuv")
    if plain in offered:
        return plain, PixFmtLoss.NONE
    if codec == "gif":
        return "pal8", PixFmtLoss.NONE  # which loses colours, as is said for all of GIF
    # Palettes hold 256 colours; a codec that offers them also offers something better.
    rich = [name for name in offered if name not in _PALETTES]
    best, loss = find_best_pix_fmt_of_list(rich or offered, source, has_alpha(source))
    if best is None:
        raise EncodeError(f"{codec} has no pixel format for {source} pictures; choose another --codec")
    return best.name, loss


def has_alpha(pix_fmt: str) -> bool:
    """Return whether pictures of this pixel format carry transparency."""
    form = av.VideoFormat(pix_fmt)
    return any(component.is_alpha for component in form.components)


def settle(candidates: Iterable[EncoderSettings]) -> tuple[av.VideoStream, EncoderSettings]:
    """Open the first of several settings that opens.

    Returns:
        The stream of the open encoder, and its settings.

    Raises:
        ConfigError: The first candidate fails because of an option that the user gave.
        EncodeError: None opens; tells why the first does not.
    """
    first: EncodeError | None = None
    for settings in candidates:
        try:
            return open_encoder(settings), settings
        except EncodeError as error:
            first = first or error
    assert first is not None
    raise first


def open_encoder(settings: EncoderSettings) -> av.VideoStream:
    """Really opens an encoder.

    Returns:
        An open stream of a container that goes nowhere; outlets make their streams after it. Close its
        `container`: an encoder holds as much memory as all its frames, and would wait for the garbage
        collector.

    Raises:
        ConfigError: An option that the user gave has a value the encoder refuses.
        EncodeError: The encoder does not open with these settings.
    """
    stream, said, cause = _try_open(settings)
    if stream is not None:
        return stream
    _blame_options(settings)
    size = f"{settings.width}x{settings.height} {settings.pix_fmt}"
    raise EncodeError(
        f"the encoder {settings.codec} does not open for {size}: {said}. "
        "Choose another --codec or --pix-fmt, or leave both out for what suits the source"
    ) from cause


def _try_open(settings: EncoderSettings) -> tuple[av.VideoStream | None, str, Exception | None]:
    # The log level belongs to the whole process: one at a time.
    with _OPENING:
        before, skipping = av.logging.get_level(), av.logging.get_skip_repeated()
        av.logging.set_level(av.logging.INFO)
        av.logging.set_skip_repeated(False)  # Otherwise the second open of the same fault says nothing.
        os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 writes to standard error unless told otherwise.
        try:
            with av.logging.Capture(True) as log:
                try:
                    stream = _open(settings)
                except (av.error.FFmpegError, ValueError, OSError) as error:
                    return None, _reason(log, error), error
        finally:
            av.logging.set_level(before)
            av.logging.set_skip_repeated(skipping)
    complaint = [text for _, _, text in log if "rror parsing option" in text or "nknown option" in text]
    if complaint:
        stream.container.close()
        return None, complaint[0].strip().rstrip("."), None
    return stream, "", None


def _open(settings: EncoderSettings) -> av.VideoStream:
    host = av.open(os.devnull, "w", format="null")
    try:
        return _opened(host, settings)
    except BaseException:
        host.close()
        raise


def _opened(host: OutputContainer, settings: EncoderSettings) -> av.VideoStream:
    stream = host.add_stream(settings.codec, rate=settings.rate_fps)
    assert isinstance(stream, av.VideoStream)
    context = stream.codec_context
    context.width, context.height = settings.width, settings.height
    context.pix_fmt = settings.pix_fmt
    context.time_base = stream.time_base = settings.time_base
    context.colorspace = settings.colour.matrix
    context.color_range = settings.colour.range
    context.color_primaries = settings.colour.primaries
    context.color_trc = settings.colour.transfer
    if settings.aspect is not None:
        context.sample_aspect_ratio = settings.aspect
    if settings.global_header:
        context.flags |= Flags.global_header
    context.options = quiet(settings.codec, dict(settings.options))
    host.start_encoding()
    return stream


def quiet(codec: str, options: dict[str, str]) -> dict[str, str]:
    """Return the options, with an encoder that writes to standard error by itself told not to."""
    if codec == "libx265":
        given = options.get("x265-params")
        options["x265-params"] = "log-level=error" + (f":{given}" if given else "")
    return options


def _blame_options(settings: EncoderSettings) -> None:
    """Find out whether an option of the user's is what keeps the encoder from opening."""
    if not settings.chosen:
        return
    plain = {k: v for k, v in settings.options if k not in settings.chosen}
    without, _, _ = _try_open(replace(settings, options=tuple(plain.items())))
    if without is None:
        return
    without.container.close()
    for name in settings.chosen:
        value = dict(settings.options)[name]
        stream, said, cause = _try_open(replace(settings, options=(*plain.items(), (name, value))))
        if stream is None:
            raise ConfigError(
                f"{settings.codec} does not take {name}={value}: {said}. {_describe(settings.codec, name)}"
            ) from cause
        stream.container.close()


def _describe(codec: str, name: str) -> str:
    supported = av.CodecContext.create(find_encoder(codec)).supported_options
    for option in (*supported.private, *supported.generic):
        if option.name == name:
            choices = ", ".join(c.name for c in option.choices)
            limits = f"{option.min:g} to {option.max:g}" if option.max > option.min else ""
            return f"{name}: {option.help or 'no description'}" + "".join(
                f"; {part}" for part in (choices, limits) if part
            )
    return ""


def _reason(log: list[tuple[int, str, str]], error: Exception) -> str:
    # Of what is merely informative, only lists of possible values help.
    lines = [
        text.strip().rstrip(".")
        for level, _, text in log
        if text.strip() and (level <= av.logging.WARNING or text.startswith((" ", "Possible")))
    ]
    return ", ".join(dict.fromkeys(lines)).replace(":,", ":") or str(getattr(error, "strerror", "") or error)


def check_pix_fmt(name: str, *, codec: str | None) -> None:
    """Check a pixel format's name and, where an encoder is given, that it takes it.

    Raises:
        ConfigError: It does not exist, or the encoder does not take it; names those it takes.
    """
    try:
        av.VideoFormat(name)
    except ValueError as error:
        raise ConfigError(
            f"there is no pixel format {name!r}; try yuv420p, yuv420p10le or yuv444p"
        ) from error
    if codec is not None and (offered := pixel_formats(codec)) and name not in offered:
        raise ConfigError(f"{codec} does not take {name}; it takes {', '.join(offered)}")


def _check_crf(codec: str, crf: float, known: list[str]) -> None:
    if "crf" not in known:
        raise ConfigError(f"{codec} has no constant rate factor: leave --crf out. {_offer(codec, known)}")
    limit = _CRF_LIMIT.get(codec, 63)
    if crf > limit:
        raise ConfigError(f"crf of {codec} lies in 0..{limit}, not {crf:g}")


def _offer(codec: str, known: list[str]) -> str:
    return f"Options of {codec}: {', '.join(known[:40])}"


def _suggested(name: str) -> str:
    usual = _ENCODER_OF.get(name.lower())
    if usual is not None:
        return usual
    near = difflib.get_close_matches(name, _video_encoders(), n=4, cutoff=0.4)
    return ", ".join(near) or "libx264, libx265, libsvtav1 or ffv1"


def _video_encoders() -> list[str]:
    # A dict, since some encoders go by several names (libx264 also as h264).
    names: dict[str, None] = {}
    for name in sorted(av.codecs_available):
        try:
            codec = av.Codec(name, "w")
        except ValueError:
            continue
        if codec.type == "video":
            names[codec.name] = None
    return list(names)
