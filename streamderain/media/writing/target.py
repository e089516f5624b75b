"""Parse the name of a target and check that it can be written, before anything is opened."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import av
from av.format import Flags

from streamderain.addresses import is_address, redact_address
from streamderain.errors import ConfigError, OpenError
from streamderain.media.network import scheme_of
from streamderain.media.track import MediaSource
from streamderain.media.writing.codecs import check_encoder_options, format_has
from streamderain.media.writing.recording import Keep, holds_time
from streamderain.options import EncodeOptions

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

_PATTERN = re.compile(r"%0?\d*d")

_MUXERS = {
    "rtsp": "rtsp",
    "rtsps": "rtsp",
    "rtmp": "flv",
    "rtmps": "flv",
    "udp": "mpegts",
    "tcp": "mpegts",
    "rtp": "rtp_mpegts",
}
"""What a network target is written in, by its scheme."""

_PIPE_MUXERS = ("matroska", "mpegts", "nut", "flv", "webm", "ogg", "h264", "hevc", "yuv4mpegpipe")
"""Formats that can be written without going back."""

_SEGMENT_MUXERS = ("mpegts", "mp4")

_DEFAULTS = EncodeOptions()

Kind = Literal["container", "pipe", "folder", "pattern", "still", "network", "playlist"]


@dataclass(frozen=True)
class Target:
    """What a target's name means.

    Attributes:
        text: As the user wrote it; an address without its secrets.
        kind: A container file, standard output, a folder of images, a numbered pattern, one image, an
            address, or a playlist with its segments (HLS).
        path: Where it lies; links are followed. The current folder for standard output and addresses.
        muxer: FFmpeg's name of the container format; that of the segments for a playlist; empty for images.
        address: With its credentials; empty for anything else.
    """

    text: str
    kind: Kind
    path: Path
    muxer: str = ""
    address: str = field(default="", repr=False)


def parse_target(text: str, options: EncodeOptions = _DEFAULTS) -> Target:
    """Find out what a target's name means. Touches nothing.

    Args:
        text: As the user wrote it.
        options: How the result is encoded: the format of standard output and of segments.

    Raises:
        ConfigError: The name is empty, or its extension belongs to no format that can be written.
    """
    if not text.strip():
        # The current folder otherwise, which nobody means by it.
        raise ConfigError("the target is empty (an unset shell variable?); name one, for instance -o out.mp4")
    if text == "-":
        return Target(text, "pipe", Path(), _format(options, _PIPE_MUXERS, "standard output"))
    if is_address(text):
        return _network_target(text)
    # A rename would replace a link and leave what it points to as it was.
    path = Path(os.path.realpath(text))
    if path.suffix.lower() == ".m3u8":
        return Target(text, "playlist", path, _format(options, _SEGMENT_MUXERS, "a playlist"))
    if _PATTERN.search(path.name):
        if path.suffix.lower() in (*IMAGE_SUFFIXES, ".webp"):
            return Target(text, "pattern", path)
        if not holds_time(str(path)):
            raise ConfigError(
                f"{text}: a numbered pattern makes images; end it with .png, .jpg, .tif, .bmp or .webp. "
                "Videos that are split take the time into their names: clean-%Y%m%d-%H%M%S.mkv"
            )
    if is_folder(text):
        return Target(text, "folder", path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return Target(text, "still", path)
    return Target(text, "container", path, _muxer(text, path))


def _network_target(address: str) -> Target:
    shown, scheme = redact_address(address), scheme_of(address)
    if scheme == "srt":
        raise ConfigError(
            f"{shown}: this FFmpeg does not speak SRT; send it by another program: "
            "-o - --format mpegts | srt-live-transmit file://con ADDRESS"
        )
    if scheme not in _MUXERS:
        known = ", ".join(f"{name}://" for name in _MUXERS)
        raise ConfigError(f"{shown} cannot be published to: targets on the network are {known}")
    return Target(shown, "network", Path(), _MUXERS[scheme], address)


def _format(options: EncodeOptions, known: Sequence[str], what: str) -> str:
    name = options.container or known[0]
    if name not in known:
        raise ConfigError(f"--format {name} cannot be used for {what}; there is {', '.join(known)}")
    return name


def is_folder(text: str) -> bool:
    """Return whether a target is a folder: there is one, it ends with a slash, or has no extension."""
    if text == "-" or is_address(text):
        return False
    path = Path(text)
    return text.endswith("/") or path.is_dir() or not (path.suffix or os.path.lexists(path))


def is_there(text: str) -> bool:
    """Return whether a target is complete already, as far as its name tells: only whole results get theirs.

    Raises:
        ConfigError: The target is numbered pictures, of which some may be missing.
    """
    target = parse_target(text)
    if target.kind in ("folder", "pattern"):
        raise ConfigError(
            f"--skip-existing cannot tell whether all pictures of {text} are there; leave it out, or name a "
            f"video"
        )
    if holds_time(str(target.path)):
        raise ConfigError(f"--skip-existing does not suit {text}, whose files take the time into their names")
    return target.kind not in ("pipe", "network") and target.path.exists()


def check_targets(source_paths: Sequence[str | Path], targets: Sequence[str], options: EncodeOptions) -> None:
    """Check all targets and the encoder's options before anything is opened.

    Args:
        source_paths: Files and folders that are read; other sources are left out.
        targets: As the user wrote them.
        options: How the result is encoded.

    Raises:
        ConfigError: A target exists, is a source, comes twice or has an unknown extension; or an encoder
            option does not exist.
        OpenError: A target's folder is missing or cannot be written to.
    """
    if not targets:
        raise ConfigError("no target: name one with -o, for instance -o out.mp4")
    parsed = [parse_target(text, options) for text in targets]
    for number, target in enumerate(parsed):
        if target in parsed[:number] or any(_same(target, other) for other in parsed[:number]):
            raise ConfigError(f"the target {target.text} is given twice")
        if target.kind not in ("pipe", "network"):
            _check_place(target)
            _check_not_source(target, source_paths)
            _check_existing(target, overwrite=options.overwrite)
    check_encoder_options(options)
    _check_recording(parsed, options)


def _check_recording(targets: Sequence[Target], options: EncodeOptions) -> None:
    """Refuse options of split files that would do nothing, or remove what they should not."""
    splits = [
        target
        for target in targets
        if target.kind == "container" and (options.split_s is not None or holds_time(str(target.path)))
    ]
    if options.split_s is not None and not splits:
        raise ConfigError("--split parts files of video, and no target is one")
    if options.keep is None:
        return
    if not splits:
        raise ConfigError("--keep removes the oldest of files that were split by time; add --split 60s")
    try:
        Keep.parse(options.keep)
    except ValueError as error:
        raise ConfigError(f"keep: {error}") from error


def refused_streams(target: Target, holder: str, *, source: MediaSource) -> ConfigError:
    """Return the error for a target that holds one video stream where the source has several.

    Args:
        target: The target.
        holder: What cannot hold them: a format, or images.
        source: The source.
    """
    return ConfigError(
        f"{target.text}: {holder} cannot hold the {len(source.tracks)} video streams of {source.name}, "
        "only one; write to .mkv or .mp4"
    )


def _muxer(text: str, path: Path) -> str:
    try:
        # Nothing is created before the first packet.
        with av.open(str(path), "w") as container:
            name = container.format.name
            no_file = format_has(container.format, Flags.no_file)
    except (ValueError, av.error.FFmpegError) as error:
        raise ConfigError(
            f"{text}: the extension {path.suffix or '(none)'} names no format that can be written; "
            "try .mp4, .mkv, .mov, .webm, or .png for images"
        ) from error
    if no_file or name in ("hls", "dash", "segment", "stream_segment", "ssegment", "tee", "image2"):
        raise ConfigError(f"{text}: {name} is no single file; try .mp4, .mkv, .mov or .webm")
    return name


def _same(one: Target, other: Target) -> bool:
    placeless = {"pipe", "network"} & {one.kind, other.kind}
    return one.path == other.path if not placeless else bool(one.address) and one.address == other.address


def _check_place(target: Target) -> None:
    folder = target.path.parent
    while holds_time(str(folder)):
        folder = folder.parent  # those are made when their time has come
    if not folder.is_dir():
        raise OpenError(f"{target.text}: the folder {folder} does not exist; make it first (mkdir -p)")
    place = target.path if target.kind == "folder" and target.path.is_dir() else folder
    if not os.access(place, os.W_OK | os.X_OK):
        raise OpenError(f"{target.text}: no permission to write into {place}; choose another folder")


def _check_not_source(target: Target, source_paths: Sequence[str | Path]) -> None:
    for source in source_paths:
        same = Path(os.path.realpath(source)) == target.path
        # The same file may also go by another name (a hard link, a bind mount).
        if target.path.exists() and Path(source).exists():
            same = same or target.path.samefile(source)
        if target.kind in ("folder", "pattern") and Path(source).suffix.lower() in (*IMAGE_SUFFIXES, ".webp"):
            # Pictures keep their names or numbers, so results would land on their sources.
            folder = target.path if target.kind == "folder" else target.path.parent
            same = same or folder == Path(os.path.realpath(source)).parent
        if same:
            raise ConfigError(
                f"the target {target.text} is the source itself ({source}); choose another name"
            )


def _check_existing(target: Target, *, overwrite: bool) -> None:
    if target.kind in ("folder", "pattern"):
        return  # Looked at again once the names of the pictures are known.
    if not target.path.exists():
        return
    if not target.path.is_file():
        raise ConfigError(
            f"{target.text} is no ordinary file; use - to write to standard output and redirect it"
        )
    if not overwrite:
        raise ConfigError(f"{target.text} exists; choose another name, or add --overwrite to replace it")
