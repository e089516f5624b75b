"""Load the network of a model card's `family`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from safetensors import SafetensorError
from safetensors.torch import load_file

from streamderain.errors import ModelError
from streamderain.nets.fast import FastNet
from streamderain.nets.generator import Generator, ResidualGenerator
from streamderain.nets.network import Network

FAMILIES: Mapping[str, type[Network]] = MappingProxyType(
    {family.family: family for family in (FastNet, Generator, ResidualGenerator)}
)


def load_core(family: str, weights: Path) -> Network:
    """Build a network of a family and load its weights.

    Args:
        family: The card's `family`.
        weights: A safetensors file with exactly the network's parameters.

    Returns:
        The network, float32; its `forward` is the core.

    Raises:
        ModelError: Unknown family, or weights of another network.
    """
    if family not in FAMILIES:
        raise ModelError(
            f"no network family {family!r} is known; known: {', '.join(FAMILIES)}. "
            "The model may need a newer streamderain"
        )
    network = FAMILIES[family]()
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ModelError(
            f"the weights {weights} do not fit the network family {family}: {error}; restore the model folder"
        ) from error
    return network
