"""The command `evaluate`: score a model on known pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trainer.cli.scoring import run_scoring, scoring_options


@click.command()
@click.option(
    "--model",
    required=True,
    help="A model's name or folder, an .onnx core, weights, shards of a generator, or a run.",
)
@click.option(
    "--precision",
    type=click.Choice(["f32", "int8", "weights"]),
    help="Which file of a model folder [what OpenVINO uses by default]; weights run in torch.",
)
@click.option("--device", default="cpu", show_default=True, help="Where torch computes: cpu or cuda.")
@scoring_options
def evaluate(model: str, precision: str | None, device: str, **scoring: Any) -> None:
    """Score a model on known pairs, beside doing nothing."""
    from streamderain.models import load_model
    from trainer.evaluation.derainers import load_clean, model_file

    path = Path(model) if Path(model).exists() else load_model(model).folder
    _, ran = model_file(path, precision)
    clean = load_clean(path, precision=precision, device=device)
    run_scoring(clean, model=path.resolve().name, precision=ran, **scoring)
