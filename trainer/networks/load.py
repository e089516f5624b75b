"""Load a trained network: from a run, a checkpoint, a model folder or bare weights."""

from __future__ import annotations

from pathlib import Path

from streamderain.errors import ConfigError, ModelNotFound
from streamderain.models import CARD_NAME, read_card
from streamderain.nets.families import load_core
from streamderain.nets.fast import FastNet
from streamderain.nets.network import Network
from trainer.checkpoint import checkpoint_path, is_checkpoint, read_checkpoint, tensors_under
from trainer.config import parse_config
from trainer.networks.network_weights import holds_weights, load_weights
from trainer.networks.translators import new_network

AVERAGE, RAIN_AVERAGE = "average", "rain_average"
"""The two networks of a checkpoint that are used after training: what takes rain away, what makes it."""


def load_network(path: Path, *, which: str = AVERAGE) -> Network:
    """Read a network.

    Args:
        path: Run folder, checkpoint, model folder, weights of the fast network, or weights or shards of the
            generator.
        which: `AVERAGE` or `RAIN_AVERAGE`; only runs and checkpoints have the latter.

    Raises:
        ModelNotFound: There is nothing at the path.
        OpenError: What is there cannot be read.
        ConfigError: It holds no such network.
    """
    checkpoint = checkpoint_path(path)
    if is_checkpoint(checkpoint):
        return _from_checkpoint(checkpoint, which)
    if which != AVERAGE:
        raise ConfigError(
            f"{path} is no run or checkpoint: it holds no network that makes rain; name the run"
        )
    if (path / CARD_NAME).is_file():
        card = read_card(path)
        return load_core(card.family, card.paths("weights"))
    if holds_weights(path):
        return load_weights(path)
    if path.is_file():
        return load_core(FastNet.family, [path])
    raise ModelNotFound(f"no network at {path}; give a run, a checkpoint, weights or a model folder")


def _from_checkpoint(path: Path, which: str) -> Network:
    tensors, about = read_checkpoint(path)
    config = parse_config(about["config"], where=str(path))
    weights = tensors_under(tensors, f"{which}.")
    if not weights:
        raise ConfigError(
            f"{path} (configuration {config.name}) holds no {which}; train the method translation first"
        )
    network = new_network(config.network)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(
            f"{path} holds the weights of another network than this version's ({error}); "
            "use the version that trained it"
        ) from error
    return network.eval()
