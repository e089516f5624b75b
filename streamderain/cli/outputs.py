"""Where commands write their reports: checked before any work, so that none is lost."""

from __future__ import annotations

import sys
from pathlib import Path

from streamderain.errors import ConfigError


def check_report(path: str | None, option: str, *, overwrite: bool = False) -> None:
    """Refuses a path that would cost the user a file, or the report.

    Args:
        path: Where to; ``-`` is standard output, None nowhere.
        option: What the user wrote it behind, for the message.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ConfigError: The file exists, or its folder does not.
    """
    if path is None or path == "-":
        return
    if Path(path).is_dir():
        raise ConfigError(f"{option} {path} is a folder; name a file in it")
    if Path(path).exists() and not overwrite:
        raise ConfigError(
            f"{option} {path} exists already; name another file, or add --overwrite "
            f"({option} takes the next word as its PATH: put SOURCE before it)"
        )
    if not Path(path).absolute().parent.is_dir():
        raise ConfigError(f"the folder of {option} {path} does not exist; make it first (mkdir -p)")


def write_report(text: str, path: str | None) -> None:
    """Writes a report that `check_report` passed.

    Raises:
        ConfigError: It cannot be written.
    """
    if path is None:
        return
    if path == "-":
        sys.stdout.write(text)
        return
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the work is done, but its report cannot be written to {path}: {error.strerror}; "
            "check the folder and its free space, or name another"
        ) from error
