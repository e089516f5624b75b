"""Shares of the processor by control groups, on a tree of files as the kernel shows it."""

from __future__ import annotations

import os
from pathlib import Path

from streamderain.system.cpu_share import cpu_shares


def hierarchy(folder: Path, controllers: str) -> tuple[Path, Path]:
    """A group that was handed over, and the file that tells a process where it is."""
    group = folder / "system.slice" / "streamderain.service"
    for one in (group, group / "manager", group / "child-front"):
        one.mkdir(parents=True, exist_ok=True)  # the kernel fills a group with its files at once
        (one / "cgroup.procs").touch()
    (group / "cgroup.controllers").write_text(controllers)
    (group / "cgroup.subtree_control").touch()
    told = folder / "told"
    told.write_text("4:memory:/elsewhere\n0::/system.slice/streamderain.service\n")
    return group, told


def test_each_child_gets_a_group_of_its_own(tmp_path: Path) -> None:
    group, told = hierarchy(tmp_path, "cpuset cpu memory\n")
    shares = cpu_shares(root=tmp_path, told=told)
    assert shares is not None
    # First we leave the group: with processes in it, it could hand nothing on.
    assert (group / "manager" / "cgroup.procs").read_text() == str(os.getpid())
    assert (group / "cgroup.subtree_control").read_text() == "+cpu"
    shares.give("front", 4711)
    assert (group / "child-front" / "cgroup.procs").read_text() == "4711"
    (group / "child-front" / "cgroup.procs").unlink()  # the kernel's files go with the group
    shares.take("front")
    assert not (group / "child-front").exists()
    shares.take("front")


def test_a_group_with_others_in_it_is_left_as_it_was(tmp_path: Path) -> None:
    group, told = hierarchy(tmp_path, "cpu\n")
    (group / "cgroup.subtree_control").unlink()
    (group / "cgroup.subtree_control").mkdir()  # it cannot be written to, as the kernel refuses it then
    assert cpu_shares(root=tmp_path, told=told) is None
    assert (group / "cgroup.procs").read_text() == str(os.getpid()), "back where it was"


def test_where_nothing_was_handed_over_there_are_none(tmp_path: Path) -> None:
    group, told = hierarchy(tmp_path, "memory\n")
    assert cpu_shares(root=tmp_path, told=told) is None
    assert not (group / "cgroup.subtree_control").read_text()
    told.write_text("0::/\n")
    assert cpu_shares(root=tmp_path, told=told) is None
    told.write_text("1:cpu:/\n")
    assert cpu_shares(root=tmp_path, told=told) is None
    assert cpu_shares(root=tmp_path, told=tmp_path / "none") is None
