"""The group of commands, logging, and exit codes."""

from __future__ import annotations

import logging
import sys

import click

from streamderain.errors import EXIT_INTERRUPTED, StreamderainError
from trainer.cli.adapt import adapt
from trainer.cli.evaluate import evaluate
from trainer.cli.export import export
from trainer.cli.pseudo import pseudo
from trainer.cli.recipe import recipe
from trainer.cli.results import results
from trainer.cli.session import pack, session
from trainer.cli.train import train
from trainer.cli.weights import weights


@click.group()
def cli() -> None:
    """Train, evaluate and export streamderain's networks, from a checkout."""


for _command in (train, adapt, pseudo, export, recipe, pack, session, weights, evaluate, results):
    cli.add_command(_command)


def main() -> None:
    """Entry point: log to standard error, end with the error tree's exit codes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
    except StreamderainError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
