"""Open the encoders and targets of a run, and collect the warnings to show before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.stream import Disposition

from streamderain.media.side_data import display_matrix
from streamderain.media.track import MediaSource
from streamderain.media.writing.codecs import EncoderSettings, settle
from streamderain.media.writing.container import (
    FROM_ZERO,
    MOV_FAMILY,
    ContainerOutlet,
    chapters,
    file_metadata,
    muxer_options,
)
from streamderain.media.writing.encoder import VideoEncoder
from streamderain.media.writing.encoder_settings import STEADY, Candidates, candidates_for, in_range
from streamderain.media.writing.image_outputs import ImageTarget
from streamderain.media.writing.images import ImageOutlet
from streamderain.media.writing.roundtrip import Lost, SampleEncodes, is_found_again, round_trip
from streamderain.media.writing.sink import PartialFile, Sink, StandardOutput
from streamderain.media.writing.stream_copy import (
    ONE_OF_A_KIND,
    CopiedStream,
    choose_copied_streams,
    describe,
    first_packet,
    first_sounds,
    fits,
)
from streamderain.media.writing.target import Target, parse_target, refused_streams
from streamderain.media.writing.timestamps import before_zero
from streamderain.options import EncodeOptions
from streamderain.trace import Trace

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
    """Open encoders and targets: encoders are really opened, headers really tried.

    Targets whose encoder settings agree share one encoder.

    Args:
        source: The open source.
        targets: As the user wrote them, passed by `check_targets`.
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
        self.samples = SampleEncodes()
        self._source = source
        self._options = options
        self._trace = trace
        self._groups: dict[tuple[EncoderSettings, ...], tuple[tuple[VideoEncoder, ...], list[_Outlet]]] = {}

    def add_images(self, target: Target, options: EncodeOptions) -> None:
        images = ImageTarget(target, self._source, options, overwrite=self._options.overwrite)
        encoders, outlets = self._encoders([images.candidates], follow_size=True)
        self.warnings += images.warnings
        outlet = images.open()
        outlets.append(outlet)
        encoders[0].listeners.append(outlet.note)

    def add_container(self, target: Target) -> None:
        options = muxer_options(
            target.muxer,
            cover=self._has_cover(),
            time_bases=[track.info.time_base for track in self._source.tracks],
        )
        by_track = [
            in_range(candidates_for(track, target.muxer, self._options), target.muxer, options, self.samples)
            for track in self._source.tracks
        ]
        encoders, outlets = self._encoders(by_track)
        self._say(target, [warning for candidates in by_track for warning in candidates.warnings])
        self._say_changes(target, by_track, encoders)
        video = [encoder.stream for encoder in encoders]
        if len(video) > 1 and not _holds_several(target.muxer, video, options):
            raise refused_streams(target, target.muxer, source=self._source)
        copied_streams, missing = choose_copied_streams(
            self._source, target.muxer, video=video, options=options
        )
        self._say(target, missing)
        copied_streams = self._readable(target, copied_streams, encoders, options)
        options = self._tried_options(target, encoders, copied_streams, options)
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
                copied_streams=copied_streams,
                options=options,
                name=target.text,
            )
        except BaseException:
            sink.discard()
            raise
        outlets.append(outlet)
        self._say_clock(target, outlet)

    def _readable(
        self,
        target: Target,
        copied_streams: Sequence[CopiedStream],
        encoders: Sequence[VideoEncoder],
        options: Mapping[str, str],
    ) -> list[CopiedStream]:
        """Leave out copied streams that the muxer takes and no reader finds again."""
        readable = []
        for copied_stream in copied_streams:
            settings, packet = encoders[0].settings, None
            if copied_stream.source.type == "audio":
                packet = first_packet(self._source, copied_stream.source.index)
            unknown = copied_stream.source.type == "video" or (
                copied_stream.source.type == "audio" and not packet
            )
            if unknown or is_found_again(
                copied_stream, target.muxer, settings, packet=packet, samples=self.samples, options=options
            ):
                readable.append(copied_stream)
            else:
                lost = f"{target.muxer} cannot hold {describe(copied_stream.source)}: it is left out"
                self._say(target, [f"{lost} (.mkv holds nearly everything)"])
        return readable

    def outputs(self) -> list[MediaOutput]:
        return [MediaOutput(encoders, tuple(outlets)) for encoders, outlets in self._groups.values()]

    def abort(self) -> None:
        for encoders, outlets in self._groups.values():
            for outlet in outlets:
                outlet.abort()
            for encoder in encoders:
                encoder.close()

    def _encoders(
        self, by_track: Sequence[Candidates], *, follow_size: bool = False
    ) -> tuple[tuple[VideoEncoder, ...], list[_Outlet]]:
        wanted = tuple(candidates.settings[0] for candidates in by_track)
        if wanted not in self._groups:
            encoders = []
            for track, candidates in zip(self._source.tracks, by_track, strict=True):
                stream, settings = settle(candidates.settings)
                name = f"{self._source.name}, video {track.info.position}"
                encoder = VideoEncoder(
                    stream, settings, name=name, follow_size=follow_size, trace=self._trace
                )
                encoders.append(encoder)
            self._groups[wanted] = (tuple(encoders), [])
        return self._groups[wanted]

    def _tried_options(
        self,
        target: Target,
        encoders: Sequence[VideoEncoder],
        copied_streams: Sequence[CopiedStream],
        options: dict[str, str],
    ) -> dict[str, str]:
        """Warn of what the container does not give back; return muxer options that keep most tags."""
        sounds = first_sounds(self._source, copied_streams)
        if target.muxer in FROM_ZERO:
            self._say_zero(target, sounds)
            sounds = []  # The outlet lets none begin before zero.
        lost = self._lost(target, encoders, options, sounds)
        if target.muxer in MOV_FAMILY and lost[0].metadata:
            # Tags beyond the classic ones; not by default, since fewer players read them there.
            all_tags = {**options, "movflags": options.get("movflags", "") + "+use_metadata_tags"}
            more = self._lost(target, encoders, all_tags, sounds)
            if len(more[0].metadata) < len(lost[0].metadata):
                options, lost = all_tags, more
        self._say(target, [words for one in lost for words in one.words()])
        if (late_s := max(one.late_s for one in lost)) > 0:
            late = f"all streams begin {float(late_s) * 1000:.4g} ms later"
            self._say(target, [f"{target.muxer} has no times before zero: {late}"])
        return options

    def _say_zero(self, target: Target, sounds: Sequence[tuple[CopiedStream, av.Packet[Any]]]) -> None:
        """Warn of what a container that counts from zero makes of streams that do not begin there."""
        for copied_stream, packet in sounds:
            start = (packet.pts or 0) * packet.time_base
            name, ms = describe(copied_stream.source), f"{abs(float(start)) * 1000:.4g} ms"
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

    def _has_cover(self) -> bool:
        return any(stream.disposition & Disposition.attached_pic for stream in self._source.copied)

    def _lost(
        self,
        target: Target,
        encoders: Sequence[VideoEncoder],
        options: Mapping[str, str],
        sounds: Sequence[tuple[CopiedStream, av.Packet[Any]]],
    ) -> list[Lost]:
        return [
            round_trip(
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
        self, target: Target, by_track: Sequence[Candidates], encoders: Sequence[VideoEncoder]
    ) -> None:
        for track, candidates, encoder in zip(self._source.tracks, by_track, encoders, strict=True):
            wanted, got = candidates.settings[0], encoder.settings
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
    """Return whether a format takes all these streams, or refuses even one: its own error tells more."""
    if muxer in ONE_OF_A_KIND:
        return False
    return fits([], muxer, video, options) or not fits([], muxer, video[:1], options)


def _settled(target: Target, source: MediaSource) -> Target:
    """Return the target as an image where a still picture goes to .webp; a video makes an animation."""
    if target.muxer == "webp" and source.tracks[0].info.rate_fps is None:
        return Target(target.text, "still", target.path)
    return target


def _seconds(clock: Fraction) -> str:
    return f"{float(clock) * 1000:.4g} ms"
