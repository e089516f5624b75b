"""Where results go: the encoders and targets of a run, and what has to be said before it starts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from streamderain.errors import ConfigError
from streamderain.media.choice import STEADY, Choice, choose, image_codec, in_range
from streamderain.media.codecs import EncoderSettings, settle
from streamderain.media.copied import (
    ONE_OF_A_KIND,
    Passenger,
    choose_passengers,
    describe,
    first_packet,
    first_sounds,
    fits,
)
from streamderain.media.encoder import VideoEncoder
from streamderain.media.images import ImageSequence
from streamderain.media.images_out import ImageOutlet
from streamderain.media.jpeg import jpeg_tags
from streamderain.media.outlet import (
    FROM_ZERO,
    MOV_FAMILY,
    ContainerOutlet,
    MediaSource,
    chapters,
    display_matrix,
    file_metadata,
    muxer_options,
)
from streamderain.media.picture_tags import lost_tags
from streamderain.media.places import IMAGE_SUFFIXES, Target, check_targets, parse_target
from streamderain.media.rehearsal import Lost, Samples, comes_back, rehearse
from streamderain.media.sink import PartialFile, Sink, StandardOutput
from streamderain.media.timing import before_zero
from streamderain.media.turning import swaps_sides, turns
from streamderain.options import EncodeOptions
from streamderain.trace import Trace

__all__ = ["MediaOutput", "check_targets", "open_outputs"]


_Outlet = ContainerOutlet | ImageOutlet

_AUDIBLE_S = Fraction(1, 50)
"""Sound that comes earlier or later than this beside the picture is worth a word."""


@dataclass(frozen=True)
class MediaOutput:
    """One encode of every stream, fed to one or more targets."""

    encoders: tuple[VideoEncoder, ...]
    outlets: tuple[ContainerOutlet | ImageOutlet, ...]


def open_outputs(
    source: MediaSource, targets: Sequence[str], options: EncodeOptions, *, trace: Trace | None = None
) -> tuple[list[MediaOutput], list[str]]:
    """Opens encoders and targets: encoders are really opened, headers really tried.

    Targets whose encoder settings agree share one encoder.

    Args:
        source: The open source.
        targets: As the user wrote them, passed by ``check_targets``.
        options: How the result is encoded.
        trace: Receives how long it takes to write planes back.

    Returns:
        The outputs, and warnings to show before work starts.

    Raises:
        ConfigError: The user's codec or options do not suit a target.
        EncodeError: An encoder does not open, or a container refuses its stream.
        OpenError: A target cannot be created.
        OutputFull: The disk is full.
    """
    parsed = [_settled(parse_target(text), source) for text in targets]
    # Next to a video file, options for its encoder say nothing about the images.
    video = any(target.kind in ("container", "pipe") for target in parsed)
    image_options = EncodeOptions(overwrite=options.overwrite) if video else options
    opening = _Opening(source, options, trace)
    try:
        for target in parsed:
            if target.kind in ("container", "pipe"):
                opening.add_container(target)
            else:
                opening.add_images(target, image_options)
    except BaseException:
        opening.abort()
        raise
    finally:
        opening.samples.close()
    return opening.outputs(), list(dict.fromkeys(opening.warnings))


class _Opening:
    """Opens targets one by one, sharing encoders."""

    def __init__(self, source: MediaSource, options: EncodeOptions, trace: Trace | None) -> None:
        self.warnings: list[str] = []
        self.samples = Samples()
        self._source = source
        self._options = options
        self._trace = trace
        self._groups: dict[tuple[EncoderSettings, ...], tuple[tuple[VideoEncoder, ...], list[_Outlet]]] = {}

    def add_images(self, target: Target, options: EncodeOptions) -> None:
        if len(self._source.tracks) > 1:
            raise self._too_many("images", target)
        info = self._source.tracks[0].info
        if target.kind == "still" and info.rate_fps is not None and info.frames != 1:
            raise ConfigError(
                f"{target.text} holds one picture and {self._source.name} is a video; "
                "name a folder (frames/), a pattern (frames/%06d.png) or a video file"
            )
        suffix = _image_suffix(target, self._source)
        place = _place(target, self._source, suffix)
        _check_folder(target, place, overwrite=self._options.overwrite)
        if target.kind != "still":
            self._say(target, _left_behind(place(0, 0)))
        choice = choose(self._source.tracks[0], "image2", options, codec=image_codec(suffix))
        choice = _turned(choice, self._turns(target))
        encoders, outlets = self._encoders([choice], follow_size=True)
        self._say(target, choice.warnings)
        self._say_lost_tags(suffix)
        left = [describe(stream) for stream in self._source.copied]
        self._say(target, [f"images hold no other streams: {', '.join(left)} left out"] if left else [])
        outlet = ImageOutlet(
            place,
            limit=1 if target.kind == "still" else None,
            overwrite=self._options.overwrite,
            name=target.text,
            folder=target.path if target.kind == "folder" else None,
            tags=self._jpeg_tags(target, suffix),
        )
        outlets.append(outlet)
        encoders[0].listeners.append(outlet.note)

    def add_container(self, target: Target) -> None:
        options = muxer_options(
            target.muxer,
            cover=self._has_cover(),
            time_bases=[track.info.time_base for track in self._source.tracks],
        )
        choices = [
            in_range(choose(track, target.muxer, self._options), target.muxer, options, self.samples)
            for track in self._source.tracks
        ]
        encoders, outlets = self._encoders(choices)
        self._say(target, [warning for choice in choices for warning in choice.warnings])
        self._say_changes(target, choices, encoders)
        video = [encoder.stream for encoder in encoders]
        if len(video) > 1 and not _holds_several(target.muxer, video, options):
            raise self._too_many(target.muxer, target)
        passengers, missing = choose_passengers(self._source, target.muxer, video=video, options=options)
        self._say(target, missing)
        passengers = self._readable(target, passengers, encoders, options)
        options = self._rehearse(target, encoders, passengers, options)
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
                options=options,
                name=target.text,
            )
        except BaseException:
            sink.discard()
            raise
        outlets.append(outlet)
        self._say_clock(target, outlet)

    def _say_lost_tags(self, suffix: str) -> None:
        """Warns of tags beside a picture that are lost, in the same words for all pictures of a folder."""
        info = self._source.tracks[0].info
        if info.rate_fps is not None and not isinstance(self._source, ImageSequence):
            return  # The pictures of a video have none.
        lost = sorted(lost_tags(Path(self._source.path), image_codec(suffix)))
        if lost:
            own = Path(self._source.path).suffix
            names = ", ".join(lost)
            self.warnings.append(f"{suffix} files made of {own} files do not keep these tags: {names}")

    def _readable(
        self,
        target: Target,
        passengers: Sequence[Passenger],
        encoders: Sequence[VideoEncoder],
        options: Mapping[str, str],
    ) -> list[Passenger]:
        """Leaves out copied streams that the muxer takes and no reader finds again."""
        readable = []
        for passenger in passengers:
            settings, packet = encoders[0].settings, None
            if passenger.source.type == "audio":
                packet = first_packet(self._source, passenger.source.index)
            unknown = passenger.source.type == "video" or (passenger.source.type == "audio" and not packet)
            if unknown or comes_back(
                passenger, target.muxer, settings, packet=packet, samples=self.samples, options=options
            ):
                readable.append(passenger)
            else:
                lost = f"{target.muxer} cannot hold {describe(passenger.source)}: it is left out"
                self._say(target, [f"{lost} (.mkv holds nearly everything)"])
        return readable

    def _jpeg_tags(self, target: Target, suffix: str) -> Callable[[int], bytes] | None:
        """Gives the tags of the JPEG that a picture was made of; warns where an orientation is lost."""
        codec, source = image_codec(suffix), self._source
        info = source.tracks[0].info
        if codec == "mjpeg" and isinstance(source, ImageSequence):
            return lambda pts: jpeg_tags(_image_of(source, pts))
        if codec == info.codec == "mjpeg" and info.rate_fps is None:
            return lambda pts: jpeg_tags(Path(source.path))
        if info.rate_fps is not None and not isinstance(source, ImageSequence):
            return None  # The pictures of a video are turned.
        if source.tracks[0].first.rotation and codec not in ("png", "tiff"):
            self._say(target, [f"{suffix} files do not keep the rotation of the picture"])
        return None

    def _turns(self, target: Target) -> tuple[str, ...]:
        """Filters that turn a video's pictures: images have no other way to say it that all readers know."""
        track = self._source.tracks[0]
        if isinstance(self._source, ImageSequence) or track.info.rate_fps is None:
            return ()  # What a camera wrote into a picture stays in it.
        matrix = display_matrix(track.first)
        filters = () if matrix is None else turns(matrix)
        if filters is None:
            slanted = "the video is to be shown at a slant, which images cannot say: they are as coded"
            self._say(target, [slanted])
        return filters or ()

    def outputs(self) -> list[MediaOutput]:
        return [MediaOutput(encoders, tuple(outlets)) for encoders, outlets in self._groups.values()]

    def abort(self) -> None:
        for encoders, outlets in self._groups.values():
            for outlet in outlets:
                outlet.abort()
            for encoder in encoders:
                encoder.close()

    def _encoders(
        self, choices: Sequence[Choice], *, follow_size: bool = False
    ) -> tuple[tuple[VideoEncoder, ...], list[_Outlet]]:
        wanted = tuple(choice.candidates[0] for choice in choices)
        if wanted not in self._groups:
            encoders = []
            for track, choice in zip(self._source.tracks, choices, strict=True):
                stream, settings = settle(choice.candidates)
                name = f"{self._source.name}, video {track.info.position}"
                encoder = VideoEncoder(
                    stream, settings, name=name, follow_size=follow_size, trace=self._trace
                )
                encoders.append(encoder)
            self._groups[wanted] = (tuple(encoders), [])
        return self._groups[wanted]

    def _rehearse(
        self,
        target: Target,
        encoders: Sequence[VideoEncoder],
        passengers: Sequence[Passenger],
        options: dict[str, str],
    ) -> dict[str, str]:
        """Warns of what the container does not give back; returns muxer options that keep most tags."""
        sounds = first_sounds(self._source, passengers)
        if target.muxer in FROM_ZERO:
            self._say_zero(target, sounds)
            sounds = []  # The outlet lets none begin before zero.
        lost = self._rehearsed(target, encoders, options, sounds)
        if target.muxer in MOV_FAMILY and lost[0].metadata:
            # Tags beyond the classic ones; not by default, since fewer players read them there.
            all_tags = {**options, "movflags": options.get("movflags", "") + "+use_metadata_tags"}
            more = self._rehearsed(target, encoders, all_tags, sounds)
            if len(more[0].metadata) < len(lost[0].metadata):
                options, lost = all_tags, more
        self._say(target, [words for one in lost for words in one.words()])
        if (late_s := max(one.late_s for one in lost)) > 0:
            late = f"all streams begin {float(late_s) * 1000:.4g} ms later"
            self._say(target, [f"{target.muxer} has no times before zero: {late}"])
        return options

    def _say_zero(self, target: Target, sounds: Sequence[tuple[Passenger, av.Packet[Any]]]) -> None:
        """Warns of what a container that counts from zero makes of streams that do not begin there."""
        for passenger, packet in sounds:
            start = (packet.pts or 0) * packet.time_base
            name, ms = describe(passenger.source), f"{abs(float(start)) * 1000:.4g} ms"
            if before_zero(packet):
                lost = f"the {ms} of {name} before it are left out (encoders put silence there)"
                self._say(target, [f"{target.muxer} has no times before zero: {lost}"])
            elif start > _AUDIBLE_S:
                early = f"{name} is heard {ms} too early (.mkv, .mp4 and .mov keep its time)"
                self._say(target, [f"{target.muxer} begins all sound at zero: {early}"])
        for track in self._source.tracks:
            start = (track.first.pts or 0) * track.info.time_base
            if not self._source.offset_s and round(start * (track.info.rate_fps or 0)) > 0:
                early = (
                    f"the first picture of video {track.info.position} is shown {float(start):.4g} s early"
                )
                self._say(target, [f"{target.muxer} begins all video at zero: {early}, the others in time"])

    def _too_many(self, holder: str, target: Target) -> ConfigError:
        count = len(self._source.tracks)
        return ConfigError(
            f"{target.text}: {holder} cannot hold the {count} video streams of {self._source.name}, "
            "only one; write to .mkv or .mp4"
        )

    def _has_cover(self) -> bool:
        return any(stream.disposition & Disposition.attached_pic for stream in self._source.copied)

    def _rehearsed(
        self,
        target: Target,
        encoders: Sequence[VideoEncoder],
        options: Mapping[str, str],
        sounds: Sequence[tuple[Passenger, av.Packet[Any]]],
    ) -> list[Lost]:
        return [
            rehearse(
                encoder.settings,
                target.muxer,
                samples=self.samples,
                options=options,
                matrix=display_matrix(track.first),
                metadata=file_metadata(self._source),
                chapters=bool(chapters(self._source)),
                sounds=sounds,
            )
            for track, encoder in zip(self._source.tracks, encoders, strict=True)
        ]

    def _say(self, target: Target, warnings: Sequence[str]) -> None:
        self.warnings += [f"{target.text}: {warning}" for warning in warnings]

    def _say_changes(
        self, target: Target, choices: Sequence[Choice], encoders: Sequence[VideoEncoder]
    ) -> None:
        for track, choice, encoder in zip(self._source.tracks, choices, encoders, strict=True):
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
            if target.muxer in STEADY and track.stream.base_rate != track.stream.average_rate:
                uneven = "shows its frames at one steady rate: uneven times are moved to it"
                self._say(target, [f"{target.muxer} {uneven}"])
            if got.time_base != wanted.time_base:
                self._say(
                    target, [f"{got.codec} cannot count time as finely as the source: times are rounded"]
                )

    def _say_clock(self, target: Target, outlet: ContainerOutlet) -> None:
        for track, clock in zip(self._source.tracks, outlet.time_bases, strict=True):
            info = track.info
            step = 1 / info.rate_fps if info.rate_fps else info.time_base
            start = (track.first.pts or 0) * info.time_base
            even = (step / clock).denominator == 1 and (start / clock).denominator == 1
            if (info.time_base / clock).denominator == 1 or even:
                continue
            self._say(
                target,
                [
                    f"{target.muxer} counts time in steps of {_seconds(clock)}: frame times of video "
                    f"{info.position} are rounded to it (.mp4 and .mov keep them exactly)"
                ],
            )


