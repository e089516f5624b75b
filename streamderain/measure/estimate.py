"""Estimate time, memory and output size of a run by deraining a few pieces of the source."""

from __future__ import annotations

import math
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

from streamderain.errors import ConfigError
from streamderain.jobs.job import Job
from streamderain.jobs.pool import Jobs
from streamderain.jobs.segmented import LENGTH_S, is_wanted, jobs_for, why_not
from streamderain.media.probing import Packets, packets_of
from streamderain.media.reading.sources import SourceSpec, find_sources, open_source
from streamderain.media.writing.encoder_settings import gop_size
from streamderain.models import ModelCard, chosen_model, load_model
from streamderain.options import RunOptions
from streamderain.runtime.base import Engine, SessionOptions
from streamderain.runtime.registry import open_engine
from streamderain.system.process import Isolated
from streamderain.system.usage import Usage

SPOTS = 5
"""Pieces, spread evenly."""

_LOOK_FRAMES = 2
_SLOW_S = 0.25
"""A frame that takes longer is slow: then the first look is enough, and pieces are as short as it was."""

_FIRST_S = 1.0
"""A second look, to learn how long pieces may be."""

_LEAST_S, _MOST_S = 0.5, 4.0
_BUDGET_S = 12.0
"""The pieces are made so long that measuring them takes about this long."""

_STUDENT_T = 2.13
"""Of the 90 % interval with one degree of freedom less than `SPOTS` (Student 1908)."""

_WHOLE_SIZE = 0.03
"""What remains uncertain of the size where all of a clip was measured."""

_CORRELATED = 0.10
"""Pieces a minute apart are more alike than the rest of a long video: the least uncertainty of the size."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece, measured.

    Attributes:
        frames: Frames of all video streams.
        seconds: Of the piece, in the video.
        work_s: From its first written frame to its finished file.
        ready_s: From opening the source to the first written frame.
        peak_memory_bytes: Of the process.
        packets: What its file is made of.
    """

    frames: int
    seconds: float
    work_s: float
    ready_s: float
    peak_memory_bytes: int
    packets: Packets

    @property
    def worked(self) -> int:
        """Frames that were written in `work_s`: all but the first."""
        return max(1, self.frames - 1)


