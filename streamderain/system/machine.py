"""Describe the machine, the versions and the commit of a measurement."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from streamderain.system.gpu import gpus

PACKAGES = ("streamderain", "av", "openvino", "opencv-python-headless", "numpy", "torch", "tensorrt")


def machine() -> dict[str, Any]:
    """Describe the processor, the cores this process may use, memory, GPUs and the software; JSON-able."""
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


def processor() -> str:
    """Return the processor's name, for people."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def version(package: str) -> str | None:
    """Return the version of an installed package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """Return the checkout's commit, marked where files were changed since; None outside of a checkout."""
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
