"""The command `train`: run one configuration."""

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
    "--start",
    type=click.Path(path_type=Path, exists=True),
    help="Run, checkpoint, weights or model folder to begin with.",
)
@click.option(
    "--teacher",
    type=click.Path(path_type=Path, exists=True),
    help="Run, checkpoint, weights or model folder for the loss 'distillation'.",
)
@click.option("--pseudo", type=click.Path(path_type=Path, exists=True), help="What `pseudo` made.")
@click.option("--accelerator", default="auto", show_default=True, help="cpu, cuda or auto.")
@click.option("--devices", type=int, default=1, show_default=True, help="Devices that train together.")
@click.option("--precision", help="32-true or bf16-mixed [the configuration's].")
@click.option("--workers", type=int, help="Processes that make batches [the configuration's].")
@click.option(
    "--shard-mib", type=int, default=0, help="Cut checkpoints into files of at most this size, MiB."
)
@click.option("--dry-run", is_flag=True, help="Check everything, print the forecast, and stop.")
def train(
    config_name: str,
    data: Path,
    run_folder: Path,
    cache: Path | None,
    validation: Path | None,
    steps: int | None,
    resume: bool,
    start: Path | None,
    teacher: Path | None,
    pseudo: Path | None,
    accelerator: str,
    devices: int,
    precision: str | None,
    workers: int | None,
    shard_mib: int,
    dry_run: bool,
) -> None:
    """Train a network. Several devices: --devices N here, or torchrun around this command."""
    from trainer.config import load_config
    from trainer.evaluation.validate import Validator
    from trainer.methods.registry import open_maker
    from trainer.run.devices import open_fabric
    from trainer.run.forecast import forecast
    from trainer.run.loop import train as run_training

    given = {
        "steps": steps,
        "teacher": None if teacher is None else str(teacher.resolve()),
        "pseudo": None if pseudo is None else str(pseudo.resolve()),
        "precision": precision,
        "workers": workers,
    }
    overrides = {key: value for key, value in given.items() if value is not None}
    config = load_config(config_name, overrides=overrides)
    fabric = open_fabric(config, accelerator=accelerator, devices=devices)
    maker = open_maker(config, data, cache or run_folder / "cache")
    if dry_run:
        click.echo(forecast(config, maker, fabric).text())
        return
    run_training(
        config,
        maker,
        run_folder,
        fabric=fabric,
        resume=resume,
        start=start,
        validate=Validator(validation) if validation is not None else None,
        stop=stop_on_signals(),
        shard_bytes=shard_mib << 20,
    )


def stop_on_signals() -> threading.Event:
    """Return an event that Ctrl-C and SIGTERM set; the second signal ends the process where it stands."""
    stop = threading.Event()

    def asked(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, signal.default_int_handler)

    # Background jobs of a shell ignore Ctrl-C unless told otherwise.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, asked)
    return stop
