"""``evaluate``: a model on known pairs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
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
