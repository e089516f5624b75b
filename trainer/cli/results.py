"""The command `results`: score pictures that another method made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trainer.cli.scoring import run_scoring, scoring_options


@click.command()
@click.option("--dir", "folder", type=click.Path(path_type=Path), required=True, help="The result pictures.")
@click.option("--suffix", default="", help="What the method appends to names, as in a_derained.png.")
@scoring_options
def results(folder: Path, suffix: str, **scoring: Any) -> None:
    """Score the results of any other method on known pairs, beside doing nothing."""
    from trainer.evaluation.results import results_clean

    clean = results_clean(folder, scoring["dataset"], split=scoring["split"], suffix=suffix)
    run_scoring(clean, model=folder.resolve().name, precision="results", **scoring)
