"""What a measurement is worth nothing without: the machine, the versions, the commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from streamderain.measure.gpu import gpus

PACKAGES = ("streamderain", "av", "openvino", "numpy", "torch", "tensorrt")


def machine() -> dict[str, Any]:
    """Describes the processor, the cores this process may use, memory, GPUs and the software; JSON-able."""
    versions = {name: found for name in PACKAGES if (found := version(name)) is not None}
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [asdict(gpu) for gpu in gpus()],
        "system": platform.platform(),
        "python": platform.python_version(),
        **versions,
        "commit": commit(),
    }


@dataclass(frozen=True, slots=True)
class Spread:
    """Several measurements of one thing.

    Attributes:
        median: The middle one.
        min: The least.
        max: The most.
    """

    median: float
    min: float
    max: float


def spread(values: Sequence[float], *, digits: int = 3) -> Spread:
    """Median, least and most of several measurements.

    Raises:
        ValueError: No values.
    """
    return Spread(
        round(statistics.median(values), digits), round(min(values), digits), round(max(values), digits)
    )


def processor() -> str:
    """The processor's name, for people."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def version(package: str) -> str | None:
    """The version of an installed package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The checkout's commit, marked where files were changed since; None outside of a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() or None
