"""The command `recipe`: run all steps from pictures to a model, in order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click


@click.command()
@click.argument("name")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of the training data.")
@click.option(
    "--work", type=click.Path(path_type=Path), required=True, help="Where runs, pairs and the model go."
)
@click.option("--cache", type=click.Path(path_type=Path), help="Where decoded data is kept [WORK/cache].")
@click.option("--validation", type=click.Path(path_type=Path), help="Folder of validation data.")
@click.option("--accelerator", default="auto", show_default=True, help="cpu, cuda or auto.")
@click.option("--devices", type=int, default=1, show_default=True, help="Devices that train together.")
@click.pass_context
def recipe(
    context: click.Context,
    name: str,
    data: Path,
    work: Path,
    cache: Path | None,
    validation: Path | None,
    accelerator: str,
    devices: int,
) -> None:
    """Run the steps of recipe NAME (lite, paper, or a .toml file); run again, it goes on where it stopped."""
    from trainer.recipe import Settings, follow_recipe, load_recipe

    trainer = context.find_root().command

    def run(arguments: Sequence[str]) -> None:
        trainer.main(list(arguments), standalone_mode=False)

    settings = Settings(data, work, cache or work / "cache", validation, accelerator, devices)
    follow_recipe(load_recipe(name), settings, run, click.echo)
