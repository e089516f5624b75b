"""Print tables and progress of the measuring commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from streamderain.cli.console import StandardError
from streamderain.measure.bench import Tell
from streamderain.measure.tables import Table as Findings

LINE_EVERY_S = 10.0
"""How often a line of progress is written where there is no terminal."""

_FILE_WIDTH = 160
"""Characters a line where there is no terminal to ask."""


def print_table(findings: Findings, *, to_stderr: bool = False) -> None:
    """Print a table to standard output, or to standard error where a report goes to the former."""
    console = Console(stderr=to_stderr, highlight=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    table = Table(title=findings.title, title_justify="left", box=None, pad_edge=False)
    for name in findings.header:
        table.add_column(name, overflow="fold")
    for row in findings.rows:
        table.add_row(*row)
    console.print()
    console.print(table)
    if findings.note:
        console.print(findings.note, style="dim", markup=False)


def duration_text(seconds: float) -> str:
    """Return hours, minutes and seconds, for people."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def telling(*, quiet: bool = False) -> Iterator[Tell]:
    """Yield a function that shows progress on standard error: a bar on a terminal, else some lines."""
    console = StandardError()
    if quiet:
        yield lambda what, done, total: None
    elif console.is_terminal:
        with Progress(TextColumn("{task.description}"), BarColumn(), console=console, transient=True) as bar:
            task = bar.add_task("opening", total=None)
            yield lambda what, done, total: bar.update(
                task, description=what, completed=done, total=total or None
            )
    else:
        yield _Lines(console).tell


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._what, self._last = "", 0.0

    def tell(self, what: str, done: int, total: int) -> None:
        if what == self._what and monotonic() - self._last < LINE_EVERY_S:
            return
        self._what, self._last = what, monotonic()
        of = f" of {total}" if total else ""
        self._console.print(f"{what}, {done}{of}", markup=False)
