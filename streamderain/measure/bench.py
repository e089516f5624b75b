"""Benchmark a machine on clips, by engine and model: speed, latency, memory, and quality of the result."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from streamderain.errors import ConfigError
from streamderain.measure.metrics import Pooled, pool
from streamderain.measure.quality import (
    METRICS,
    Quality,
    against_reference,
    judge,
    on_known_rain,
    require_same_size,
)
from streamderain.measure.scene import write_scene
from streamderain.measure.tables import Spread, spread
from streamderain.measure.trial import STAGES, Opened, Repeat, Setup, StageCost, stage_trial, whole_trial
from streamderain.media.reading.sources import SourceSpec, find_sources, open_source
from streamderain.options import EngineOptions, ReadOptions, RunOptions
from streamderain.system.machine import machine
from streamderain.system.process import Isolated

SCENES = {
    "480p": (854, 480, 150),
    "720p": (1280, 720, 120),
    "1080p": (1920, 1080, 90),
    "2160p": (3840, 2160, 30),
}
"""The built-in clips: width, height, frames."""

Tell = Callable[[str, int, int], None]
"""Told what is going on, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What a bench measures.

    Attributes:
        source: The user's clip; None for the built-in ones.
        reference: The clean version of the source.
        synth_rain: Draw known rain on the source and measure its removal.
        run: How the source is read and encoded, and the engine options that all setups share.
        engines: Names of engines to compare.
        models: Names of models to compare.
        scenes: Which built-in clips.
        repeats: Measurements after the warm-up.
    """

    source: str | None = None
    reference: str | None = None
    synth_rain: bool = False
    run: RunOptions = field(default_factory=RunOptions)
    engines: tuple[str, ...] = ("auto",)
    models: tuple[str, ...] = ("dcd-lite",)
    scenes: tuple[str, ...] = tuple(SCENES)
    repeats: int = 3

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ConfigError(f"a bench needs at least 1 repeat, not {self.repeats}")
        if self.source is None and (self.reference is not None or self.synth_rain):
            raise ConfigError("--reference and --synth-rain measure your own clip: name it as SOURCE")
        if self.reference is not None and self.synth_rain:
            raise ConfigError(
                "--reference and --synth-rain exclude each other: the first measures on a rainy SOURCE, "
                "the second draws rain on a dry one"
            )
        for name in self.scenes:
            if name not in SCENES:
                raise ConfigError(f"there is no built-in clip {name!r}; choose from {', '.join(SCENES)}")


@dataclass(frozen=True, slots=True)
class Result:
    """One setup on one clip.

    Attributes:
        label: Engine and model, where several are compared; the size too, for built-in clips.
        clip: Name of the clip.
        opened: What the setup turned out to be; None where it was left out.
        repeats: Measurements of the whole way, the warm-up not among them.
        stages: Measurements of each stage alone, likewise.
        peak_memory_bytes: Of the warm-up, which is a process's first run, as the user's is; later ones find
            memory that was not given back.
        quality: How good the result is, where that was measured.
        left_out: Why the setup was not measured; empty where it was.
    """

    label: str
    clip: str
    opened: Opened | None
    repeats: list[Repeat] = field(default_factory=list)
    stages: list[dict[str, StageCost]] = field(default_factory=list)
    peak_memory_bytes: int = 0
    quality: Quality | None = None
    left_out: str = ""

    @property
    def fps(self) -> Spread:
        """Frames per second of the whole way."""
        return self.of(lambda repeat: repeat.fps)

    @property
    def real_time_factor(self) -> float | None:
        """Median speed over the rate of all the source's video streams; None for stills."""
        if self.opened is None or not self.opened.rate_fps:
            return None
        return self.fps.median / (self.opened.rate_fps * self.opened.streams)

    @property
    def limited_by(self) -> str | None:
        """The stage that is slowest by itself."""
        if not self.stages:
            return None
        return min(STAGES, key=lambda name: self.stage(name, lambda cost: cost.fps).median)

    def of(self, value: Callable[[Repeat], float]) -> Spread:
        """Return a figure over the repeats."""
        return spread([value(repeat) for repeat in self.repeats])

    def stage(self, name: str, value: Callable[[StageCost], float]) -> Spread:
        """Return a figure of one stage over the repeats."""
        return spread([value(costs[name]) for costs in self.stages])


