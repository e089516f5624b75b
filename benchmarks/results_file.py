"""Results as JSON, with the machine described."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from streamderain.cli.outputs import check_reports, write_report
from streamderain.measure.machine import machine

FOLDER = Path(__file__).parent / "results"


def report(result: Mapping[str, Any], path: str | None) -> None:
    """Writes a result as JSON to ``path``, or to standard output where none is given."""
    text = json.dumps({"machine": machine(), **result}, indent=1) + "\n"
    if path is None:
        click.echo(text, nl=False)
        return
    write_report(text, path, overwrite=True)
    click.echo(f"result in {path}", err=True)


def _checked(_context: click.Context, _parameter: click.Parameter, path: str | None) -> str | None:
    """Refuses before the work what would cost a file."""
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    check_reports({"--json": path}, overwrite=True)
    return path


json_option = click.option(
    "--json", "path", callback=_checked, help="Write the result here instead of standard output."
)


def read(name: str) -> dict[str, Any]:
    """A committed result."""
    result: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return result
