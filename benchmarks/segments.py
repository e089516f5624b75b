"""Measure what pieces cost and bring: against one go, with two jobs, and until a killed run goes on."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.results_file import json_option, report
from streamderain import run
from streamderain.events import Event, Progress
from streamderain.measure.scene import write_scene
from streamderain.options import EncodeOptions, RunOptions, WorkOptions

_WAYS: dict[str, WorkOptions] = {
    "one go": WorkOptions(),
    "pieces": WorkOptions(jobs=1, segment_length_s=20.0),
    "pieces, two jobs": WorkOptions(jobs=2, segment_length_s=20.0),
}


@click.command()
@click.option("--seconds", default=80.0, show_default=True, help="Length of the clip, 720p at 25 frames/s.")
@click.option("--repeats", default=3, show_default=True)
@json_option
def segments(seconds: float, repeats: int, path: str | None) -> None:
    """Time a clip in one go, in pieces, and by two jobs, and how long a killed run takes to go on."""
    with tempfile.TemporaryDirectory(prefix="streamderain-segments-") as name:
        clip = Path(name) / "clip.mp4"
        write_scene(clip, width=1280, height=720, frames=round(25 * seconds))
        found: dict[str, Any] = {"benchmark": "segments", "seconds": seconds, "repeats": repeats}
        found["ways"] = _ways(clip, repeats)
        found["restart_s"] = _restart_s(clip, found["ways"]["pieces"]["seconds"])
        report(found, path)


def _ways(clip: Path, repeats: int) -> dict[str, Any]:
    taken: dict[str, list[float]] = {name: [] for name in _WAYS}
    for _ in range(repeats):  # in turns: all meet the same weather
        for name, work in _WAYS.items():
            started = time.perf_counter()
            run(clip, clip.with_name("clean.mp4"), options=_options(work))
            taken[name].append(time.perf_counter() - started)
    ratios = {
        name: statistics.median(a / b for a, b in zip(times, taken["one go"], strict=True))
        for name, times in taken.items()
    }
    return {
        name: {"seconds": round(statistics.median(times), 2), "of_one_go": round(ratios[name], 3)}
        for name, times in taken.items()
    }


def _options(work: WorkOptions) -> RunOptions:
    return RunOptions(encode=EncodeOptions(overwrite=True), work=work)


def _restart_s(clip: Path, whole_s: float) -> float:
    """Return the time from the start of a run that goes on to its first new frame."""
    target = clip.with_name("restarted.mp4")
    command = [sys.executable, "-m", "streamderain", "run", str(clip), "-o", str(target)]
    process = subprocess.Popen([*command, "--segment-length", "20"], stderr=subprocess.DEVNULL)
    time.sleep(0.6 * whole_s)
    process.kill()
    process.wait()
    first: list[float] = []
    seen: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, Progress):
            seen.append(event.frames_out)
            if event.frames_out > seen[0] and not first:
                first.append(time.perf_counter() - started)

    started = time.perf_counter()
    run(clip, target, options=_options(WorkOptions(segment_length_s=20.0)), observer=watch)
    return round(first[0], 2)
