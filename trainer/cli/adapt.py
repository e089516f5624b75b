"""The command `adapt`: fit a model to one's own rainy footage."""

from __future__ import annotations

from pathlib import Path

import click

SHEET = "before-after.png"


@click.command()
@click.option("--model", default="dcd-lite", show_default=True, help="Name or folder of the model.")
@click.option(
    "--footage", type=click.Path(path_type=Path), required=True, help="Folder of rainy video files."
)
@click.option("--to", "folder", type=click.Path(path_type=Path), required=True, help="The new model folder.")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Training data as for train, where you have it."
)
@click.option(
    "--validation",
    type=click.Path(path_type=Path),
    help="Validation data: nothing of it may get worse [the demo clip, rain drawn on it].",
)
@click.option("--run", "run_folder", type=click.Path(path_type=Path), help="Folder of the run [TO.run].")
@click.option("--steps", type=int, default=800, show_default=True)
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint.")
@click.option("--version", default="0.1.0", show_default=True, help="Version of the new model.")
def adapt(
    model: str,
    footage: Path,
    folder: Path,
    data: Path | None,
    validation: Path | None,
    run_folder: Path | None,
    steps: int,
    resume: bool,
    version: str,
) -> None:
    """Fit a model to rainy video of your own, without clean versions of it.

    The new model folder has the model, and before-after.png: rainy, before, after. A model that does worse on
    the validation data than before is refused.
    """
    from streamderain.models import load_model
    from trainer.cli.train import stop_on_signals
    from trainer.evaluation.validate import Validator
    from trainer.export.model_folder import export_model, load_trained
    from trainer.methods.registry import open_maker
    from trainer.networks.load import load_network
    from trainer.run.adapt import Harmed, adapting_config, demo_validator, draw_sheet, harm_of
    from trainer.run.loop import train

    card = load_model(model)
    before = load_network(card.folder)
    footage, run = footage.resolve(), run_folder or folder.with_name(f"{folder.name}.run")
    config = adapting_config(before, footage, data=data, steps=steps, model=card.folder)
    validate = demo_validator() if validation is None else Validator(validation)
    maker = open_maker(config, data or footage, run / "cache")
    train(config, maker, run, resume=resume, start=card.folder, stop=stop_on_signals())

    trained = load_trained(run)
    scores = (
        validate(before, run / "validation-before.png"),
        validate(trained.network, run / "validation-after.png"),
    )
    for row, value in scores[0].items():
        click.echo(f"{row}: {value:.2f} -> {scores[1][row]:.2f} dB")
    draw_sheet(footage, before, trained.network, run / SHEET)
    fallen = harm_of(*scores)
    if fallen:
        rows = "; ".join(f"{row}: {old:.2f} -> {new:.2f} dB" for row, (old, new) in fallen.items())
        raise Harmed(
            f"the adapted model does worse than {card.name}, and is not kept: {rows}. Try fewer --steps, "
            f"more footage, or --data; the run and {SHEET} are in {run}"
        )
    batches = [maker.batch(step) for step in range(steps, steps + 20)]
    note = f"Adapted from {card.name} {card.version} to rainy footage without clean versions."
    export_model(trained, folder, batches, name=folder.name, version=version, note=note)
    (run / SHEET).replace(folder / SHEET)
    click.echo(f"{folder} holds the model, and {SHEET}; run it with streamderain run --model {folder}")
