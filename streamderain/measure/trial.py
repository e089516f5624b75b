"""Measure one setup: the whole run from file to file, and each stage alone.

Trials run in processes of their own (`isolated`), which stay while their repeats take turns with those of
other setups: what is compared meets the same weather on a shared machine. Stages have another process than
the whole way, whose memory would otherwise hold their frames.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from streamderain.frame import Frame
from streamderain.jobs.job import Job
from streamderain.media.reading.sources import SourceSpec, find_sources, open_source
from streamderain.media.writing.outputs import open_outputs
from streamderain.options import ReadOptions, RunOptions
from streamderain.runtime.base import EndOfSession, Engine, SessionOptions
from streamderain.runtime.registry import open_engine
from streamderain.system.gpu import GpuUse
from streamderain.system.usage import Usage
from streamderain.trace import Trace

STAGES = ("decode", "copy", "align", "network", "write-back", "encode")

_KEPT_BYTES = 256 * 2**20
"""Decoded frames that a stage alone works on; more would be memory that no real run needs."""

TARGET_NAME = "bench.mkv"
"""Matroska takes every codec."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What is measured.

    Attributes:
        label: What tells it from others on the same clip, for people.
        clip: Name of the clip.
        source: A source of one file.
        options: How it is read, derained and encoded.
        slots: Frames in flight beyond the look-ahead; 0 lets the engine choose.
    """

    label: str
    clip: str
    source: str
    options: RunOptions
    slots: int = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """What a setup turned out to be.

    Attributes:
        engine: Its name.
        engine_reason: Why it was chosen.
        device: What it runs on.
        precision: What it computes in.
        model: Name of the model.
        model_version: Its version.
        model_sha256: Checksum of its weights.
        width: Of the frames, px.
        height: Of the frames, px.
        pix_fmt: Pixel format, as FFmpeg calls it.
        codec: Decoder, as FFmpeg calls it.
        rate_fps: The source's frames per second; None for stills.
        streams: Video streams, all of them derained; stages are measured on the first.
        engine_opens_s: How long engine and session take to open.
    """

    engine: str
    engine_reason: str
    device: str
    precision: str
    model: str
    model_version: str
    model_sha256: str
    width: int
    height: int
    pix_fmt: str
    codec: str
    rate_fps: float | None
    streams: int
    engine_opens_s: float


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of the frames' durations, in milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class StageCost:
    """One stage with the machine to itself.

    Attributes:
        fps: Frames per second.
        cpu_ms: Processor time of a frame.
        latency: How long one frame is in the stage's hands; stages work on several frames at a time.
    """

    fps: float
    cpu_ms: float
    latency: Percentiles


@dataclass(frozen=True, slots=True)
class Repeat:
    """One measurement.

    Attributes:
        frames: Frames that went the whole way.
        fps: Of the whole run, from opening the source to the finished file.
        latency: From a frame's decoding to its encoding, the encoder's own delay left out.
        cpu_cores: Processor time over wall time: how many cores were busy.
        cpu_ms: Processor time of a frame.
        peak_memory_bytes: Of the process.
        gpu: What each GPU did, all processes together.
    """

    frames: int
    fps: float
    latency: Percentiles
    cpu_cores: float
    cpu_ms: float
    peak_memory_bytes: int
    gpu: list[GpuUse] = field(default_factory=list)


def whole_trial(setup: Setup) -> Iterator[Opened | Repeat]:
    """Open a setup and measure the whole way once for every value that is asked for.

    Args:
        setup: What is measured.

    Yields:
        What was opened; then measurements without end. The first one is the warm-up.

    Raises:
        StreamderainError: The source, model, engine or encoder cannot be used.
    """
    began = time.perf_counter()
    with _ready(setup) as (spec, engine, target):
        yield _opened(spec, setup.options.read, engine, began)
        while True:
            yield _whole(spec, target, engine, setup)


def stage_trial(setup: Setup) -> Iterator[dict[str, StageCost]]:
    """Open a setup and measure each of `STAGES` alone, once for every value that is asked for.

    See `whole_trial`.
    """
    with _ready(setup) as (spec, engine, target):
        while True:
            decode = _decode(spec, setup.options.read)
            frames = _some_frames(spec, setup.options.read)
            computed = _computed(frames, spec, engine, setup)
            yield {"decode": decode, **computed, **_encoded(frames, spec, target, engine, setup)}


@contextmanager
def _ready(setup: Setup) -> Iterator[tuple[SourceSpec, Engine, Path]]:
    """Yield the source, the open engine, and a place for the result."""
    options = setup.options
    spec = find_sources(setup.source, options.read)[0]
    with (
        open_engine(options.engine) as engine,
        tempfile.TemporaryDirectory(prefix="streamderain-bench-") as folder,
    ):
        yield spec, engine, Path(folder) / TARGET_NAME


def percentiles(seconds: Sequence[float]) -> Percentiles:
    """Of durations in seconds.

    Raises:
        ValueError: No durations.
    """
    if not len(seconds):
        raise ValueError("no durations")
    p50, p95, p99 = (float(value) * 1000 for value in np.percentile(seconds, (50, 95, 99)))
    return Percentiles(p50, p95, p99)


def _opened(spec: SourceSpec, read: ReadOptions, engine: Engine, began: float) -> Opened:
    with open_source(spec, read) as source:
        stream = source.streams[0]
        engine.session(stream.geometry).close()
        return Opened(
            engine=engine.name,
            engine_reason=engine.reason,
            device=engine.device,
            precision=engine.precision,
            model=engine.model.name,
            model_version=engine.model.version,
            model_sha256=engine.model.sha256,
            width=stream.geometry.width,
            height=stream.geometry.height,
            pix_fmt=stream.pix_fmt,
            codec=stream.codec,
            rate_fps=None if stream.rate_fps is None else float(stream.rate_fps),
            streams=len(source.streams),
            engine_opens_s=time.perf_counter() - began,
        )


def _whole(spec: SourceSpec, target: Path, engine: Engine, setup: Setup) -> Repeat:
    """Return the whole way, as `run` does it."""
    trace = Trace()
    job = Job(
        spec,
        [str(target)],
        options=setup.options,
        engine=engine,
        slots=setup.slots,
        trace=trace,
    )
    with Usage() as usage:
        done = job.run(lambda event: None, threading.Event())
    assert done is not None, "nobody stops a measurement"
    target.unlink()
    return Repeat(
        frames=done.frames_out,
        fps=done.frames_out / usage.wall_s,
        latency=percentiles(trace.seconds["frame"]),
        cpu_cores=usage.cpu_s / usage.wall_s,
        cpu_ms=1000 * usage.cpu_s / done.frames_out,
        peak_memory_bytes=usage.peak_memory_bytes,
        gpu=usage.gpu,
    )


def _decode(spec: SourceSpec, read: ReadOptions) -> StageCost:
    seconds: list[float] = []
    with open_source(spec, read) as source, Usage() as usage:
        asked = time.perf_counter()
        for _ in source.frames(lambda packet: None):
            seconds.append(time.perf_counter() - asked)
            asked = time.perf_counter()
    return StageCost(len(seconds) / usage.wall_s, 1000 * usage.cpu_s / len(seconds), percentiles(seconds))


def _some_frames(spec: SourceSpec, read: ReadOptions) -> list[Frame]:
    """Return frames for the other stages to work on, decoded untimed: keeping them slows the decoder."""
    kept: list[Frame] = []
    room = _KEPT_BYTES
    with open_source(spec, read) as source:
        for frame in source.frames(lambda packet: None):
            if frame.stream == 0 and frame.emit:
                kept.append(frame)
                room -= sum(plane.nbytes for plane in frame.planes)
            if room <= 0:
                break
    return kept


def _computed(frames: list[Frame], spec: SourceSpec, engine: Engine, setup: Setup) -> dict[str, StageCost]:
    """Copy to and from the session, and the network, which computes several frames at a time."""
    trace = Trace()
    with open_source(spec, setup.options.read) as source:
        geometry = source.streams[0].geometry
    options = SessionOptions.of(setup.options.engine, depth=setup.slots, trace=trace)
    with engine.session(geometry, options) as session:

        def feed() -> None:
            for frame in frames:
                session.push(frame.planes, None, cut=frame.cut)
            session.flush()

        with Usage() as usage:
            feeder = threading.Thread(target=feed)
            feeder.start()
            try:
                while session.pop() is not None:
                    pass
            except EndOfSession:
                feeder.join()
    copies = [sum(pair) for pair in zip(trace.seconds["copy-in"], trace.seconds["copy-out"], strict=True)]
    copy_ms = 1000 * sum(copies) / len(copies)
    # The flow and the warps run on one thread each: their time is processor time.
    align_ms = 1000 * sum(trace.seconds["align"]) / len(frames)
    network_ms = max(0.0, 1000 * usage.cpu_s / len(frames) - copy_ms - align_ms)
    return {
        "copy": StageCost(1000 / copy_ms, copy_ms, percentiles(copies)),
        "align": StageCost(1000 / align_ms, align_ms, percentiles(trace.seconds["align"])),
        "network": StageCost(len(frames) / usage.wall_s, network_ms, percentiles(trace.seconds["network"])),
    }


def _encoded(
    frames: list[Frame], spec: SourceSpec, target: Path, engine: Engine, setup: Setup
) -> dict[str, StageCost]:
    """Measure writing planes back, and the encoder with its container. The frames are used up."""
    trace, seconds = Trace(), []
    with open_source(spec, setup.options.read) as source:
        with engine.session(source.streams[0].geometry) as session:
            count = session.components
        (output, *_), _ = open_outputs(source, [str(target)], setup.options.encode, trace=trace)
        encoder, outlet = output.encoders[0], output.outlets[0]
        derained = [(frame, tuple(plane.copy() for plane in frame.planes[:count])) for frame in frames]
        with Usage() as usage:
            for frame, planes in derained:
                began = time.perf_counter()
                outlet.mux(encoder.encode(frame, planes))
                seconds.append(time.perf_counter() - began)
            outlet.mux(encoder.flush())
        outlet.abort()
        encoder.close()
    back = trace.seconds["write-back"]
    back_ms = 1000 * sum(back) / len(back)
    encode = [whole - part for whole, part in zip(seconds, back, strict=True)]
    fps = len(frames) / (usage.wall_s - sum(back))
    cpu_ms = max(0.0, 1000 * usage.cpu_s / len(frames) - back_ms)
    return {
        "write-back": StageCost(1000 / back_ms, back_ms, percentiles(back)),
        "encode": StageCost(fps, cpu_ms, percentiles(encode)),
    }
