"""The command `streamderain run`: build options, run, return the exit code."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from streamderain.api import run
from streamderain.cli.outputs import check_reports, write_report
from streamderain.cli.view import View
from streamderain.errors import ConfigError, StreamderainError
from streamderain.options import EncodeOptions, EngineOptions, ReadOptions, RunOptions, WorkOptions
from streamderain.system.allocator import share_arenas
from streamderain.system.process import hide_secrets

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
    """Run the command and return its exit code."""
    share_arenas()
    hide_secrets(sys.argv)
    options = run_options(arguments)
    if "-" in targets and sys.stdout.isatty():
        raise ConfigError("standard output is a terminal; send the video somewhere: -o - > clean.mkv")
    overwrite = options.encode.overwrite
    check_reports({"--json": json_path}, sources=sources, targets=targets, overwrite=overwrite)
    try:
        with interruptible() as stop, View(quiet=quiet) as view:
            report = run(
                list(sources) if len(sources) > 1 else sources[0],
                *targets,
                options=options,
                observer=view.show,
                stop=stop,
            )
            view.conclude(report)
    except StreamderainError as error:
        write_report(json.dumps(_failed(error), indent=2) + "\n", json_path, overwrite=overwrite)
        raise
    write_report(json.dumps(report.to_json(), indent=2) + "\n", json_path, overwrite=overwrite)
    return report.exit_code


def _failed(error: StreamderainError) -> dict[str, Any]:
    """Return the report of a run that ended with an error."""
    done = {"files": [], "not_reached": []} if error.report is None else error.report.to_json()
    told = {"error": type(error).__name__, "message": str(error), "kept": list(error.kept)}
    return {**done, "exit_code": error.exit_code, **told}


def run_options(arguments: Mapping[str, Any]) -> RunOptions:
    """Build the options from the arguments of the same names."""

    def of(kind: type[Any]) -> Any:
        return kind(**{key: arguments[key] for key in kind.__slots__ if key in arguments})

    return RunOptions(
        read=of(ReadOptions), encode=of(EncodeOptions), engine=of(EngineOptions), work=of(WorkOptions)
    )


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Yield an event that a stop signal sets; a second one interrupts at once."""
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
