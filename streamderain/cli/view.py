"""What a user sees while a run goes on. Renders events only."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from streamderain import events
from streamderain.errors import EXIT_PARTIAL

LINE_EVERY_S = 5.0
"""How often a line of progress is written where there is no terminal."""

_LIMITS = {"read": "reading", "engine": "deraining", "write": "encoding"}


class View:
    """A progress bar on a terminal, plain lines elsewhere. All of it goes to standard error.

    Args:
        quiet: Show warnings and errors only.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(file=sys.stderr, soft_wrap=True, highlight=False)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = 0.0
        self._warned: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_bar()

    def show(self, event: events.Event) -> None:
        """Renders one event."""
        match event:
            case events.Started():
                self._started(event)
            case events.Progress():
                self._progress(event)
            case events.Complete():
                self._complete(event)
            case events.Failed():
                self._stop_bar()
                self._say(f"{event.source}: {event.message}", style="red")

    def _started(self, event: events.Started) -> None:
        self._warn(event.warnings)
        if self._quiet:
            return
        frames = f", {event.frames} frames" if event.frames else ""
        streams = f", {event.streams} video streams" if event.streams > 1 else ""
        self._say(
            f"{event.source}: {event.width}x{event.height}{frames}{streams} -> {', '.join(event.targets)}"
        )
        self._say(
            f"{event.model} on {event.engine} {event.precision} ({event.engine_reason}), {event.device}"
        )
        self._last_line = monotonic()
        if self._console.is_terminal:
            self._start_bar(event)

    def _progress(self, event: events.Progress) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, completed=event.frames_out, fps=event.fps, limit=_limit(event.limited_by)
            )
        elif not self._quiet and monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = monotonic()
            of = f" of {event.frames}" if event.frames else ""
            eta = f", {event.eta_s:.0f} s left" if event.eta_s is not None else ""
            self._say(
                f"{event.frames_out}{of} frames, {event.fps:.1f} frames/s{eta}{_limit(event.limited_by)}"
            )

    def _complete(self, event: events.Complete) -> None:
        self._stop_bar()
        self._warn(event.warnings)
        for damage in event.damage:
            self._say(f"damaged: {damage}", style="yellow")
        if event.damage:
            self._say(f"what could be read was derained and kept (exit code {EXIT_PARTIAL})", style="yellow")
        if event.interrupted:
            self._say("interrupted: the result ends here and plays", style="yellow")
        if not self._quiet:
            self._say(
                f"{event.frames_out} frames in {event.elapsed_s:.1f} s, {event.fps:.1f} frames/s"
                f"{_limit(event.limited_by)} -> {', '.join(event.targets)}"
            )

    def _start_bar(self, event: events.Started) -> None:
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.completed:.0f}" + (f"/{event.frames}" if event.frames else "") + " frames"),
            TextColumn("{task.fields[fps]:.1f} frames/s"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[limit]}"),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("frames", total=event.frames, fps=0.0, limit="")
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
        self._console.print(text, style=style, markup=False)


def _limit(stage: str | None) -> str:
    return f", limited by {_LIMITS[stage]}" if stage else ""
