"""Memory does not grow with the length of a video."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support import media
from tests.support.command import command


def peak_mb(source: Path, target: Path) -> float:
    """Peak resident memory of the command in MB."""
    process = subprocess.Popen(command("run", source, "-o", target, "-q", "--preset", "ultrafast"))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss / 1024


def test_a_long_video_takes_no_more_than_a_short_one(tmp_path: Path) -> None:
    size = {"width": 160, "height": 120}
    short = media.write(
        tmp_path / "short.mp4", media.Video(frames=200, **size), audio=[media.Sound(seconds=8)]
    )
    long = media.write(
        tmp_path / "long.mp4", media.Video(frames=3000, **size), audio=[media.Sound(seconds=120)]
    )
    few, many = peak_mb(short, tmp_path / "a.mp4"), peak_mb(long, tmp_path / "b.mp4")
    # One leaked luma plane a frame would be 57 MB here, one leaked frame 86 MB.
    assert many < few + 25
