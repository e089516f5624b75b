"""Open the encoders and targets of a run, and collect the warnings to show before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from streamderain.events import Incidents
from streamderain.media.network import target_address, target_options
from streamderain.media.side_data import display_matrix
from streamderain.media.track import MediaSource, VideoTrack
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
from streamderain.media.writing.encoder_settings import (
    STEADY,
    Candidates,
    candidates_for,
    in_range,
    live_candidates,
)
from streamderain.media.writing.image_outputs import ImageTarget
from streamderain.media.writing.images import ImageOutlet
from streamderain.media.writing.piece_file import PieceOutlet
from streamderain.media.writing.publisher import Order
from streamderain.media.writing.publishing import STALE_S, NetworkOutlet
from streamderain.media.writing.recording import (
    DEFAULT_SPLIT_S,
    Keep,
    RecordingNames,
    RecordingOutlet,
    holds_time,
)
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
from streamderain.options import EncodeOptions, ReadOptions
from streamderain.trace import Trace

_Outlet = ContainerOutlet | ImageOutlet | NetworkOutlet | RecordingOutlet | PieceOutlet

_READ = ReadOptions()

_AT_ONCE = {"flush_packets": "1", "max_interleave_delta": "200000"}
"""Of live streams: bytes go out with each packet, which waits at most 0.2 s for a stream that pauses."""

_AUDIBLE_S = Fraction(1, 50)
"""Sound that comes earlier or later than this beside the picture is worth a word."""


@dataclass(frozen=True)
class MediaOutput:
    """One encode of every stream, fed to one or more targets."""

    encoders: tuple[VideoEncoder, ...]
    outlets: tuple[_Outlet, ...]


@dataclass
class TargetHistory:
    """What is known of a run's targets from earlier parts of it: a live source may change on its way.

    Attributes:
        names: Names of recordings, by target.
        worked: Targets that have taken something.
    """

    names: dict[str, RecordingNames] = field(default_factory=dict)
    worked: set[str] = field(default_factory=set)

    def note(self, outputs: Sequence[MediaOutput]) -> None:
        """Remember which network targets have taken something."""
        for output in outputs:
            self.worked |= {o.name for o in output.outlets if isinstance(o, NetworkOutlet) and o.worked}


def packet_path(piece: Path, group: int) -> Path:
    """Return where the packets of a piece lie that one encode gave; targets that agree share one."""
    return piece.with_name(f"{piece.name}-{group}.packets")


def open_outputs(
    source: MediaSource,
    targets: Sequence[str],
    options: EncodeOptions,
    *,
    read: ReadOptions = _READ,
    incidents: Incidents | None = None,
    history: TargetHistory | None = None,
    trace: Trace | None = None,
    piece: Path | None = None,
) -> tuple[list[MediaOutput], list[str]]:
    """Open encoders and targets: encoders are really opened, headers really tried.

    Targets whose encoder settings agree share one encoder.

    Args:
        source: The open source.
        targets: As the user wrote them, passed by `check_targets`.
        options: How the result is encoded.
        read: How addresses are reached: targets take the same options as sources.
        incidents: Is told what a live run goes on after.
        history: What earlier parts of the run did.
        trace: Receives how long it takes to write planes back.
        piece: Where the packets of a piece are kept, instead of being written to the targets, which are
            files; see `packet_path`.

    Returns:
        The outputs, and warnings to show before work starts.

    Raises:
        ConfigError: The user's codec or options do not suit a target.
        EncodeError: An encoder does not open, or a container refuses its stream.
        OpenError: A target cannot be created.
        OutputFull: The disk is full.
    """
    parsed = [_settled(parse_target(text, options), source) for text in targets]
    # Next to a video file, options for its encoder say nothing about the images.
    video = any(target.kind in ("container", "pipe", "network", "playlist") for target in parsed)
    image_options = EncodeOptions(overwrite=options.overwrite) if video else options
    live = _Live(read, incidents or Incidents(), history or TargetHistory())
    opening = _Opening(source, options, live, trace, piece)
    try:
        for target in parsed:
            if target.kind in ("container", "pipe"):
                opening.add_container(target)
            elif target.kind in ("network", "playlist"):
                opening.add_network(target)
            else:
                opening.add_images(target, image_options)
    except BaseException:
        opening.abort()
        raise
    finally:
        opening.samples.close()
    return opening.outputs(), list(dict.fromkeys(opening.warnings))


@dataclass(frozen=True)
class _Live:
    """What targets that go on after a fault need to know."""

    read: ReadOptions
    incidents: Incidents
    history: TargetHistory


class _Opening:
    """Opens targets one by one, sharing encoders."""

    def __init__(
        self,
        source: MediaSource,
        options: EncodeOptions,
        live: _Live,
        trace: Trace | None,
        piece: Path | None,
    ) -> None:
        self.warnings: list[str] = []
        self.samples = SampleEncodes()
        self._source = source
        self._options = options
        self._live = live
        self._trace = trace
        self._piece = piece
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
            in_range(self._candidates(track, target), target.muxer, options, self.samples)
            for track in self._source.tracks
        ]
        encoders, outlets = self._encoders(by_track)
        if self._piece is not None:
            if not outlets:
                outlets.append(PieceOutlet(packet_path(self._piece, len(self._groups) - 1), encoders))
            return
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
        if not self._source.is_live:  # whose tags are the server's, and whose sound begins with the picture
            options = self._tried_options(target, encoders, copied_streams, options)
        live = self._source.is_live

        def opened(sink: Sink) -> ContainerOutlet:
            try:
                return ContainerOutlet(
                    sink,
                    muxer=target.muxer,
                    source=self._source,
                    encoders=encoders,
                    copied_streams=copied_streams,
                    options={**options, **(_AT_ONCE if live else {})},
                    name=target.text,
                    drops=live,
                    stale_after_s=STALE_S if live and target.kind == "pipe" else None,
                )
            except BaseException:
                sink.discard()
                raise

        split_s = self._split_s(target)
        if target.kind == "pipe":
            outlet: ContainerOutlet | RecordingOutlet = opened(StandardOutput())
        elif live or split_s is not None:
            outlet = RecordingOutlet(
                self._recording_names(target, splits=split_s is not None),
                lambda path, overwrite: opened(PartialFile(path, overwrite=overwrite)),
                split_s=split_s,
                keep=None if self._options.keep is None else Keep.parse(self._options.keep),
                first_video=encoders[0].stream,
                incidents=self._live.incidents if live else None,
                name=target.text,
            )
        else:
            outlet = opened(PartialFile(target.path, overwrite=self._options.overwrite))
        outlets.append(outlet)
        if isinstance(outlet, ContainerOutlet):
            self._say_clock(target, outlet)

    def add_network(self, target: Target) -> None:
        holder = target.muxer
        by_track = [live_candidates(track, holder, self._options) for track in self._source.tracks]
        encoders, outlets = self._encoders(by_track)
        self._say(target, [warning for candidates in by_track for warning in candidates.warnings])
        video = [encoder.stream for encoder in encoders]
        if len(video) > 1 and not _holds_several(holder, video, {}):
            raise refused_streams(target, holder, source=self._source)
        chosen, missing = choose_copied_streams(self._source, holder, video=video, options={})
        sounds = [copied for copied in chosen if copied.source.type == "audio"]
        self._say(target, [words for words in missing if "audio" in words])

        def opened(sink: Sink) -> ContainerOutlet:
            return ContainerOutlet(
                sink,
                muxer="nut",
                source=self._source,
                encoders=encoders,
                copied_streams=sounds,
                options=_AT_ONCE,
                name=target.text,
            )

        live = self._source.is_live
        max_lag_s = STALE_S if live else None
        if target.kind == "playlist":
            order = Order(str(target.path), "hls", self._playlist_options(target), max_lag_s)
        else:
            options = {"flush_packets": "1", **target_options(target.address, self._live.read)}
            order = Order(target_address(target.address), target.muxer, options, max_lag_s)
        outlets.append(
            NetworkOutlet(
                order,
                name=target.text,
                open_container=opened,
                incidents=self._live.incidents,
                worked=target.text in self._live.history.worked,
                waits=self._live.read.wait,
                is_live=live,
            )
        )

    def _playlist_options(self, target: Target) -> dict[str, str]:
        """Return options of the hls muxer: a window that moves on for live sources, all else."""
        live, path = self._source.is_live, target.path
        flags = ["independent_segments", "temp_file"]
        # A publisher that replaces another one goes on behind its last segment.
        flags += ["delete_segments", "program_date_time", "append_list"] if live else []
        fragments = target.muxer == "mp4"
        suffix = "m4s" if fragments else "ts"
        named = str(path.with_suffix("")).replace("%", "%%")
        options = {
            "hls_time": "2",
            "hls_list_size": str(self._options.hls_window) if live else "0",
            "hls_flags": "+".join(flags),
            "hls_segment_type": "fmp4" if fragments else "mpegts",
            "hls_segment_filename": f"{named}-%05d.{suffix}",
        }
        if fragments:
            options["hls_fmp4_init_filename"] = f"{path.stem}-init.mp4"
        return options

    def _candidates(self, track: VideoTrack, target: Target) -> Candidates:
        if self._source.is_live:
            return live_candidates(track, target.muxer, self._options)
        candidates = candidates_for(track, target.muxer, self._options)
        split_s = self._split_s(target)
        if split_s is None:
            return candidates
        every_s = Fraction(str(split_s))
        settings = tuple(replace(one, keyframe_every_s=every_s) for one in candidates.settings)
        return replace(candidates, settings=settings)

    def _split_s(self, target: Target) -> float | None:
        if target.kind != "container":
            return None
        by_name = DEFAULT_SPLIT_S if holds_time(str(target.path)) else None
        return self._options.split_s if self._options.split_s is not None else by_name

    def _recording_names(self, target: Target, *, splits: bool) -> RecordingNames:
        names = self._live.history.names
        if target.text not in names:
            overwrite = self._options.overwrite
            names[target.text] = RecordingNames(target.path, splits=splits, overwrite=overwrite)
        return names[target.text]

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
