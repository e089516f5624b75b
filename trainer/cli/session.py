"""The commands `pack` and `session`: data for one timed GPU run, and the run."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--config", "config_name", default="paper", show_default=True, help="An unpaired configuration."
)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of the training data.")
@click.option(
    "--validation",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Data set of pairs to judge on; repeatable.",
)
@click.option("--to", "target", type=click.Path(path_type=Path), required=True, help="The zip file.")
@click.option("--megabytes", type=float, default=60.0, show_default=True, help="Largest size of it.")
def pack(config_name: str, data: Path, validation: tuple[Path, ...], target: Path, megabytes: float) -> None:
    """Pack what a session needs into one small file."""
    from trainer.config import load_config
    from trainer.data.packing import pack as pack_data

    config = load_config(config_name)
    quality = pack_data(data, validation, target, config.unpaired, max_bytes=int(megabytes * 1e6))
    size = target.stat().st_size / 1e6
    click.echo(f"{target}: {size:.1f} MB, training pictures as WebP of quality {quality}")


@click.command()
@click.option(
    "--config", "config_name", default="paper", show_default=True, help="An unpaired configuration."
)
@click.option("--packed", type=click.Path(path_type=Path), required=True, help="What `pack` made.")
@click.option("--minutes", type=float, required=True, help="Until everything must lie in --out.")
@click.option("--evaluation-minutes", type=float, default=1.0, show_default=True, help="Of these, to judge.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder that travels back.")
@click.option("--scratch", type=click.Path(path_type=Path), required=True, help="Folder that does not.")
@click.option(
    "--start", type=click.Path(path_type=Path, exists=True), help="kept.safetensors of an earlier session."
)
@click.option("--steps", type=int, help="Steps [what the time allows].")
@click.option("--accelerator", default="auto", show_default=True, help="cpu, cuda or auto.")
@click.option("--precision", help="32-true or bf16-mixed [the configuration's].")
@click.option("--batch", type=int, help="Pictures of each domain per step [the configuration's].")
@click.option("--workers", type=int, help="Processes that make batches [the configuration's].")
def session(
    config_name: str,
    packed: Path,
    minutes: float,
    evaluation_minutes: float,
    out: Path,
    scratch: Path,
    start: Path | None,
    steps: int | None,
    accelerator: str,
    precision: str | None,
    batch: int | None,
    workers: int | None,
) -> None:
    """Train an unpaired configuration for some minutes and leave weights that are small enough to carry."""
    from trainer.config import load_config
    from trainer.run.devices import open_fabric
    from trainer.run.timed import SessionPlan, run_session

    given = {"precision": precision, "batch": batch, "workers": workers}
    config = load_config(config_name, overrides={k: v for k, v in given.items() if v is not None})
    fabric = open_fabric(config, accelerator=accelerator)
    plan = SessionPlan(packed, out, scratch, minutes, evaluation_minutes, start, steps)
    click.echo(run_session(plan, config, fabric))
