"""The trainer's commands: thin; they parse, call and map errors to exit codes."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from pathlib import Path

import click

from streamderain.errors import EXIT_INTERRUPTED, StreamderainError


@click.group()
def cli() -> None:
    """Train, evaluate and export streamderain's networks, from a checkout."""


@cli.command()
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


@cli.command()
@click.option(
    "--run", "run_folder", type=click.Path(path_type=Path), required=True, help="Run or checkpoint."
)
@click.option("--to", "folder", type=click.Path(path_type=Path), required=True, help="The model folder.")
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Training data: calibrates int8."
)
@click.option("--cache", type=click.Path(path_type=Path), help="As in train [RUN/cache].")
@click.option("--validation", type=click.Path(path_type=Path), help="Validation data: scores for the card.")
@click.option(
    "--earlier",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    help="Run or checkpoint before this one that its history does not name; oldest first, repeatable.",
)
@click.option("--note", default="", help="What else the card must tell of the training.")
@click.option("--version", default="0.1.0", show_default=True, help="Version of the weights.")
@click.option("--name", default="dcd-lite", show_default=True, help="Name of the model.")
def export(
    run_folder: Path,
    folder: Path,
    data: Path,
    cache: Path | None,
    validation: Path | None,
    earlier: tuple[Path, ...],
    note: str,
    version: str,
    name: str,
) -> None:
    """Export a run's averaged network as a model folder, int8 included."""
    from trainer.batches import BatchMaker
    from trainer.card import PRECISIONS, add_scores
    from trainer.cases import VideoPlan, all_cases
    from trainer.evaluate import load_clean
    from trainer.export import export_model, load_trained
    from trainer.sample_library import open_library
    from trainer.scores import score, table

    trained = load_trained(run_folder, earlier=earlier)
    config = trained.config
    library = open_library(data, cache or run_folder / "cache", config.data, seed=config.seed)
    # Another seed than training's: the ranges must hold for crops the network has not fitted.
    maker = BatchMaker(library, config.data, batch=16, seed=config.seed + 1000)
    summary = "Fast deraining of video luma from three frames; int8 on CPUs."
    batches = [maker.batch(i) for i in range(20)]
    export_model(trained, folder, batches, name=name, version=version, summary=summary, note=note)
    if validation is not None:
        # Made once: x264 does not give the same bytes twice, and precisions are compared on equal pictures.
        cases = list(all_cases(validation, VideoPlan()))
        rows = {precision: score(cases, load_clean(folder, precision=precision)) for precision in PRECISIONS}
        add_scores(folder, {p: [r.as_dict() for r in found] for p, found in rows.items()})
        for precision, found in rows.items():
            click.echo(f"{precision}\n{table(found)}")


@cli.command()
@click.option("--model", required=True, help="A model's name or folder, an .onnx core, or weights.")
@click.option("--dataset", type=click.Path(path_type=Path, exists=True), required=True, help="Known pairs.")
@click.option(
    "--precision",
    type=click.Choice(["f32", "int8", "weights"]),
    help="Which file of a model folder [what OpenVINO uses by default]; weights run in torch.",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the rows here too.")
def evaluate(model: str, dataset: Path, precision: str | None, json_path: Path | None) -> None:
    """Score a model on known pairs, beside doing nothing."""
    import json

    from streamderain.models import load_model
    from trainer.evaluate import evaluate as run_evaluation
    from trainer.evaluate import model_file
    from trainer.scores import table

    path = Path(model) if Path(model).exists() else load_model(model).folder
    _, ran = model_file(path, precision)
    rows = run_evaluation(path, dataset, precision=precision)
    click.echo(f"{path.name}, {ran}\n{table(rows)}")
    if json_path is not None:
        document = {"model": path.name, "precision": ran, "rows": [row.as_dict() for row in rows]}
        json_path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


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
