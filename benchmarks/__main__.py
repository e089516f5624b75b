"""``python -m benchmarks``."""

from __future__ import annotations

import click

from benchmarks.startup import startup
from benchmarks.throughput import stage, throughput


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def benchmarks() -> None:
    """Measures speed on this machine; results are JSON, with the machine described."""


benchmarks.add_command(throughput)
benchmarks.add_command(startup)
benchmarks.add_command(stage)

if __name__ == "__main__":
    benchmarks()