@dataclass(frozen=True, slots=True)
class Bench:
    """All a bench found out.

    Attributes:
        kind: What quality was measured on: `"reference"`, `"synthetic rain"` or None.
        machine: See `measure.machine`.
        settings: The options, JSON-able.
        results: One per clip and setup.
    """

    kind: Literal["reference", "synthetic rain"] | None
    machine: dict[str, Any]
    settings: dict[str, Any]
    results: list[Result]


def bench(options: BenchOptions, tell: Tell = lambda what, done, total: None) -> Bench:
    """Measure every setup on every clip.

    Setups on one clip take turns, so that what is compared meets the same weather.

    Raises:
        StreamderainError: A source, reference, model, engine or encoder cannot be used.
    """
    _check_reference(options)
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="streamderain-bench-") as folder:
        for clip, source in _clips(options, Path(folder), results, tell):
            setups = _setups(options, clip, source)
            measured = take_turns(setups, repeats=options.repeats, tell=tell)
            results += [
                _with_quality(result, setup, options, tell)
                for result, setup in zip(measured, setups, strict=True)
            ]
    kind: Any = "reference" if options.reference else "synthetic rain" if options.synth_rain else None
    return Bench(kind, machine(), _settings(options), results)


def pooled(quality: Quality) -> dict[str, dict[str, Pooled]]:
    """Return mean, fifth percentile and minimum by metric, of `after` and `before`."""
    sides = ("after", "before")
    return {
        metric: {side: pool([getattr(frame, side)[metric] for frame in quality.frames]) for side in sides}
        for metric in METRICS
    }


def flicker(quality: Quality) -> dict[str, float]:
    """Return the mean warping error of `after`, `before` and `reference`; empty for a single frame."""
    frames = [frame.flicker for frame in quality.frames if frame.flicker]
    return {name: statistics.fmean(frame[name] for frame in frames) for name in (frames[0] if frames else ())}


def _check_reference(options: BenchOptions) -> None:
    """Refuse a reference of another size before any work."""
    if options.source is None or options.reference is None:
        return
    names, sizes = [], []
    for clip in (options.source, options.reference):
        spec = _only(clip, options.run.read)
        with open_source(spec, options.run.read) as source:
            geometry = source.streams[0].geometry
        names.append(spec.name)
        sizes.append((geometry.width, geometry.height))
    require_same_size(sizes[0], sizes[1], names=(names[0], names[1]))


def _clips(
    options: BenchOptions, folder: Path, results: list[Result], tell: Tell
) -> Iterator[tuple[str, str]]:
    """Yield the name and the path of every clip; built-in ones are made when their turn comes."""
    if options.source is not None:
        yield _only(options.source, options.run.read).name, options.source
        return
    for number, name in enumerate(options.scenes):
        width, height, frames = SCENES[name]
        needed, free = _expected_bytes(results, width * height), psutil.virtual_memory().available
        if needed > free:
            reason = f"needs about {needed / 2**30:.1f} GiB of memory and {free / 2**30:.1f} are free"
            results.append(Result(name, name, None, left_out=reason))
            continue
        tell(f"making the {name} clip", number, len(options.scenes))
        path = folder / f"{name}.mp4"
        write_scene(path, width=width, height=height, frames=frames)
        yield name, str(path)
        path.unlink()


def _expected_bytes(results: Sequence[Result], pixels: int) -> int:
    """Return the memory that a clip will take, after those before it: it grows no faster than the frames."""
    last = next((result for result in reversed(results) if result.opened is not None), None)
    if last is None or last.opened is None:
        return 0
    return last.peak_memory_bytes * pixels // (last.opened.width * last.opened.height)


