"""What a measurement is worth nothing without: the machine, the versions, the commit."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click


def machine() -> dict[str, Any]:
    """Describes the processor, the cores this process may use, and the software."""
    packages = ("streamderain", "av", "openvino", "numpy", "torch")
    versions = {name: found for name in packages if (found := _version(name)) is not None}
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **versions,
        "commit": _commit(),
    }


def spread(values: Sequence[float], *, digits: int = 3) -> dict[str, float]:
    """Median, least and most of several runs."""
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


def report(result: Mapping[str, Any], path: str | None) -> None:
    """Prints a result as JSON, and writes it to ``path`` where one is given."""
    text = json.dumps({"machine": machine(), **result}, indent=2) + "\n"
    click.echo(text, nl=False)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _version(package: str) -> str | None:
    """None where it is not installed: not every benchmark needs every package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    root = Path(__file__).parent
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
