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

_INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX BF16",
}


def machine() -> dict[str, Any]:
    """Describe the processor, the cores this process may use, memory, GPUs and the software; JSON-able."""
    versions = {name: found for name in PACKAGES if (found := version(name)) is not None}
    return {
        "processor": processor(),
        "instructions": instructions(),
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
    return _cpu_info("model name") or platform.processor() or platform.machine()


def instructions() -> list[str]:
    """Return those of the processor's vector instruction sets that the networks' speed depends on."""
    found = set(_cpu_info("flags").split())
    return [name for flag, name in _INSTRUCTIONS.items() if flag in found]


def _cpu_info(field: str) -> str:
    """Return a field of the first processor as Linux tells it; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    values = [line.partition(":")[2].strip() for line in lines if line.startswith(field)]
    return values[0] if values else ""


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
