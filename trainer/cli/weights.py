"""The command `weights`: write the network of a run in shards."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="Run, checkpoint, or kept.safetensors of a session.",
)
@click.option("--to", "folder", type=click.Path(path_type=Path), required=True, help="Where the files go.")
def weights(run_folder: Path, folder: Path) -> None:
    """Write the averaged network that takes rain away, in half precision, in shards below 16 MiB."""
    from streamderain.errors import ConfigError
    from trainer.networks.load import load_network
    from trainer.networks.network_weights import SizedNetwork, save_weights

    network = load_network(run_folder)
    if not isinstance(network, SizedNetwork):
        raise ConfigError(
            f"{run_folder} holds the fast network; `python -m trainer export` makes a model of it"
        )
    for path in save_weights(network, folder):
        click.echo(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
