"""``train``: one run of one configuration."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click


@click.command()
@click.option("--config", "config_name", required=True, help="Name in trainer/configs, or a .toml file.")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of the training data.")
@click.option(
    "--run", "run_folder", type=click.Path(path_type=Path), required=True, help="Folder of this run."
)
@click.option("--cache", type=click.Path(path_type=Path), help="Where decoded data is kept [RUN/cache].")
@click.option("--validation", type=click.Path(path_type=Path), help="Folder of validation data.")
@click.option("--steps", type=int, help="Replace the configuration's number of steps.")
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint.")
@click.option(
    "--start", type=click.Path(path_type=Path), help="Run or checkpoint whose weights to begin with."
)
@click.option("--dry-run", is_flag=True, help="Check configuration and data, print both, and stop.")
def train(
    config_name: str,
    data: Path,
    run_folder: Path,
    cache: Path | None,
    validation: Path | None,
    steps: int | None,
    resume: bool,
    start: Path | None,
    dry_run: bool,
) -> None:
    """Train a network."""
    from trainer.batches import BatchMaker
    from trainer.config import dump_toml, load_config
    from trainer.loop import train as run_training
    from trainer.sample_library import open_library
    from trainer.validate import Validator

    config = load_config(config_name, overrides={} if steps is None else {"steps": steps})
    library = open_library(data, cache or run_folder / "cache", config.data, seed=config.seed)
    if dry_run:
        click.echo(dump_toml(config.as_dict()))
        for kind in ("clip", "coded", "still", "rainy", "layer"):
            click.echo(f"# {kind}: {len(library.of_kind(kind))}")
        return
    maker = BatchMaker(library, config.data, batch=config.batch, seed=config.seed)
    validator = Validator(validation) if validation is not None else None
    stop = _stop_on_signals()
    run_training(config, maker, run_folder, resume=resume, start=start, validate=validator, stop=stop)


def _stop_on_signals() -> threading.Event:
    """An event that Ctrl-C and SIGTERM set; the second signal ends the process where it stands."""
    stop = threading.Event()

    def asked(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, signal.default_int_handler)

    # Background jobs of a shell ignore Ctrl-C unless told otherwise.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, asked)
    return stop
