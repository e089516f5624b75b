"""Runs in pieces that are killed at any moment: tests kill a few, the benchmark hundreds."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import psutil

from streamderain.jobs.manifest import folder_of
from tests.support import media
from tests.support.command import command

FRAMES = 600

WORDS = ("--engine", "identity", "--codec", "ffv1", "-e", "threads=1", "--segment-length", "1")

VICTIMS = ("run", "worker", "everything")
"""Who is killed: the run, a process that works on a piece (and the run later on), or all at once."""

LIMIT_S = 60.0

UNBORN = b"EOFError: Ran out of input"
"""What Python itself says in a worker whose run was killed before it had told the worker what to do."""


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        victim: One of `VICTIMS`.
        after_s: When, counted from the start of the process; the run's own after a worker's as much later.
    """

    victim: str
    after_s: float


def contents(path: Path) -> dict[str, Any]:
    """Everything that is in a file: packets of each stream with their times, tags, chapters."""
    with av.open(str(path)) as container:
        found: dict[str, Any] = {
            "tags": dict(container.metadata),
            "chapters": container.chapters(),
            "streams": [(s.type, s.time_base, s.start_time, dict(s.metadata)) for s in container.streams],
            "packets": [
                (p.stream_index, p.pts, p.dts, p.duration, hashlib.sha256(bytes(p)).hexdigest())
                for p in container.demux()
                if p.size
            ],
        }
    return found


def source_in_pieces(folder: Path) -> Path:
    """Writes a clip of 24 pieces of a second."""
    video = media.Video(frames=FRAMES, width=320, height=240, gop=25, options={"preset": "ultrafast"})
    return media.write(folder / "pieces.mkv", video, audio=[media.Sound("ac3", seconds=FRAMES / 25)])


def in_one_go(source: Path, target: Path) -> dict[str, Any]:
    """What the command makes of the clip in one go."""
    subprocess.run(
        command("run", source, "-o", target, *WORDS[:-2]), capture_output=True, timeout=LIMIT_S, check=True
    )
    return contents(target)


def killed_and_resumed(
    source: Path, wanted: dict[str, Any], target: Path, kills: Sequence[Kill]
) -> list[str]:
    """Kills runs on one target, one after the other, and lets the last one come to its end.

    Args:
        source: From `source_in_pieces`.
        wanted: From `in_one_go`.
        target: A name in an empty folder.
        kills: What is killed, and when.

    Returns:
        What is wrong; nothing where all is well.
    """
    found: list[str] = []
    words = command("run", source, "-o", target, *WORDS)
    for kill in kills:
        before = _finished(target)
        with subprocess.Popen(words, stderr=subprocess.PIPE) as process:
            _let_live(process, kill)
            workers = _workers(process)
            process.kill()
            _, said = process.communicate()
        _, alive = psutil.wait_procs(workers, timeout=10)
        found += ["a worker outlived its run"] if alive else []
        if b"Traceback" in said and not said.rstrip().endswith(UNBORN):
            found.append(f"a traceback: {said[-2000:].decode()}")
        if target.exists():  # it is judged below
            break
        after = _finished(target)
        again = [number for number, packets in before.items() if after.get(number) != packets]
        found += [f"pieces {again} were whole, and were made again or are gone"] if again else []
    if not target.exists() or folder_of(target).exists():
        done = subprocess.run(words, capture_output=True, timeout=LIMIT_S, check=False)
        found += [f"exit code {done.returncode}: {done.stderr[-300:]!r}"] if done.returncode else []
    if not target.exists() or contents(target) != wanted:
        found.append("the result is not what one go gives")
    if stray := {path.name for path in target.parent.iterdir()} - {target.name}:
        found.append(f"stray {stray}")
    return found


def _let_live(process: subprocess.Popen[bytes], kill: Kill) -> None:
    """Waits for the moment of the kill, and kills what dies before the run."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(kill.after_s)
    if kill.victim == "run":
        return
    for worker in _workers(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.send_signal(signal.SIGKILL)
    if kill.victim == "worker":
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(kill.after_s)


def _workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        found: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
        return found
    return []


def _finished(target: Path) -> dict[str, tuple[int, int]]:
    """The packets of pieces that the manifest calls whole: which file each is, and when it was written."""
    folder = folder_of(target)
    try:
        numbers = json.loads((folder / "manifest.json").read_text())["finished"]
    except FileNotFoundError:
        return {}
    stats = {number: (folder / f"{int(number):05d}-0.packets").stat() for number in numbers}
    return {number: (stat.st_ino, stat.st_mtime_ns) for number, stat in stats.items()}
