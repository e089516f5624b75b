"""Tables of text, and the spread of several measurements."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Rows = list[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Table:
    """Text in rows.

    Attributes:
        title: What it shows.
        header: Names of the columns.
        rows: Cells, as many as columns.
        note: How to read it.
    """

    title: str
    header: tuple[str, ...]
    rows: Rows
    note: str = ""


def markdown_table(table: Table) -> str:
    """Return one table as Markdown, its title as a heading."""
    lines = [f"## {table.title}", ""]
    lines += [table.note, ""] if table.note else []
    cells = [table.header, ("---",) * len(table.header), *table.rows]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Spread:
    """Several measurements of one thing.

    Attributes:
        median: The middle one.
        min: The least.
        max: The most.
    """

    median: float
    min: float
    max: float


def spread(values: Sequence[float], *, digits: int = 3) -> Spread:
    """Return median, least and most of several measurements.

    Raises:
        ValueError: No values.
    """
    return Spread(
        round(statistics.median(values), digits), round(min(values), digits), round(max(values), digits)
    )


def spread_text(value: Spread, digits: int = 1) -> str:
    """Return the median, and the least and most."""
    return f"{value.median:.{digits}f} ({value.min:.{digits}f}–{value.max:.{digits}f})"
