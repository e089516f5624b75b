"""Render a run's events on the terminal."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from datetime import datetime
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from streamderain import events
from streamderain.addresses import redact
from streamderain.cli.console import StandardError
from streamderain.cli.tables import duration_text
from streamderain.cli.text import printable, rate_text
from streamderain.errors import EXIT_PARTIAL

if TYPE_CHECKING:
    from streamderain.api import RunReport

LINE_EVERY_S = 5.0
"""How often a line of progress is written where there is no terminal."""

NAMED_AT_MOST = 20
"""So many files are named in the closing summary; the rest is counted."""

_LIMITS = {"read": "reading", "engine": "deraining", "write": "encoding"}


class View:
    """A progress bar on a terminal, plain lines elsewhere. All of it goes to standard error.

    A terminal that was closed, or a reader of standard error that went away, ends the talking and not the
    work.

    Args:
        quiet: Show warnings and errors only.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = StandardError()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = 0.0
        self._warned: set[str] = set()
        self._engine = ""
        self._deaf = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stop_bar()
        except OSError:
            self._deaf = True

    def show(self, event: events.Event) -> None:
        """Render one event."""
        if self._deaf:
            return
        try:
            self._show(event)
        except OSError:
            self._deaf = True  # nobody listens any more; the work goes on

    def conclude(self, report: RunReport) -> None:
        """Render what became of several files: how many are done, and which are not."""
        if len(report.files) + len(report.not_reached) < 2 or self._deaf:
            return
        try:
            self._conclude(report)
        except OSError:
            self._deaf = True

    def _show(self, event: events.Event) -> None:
        match event:
            case events.Building():
                self._building(event)
            case events.Started():
                self._started(event)
            case events.Progress():
                self._progress(event)
            case events.Incident():
                self._say(f"{_clock()} {event.message}", style="yellow")
            case events.Complete():
                self._complete(event)
            case events.Failed():
                self._stop_bar()
                self._say(f"{_place(event)}{event.source}: {event.message}", style="red")
            case events.Skipped():
                if not self._quiet:
                    why = event.why or f"{', '.join(event.targets)} is there"
                    self._say(f"{_place(event)}{event.source}: skipped, {why}")

    def _building(self, event: events.Building) -> None:
        if self._quiet or monotonic() - self._last_line < LINE_EVERY_S:
            return
        self._last_line = monotonic()
        share = f" {event.done:.0%}" if event.done else ""
        at = f", {event.phase}{share}" if event.phase else "; it is kept for the next time"
        what = f"{event.model} for {event.width}x{event.height} on {event.device}"
        self._say(f"compiling {what} by {event.engine}{at}")

    def _started(self, event: events.Started) -> None:
        self._warn(event.warnings)
        if self._quiet:
            return
        engine = f"{event.model} on {event.engine} {event.precision} ({event.engine_reason}), {event.device}"
        if engine != self._engine:
            self._engine = engine
            self._say(engine)
        frames = f", {event.frames} frames" if event.frames else ""
        streams = f", {event.streams} video streams" if event.streams > 1 else ""
        parting = f", in {event.parting}" if event.parting else ""
        size = f"{event.width}x{event.height}{frames}{streams}{parting}"
        self._say(f"{_place(event)}{event.source}: {size} -> {', '.join(event.targets)}")
        self._last_line = monotonic()
        if self._console.is_terminal:
            self._start_bar(event)

    def _progress(self, event: events.Progress) -> None:
        left = "" if event.files_eta_s is None else f", all files: {duration_text(event.files_eta_s)} left"
        if self._bar is not None and self._task is not None:
            limit = (_limit(event.limited_by) + left).removeprefix(", ")
            self._bar.update(self._task, completed=event.frames_out, fps=rate_text(event.fps), limit=limit)
        elif not self._quiet and monotonic() - self._last_line >= _line_every_s(event):
            self._last_line = monotonic()
            of = f" of {event.frames}" if event.frames else ""
            eta = f", {event.eta_s:.0f} s left" if event.eta_s is not None else ""
            limit = _limit(event.limited_by)
            dropped = f", {event.dropped} dropped" if event.dropped else ""
            passed = f", {event.passed} passed unprocessed" if event.passed else ""
            speed = f"{rate_text(event.fps)} frames/s"
            self._say(f"{event.frames_out}{of} frames, {speed}{dropped}{passed}{eta}{limit}{left}")

    def _complete(self, event: events.Complete) -> None:
        self._stop_bar()
        self._warn(event.warnings)
        for damage in event.damage:
            self._say(f"damaged: {damage}", style="yellow")
        if event.damage:
            self._say(f"what could be read was derained and kept (exit code {EXIT_PARTIAL})", style="yellow")
        for result in event.results:
            self._result(event, result)
        whole = [result.target for result in event.results if result.state == "whole"]
        if whole and not self._quiet:
            speed = f"{event.elapsed_s:.1f} s, {rate_text(event.fps)} frames/s{_limit(event.limited_by)}"
            self._say(f"{event.frames_out} frames in {speed} -> {', '.join(whole)}")

    def _result(self, event: events.Complete, result: events.TargetResult) -> None:
        kept = "" if result.kept is None else f"; what was done is kept as {result.kept}"
        if result.lost_packets:
            lost = f"{result.lost_packets} packets were left out while it was away or too slow"
            self._say(f"{result.target}: {lost}", style="yellow")
        if result.state == "failed":
            self._say(f"{result.target}: {result.error}{kept}", style="red")
        elif result.state == "pieces":
            self._say(
                f"interrupted: the finished pieces of {result.target} are kept in {result.kept}", "yellow"
            )
            self._say(f"this goes on from there: {_again()}", "yellow")
        elif event.interrupted and result.state == "whole":
            self._say(f"interrupted: {result.target} ends here and plays", style="yellow")
        elif event.interrupted and result.kept is not None:
            again = "; run again to make it whole"
            self._say(
                f"interrupted: {event.frames_out} frames are kept as {result.kept}, which plays{again}",
                "yellow",
            )
        elif event.interrupted:
            self._say(f"interrupted: {result.target} is not whole", style="yellow")

    def _conclude(self, report: RunReport) -> None:
        self._stop_bar()
        done = [one for one in report.files if isinstance(one, events.Complete) and not one.interrupted]
        failed = [one.source for one in report.files if isinstance(one, events.Failed)]
        cut = [one.source for one in report.files if isinstance(one, events.Complete) and one.interrupted]
        skipped = sum(isinstance(one, events.Skipped) for one in report.files)
        half = [one.source for one in done if any(result.state == "failed" for result in one.results)]
        parts = [f"{len(done) - len(half)} done"]
        parts += [f"{skipped} skipped"] if skipped else []
        parts += [f"{len(failed)} failed: {_named(failed)}"] if failed else []
        parts += [f"{len(half)} with a failed target: {_named(half)}"] if half else []
        parts += [f"interrupted: {_named(cut)}"] if cut else []
        parts += [f"{len(report.not_reached)} not reached"] if report.not_reached else []
        if not self._quiet or failed or half or cut or report.not_reached:
            self._say("; ".join(parts) + ". " * bool(report.not_reached) + _go_on(report))

    def _start_bar(self, event: events.Started) -> None:
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.completed:.0f}" + (f"/{event.frames}" if event.frames else "") + " frames"),
            TextColumn("{task.fields[fps]} frames/s"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[limit]}"),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("frames", total=event.frames, fps=rate_text(0.0), limit="")
        self._bar.start()

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _warn(self, warnings: Iterable[str]) -> None:
        for warning in warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                self._say(f"warning: {warning}", style="yellow")

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(printable(redact(text)), style=style, markup=False)


def _again() -> str:
    """Return the command that goes on with what this one left."""
    return shlex.join(["streamderain", *(word for word in sys.argv[1:] if word != "--restart")])


def _place(event: events.Started | events.Failed | events.Skipped) -> str:
    return f"[{event.number}/{event.files}] " if event.files > 1 else ""


def _line_every_s(event: events.Progress) -> float:
    """Return how often a line tells the progress: what has no end fills a log otherwise."""
    endless = event.frames is None and event.elapsed_s > ENDLESS_AFTER_S
    return ENDLESS_LINE_EVERY_S if endless else LINE_EVERY_S


def _clock() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _named(names: list[str]) -> str:
    more = len(names) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def _go_on(report: RunReport) -> str:
    return "The same command with --skip-existing goes on" if report.not_reached else ""


def _limit(stage: str | None) -> str:
    return f", limited by {_LIMITS[stage]}" if stage else ""


ENDLESS_AFTER_S, ENDLESS_LINE_EVERY_S = 60.0, 60.0
"""After this time, one without an end has a line only so often."""
