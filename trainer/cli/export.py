"""The command `export`: make a model folder from a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trainer.data.paired import Batch
    from trainer.export.model_folder import Trained


@click.command()
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
    help="Run, checkpoint or model before this one that its history does not name; oldest first, repeatable.",
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
    """Export a run's averaged network as a model folder; the fast network's with int8."""
    from trainer.evaluation.cases import VideoPlan, all_cases
    from trainer.evaluation.derainers import load_clean
    from trainer.evaluation.scores import score, table
    from trainer.export.card import add_scores
    from trainer.export.kinds import kind_of
    from trainer.export.model_folder import export_model, load_trained

    trained = load_trained(run_folder, earlier=earlier)
    kind = kind_of(trained.network)
    batches = _calibration(trained, data, cache or run_folder / "cache") if "int8" in kind.precisions else []
    export_model(trained, folder, batches, name=name, version=version, note=note)
    if validation is not None:
        # Made once: x264 does not give the same bytes twice, and precisions are compared on equal pictures.
        cases = list(all_cases(validation, VideoPlan()))
        rows = {p: score(cases, load_clean(folder, precision=p)) for p in kind.precisions}
        add_scores(folder, {p: [r.as_dict() for r in found] for p, found in rows.items()})
        for precision, found in rows.items():
            click.echo(f"{precision}\n{table(found)}")


def _calibration(trained: Trained, data: Path, cache: Path) -> list[Batch]:
    from trainer.data.library import open_library
    from trainer.data.paired import BatchMaker

    config = trained.config
    library = open_library(data, cache, config.data, seed=config.seed)
    # Another seed than training's: the ranges must hold for crops the network has not fitted.
    maker = BatchMaker(library, config.data, batch=16, seed=config.seed + 1000)
    return [maker.batch(i) for i in range(20)]
