"""``python -m benchmarks``."""

from __future__ import annotations

import importlib

import click

_MODULES = {
    "throughput": "benchmarks.throughput",
    "startup": "benchmarks.startup",
    "training": "benchmarks.training",
    "stage": "benchmarks.throughput",
}


class _Benchmarks(click.Group):
    """Imports a benchmark when it is named: where one runs, another's libraries may be missing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        command: click.Command = getattr(importlib.import_module(_MODULES[cmd_name]), cmd_name)
        return command


@click.group(cls=_Benchmarks, context_settings={"help_option_names": ["-h", "--help"]})
def benchmarks() -> None:
    """Measures speed on this machine; results are JSON, with the machine described."""


if __name__ == "__main__":
    benchmarks()
