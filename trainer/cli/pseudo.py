"""The command `pseudo`: make pairs with the rain of a trained generator."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="Run or checkpoint of an unpaired configuration.",
)
@click.option(
    "--clean",
    "folders",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Folder of rain-free pictures; repeatable.",
)
@click.option("--to", "target", type=click.Path(path_type=Path), required=True, help="Where the pairs go.")
@click.option("--variants", type=click.IntRange(1), default=1, show_default=True, help="Rainy versions each.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the generator's noise.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or auto.")
def pseudo(
    run_folder: Path, folders: tuple[Path, ...], target: Path, variants: int, seed: int, device: str
) -> None:
    """Make pairs, and streak layers for clips, with a trained generator's rain."""
    import torch

    from trainer.run.pseudo import load_rain, make_pseudo

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    made = make_pseudo(load_rain(run_folder, device=device), folders, target, variants=variants, seed=seed)
    click.echo(f"{made} pairs in {target}; train on them with: train --config student --pseudo {target}")
