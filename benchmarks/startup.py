"""Measure start-up: import, `--help`, and the time to the first frame."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import click

from benchmarks.results_file import json_option, report
from streamderain.measure.tables import spread

DEMO = Path(__file__).parent.parent / "streamderain" / "assets" / "demo.mp4"


@click.command()
@click.option("--repeats", default=7, show_default=True)
@json_option
def startup(repeats: int, path: str | None) -> None:
    """Time import, --help, and the way from process start to the first derained frame."""
    ways = {
        "python_s": lambda: _run_s("-c", "pass"),
        "import_s": lambda: _run_s("-c", "import streamderain"),
        "help_s": lambda: _run_s("-m", "streamderain", "--help"),
        "first_frame_s": _first_frame_s,
    }
    # In turns: all meet the same weather.
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            taken[name].append(way())
    report({"benchmark": "startup", **{name: asdict(spread(values)) for name, values in taken.items()}}, path)


def _run_s(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def _first_frame_s() -> float:
    """Process start until the first frame was encoded: the whole process, less all after that frame."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "streamderain", "run", str(DEMO), "-o", f"{folder}/o.mp4", "--json", "-q"],
            check=True,
            capture_output=True,
        )
        whole_s = time.perf_counter() - started
        file = json.loads(done.stdout)["files"][0]
    return whole_s - (file["elapsed_s"] - file["first_frame_s"])
