"""The command as a user runs it: a process of its own, with its exit code and what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: Exit code.
        out: Standard output.
        err: Standard error, where everything for people goes.
    """

    code: int
    out: bytes
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        """The JSON summary from standard output."""
        summary: dict[str, Any] = json.loads(self.out)
        return summary


def command(*arguments: str | Path) -> list[str]:
    """The command line of `streamderain` with this interpreter."""
    return [sys.executable, "-m", "streamderain", *(str(argument) for argument in arguments)]


def streamderain(
    *arguments: str | Path,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 120,
) -> Outcome:
    """Runs `streamderain` to its end. A traceback on standard error fails the caller."""
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        env={**os.environ, **(env or {})},
        timeout=timeout_s,
        check=False,
    )
    err = done.stderr.decode()
    assert "Traceback" not in err, err
    return Outcome(done.returncode, done.stdout, err)
