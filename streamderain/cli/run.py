"""``streamderain run``: options in, exit code out."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from streamderain.api import run
from streamderain.cli.outputs import check_report, write_report
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
    options = run_options(arguments)
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
    write_report(json.dumps(report.to_json(), indent=2) + "\n", json_path)
    return report.exit_code


def run_options(arguments: Mapping[str, Any]) -> RunOptions:
    """Builds the options from the arguments of the same names."""

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
    if path == "-" and "-" in targets:
        raise ConfigError("--json and the video cannot both go to standard output; give --json a PATH")
    if path is not None and path != "-" and path in targets:
        raise ConfigError(f"--json and the video cannot both go to {path}; give --json another PATH")
    check_report(path, "--json", overwrite=overwrite)
