"""``streamderain run``: options in, exit code out."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamderain.api import RunReport, run
from streamderain.cli.view import View
from streamderain.errors import ConfigError
from streamderain.options import EncodeOptions, EngineOptions, ReadOptions, RunOptions

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a polite kill, and the terminal being closed."""


def run_command(
    *,
    sources: tuple[str, ...],
    targets: tuple[str, ...],
    json_path: str | None,
    quiet: bool,
    **arguments: Any,
) -> int:
    """Runs the command and returns its exit code."""
    options = _options(arguments)
    if "-" in targets and sys.stdout.isatty():
        raise ConfigError("standard output is a terminal; send the video somewhere: -o - > clean.mkv")
    _check_summary(json_path, targets, overwrite=options.encode.overwrite)
    with _interruptible() as stop, View(quiet=quiet) as view:
        report = run(
            list(sources) if len(sources) > 1 else sources[0],
            *targets,
            options=options,
            observer=view.show,
            stop=stop,
        )
    if json_path is not None:
        _write_summary(report, json_path)
    return report.exit_code


def _options(arguments: Mapping[str, Any]) -> RunOptions:
    def of(kind: type[Any]) -> Any:
        return kind(**{key: arguments[key] for key in kind.__slots__ if key in arguments})

    return RunOptions(read=of(ReadOptions), encode=of(EncodeOptions), engine=of(EngineOptions))


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Yields an event that a stop signal sets; a second one interrupts at once."""
    stop = threading.Event()

    def handle(_number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    # A hang-up that was ignored from the start (nohup) stays ignored.
    heeded = [n for n in STOP_SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_summary(path: str | None, targets: tuple[str, ...], *, overwrite: bool) -> None:
    """Refuses a summary path that would cost the user a file, or the run's report, before any work."""
    if path is None:
        return
    if path == "-":
        if "-" in targets:
            raise ConfigError("--json and the video cannot both go to standard output; give --json a PATH")
        return
    if Path(path).exists() and not (overwrite and Path(path).is_file() and path not in targets):
        raise ConfigError(
            f"the summary {path} exists already; give --json another PATH, or --overwrite for a summary "
            "of an earlier run (--json takes the next word as its PATH: put SOURCE before it)"
        )
    if not Path(path).absolute().parent.is_dir():
        raise ConfigError(f"the folder of the summary {path} does not exist; make it first (mkdir -p)")


def _write_summary(report: RunReport, path: str) -> None:
    text = json.dumps(report.to_json(), indent=2) + "\n"
    if path == "-":
        sys.stdout.write(text)
        return
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the video is done, but its summary cannot be written to {path}: {error.strerror}; "
            "choose another --json path"
        ) from error
