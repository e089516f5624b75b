"""Measure what pieces cost and bring: against one go, by two jobs or Ray, and to go on after a kill."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from benchmarks.results_file import json_option, report
from streamderain import run
from streamderain.events import Event, Progress
from streamderain.jobs.ledger import Ledger, Row
from streamderain.jobs.manifest import Finished, Manifest
from streamderain.measure.scene import write_scene
from streamderain.media.reading.piece import Piece
from streamderain.media.reading.trim import TimeRange
from streamderain.options import EncodeOptions, RunOptions, WorkOptions

_WAYS: dict[str, WorkOptions] = {
    "one go": WorkOptions(),
    "pieces": WorkOptions(jobs=1, segment_length_s=20.0),
    "pieces, two jobs": WorkOptions(jobs=2, segment_length_s=20.0),
}


_PIECES = (180, 1000)
"""Of an hour and of five and a half, 20 s each."""


@click.command()
@click.option("--seconds", default=80.0, show_default=True, help="Length of the clip, 720p at 25 frames/s.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--cluster/--no-cluster", default=True, help="Ray, with one and two nodes of a core each.")
@json_option
def segments(seconds: float, repeats: int, cluster: bool, path: str | None) -> None:
    """Time a clip in one go, in pieces and by two jobs; a run that goes on; the notes that are kept."""
    with tempfile.TemporaryDirectory(prefix="streamderain-segments-") as name:
        clip = Path(name) / "clip.mp4"
        write_scene(clip, width=1280, height=720, frames=round(25 * seconds))
        found: dict[str, Any] = {"benchmark": "segments", "seconds": seconds, "repeats": repeats}
        found["ways"] = _ways(clip, repeats, cluster=cluster)
        found["restart_s"] = _restart_s(clip, found["ways"]["pieces"]["seconds"])
        found["manifest_ms"] = {count: _manifest_ms(Path(name), count) for count in _PIECES}
        found["ledger_ms"] = _ledger_ms(Path(name))
        report(found, path)


def _ways(clip: Path, repeats: int, *, cluster: bool) -> dict[str, Any]:
    taken: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):  # in turns: all meet the same weather
        for name, work in _WAYS.items():
            taken[name].append(_seconds(clip, work))
        for nodes in (1, 2) if cluster else ():
            with _cluster(nodes):
                work = WorkOptions(segment_length_s=20.0, cluster="auto")
                taken[f"Ray, {nodes} node{'s' * (nodes > 1)} of a core"].append(_seconds(clip, work))
    ratios = {
        name: statistics.median(a / b for a, b in zip(times, taken["one go"], strict=True))
        for name, times in taken.items()
    }
    return {
        name: {"seconds": round(statistics.median(times), 2), "of_one_go": round(ratios[name], 3)}
        for name, times in taken.items()
    }


def _manifest_ms(folder: Path, count: int) -> float:
    """Return how long it takes to note that one of so many pieces is finished."""
    pieces = [
        Piece(n, TimeRange(Fraction(n), Fraction(n + 1)), Fraction(0), (n,), (500,)) for n in range(count)
    ]
    with Manifest(folder / f"{count}.mkv") as manifest:
        manifest.resume({}, restart=False)
        manifest.begin(pieces, groups=1)
        taken = []
        for piece in pieces:
            started = time.perf_counter()
            manifest.finish(piece, Finished(frames=500, bytes=0))
            taken.append(time.perf_counter() - started)
    return round(1e3 * statistics.median(taken[-100:]), 2)


def _ledger_ms(folder: Path) -> float:
    """Return how long it takes to take up a file of an archive and to note that it is done."""
    taken = []
    with Ledger(folder) as ledger:
        for number in range(1000):
            name = f"{number // 100}/{number}.mp4"
            started = time.perf_counter()
            claim = ledger.claim(name, str(folder / name))
            assert claim is not None
            ledger.settle(claim, Row(name, "done"))
            taken.append(time.perf_counter() - started)
    return round(1e3 * statistics.median(taken), 2)


def _seconds(clip: Path, work: WorkOptions) -> float:
    started = time.perf_counter()
    run(clip, clip.with_name("clean.mp4"), options=_options(work))
    return time.perf_counter() - started


@contextmanager
def _cluster(nodes: int) -> Iterator[None]:
    """Have a Ray cluster on this machine, which is found as `auto`."""
    import ray
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    before = os.environ.get("RAY_ADDRESS")
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=1)
        os.environ["RAY_ADDRESS"] = cluster.address
        yield
    finally:
        os.environ.pop("RAY_ADDRESS")
        if before is not None:
            os.environ["RAY_ADDRESS"] = before
        ray.shutdown()
        cluster.shutdown()


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