def _setups(options: BenchOptions, clip: str, source: str) -> list[Setup]:
    compared = len(options.engines) * len(options.models) > 1
    setups = []
    for model in options.models:
        for engine in options.engines:
            chosen = replace(options.run.engine, engine=engine, model=model)
            label = f"{model} on {engine}" if compared else model
            read = options.run.read if options.source is not None else ReadOptions()
            setups.append(Setup(label, clip, source, RunOptions(read, options.run.encode, chosen)))
    return setups


def take_turns(
    setups: Sequence[Setup], *, repeats: int, tell: Tell = lambda what, done, total: None
) -> list[Result]:
    """Measure setups in turn, so that what is compared meets the same weather on a shared machine.

    Args:
        setups: What is measured.
        repeats: Measurements of each after the warm-up.
        tell: Told what is going on.

    Raises:
        StreamderainError: A setup cannot be opened, or fails.
    """
    total, done = len(setups) * (repeats + 1), 0
    results: list[Result] = []
    with ExitStack() as running:
        wholes: list[Isolated[Opened | Repeat]] = []
        stages: list[Isolated[dict[str, StageCost]]] = []
        for setup in setups:
            doing = f"measured {setup.label}"
            wholes.append(running.enter_context(Isolated(whole_trial, setup, doing=doing)))
            stages.append(running.enter_context(Isolated(stage_trial, setup, doing=doing)))
            opened = next(wholes[-1])
            assert isinstance(opened, Opened), "a trial says first what it opened"
            results.append(Result(setup.label, setup.clip, opened))
        for turn in range(repeats + 1):
            for place, (whole, stage) in enumerate(zip(wholes, stages, strict=True)):
                tell(f"{setups[place].clip}: {setups[place].label}", done, total)
                repeat, costs = next(whole), next(stage)
                assert isinstance(repeat, Repeat), "a trial goes on measuring"
                done += 1
                if turn == 0:  # the warm-up
                    results[place] = replace(results[place], peak_memory_bytes=repeat.peak_memory_bytes)
                else:
                    results[place].repeats.append(repeat)
                    results[place].stages.append(costs)
    return results


def _with_quality(result: Result, setup: Setup, options: BenchOptions, tell: Tell) -> Result:
    if options.reference is None and not options.synth_rain:
        return result
    label, frames = f"quality: {setup.label}", result.repeats[0].frames
    arguments = (setup.source, options.reference, setup.options.read, setup.options.engine)
    with Isolated(quality_of, *arguments, doing=f"judged {setup.label}") as judging:
        for value in judging:
            if isinstance(value, Quality):
                return replace(result, quality=value)
            tell(label, value, frames)
    raise AssertionError("judging ends with a result")


def quality_of(
    source: str, reference: str | None, read: ReadOptions, engine: EngineOptions
) -> Iterator[int | Quality]:
    """Judge a source against its reference, or on known rain where there is none; see `quality.judge`."""
    spec = _only(source, read)
    if reference is None:
        triples = on_known_rain(spec, read=read, engine=engine)
    else:
        triples = against_reference(spec, _only(reference, read), read=read, engine=engine)
    yield from judge(triples)


def _only(source: str, read: ReadOptions) -> SourceSpec:
    specs = find_sources(source, read)
    if len(specs) != 1:
        raise ConfigError(f"{source} holds {len(specs)} clips and a bench takes one; name one of them")
    if source == "-":
        raise ConfigError("a bench reads its source several times, which a pipe cannot; give a file")
    return specs[0]


def _settings(options: BenchOptions) -> dict[str, Any]:
    run = options.run
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "source": options.source or "built-in",
        "reference": options.reference,
        "synth_rain": options.synth_rain,
        "repeats": options.repeats,
        "warm_up": 1,
        "read": dataclasses.asdict(run.read),
        "encode": {name: getattr(run.encode, name) for name in ("codec", "crf", "preset", "pix_fmt")}
        | {"extra": dict(run.encode.extra)},
        "engine": dataclasses.asdict(run.engine) | {"engine": options.engines, "model": options.models},
    }
