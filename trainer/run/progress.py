"""Display a training in the terminal: step, losses, images/s, waiting for data, time left."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Self

from rich.console import Console, RenderableType
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

_MEMORY = 0.98
"""Share of the past in the smoothed figures: about the last fifty steps."""


class TrainingProgress:
    """A bar with the run's figures on standard error; nothing where that is no terminal. A context manager.

    Log lines appear above the bar while it stands.

    Args:
        first: Steps done.
        last: The step to end at.
        console: Where to draw; standard error by default.
    """

    def __init__(self, first: int, last: int, *, console: Console | None = None) -> None:
        self._display = _Display(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[speed]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            refresh_per_second=2,
        )
        self._display.disable = not self._display.console.is_terminal
        self._task = self._display.add_task("", total=last, completed=first, speed="")
        self._smoothed: dict[str, float] = {}
        self._handlers: list[logging.Handler] = []

    def __enter__(self) -> Self:
        self._display.start()
        if not self._display.disable:
            # A plain handler's lines would tear the bar.
            self._handlers = logging.getLogger().handlers[:]
            above = RichHandler(console=self._display.console, show_path=False, show_level=False)
            logging.getLogger().handlers[:] = [above]
        return self

    def __exit__(self, *_: object) -> None:
        self._display.stop()
        if not self._display.disable:
            logging.getLogger().handlers[:] = self._handlers

    @property
    def images_per_s(self) -> float:
        """Crops per second, of about the last fifty steps; 0 before the first."""
        return self._smoothed.get("images", 0.0) / max(self._smoothed.get("took_s", 0.0), 1e-9)

    @property
    def waiting(self) -> float:
        """Share of the time that steps waited for their data, in 0..1, of about the last fifty steps."""
        return self._smoothed.get("waited_s", 0.0) / max(self._smoothed.get("took_s", 0.0), 1e-9)

    def update(
        self, step: int, values: Mapping[str, float], *, images: int, waited_s: float, took_s: float
    ) -> None:
        """Show one more step.

        Args:
            step: Steps done.
            values: Losses and other figures by name.
            images: Crops of the step.
            waited_s: Time the step waited for its data.
            took_s: Time the step took, waiting included.
        """
        timing = {"images": float(images), "waited_s": waited_s, "took_s": took_s}
        for name, value in {**values, **timing}.items():
            before = self._smoothed.get(name, value)
            self._smoothed[name] = _MEMORY * before + (1.0 - _MEMORY) * value
        self._display.values = "  ".join(f"{name} {self._smoothed[name]:.4g}" for name in values)
        speed = f"{self.images_per_s:.3g} images/s, {self.waiting:.0%} data"
        self._display.update(self._task, completed=step, speed=speed)


class _Display(Progress):
    values = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield Text(self.values, style="dim")