def _holds_several(muxer: str, video: Sequence[av.VideoStream], options: dict[str, str]) -> bool:
    """Whether a format takes all these video streams, or refuses even one: then its own error tells more."""
    if muxer in ONE_OF_A_KIND:
        return False
    return fits([], muxer, video, options) or not fits([], muxer, video[:1], options)


def _settled(target: Target, source: MediaSource) -> Target:
    """A still picture written to .webp is an image; a video makes an animation."""
    if target.muxer == "webp" and source.tracks[0].info.rate_fps is None:
        return Target(target.text, "still", target.path)
    return target


def _place(target: Target, source: MediaSource, suffix: str) -> Callable[[int, int], Path]:
    """Gives the path of a picture from its number and its pts.

    In a folder, pictures made of image files keep their names; others are numbered from 1.
    """
    if target.kind == "still":
        return lambda number, pts: target.path
    if target.kind == "pattern":
        return lambda number, pts: target.path.with_name(target.path.name % (number + 1))
    if isinstance(source, ImageSequence):
        images = source
        return lambda number, pts: target.path / f"{_image_of(images, pts).stem}{suffix}"
    return lambda number, pts: target.path / f"{number + 1:06d}{suffix}"


def _image_of(source: ImageSequence, pts: int) -> Path:
    time_s = pts * source.tracks[0].info.time_base + source.offset_s
    return source.paths[round(time_s * source.rate)]


