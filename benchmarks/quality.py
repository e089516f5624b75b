"""Score models and other methods' results on data sets of known pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchmarks.results_file import json_option, report


@click.command()
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, exists=True),
    help="Known pairs in any layout of docs/training.md, or a validation folder.",
)
@click.option("--split", type=click.Choice(["train", "test", "val"]), help="Which part of the data sets.")
@click.option("--model", "models", multiple=True, help="A model's name or folder.")
@click.option("--precision", type=click.Choice(["f32", "int8", "weights"]), help="[OpenVINO's default]")
@click.option(
    "--results",
    "peers",
    multiple=True,
    metavar="NAME=FOLDER",
    help="The pictures that another method made of the data set.",
)
@click.option("--suffix", default="", help="What that method appends to names, as in a_derained.png.")
@json_option
def quality(
    datasets: tuple[Path, ...],
    split: str | None,
    models: tuple[str, ...],
    precision: str | None,
    peers: tuple[str, ...],
    suffix: str,
    path: str | None,
) -> None:
    """Score models and other methods side by side: PSNR and SSIM, Y and RGB, beside doing nothing."""
    from streamderain.models import load_model
    from trainer.evaluation.derainers import load_clean, model_file
    from trainer.evaluation.results import results_clean

    if not models and not peers:
        raise click.UsageError("nothing to score: name a --model, or a folder with --results NAME=FOLDER")
    rows: list[dict[str, Any]] = []
    for dataset in datasets:
        for name in models:
            folder = load_model(name).folder
            _, ran = model_file(folder, precision)
            clean = load_clean(folder, precision=precision)
            rows.append(_scored(clean, folder.name, ran, dataset, split))
        for peer in peers:
            name, sign, where = peer.partition("=")
            if not sign:
                raise click.UsageError(f"--results {peer} is not of the form NAME=FOLDER")
            clean = results_clean(Path(where), dataset, split=split, suffix=suffix)
            rows.append(_scored(clean, name, "results", dataset, split))
    report({"benchmark": "quality", "reports": rows}, path)


def _scored(clean: Any, model: str, precision: str, dataset: Path, split: str | None) -> dict[str, Any]:
    from trainer.evaluation.cases import VideoPlan, all_cases
    from trainer.evaluation.report import Report
    from trainer.evaluation.scores import score_pictures

    pictures = list(score_pictures(all_cases(dataset, VideoPlan(), split=split), clean))
    found = Report(model, precision, dataset.resolve().name, pictures)
    click.echo(found.markdown(), err=True)
    return found.as_dict()
