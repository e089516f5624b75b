"""Measure what pieces cost and bring: against one go, with two jobs, and until a killed run goes on."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

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
@click.option("--kills", default=100, show_default=True, help="Runs that are killed at a random moment.")
@click.option("--seed", default=1, show_default=True)
@json_option
def segments(seconds: float, repeats: int, kills: int, seed: int, path: str | None) -> None:
    """Time a clip in one go, in pieces, and in pieces by two jobs; kill runs and go on with them."""
    with tempfile.TemporaryDirectory(prefix="streamderain-segments-") as name:
        folder = Path(name)
        clip = folder / "clip.mp4"
        write_scene(clip, width=1280, height=720, frames=round(25 * seconds))
        found: dict[str, Any] = {"benchmark": "segments", "seconds": seconds, "repeats": repeats}
        found["ways"] = _ways(clip, repeats)
        found["restart_s"] = _restart_s(clip, found["ways"]["pieces"]["seconds"])
        found["kills"] = _kills(folder, kills, np.random.default_rng(seed))
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


def _kills(folder: Path, count: int, random: np.random.Generator) -> dict[str, int]:
    """Kill runs at random moments until each is done; count those whose result is not that of one go."""
    clip = folder / "small.mp4"
    write_scene(clip, width=320, height=180, frames=300)
    words = ["--codec", "ffv1", "--overwrite"]
    whole = folder / "whole.mkv"
    _command(clip, whole, *words).wait()
    wanted = whole.read_bytes()
    wrong = killed = 0
    while count > 0:
        target = folder / "killed.mkv"
        while True:
            process = _command(clip, target, *words, "--segment-length", "1")
            if count > 0:
                count -= 1
                _wait(lambda p=process: p.poll() is not None, random.uniform(0.3, 3.0))  # type: ignore[misc]
                process.kill()
            process.wait()
            if process.returncode == 0:
                break
            killed += 1
        wrong += target.read_bytes() != wanted
        target.unlink()
    return {"killed": killed, "wrong": wrong}


def _command(source: Path, target: Path, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "streamderain", "run", str(source), "-o", str(target), *words]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env=dict(os.environ))


def _wait(condition: Callable[[], bool], limit_s: float) -> None:
    deadline = time.perf_counter() + limit_s
    while not condition() and time.perf_counter() < deadline:
        time.sleep(0.01)
