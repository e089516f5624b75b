"""Read and write results as JSON, with the machine described."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from streamderain.errors import ConfigError
from streamderain.system.files import is_text, written_whole
from streamderain.system.machine import machine

FOLDER = Path(__file__).parent / "results"


def report(result: Mapping[str, Any], path: str | None) -> None:
    """Write a result as JSON to `path`, or to standard output where none is given."""
    text = json.dumps({"machine": machine(), **result}, indent=1) + "\n"
    if path is None:
        click.echo(text, nl=False)
        return
    with written_whole(Path(path)) as partial:
        partial.write_text(text)
    click.echo(f"result in {path}", err=True)


def _checked(_context: click.Context, _parameter: click.Parameter, path: str | None) -> str | None:
    """Refuse before the work what would cost a file."""
    if path is None:
        return None
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if Path(path).exists() and not is_text(Path(path)):
        raise ConfigError(
            f"--json {path} exists and is no text, so that no result replaces it; name another file"
        )
    return path


json_option = click.option(
    "--json", "path", callback=_checked, help="Write the result here instead of standard output."
)


def read(name: str) -> dict[str, Any]:
    """Return a committed result."""
    result: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return result
