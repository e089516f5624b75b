"""Where results go: what a target's name means, whether it can be written, and the outputs for it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import av

from streamderain.errors import ConfigError, OpenError
from streamderain.media.choice import Choice, choose
from streamderain.media.codecs import EncoderSettings, check_encoder_options, settle
from streamderain.media.copied import choose_passengers
from streamderain.media.encoder import VideoEncoder
from streamderain.media.outlet import ContainerOutlet, muxer_options
from streamderain.media.sink import PartialFile, Sink, StandardOutput
from streamderain.options import EncodeOptions

if TYPE_CHECKING:
    from streamderain.media.source import FileSource

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

_PATTERN = re.compile(r"%0?\d*d")

Kind = Literal["container", "pipe", "folder", "pattern", "still"]


@dataclass(frozen=True)
class MediaOutput:
    """One encode of every stream, fed to one or more targets."""

    encoders: tuple[VideoEncoder, ...]
    outlets: tuple[ContainerOutlet, ...]


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
    """Finds out what a target's name means. Touches nothing.

    Raises:
        ConfigError: The extension belongs to no format that can be written.
    """
    if text == "-":
        return Target(text, "pipe", Path(), "matroska")
    # A rename would replace a link and leave what it points to as it was.
    path = Path(os.path.realpath(text))
    if _PATTERN.search(path.name):
        if path.suffix.lower() not in (*IMAGE_SUFFIXES, ".webp"):
            raise ConfigError(
                f"{text}: a numbered pattern makes images; end it with .png, .jpg, .tif, .bmp or .webp"
            )
        return Target(text, "pattern", path)
    if text.endswith("/") or path.is_dir():
        return Target(text, "folder", path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return Target(text, "still", path)
    return Target(text, "container", path, _muxer(text, path))


def check_targets(source_paths: Sequence[str | Path], targets: Sequence[str], options: EncodeOptions) -> None:
    """Checks all targets and the encoder's options before anything is opened.

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


def open_outputs(
    source: FileSource, targets: Sequence[str], options: EncodeOptions
) -> tuple[list[MediaOutput], list[str]]:
    """Opens encoders and targets: encoders are really opened, headers really tried.

    Targets whose encoder settings agree share one encoder.

    Args:
        source: The open source.
        targets: As the user wrote them, passed by ``check_targets``.
        options: How the result is encoded.

    Returns:
        The outputs, and warnings to show before work starts.

    Raises:
        ConfigError: The user's codec or options do not suit a target.
        EncodeError: An encoder does not open, or a container refuses its stream.
        OpenError: A target cannot be created.
        OutputFull: The disk is full.
    """
    opening = _Opening(source, options)
    try:
        for text in targets:
            opening.add(parse_target(text))
    except BaseException:
        opening.abort()
        raise
    return opening.outputs(), list(dict.fromkeys(opening.warnings))


class _Opening:
    """Opens targets one by one, sharing encoders."""

    def __init__(self, source: FileSource, options: EncodeOptions) -> None:
        self.warnings: list[str] = []
        self._source = source
        self._options = options
        self._groups: dict[
            tuple[EncoderSettings, ...], tuple[tuple[VideoEncoder, ...], list[ContainerOutlet]]
        ] = {}

    def add(self, target: Target) -> None:
        choices = [choose(track, target.muxer, self._options) for track in self._source.tracks]
        encoders, outlets = self._encoders(choices)
        self._say(target, [warning for choice in choices for warning in choice.warnings])
        self._say_changes(target, choices, encoders)
        video = [encoder.stream for encoder in encoders]
        passengers, missing = choose_passengers(
            self._source.copied, target.muxer, video, muxer_options(target.muxer)
        )
        self._say(target, missing)
        sink: Sink = (
            StandardOutput()
            if target.kind == "pipe"
            else PartialFile(target.path, overwrite=self._options.overwrite)
        )
        try:
            outlet = ContainerOutlet(
                sink,
                muxer=target.muxer,
                source=self._source,
                encoders=encoders,
                passengers=passengers,
                name=target.text,
            )
        except BaseException:
            sink.discard()
            raise
        outlets.append(outlet)
        self._say_clock(target, outlet)

    def outputs(self) -> list[MediaOutput]:
        return [MediaOutput(encoders, tuple(outlets)) for encoders, outlets in self._groups.values()]

    def abort(self) -> None:
        for _, outlets in self._groups.values():
            for outlet in outlets:
                outlet.abort()

    def _encoders(self, choices: Sequence[Choice]) -> tuple[tuple[VideoEncoder, ...], list[ContainerOutlet]]:
        wanted = tuple(choice.candidates[0] for choice in choices)
        if wanted not in self._groups:
            encoders = []
            for track, choice in zip(self._source.tracks, choices, strict=True):
                stream, settings = settle(choice.candidates)
                name = f"{self._source.name}, video {track.info.position}"
                encoders.append(VideoEncoder(stream, settings, name=name))
            self._groups[wanted] = (tuple(encoders), [])
        return self._groups[wanted]

    def _say(self, target: Target, warnings: Sequence[str]) -> None:
        self.warnings += [f"{target.text}: {warning}" for warning in warnings]

    def _say_changes(
        self, target: Target, choices: Sequence[Choice], encoders: Sequence[VideoEncoder]
    ) -> None:
        for choice, encoder in zip(choices, encoders, strict=True):
            wanted, got = choice.candidates[0], encoder.settings
            if got.pix_fmt != wanted.pix_fmt:
                self._say(
                    target,
                    [
                        f"{got.codec} takes no {wanted.pix_fmt} of {got.width}x{got.height}: written as "
                        f"{got.pix_fmt}, so that no row or column is lost. Some players want 4:2:0, "
                        "which needs an even size"
                    ],
                )
            if got.time_base != wanted.time_base:
                self._say(
                    target, [f"{got.codec} cannot count time as finely as the source: times are rounded"]
                )

    def _say_clock(self, target: Target, outlet: ContainerOutlet) -> None:
        for track, clock in zip(self._source.tracks, outlet.time_bases, strict=True):
            info = track.info
            step = 1 / info.rate_fps if info.rate_fps else info.time_base
            if (info.time_base / clock).denominator == 1 or (step / clock).denominator == 1:
                continue
            self._say(
                target,
                [
                    f"{target.muxer} counts time in steps of {_seconds(clock)}: frame times of video "
                    f"{info.position} are rounded to it (.mp4 and .mov keep them exactly)"
                ],
            )


def _seconds(clock: Fraction) -> str:
    return f"{float(clock) * 1000:.4g} ms"


def _muxer(text: str, path: Path) -> str:
    try:
        # Nothing is created before the first packet.
        with av.open(str(path), "w") as container:
            name = container.format.name
            no_file = bool(container.format.flags & 0x1)
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
        if target.kind == "pattern":
            same = same or (Path(source).is_dir() and target.path.parent == Path(os.path.realpath(source)))
        if same:
            raise ConfigError(
                f"the target {target.text} is the source itself ({source}); choose another name"
            )


def _check_existing(target: Target, *, overwrite: bool) -> None:
    if target.kind in ("folder", "pattern"):
        return
    if not target.path.exists():
        return
    if not target.path.is_file():
        raise ConfigError(
            f"{target.text} is no ordinary file; use - to write to standard output and redirect it"
        )
    if not overwrite:
        raise ConfigError(f"{target.text} exists; choose another name, or add --overwrite to replace it")
