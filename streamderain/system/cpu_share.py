"""Give processes equal shares of the processor, by control groups (cgroup v2, cgroups(7)).

A service manager hands a part of the hierarchy over (`Delegate=cpu` of systemd). Each process gets a group of
its own there: however many threads one has, the kernel weighs the groups, not the threads. Where nothing is
handed over, sessions of their own do the same on most desktops (autogroups, sched(7)), but not below a group
of a service or container, where the kernel knows only threads.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_MANAGER = "manager"


class CpuShares:
    """The groups of the children of this process, equal in weight.

    Args:
        folder: The group that was handed over to us, in which we are.

    Raises:
        OSError: It was not handed over, or has no controller of the processor.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if "cpu" not in (folder / "cgroup.controllers").read_text().split():
            raise PermissionError(f"{folder} has no controller of the processor")
        # A group with groups in it may hold no process itself (cgroups(7), "no internal processes").
        self._move(_MANAGER, os.getpid())
        try:
            (folder / "cgroup.subtree_control").write_text("+cpu")
        except OSError:
            # Others are in it, such as a shell's other children: it was not handed over to us alone.
            (folder / "cgroup.procs").write_text(str(os.getpid()))
            with contextlib.suppress(OSError):
                (folder / _MANAGER).rmdir()
            raise

    def give(self, name: str, pid: int) -> None:
        """Move a process, and all it starts from now on, to a group of its own.

        Args:
            name: Of the group: letters, digits, - and _.
            pid: The process.

        Raises:
            OSError: The process is gone, or the group was taken back.
        """
        self._move(f"child-{name}", pid)

    def take(self, name: str) -> None:
        """Remove the group of a process that ended."""
        with contextlib.suppress(OSError):
            (self._folder / f"child-{name}").rmdir()

    def _move(self, name: str, pid: int) -> None:
        group = self._folder / name
        group.mkdir(exist_ok=True)
        (group / "cgroup.procs").write_text(str(pid))


def cpu_shares(*, root: Path = ROOT, told: Path = Path("/proc/self/cgroup")) -> CpuShares | None:
    """Return the groups that children can be given, or None where no group was handed over.

    Args:
        root: Where the hierarchy is mounted.
        told: Which group we are in, as the kernel tells.
    """
    try:
        # The line of version 2 has no name of a controller: "0::/system.slice/streamderain.service".
        lines = told.read_text().splitlines()
        path = next(line.removeprefix("0::") for line in lines if line.startswith("0::"))
        return None if path == "/" else CpuShares(root / path.lstrip("/"))
    except (OSError, StopIteration):
        return None
