"""An independent reader of media: FFmpeg's own command, another build than the one PyAV brings."""

from __future__ import annotations

import json
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

from tests.support.requirements import require


def ffprobe(path: Path, *arguments: str, cut: bool = False) -> dict[str, Any]:
    """What ffprobe tells of a file as JSON; what it complains of fails the test.

    Args:
        path: The file.
        arguments: What is asked, such as `-show_packets`.
        cut: The file may end in the middle of a packet: a kill or a full disk ended it.
    """
    require(shutil.which("ffprobe"), "ffprobe (Debian's package ffmpeg)")
    command = ["ffprobe", "-v", "error", "-of", "json", *arguments, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert cut or not done.stderr, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def frame_times(path: Path, *, stream: int = 0) -> list[Fraction]:
    """Presentation time of every frame that ffprobe decodes of a video stream, in seconds."""
    asked = ("-select_streams", f"v:{stream}", "-show_entries", "frame=pts:stream=time_base")
    found = ffprobe(path, *asked)
    base = Fraction(found["streams"][0]["time_base"])
    return [int(frame["pts"]) * base for frame in found["frames"]]


def frame_count(path: Path, *, stream: int = 0, cut: bool = False) -> int:
    """How many frames ffprobe decodes of a video stream; see `ffprobe` for `cut`."""
    asked = ("-count_frames", "-select_streams", f"v:{stream}", "-show_entries", "stream=nb_read_frames")
    return int(ffprobe(path, *asked, cut=cut)["streams"][0]["nb_read_frames"])


def ffmpeg(path: Path, *arguments: str) -> bytes:
    """What FFmpeg's own command writes to its standard output.

    Args:
        path: What it reads.
        arguments: What it does with it, up to the target.
    """
    require(shutil.which("ffmpeg"), "ffmpeg (Debian's package ffmpeg)")
    command = ["ffmpeg", "-v", "error", "-noautorotate", "-i", str(path), *arguments, "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout
