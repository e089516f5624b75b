"""Trials that disturb the command, and what must be true after each; tests run a few, the benchmark many."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.support import media
from tests.support.command import command
from tests.support.judge import times_s, video_streams
from tests.support.kinds import SOURCES
from tests.support.mutation import mutated
from tests.support.reader import frame_count

LONG_FRAMES = 900

SLOW = ("--engine", "identity", "--preset", "slow", "-e", "g=10")
"""A run that takes seconds."""

ENDS = ("kill", "interrupt", "interrupt twice", "hang up", "terminate")

LIMIT_S = 60.0

B_FRAMES = 16
"""No encoder reorders more."""


def long_clip(folder: Path) -> Path:
    """A clip that a run works on for seconds."""
    path = folder / "long.mkv"
    sound = [media.Sound("ac3", seconds=LONG_FRAMES / 25)]
    return media.write(path, media.Video(frames=LONG_FRAMES, width=320, height=240), audio=sound)


def disturbed(clip: Path, folder: Path, *, suffix: str, end: str, after_s: float, there: bool) -> list[str]:
    """Ends a run at some moment and looks at what lies there.

    Args:
        clip: From `long_clip`.
        folder: Empty.
        suffix: Of the target, which chooses its container.
        end: One of `ENDS`.
        after_s: When, counted from the start of the process.
        there: Whether an older result is there, to be replaced.

    Returns:
        What is wrong; nothing where all is well.
    """
    target = folder / f"clean.{suffix}"
    old = media.write_video(target, frames=3).read_bytes() if there else b""
    words = ("run", clip, "-o", target, *SLOW, *(("--overwrite",) if there else ()))
    with subprocess.Popen(command(*words), stderr=subprocess.PIPE) as process:
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            _end(process, end)
        try:
            _, said = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return [f"did not end within {LIMIT_S:g} s after: {end}"]
    return [
        *_process_faults(process.returncode, said.decode(), end),
        *_file_faults(clip, target, old, process.returncode, end),
    ]


def _end(process: subprocess.Popen[bytes], end: str) -> None:
    numbers = {"kill": signal.SIGKILL, "hang up": signal.SIGHUP, "terminate": signal.SIGTERM}
    process.send_signal(numbers.get(end, signal.SIGINT))
    if end == "interrupt twice":
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)


def _process_faults(code: int, said: str, end: str) -> list[str]:
    # Before Python minds signals, they end it in their own way; before the command is reached, in Python's.
    raw = {-signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGKILL}
    in_command = "streamderain/cli" in said
    if code == 1 and said.rstrip().endswith("KeyboardInterrupt") and not in_command:
        return []
    found = [] if code in {0, 130, *raw} else [f"exit code {code}: {said[-300:]}"]
    return found + (["a traceback"] if "Traceback" in said and in_command else [])


def _file_faults(clip: Path, target: Path, old: bytes, code: int, end: str) -> list[str]:
    found = []
    names = {path.name for path in target.parent.iterdir()}
    partial = target.with_name(f"{target.stem}.partial{target.suffix}")
    if stray := names - {target.name, partial.name}:
        found.append(f"stray files {sorted(stray)}")
    if target.exists() and target.read_bytes() != old:
        count = frame_count(target)
        if count != LONG_FRAMES:
            found.append(f"{target.name} is no old result and has {count} frames")
    elif not target.exists() and old:
        found.append("the old result is gone")
    if code == 0 and partial.exists():
        found.append("a partial file beside the whole one")
    if partial.exists() and (end != "kill" or partial.stat().st_size > 300_000):
        found += _partial_faults(clip, partial, end)
    return found


def _partial_faults(clip: Path, partial: Path, end: str) -> list[str]:
    """What was kept must play, and hold the first frames of the source at their times."""
    try:
        (stream,) = video_streams(partial)
        found = times_s(partial, stream)
    except (AssertionError, ValueError, KeyError) as error:
        return [f"{partial.name} does not play after: {end} ({error})"]
    expected = times_s(clip, video_streams(clip)[0])
    if not found:
        return [f"{partial.name} shows nothing after: {end}"]
    # Matroska and MPEG-TS have no times before zero and move all streams.
    shift = (found[0] or 0) - (expected[0] or 0)
    # Of the last group of B-frames some may be missing: those after which a later frame was encoded already.
    sure = found[: max(1, len(found) - B_FRAMES)]
    apart = [float((new or 0) - (known or 0) - shift) for new, known in zip(sure, expected, strict=False)]
    return [f"{partial.name}: times differ"] if max(map(abs, apart)) > 0.001 else []


@dataclass(frozen=True)
class Mutant:
    """A damaged file and how the command took it.

    Attributes:
        name: What it was made of, with its seed.
        code: Exit code; None where it did not end.
        faults: What is wrong.
    """

    name: str
    code: int | None
    faults: Sequence[str]


def whole_files(folder: Path) -> list[Path]:
    """What mutants are made of: every kind of source, and pictures."""
    files = [write(folder / name) for name, write in SOURCES.items()]
    kinds = {
        "jpg": ("mjpeg", "yuvj420p"),
        "png": ("png", "rgb24"),
        "tif": ("tiff", "rgb24"),
        "bmp": ("bmp", "bgr24"),
    }
    for suffix, (codec, pix_fmt) in kinds.items():
        files.append(media.write_image(folder / f"picture.{suffix}", codec=codec, pix_fmt=pix_fmt))
    return files


def _result_faults(target: Path) -> list[str]:
    try:
        return [] if frame_count(target, cut=True) else ["no picture in the result"]
    except (AssertionError, LookupError, ValueError) as error:
        return [f"the result does not play: {error}"]


def mutant(whole: Path, folder: Path, seed: int) -> Mutant:
    """Damages a file and has the command derain it.

    Args:
        whole: The file to damage.
        folder: Empty; left so.
        seed: Decides the damage.
    """
    source = folder / whole.name
    source.write_bytes(mutated(whole.read_bytes(), np.random.default_rng(seed)))
    out = folder / "out"
    out.mkdir()
    target = out / (whole.name if whole.name.startswith("picture") else f"{whole.stem}.mkv")
    name = f"{whole.name} {seed}"
    quick = ("--preset", "ultrafast") if target.suffix == ".mkv" else ()
    try:
        done = subprocess.run(
            command("run", source, "-o", target, "--engine", "identity", *quick),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Mutant(name, None, ["hangs"])
    said = done.stderr.decode(errors="replace")
    found = [] if done.returncode in (0, 3, 7) else [f"exit code {done.returncode}: {said[-300:]}"]
    found += ["a traceback"] if "Traceback" in said else []
    left = sorted(path for path in out.iterdir())
    expected = [target] if done.returncode in (0, 7) else []
    found += [f"stray {path.name}" for path in left if path not in expected and str(path) not in said]
    if done.returncode in (0, 7):
        found += _result_faults(target)
    for path in (*left, source):
        path.unlink()
    out.rmdir()
    return Mutant(name, done.returncode, found)
