"""Findings as text in rows: one table for terminal, Markdown and page alike."""

from __future__ import annotations

from dataclasses import dataclass

from streamderain.measure.machine import Spread

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
    """One table as Markdown, its title as a heading."""
    lines = [f"## {table.title}", ""]
    lines += [table.note, ""] if table.note else []
    cells = [table.header, ("---",) * len(table.header), *table.rows]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    return "\n".join(lines) + "\n"


def spread_text(value: Spread, digits: int = 1) -> str:
    """The median, and the least and most."""
    return f"{value.median:.{digits}f} ({value.min:.{digits}f}–{value.max:.{digits}f})"
