"""How long a user waits before anything happens."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.machine import report, spread

DEMO = Path(__file__).parent.parent / "streamderain" / "assets" / "demo.mp4"


@click.command()
@click.option("--repeats", default=7, show_default=True)
@click.option("--json", "path", help="Also write the result here.")
def startup(repeats: int, path: str | None) -> None:
    """Times import, --help, and the way from process start to the first derained frame."""
    import_code = "import streamderain"
    report(
        {
            "benchmark": "startup",
            "python_s": spread([_run_s("-c", "pass") for _ in range(repeats)]),
            "import_s": spread([_run_s("-c", import_code) for _ in range(repeats)]),
            "help_s": spread([_run_s("-m", "streamderain", "--help") for _ in range(repeats)]),
            "first_frame_s": spread([_first_frame_s() for _ in range(repeats)]),
        },
        path,
    )


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