def _image_suffix(target: Target, source: MediaSource) -> str:
    if target.kind != "folder":
        return target.path.suffix
    own = Path(source.path).suffix
    return own if isinstance(source, ImageSequence) and own.lower() in (*IMAGE_SUFFIXES, ".webp") else ".png"


def _check_folder(target: Target, place: Callable[[int, int], Path], *, overwrite: bool) -> None:
    first = place(0, 0)
    if target.kind in ("folder", "pattern") and first.exists() and not overwrite:
        raise ConfigError(
            f"{first} exists; choose another folder, or add --overwrite to replace its pictures"
        )


def _turned(choice: Choice, filters: tuple[str, ...]) -> Choice:
    """The choice for pictures that go through these filters first."""
    turned = [replace(settings, turn=filters) for settings in choice.candidates]
    if swaps_sides(filters):
        turned = [replace(one, width=one.height, height=one.width) for one in turned]
    return replace(choice, candidates=tuple(turned))


def _left_behind(first: Path) -> list[str]:
    """A word on numbered images that are there already: a shorter run does not replace them all."""
    numbered = re.fullmatch(r"(.*?)\d+(\D*)", first.name)
    if numbered is None or not first.parent.is_dir():
        return []
    like = re.compile(re.escape(numbered[1]) + r"\d+" + re.escape(numbered[2]))
    names = sorted(path.name for path in first.parent.iterdir() if like.fullmatch(path.name))
    if not names:
        return []
    return [
        f"{len(names)} numbered images are there already ({names[0]} to {names[-1]}): "
        "those that this run does not replace stay among the new ones"
    ]


def _seconds(clock: Fraction) -> str:
    return f"{float(clock) * 1000:.4g} ms"
