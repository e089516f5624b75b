"""Run a benchmark: `python -m benchmarks NAME`."""

from __future__ import annotations

import importlib
import sys

import click

from streamderain.errors import StreamderainError

_COMMANDS = (
    "throughput",
    "quality",
    "scaling",
    "segments",
    "startup",
    "gpu",
    "live",
    "soak",
    "site",
    "training",
    "robustness",
    "tables",
    "guard",
)


class _Benchmarks(click.Group):
    """Imports a benchmark when it is named: where one runs, another's libraries may be missing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"benchmarks.{cmd_name}"), cmd_name)
        return command


@click.group(cls=_Benchmarks, context_settings={"help_option_names": ["-h", "--help"]})
def benchmarks() -> None:
    """Measure speed and quality; results are JSON, with the machine described."""


def main() -> None:
    """Entry point: the project's errors become a message and their exit code."""
    try:
        benchmarks()
    except StreamderainError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
