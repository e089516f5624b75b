"""Parse the name of a target and check that it can be written, before anything is opened."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
from av.format import Flags

from streamderain.addresses import is_address, redact_address
from streamderain.errors import ConfigError, OpenError
from streamderain.media.track import MediaSource
from streamderain.media.writing.codecs import check_encoder_options, format_has
from streamderain.options import EncodeOptions

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

_PATTERN = re.compile(r"%0?\d*d")

Kind = Literal["container", "pipe", "folder", "pattern", "still"]


@dataclass(frozen=True)
class Target:
    """What a target's name means.

    Attributes:
        text: As the user wrote it.
        kind: A container file, standard output, a folder of images, a numbered pattern, or one image.
        path: Where it lies; links are followed. The current folder for standard output.
        muxer: FFmpeg's name of the container format; empty for images.
    """

    text: str
    kind: Kind
    path: Path
    muxer: str = ""


def parse_target(text: str) -> Target:
    """Find out what a target's name means. Touches nothing.

    Raises:
        ConfigError: The name is empty, or its extension belongs to no format that can be written.
    """
    if not text.strip():
        # The current folder otherwise, which nobody means by it.
        raise ConfigError("the target is empty (an unset shell variable?); name one, for instance -o out.mp4")
    if text == "-":
        return Target(text, "pipe", Path(), "matroska")
    if is_address(text):
        raise ConfigError(
            f"{redact_address(text)} is an address, and results go into files, folders or standard output; "
            "name a file with -o, for instance -o out.mp4"
        )
    # A rename would replace a link and leave what it points to as it was.
    path = Path(os.path.realpath(text))
    if _PATTERN.search(path.name):
        if path.suffix.lower() not in (*IMAGE_SUFFIXES, ".webp"):
            raise ConfigError(
                f"{text}: a numbered pattern makes images; end it with .png, .jpg, .tif, .bmp or .webp"
            )
        return Target(text, "pattern", path)
    if is_folder(text):
        return Target(text, "folder", path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return Target(text, "still", path)
    return Target(text, "container", path, _muxer(text, path))


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
    return target.kind != "pipe" and target.path.exists()


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
    parsed = [parse_target(text) for text in targets]
    for number, target in enumerate(parsed):
        if target in parsed[:number] or any(_same(target, other) for other in parsed[:number]):
            raise ConfigError(f"the target {target.text} is given twice")
        if target.kind != "pipe":
            _check_place(target)
            _check_not_source(target, source_paths)
            _check_existing(target, overwrite=options.overwrite)
    check_encoder_options(options)


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
    return "pipe" not in (one.kind, other.kind) and one.path == other.path


def _check_place(target: Target) -> None:
    folder = target.path.parent
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
