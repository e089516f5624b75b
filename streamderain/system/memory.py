"""How much memory this process may still take."""

from __future__ import annotations

from pathlib import Path

import psutil

_GROUP = Path("/sys/fs/cgroup")
"""Where a container finds its own limit (Linux, control groups of version 2)."""


def available_bytes() -> int:
    """Return the memory that can be taken without swapping: the machine's, or its container's."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = int((_GROUP / "memory.max").read_text())
        used = int((_GROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or "max"
        return free
    return min(free, max(0, limit - used))