@dataclass(frozen=True, slots=True)
class _Opened:
    """How long it takes from the start of a process to an open engine, and what that is."""

    took_s: float
    engine: str
    device_bytes: int | None
    device: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run on one source will take, as far as pieces tell.

    Attributes:
        source: Its name.
        frames: Frames of all video streams.
        duration_s: Length in seconds.
        fps: Frames per second.
        fps_low: The slowest piece's.
        fps_high: The fastest piece's.
        time_s: Of the whole run, start included.
        memory_bytes: Of the process, at most.
        output_bytes: Of the result.
        output_low_bytes: The result is larger with a probability of 95 %, if pieces speak for the rest.
        output_high_bytes: Smaller likewise.
        pieces: How many were measured.
        engine: What computes.
        model: Name of the model.
        device_bytes: Of the GPU's own memory, for all video streams; None where none is used, or unknown.
        jobs: Pieces of the file that will be worked on at once.
    """

    source: str
    frames: int
    duration_s: float
    fps: float
    fps_low: float
    fps_high: float
    time_s: float
    memory_bytes: int
    output_bytes: int
    output_low_bytes: int
    output_high_bytes: int
    pieces: int
    engine: str
    model: str
    device_bytes: int | None = None
    jobs: int = 1


def estimate(
    source: str, options: RunOptions, tell: Callable[[str, int, int], None] = lambda what, done, total: None
) -> list[Estimate]:
    """Measure pieces of every file of a source.

    Args:
        source: As for a run, but not a pipe.
        options: As for the run that is planned.
        tell: Told what is measured, how many pieces are done, and of how many.

    Raises:
        ConfigError: A pipe, a single picture, or a file whose length nobody knows.
        StreamderainError: A source cannot be read or derained.
    """
    if source == "-":
        raise ConfigError("an estimate looks into the middle of its source, which a pipe does not allow")
    return [_estimate(spec, options, tell) for spec in find_sources(source, options.read)]


def _estimate(spec: SourceSpec, options: RunOptions, tell: Callable[[str, int, int], None]) -> Estimate:
    frames, duration_s = _extent(spec, options)
    what = f"measuring {spec.name}"
    tell(what, 0, SPOTS)
    # A process each: memory is that of a first run, as the user's will be.
    look_s = min(_LOOK_FRAMES * duration_s / max(1, frames), duration_s)
    _, (trial,) = _measured(spec, options, [0.0], look_s)
    slow = trial.work_s / trial.worked > _SLOW_S
    if not slow:
        _, (trial,) = _measured(spec, options, [0.0], min(_FIRST_S, duration_s))
    length_s = min(max(_length_s(trial), look_s if slow else _LEAST_S), duration_s)
    whole = SPOTS * length_s > duration_s
    starts = [0.0] if whole else [n * (duration_s - length_s) / (SPOTS - 1) for n in range(SPOTS)]
    tell(what, 1, SPOTS)
    opened, pieces = _measured(spec, options, starts, duration_s if whole else length_s)
    jobs = _jobs(spec, options, opened, duration_s)
    if jobs.count > 1:
        options = replace(options, engine=replace(options.engine, threads=jobs.threads))
        pieces = _measured_at_once(spec, options, starts, duration_s if whole else length_s, jobs.count)
    speeds = [jobs.count * piece.worked / piece.work_s for piece in pieces]
    fps = jobs.count * sum(piece.worked for piece in pieces) / sum(piece.work_s for piece in pieces)
    size, half = _size(pieces, frames, duration_s)
    return Estimate(
        source=spec.name,
        frames=frames,
        duration_s=duration_s,
        fps=fps,
        fps_low=min(speeds),
        fps_high=max(speeds),
        time_s=opened.took_s + pieces[0].ready_s + frames / fps,
        memory_bytes=jobs.count * pieces[0].peak_memory_bytes,
        output_bytes=round(size),
        output_low_bytes=round(size - half),
        output_high_bytes=round(size + half),
        pieces=len(pieces),
        engine=opened.engine,
        model=_model(spec, options).name,
        device_bytes=opened.device_bytes,
        jobs=jobs.count,
    )


def _model(spec: SourceSpec, options: RunOptions) -> ModelCard:
    return load_model(chosen_model(options.engine.model, {spec.kind}))


def _jobs(spec: SourceSpec, options: RunOptions, opened: _Opened, duration_s: float) -> Jobs:
    """Return how many pieces a run will work on at once; one where it is not parted."""
    target = f"{spec.name}.mkv"
    parted = is_wanted(spec, [target], options) and not why_not(spec, [target], options)
    length_s = options.work.segment_length_s or LENGTH_S
    pieces = max(1, int(duration_s // length_s)) if parted else 1
    return jobs_for(options, device=opened.device, model=_model(spec, options), pieces=pieces)


def _measured_at_once(
    spec: SourceSpec, options: RunOptions, starts_s: list[float], length_s: float, jobs: int
) -> list[Piece]:
    """Measure the pieces in several processes at the same time, as a run with so many jobs works."""
    with ThreadPoolExecutor(jobs) as threads:
        found = threads.map(lambda _: _measured(spec, options, starts_s, length_s)[1], range(jobs))
        return [piece for pieces in found for piece in pieces]


def _measured(
    spec: SourceSpec, options: RunOptions, starts_s: list[float], length_s: float
) -> tuple[_Opened, list[Piece]]:
    began = time.perf_counter()
    with Isolated(_pieces, spec, options, starts_s, length_s, doing=f"measured {spec.name}") as measuring:
        engine, device_bytes, device = cast(tuple[str, int | None, str], next(measuring))
        took_s = time.perf_counter() - began
        opened = _Opened(took_s, engine, device_bytes, device)
        return opened, [piece for piece in measuring if isinstance(piece, Piece)]


def _extent(spec: SourceSpec, options: RunOptions) -> tuple[int, float]:
    """Return frames of all video streams, and the length in seconds, of what -ss and -t leave."""
    with open_source(spec, options.read) as source:
        streams = source.streams
    rate, length_s = streams[0].rate_fps, options.read.duration_s
    if rate is None:
        raise ConfigError(f"{spec.name} is a single picture; deraining it takes no longer than an estimate")
    counts = [stream.frames for stream in streams]
    if None not in counts:
        frames = sum(count or 0 for count in counts)
        return frames, streams[0].duration_s or float((counts[0] or 0) / rate)
    if length_s is None:
        raise ConfigError(
            f"nobody knows how long {spec.name} is (a live stream, or a file without an index); "
            "say with -t how much of it will be derained"
        )
    return round(length_s * rate) * len(streams), length_s


def _pieces(
    spec: SourceSpec, options: RunOptions, starts_s: list[float], length_s: float
) -> Iterator[tuple[str, int | None, str] | Piece]:
    """Measure the pieces, in a process of its own; say first what computes, and in how much memory."""
    with (
        open_engine(options.engine) as engine,
        tempfile.TemporaryDirectory(prefix="streamderain-estimate-") as folder,
    ):
        what = f"{engine.name} {engine.precision} on {engine.device}"
        yield what, _device_bytes(engine, spec, options), engine.device
        for number, start_s in enumerate(starts_s):
            target = Path(folder) / f"{number}.mkv"
            read = replace(options.read, start_s=options.read.start_s + start_s, duration_s=length_s)
            cut = replace(options, read=read)
            job = Job(spec, [str(target)], options=cut, engine=engine)
            yield _piece(job, target, length_s)


def _device_bytes(engine: Engine, spec: SourceSpec, options: RunOptions) -> int | None:
    with open_source(spec, options.read) as source:
        wanted = SessionOptions.of(options.engine)
        needs = [engine.device_bytes(stream.geometry, wanted) for stream in source.streams]
    return None if None in needs else sum(need or 0 for need in needs)


def _length_s(first: Piece) -> float:
    """Return the length of the next pieces, from the first one's speed."""
    speed = first.seconds / max(first.work_s + first.ready_s, 1e-3)
    return min(_BUDGET_S / (SPOTS - 1) * speed, _MOST_S)


