"""Runs that are disturbed on their way: fed slowly, interrupted, killed."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.support.command import command

FAST = ("--engine", "identity", "--preset", "ultrafast")


def wait_until(condition: Callable[[], object], *, what: str, limit_s: float = 60) -> None:
    """Waits for something to become true; fails the test where it does not."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {limit_s:g} s in vain: {what}"
        time.sleep(0.02)


def holds(path: Path, size_bytes: int) -> bool:
    """Whether a file is there and has more than so many bytes."""
    return path.exists() and path.stat().st_size > size_bytes


@contextmanager
def running(*words: str | Path, stdin: IO[bytes] | int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """The command while it runs; killed at the end where it still does."""
    source = subprocess.DEVNULL if stdin is None else stdin
    with subprocess.Popen(
        command(*words), stdin=source, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[bytes], *, limit_s: float = 60) -> tuple[int, str]:
    """Waits for a run to end; returns its exit code and what it said. A traceback fails the test."""
    _, said = process.communicate(timeout=limit_s)
    text = said.decode()
    assert "Traceback" not in text, text
    return process.returncode, text


@contextmanager
def interrupted_in_the_middle(
    source: Path, target: Path, *words: str | Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A run on a file, while it is somewhere in the middle of it."""
    partial = target.with_name(f"{target.stem}.partial{target.suffix}")
    with running("run", source, "-o", target, *words) as process:
        wait_until(lambda: holds(partial, 1000) or process.poll() is not None, what=f"something in {partial}")
        assert process.poll() is None, process.communicate()[1].decode()
        yield process


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
