"""Choose encoder settings for a stream and a container format, and say what is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache

import av
from av.codec.codec import PixFmtLoss
from av.format import Flags
from av.video.reformatter import ColorRange, Colorspace

from streamderain.errors import ConfigError
from streamderain.media.track import VideoTrack
from streamderain.media.writing.codecs import (
    Colour,
    EncoderSettings,
    check_pix_fmt,
    choose_pix_fmt,
    encoder_options,
    find_encoder,
    format_has,
    has_alpha,
    option_names,
    pixel_formats,
    quiet,
)
from streamderain.media.writing.hdr10 import hdr10_of, with_hdr10
from streamderain.media.writing.roundtrip import SampleEncodes, round_trip
from streamderain.media.writing.rtp import rtp_takes
from streamderain.media.writing.sink import NullSink
from streamderain.options import EncodeOptions

LIMITED, FULL = ColorRange.MPEG, ColorRange.JPEG

_REAL_LOSS = (
    PixFmtLoss.ALPHA,
    PixFmtLoss.RESOLUTION,
    PixFmtLoss.DEPTH,
    PixFmtLoss.COLORSPACE,
    PixFmtLoss.CHROMA,
)

_LONG_GROUPS = {"libx264", "libx264rgb", "libx265", "libvpx", "libvpx-vp9", "libsvtav1"}
"""Encoders whose own groups of pictures are ten seconds and more."""

KEYFRAME_EVERY_S = Fraction(1)
"""Of live streams: recorders cut, and viewers join, at keyframes."""

_LONGEST_GROUP = 600
"""Of live streams, whose keyframes are asked for by time."""

_ONE_THREAD_PX = 2_100_000
"""Pictures up to this size (1080p) are encoded by one thread in live streams: each more delays by a frame."""

_LIVE_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "libx264": {
        "tune": "zerolatency",
        "bf": "0",
        "threads": "1",
        "sc_threshold": "0",
        "forced-idr": "1",
        # Parameter sets at every keyframe, and whole pictures: some receivers take each slice for one.
        "x264-params": "repeat-headers=1:sliced-threads=0",
    },
    "libx265": {
        "tune": "zerolatency",
        "bf": "0",
        "forced-idr": "1",
        "x265-params": "repeat-headers=1:scenecut=0:open-gop=0:log-level=none",
    },
    "h264_nvenc": {"bf": "0", "delay": "0", "zerolatency": "1", "forced-idr": "1", "no-scenecut": "1"},
    "hevc_nvenc": {"bf": "0", "delay": "0", "zerolatency": "1", "forced-idr": "1", "no-scenecut": "1"},
    "h264_qsv": {"bf": "0", "async_depth": "1", "forced_idr": "1"},
    "hevc_qsv": {"bf": "0", "async_depth": "1", "forced_idr": "1"},
}

STEADY = ("avi", "ogg", "ogv")
"""Formats that show frames at one steady rate."""

_DECODING_TIMES_ALONE = ("avi", "asf", "mxf", "mxf_opatom", "mpeg", "vob", "svcd", "dvd")
"""Formats in which readers find no presentation times, or not of every frame: B-frames would come out of
order."""

_OLDER_THAN_HEVC = ("flv",)
"""Formats that hold HEVC in a form which only the newest players show."""

_GIF_CLOCK = Fraction(1, 100)
_GIF_LEAST_STEP = 2
"""Browsers and players show a frame of a GIF that is shorter than two hundredths of a second for ten."""

_FIXED = {"gif": "gif", "apng": "apng", "webp": "libwebp_anim"}
_IMAGES = {
    ".jpg": "mjpeg",
    ".jpeg": "mjpeg",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".bmp": "bmp",
    ".webp": "libwebp",
}


@dataclass(frozen=True)
class Candidates:
    """How one stream is encoded for one target.

    Attributes:
        settings: What to try, the best first.
        warnings: What is lost with the first of them.
    """

    settings: tuple[EncoderSettings, ...]
    warnings: tuple[str, ...]


def gop_size(rate_fps: Fraction | None) -> int:
    """Return how many frames a group of pictures has at most: three seconds of them, 60 to 250.

    What a kill leaves of an mp4 ends with its last whole group. Groups of 250 frames, which x264 makes by
    itself, would cost ten seconds; three cost 1 % more bytes, and players seek faster.
    """
    return min(max(round(3 * (rate_fps or Fraction(25))), 60), 250)


def image_codec(suffix: str) -> str:
    """Return the encoder for image files of this extension (with its dot)."""
    return _IMAGES.get(suffix.lower(), "png")


def candidates_for(
    track: VideoTrack, muxer: str, options: EncodeOptions, *, codec: str | None = None
) -> Candidates:
    """Choose encoder settings for one stream and one container format.

    Args:
        track: The stream, with its first decoded frame.
        muxer: FFmpeg's name of the container format.
        options: The user's choice.
        codec: Encoder for image files; None chooses by container.

    Returns:
        Settings to try in this order, and warnings.

    Raises:
        ConfigError: The user's encoder or options do not exist, or the container cannot hold the codec.
    """
    source = track.info.pix_fmt
    name = find_encoder(codec or options.codec or default_codec(track, muxer)).name
    if codec is None and not muxer_takes(muxer, name):
        raise ConfigError(
            f"{muxer} cannot hold {name} video; choose another --codec or extension "
            "(.mkv holds nearly everything)"
        )
    if options.pix_fmt is not None:
        check_pix_fmt(options.pix_fmt, codec=name)
    pix_fmt, loss = (options.pix_fmt, PixFmtLoss.NONE) if options.pix_fmt else choose_pix_fmt(name, source)
    hdr = hdr10_of(track.first)
    warnings = [*_loss_warnings(track, name, pix_fmt, loss), *_codec_warnings(track, name, pix_fmt, options)]
    chosen = _chosen(options)
    encoding = dict(with_hdr10(name, encoder_options(name, options), hdr))
    if name in _LONG_GROUPS and "g" not in chosen:
        encoding["g"] = str(gop_size(track.info.rate_fps))
    if muxer in _DECODING_TIMES_ALONE and "bf" not in chosen:
        encoding["bf"] = "0"
    if codec is not None and options.codec not in (None, codec):
        # An image folder has its codec from its extension; options for another codec are a mistake.
        raise ConfigError(
            f"{options.codec} does not make such image files; leave --codec out, or name a video file"
        )
    settings = EncoderSettings(
        codec=name,
        width=track.info.geometry.width,
        height=track.info.geometry.height,
        pix_fmt=pix_fmt,
        time_base=_time_base(track, muxer),
        rate_fps=track.info.rate_fps or Fraction(25),
        colour=_colour(track, name, pix_fmt),
        aspect=_aspect(track),
        options=tuple(sorted(encoding.items())),
        global_header=_wants_global_header(muxer),
        chosen=chosen,
        least_step=_GIF_LEAST_STEP if name == "gif" else 1,
    )
    return Candidates(tuple(_with_fallbacks(settings, options)), tuple(warnings))


def live_candidates(track: VideoTrack, muxer: str, options: EncodeOptions) -> Candidates:
    """Choose encoder settings for a live stream: what recorders like, at the least delay.

    H.264 in 4:2:0 of 8 bits, no B-frames, a closed group of pictures each second with its parameter sets, all
    of them in the header as well: one encode then serves every container.

    Args:
        track: The stream, with its first decoded frame.
        muxer: FFmpeg's name of the container format.
        options: The user's choice.

    Raises:
        ConfigError: As for `candidates_for`.
    """
    even = track.info.geometry.width % 2 == 0 and track.info.geometry.height % 2 == 0
    if options.codec is None and muxer_takes(muxer, "libx264"):
        options = replace(options, codec="libx264")
        if options.pix_fmt is None and even:
            options = replace(options, pix_fmt="yuv420p")
    candidates = candidates_for(track, muxer, options)
    return replace(candidates, settings=tuple(_live(settings, options) for settings in candidates.settings))


def _live(settings: EncoderSettings, options: EncodeOptions) -> EncoderSettings:
    """Return settings without delay and with a keyframe each second, as far as the encoder knows such."""
    wanted = _LIVE_OPTIONS.get(settings.codec, {"bf": "0"})
    if settings.width * settings.height > _ONE_THREAD_PX:
        wanted = {name: value for name, value in wanted.items() if name != "threads"}
    known = option_names(settings.codec)
    live = {name: value for name, value in wanted.items() if name in known}
    encoding = {**dict(settings.options), **live, **dict(options.extra)}
    if "g" not in options.extra and "g" in encoding:
        encoding["g"] = str(_LONGEST_GROUP)
    return replace(
        settings,
        options=tuple(sorted(encoding.items())),
        global_header=True,
        keyframe_every_s=None if "g" in options.extra else KEYFRAME_EVERY_S,
    )


def _codec_warnings(track: VideoTrack, codec: str, pix_fmt: str, options: EncodeOptions) -> Iterator[str]:
    """Yield what the user should know of the codec itself."""
    position, rate_fps = track.info.position, track.info.rate_fps or Fraction(0)
    if (
        codec == "libx264"
        and options.codec is None
        and options.pix_fmt is None
        and _is_rarely_played(pix_fmt)
    ):
        yield (
            f"video {position}: some players and phones do not show H.264 in {pix_fmt}; "
            "--pix-fmt yuv420p plays everywhere"
        )
    if codec == "libx265" and options.codec is None:
        yield (
            f"video {position}: becomes HEVC, which keeps what the source holds and takes several "
            "times as long to encode as H.264 (--codec libx264)"
        )
    if codec == "libvpx-vp9" and has_alpha(pix_fmt):
        yield (
            f"video {position}: VP9 keeps transparency beside the picture: browsers show it, "
            "FFmpeg's own decoder and many players do not (.mkv and .mov keep it in the picture)"
        )
    slower = rate_fps * _GIF_CLOCK * _GIF_LEAST_STEP
    if codec == "gif" and slower > 1:
        yield (
            f"gif shows at most 50 frames/s: video {position} plays {float(slower):.3g} times slower "
            "(.apng, .webp and .mp4 keep its rate)"
        )
    if hdr10_of(track.first) and codec not in ("libx265", "libsvtav1"):
        yield f"{codec} cannot hold the HDR10 mastering data of the source: use --codec libx265"


def in_range(
    candidates: Candidates, muxer: str, options: Mapping[str, str], samples: SampleEncodes
) -> Candidates:
    """Return the candidates, in limited range where the file could not say that their range is full.

    Args:
        candidates: From `candidates_for`.
        muxer: FFmpeg's name of the container format.
        options: Muxer options.
        samples: Makes the small pictures that are written and read back.
    """
    wanted = candidates.settings[0]
    if wanted.colour.range != FULL or wanted.codec == "mjpeg" or not wanted.pix_fmt.startswith("yuv"):
        return candidates
    lost = round_trip(
        wanted, muxer, samples=samples, options=options, matrix=None, metadata={}, chapters=False
    ).full_range
    if not lost or not _limited(wanted):
        return candidates
    warning = (
        f"{wanted.codec} in {muxer} cannot say that the range is full: it is converted to limited range "
        "(H.264 in .mp4, .mkv or .mov keeps it)"
    )
    limited = tuple(one for settings in candidates.settings for one in _limited(settings))
    return Candidates(limited, (*candidates.warnings, warning))


def _limited(settings: EncoderSettings) -> tuple[EncoderSettings, ...]:
    """Return the settings in limited range; none where the encoder takes no such pictures."""
    pix_fmt = settings.pix_fmt.replace("yuvj", "yuv")
    offered = pixel_formats(settings.codec)
    if offered and pix_fmt not in offered:
        return ()
    return (replace(settings, pix_fmt=pix_fmt, colour=replace(settings.colour, range=LIMITED)),)


def _is_rarely_played(pix_fmt: str) -> bool:
    form = av.VideoFormat(pix_fmt)
    return form.components[0].bits > 8 or pix_fmt.replace("yuvj", "yuv").startswith(("yuv422", "yuv444"))


def default_codec(track: VideoTrack, muxer: str) -> str:
    """Return the encoder used when the user names none.

    libx264 for 8 bits, libx265 for HEVC, for more than 8 bits and for HDR10: H.264 of 10 bits shows on few
    players. For alpha ffv1 (mkv) or ProRes 4444 (mov); what the format itself wants elsewhere.
    """
    if muxer in _FIXED:
        return _FIXED[muxer]
    source = track.info.pix_fmt
    if muxer == "webm":
        return _webm_codec(track)
    if muxer == "avi":
        # AVI has no times but the frame's number; with H.264 readers show the picture late by a frame or two.
        # Neither AVI nor MPEG-4 part 2 can say that the range is full, as JPEG always is.
        plain = track.info.geometry.chroma == "420" and track.info.geometry.range == "limited"
        return "mpeg4" if plain else "mjpeg"
    if has_alpha(source) and muxer in ("matroska", "mov"):
        return "ffv1" if muxer == "matroska" else "prores_ks"
    deep = track.info.geometry.bits > 8 and not av.VideoFormat(source).is_rgb
    wants_hevc = track.info.codec == "hevc" or deep or hdr10_of(track.first) is not None
    if wants_hevc and muxer not in _OLDER_THAN_HEVC and muxer_takes(muxer, "libx265"):
        return "libx265"
    if muxer_takes(muxer, "libx264"):
        return "libx264"
    return _own_codec(muxer)


@cache
def muxer_takes(muxer: str, codec: str) -> bool:
    """Return whether a container format writes a header for what an encoder makes."""
    if muxer == "rtsp":
        return rtp_takes(av.Codec(codec, "w").canonical_name)
    sink = NullSink()
    container = av.open(sink, "w", format=muxer)
    opened = True
    try:
        stream = container.add_stream(codec, rate=25, width=64, height=64)
        assert isinstance(stream, av.VideoStream)
        offered = pixel_formats(codec)
        stream.pix_fmt = "yuv420p" if not offered or "yuv420p" in offered else offered[0]
        opened = False
        stream.codec_context.options = quiet(codec, {})
        stream.codec_context.open()
        opened = True
        container.start_encoding()
    except (av.error.FFmpegError, ValueError, OSError):
        # An encoder that does not open says nothing about the container; opening it for real tells why.
        return not opened
    finally:
        sink.closed = True
        container.close()
    return True


def _own_codec(muxer: str) -> str:
    with av.open(NullSink(), "w", format=muxer) as container:
        name = container.default_video_codec
    if name in ("none", "png"):
        # Audio formats name PNG for their cover pictures.
        raise ConfigError(f"{muxer} holds no video; choose .mp4, .mkv, .mov or .webm")
    with contextlib.suppress(ConfigError):
        return find_encoder(name).name
    if muxer_takes(muxer, "libvpx"):
        return "libvpx"  # Ogg's own is Theora, which many builds of FFmpeg cannot make.
    raise ConfigError(
        f"this FFmpeg has no encoder for {name}, which {muxer} wants; choose .mp4, .mkv, .mov or .webm"
    )


def _webm_codec(track: VideoTrack) -> str:
    source = track.info.pix_fmt
    if has_alpha(source):
        return "libvpx-vp9"
    # The VP9 encoder at hand has 8 bits only, SVT-AV1 has 4:2:0 only: depth is what shows in a sky.
    return "libsvtav1" if track.info.geometry.bits > 8 else "libvpx-vp9"


def _loss_warnings(track: VideoTrack, codec: str, pix_fmt: str, loss: PixFmtLoss) -> Iterator[str]:
    source = track.info.pix_fmt
    words = {
        PixFmtLoss.ALPHA: "transparency is dropped (.mkv, .mov and .webm keep it)",
        PixFmtLoss.RESOLUTION: "chroma resolution is reduced",
        PixFmtLoss.DEPTH: "bit depth is reduced",
        PixFmtLoss.COLORSPACE: "colours are converted between RGB and YCbCr",
        PixFmtLoss.CHROMA: "colour is dropped",
    }
    if track.info.geometry.chroma == "gray":
        loss &= PixFmtLoss.DEPTH | PixFmtLoss.ALPHA  # Gray in a format with chroma loses nothing.
    if av.VideoFormat(source).is_rgb == av.VideoFormat(pix_fmt).is_rgb:
        loss &= ~PixFmtLoss.COLORSPACE  # FFmpeg counts a change of range among these.
    lost = [words[flag] for flag in _REAL_LOSS if loss & flag]
    if has_alpha(source) and not has_alpha(pix_fmt) and not loss & PixFmtLoss.ALPHA:
        lost.insert(0, words[PixFmtLoss.ALPHA])
    if codec == "gif":
        lost = ["colours are reduced to a palette of 256"]
    if lost:
        yield f"video {track.info.position}: {source} becomes {pix_fmt} ({codec}): {'; '.join(lost)}"


def _with_fallbacks(settings: EncoderSettings, options: EncodeOptions) -> Iterator[EncoderSettings]:
    """Yield the settings, then variants for what some encoders refuse."""
    finer = [replace(settings, pix_fmt=name) for name in _finer_chroma(settings)]
    if options.pix_fmt is None and settings.codec == "libx265":
        # It complains on standard error where others just refuse.
        yield from finer
    yield settings
    if options.pix_fmt is None:
        yield from finer
    if settings.codec in ("mpeg1video", "mpeg2video"):
        yield replace(
            settings, time_base=1 / settings.rate_fps
        )  # which know their frame rate and nothing else
    # MPEG-4 part 2 counts time in at most 65535 parts of a second.
    ticks = settings.rate_fps.numerator * max(1, 65535 // settings.rate_fps.numerator)
    yield replace(settings, time_base=Fraction(1, ticks))


def _finer_chroma(settings: EncoderSettings) -> Iterator[str]:
    """Yield the pixel formats that hold odd sizes, which 4:2:0 refuses: nothing is cut and nothing padded."""
    plain = settings.pix_fmt.replace("nv12", "yuv420p")
    if (settings.width % 2 == 0 and settings.height % 2 == 0) or "42" not in plain:
        return
    if settings.width % 2 == 0:
        yield plain.replace("420p", "422p")
    yield plain.replace("420p", "444p").replace("422p", "444p")


def _time_base(track: VideoTrack, muxer: str) -> Fraction:
    if muxer == "gif":
        return _GIF_CLOCK
    # These number their frames: the time base is the frame rate.
    if muxer in STEADY and track.info.rate_fps:
        return 1 / track.info.rate_fps
    return track.info.time_base


def _wants_global_header(muxer: str) -> bool:
    return format_has(av.ContainerFormat(muxer, "w"), Flags.global_header)


def _colour(track: VideoTrack, codec: str, pix_fmt: str) -> Colour:
    first = track.first
    was_rgb, is_rgb = av.VideoFormat(track.info.pix_fmt).is_rgb, av.VideoFormat(pix_fmt).is_rgb
    primaries, transfer = int(first.color_primaries), int(first.color_trc)
    if is_rgb:
        return Colour(0, FULL, primaries, transfer)
    if codec == "mjpeg":
        # Readers of JPEG files expect BT.601, whatever the picture came from.
        return Colour(Colorspace.ITU601, FULL, primaries, transfer)
    if pix_fmt.startswith("yuvj"):
        matrix = Colorspace.ITU709 if was_rgb else int(first.colorspace)
        return Colour(matrix, FULL, primaries, transfer)
    if was_rgb:
        return Colour(Colorspace.ITU709, LIMITED, primaries, transfer)
    full = track.info.pix_fmt.startswith("yuvj")
    return Colour(int(first.colorspace), FULL if full else int(first.color_range), primaries, transfer)


def _aspect(track: VideoTrack) -> Fraction | None:
    aspect = track.stream.sample_aspect_ratio
    return aspect if aspect else None


def _chosen(options: EncodeOptions) -> tuple[str, ...]:
    names = list(options.extra)
    names += ["crf"] if options.crf is not None else []
    names += ["preset"] if options.preset is not None else []
    return tuple(names)