def _piece(job: Job, target: Path, length_s: float) -> Piece:
    with Usage() as usage:
        done = job.run(lambda event: None, threading.Event())
    assert done is not None, "nobody stops a measurement"
    packets = packets_of(target)
    target.unlink()
    ready_s = done.first_frame_s or 0.0
    return Piece(
        done.frames_out, length_s, done.elapsed_s - ready_s, ready_s, usage.peak_memory_bytes, packets
    )


def _size(pieces: list[Piece], frames: int, duration_s: float) -> tuple[float, float]:
    """Return the size of the whole result, and half of its 90 % interval.

    Key frames are large, and every piece begins with one that the whole has not; so they count apart.
    """
    if len(pieces) == 1:
        return pieces[0].packets.file_bytes, pieces[0].packets.file_bytes * _WHOLE_SIZE
    own = [_frame_bytes(piece.packets, Fraction(frames / duration_s)) for piece in pieces]
    per_frame = statistics.fmean(own)
    copied = sum(piece.packets.copied_bytes for piece in pieces) / sum(piece.seconds for piece in pieces)
    overhead = statistics.fmean(
        1 - sum((*p.packets.key_bytes, *p.packets.other_bytes, p.packets.copied_bytes)) / p.packets.file_bytes
        for p in pieces
    )
    size = (per_frame * frames + copied * duration_s) / (1 - min(overhead, 0.5))
    error = _STUDENT_T * statistics.stdev(own) / math.sqrt(len(own)) / per_frame
    return size, size * max(error, _CORRELATED)


def _frame_bytes(packets: Packets, rate_fps: Fraction) -> float:
    """Return the mean size of a frame, were the piece one of a long video."""
    keys, others = packets.key_bytes, packets.other_bytes
    if not others:
        return statistics.fmean(keys)  # an encoder of key frames alone
    key = statistics.fmean(keys)
    found = (len(keys) - 1) / (len(keys) + len(others))  # at cuts
    share = max(found, 1 / gop_size(rate_fps))
    return share * key + (1 - share) * statistics.fmean(others)
