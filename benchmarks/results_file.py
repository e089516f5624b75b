"""Results as JSON, with the machine described."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from streamderain.measure.machine import machine

FOLDER = Path(__file__).parent / "results"


def report(result: Mapping[str, Any], path: str | None) -> None:
    """Prints a result as JSON, and writes it to ``path`` where one is given."""
    text = json.dumps({"machine": machine(), **result}, indent=1) + "\n"
    click.echo(text, nl=False)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)


def read(name: str) -> dict[str, Any]:
    """A committed result."""
    result: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return result
