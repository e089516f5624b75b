"""Load the network of a model card's `family`; its files say of which sizes it is, where they may differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from safetensors import SafetensorError, safe_open
from torch import Tensor

from streamderain.errors import ModelError
from streamderain.nets.deep import DeepNet
from streamderain.nets.fast import FastNet
from streamderain.nets.generator import Generator, ResidualGenerator
from streamderain.nets.network import Network

FAMILIES: Mapping[str, type[Network]] = MappingProxyType(
    {family.family: family for family in (FastNet, DeepNet, Generator, ResidualGenerator)}
)


SIZES = ("width", "blocks")
"""What files of weights tell of their sizes, as whole numbers in their metadata."""


def load_core(family: str, weights: Sequence[Path]) -> Network:
    """Build a network of a family and load its weights.

    Args:
        family: The card's `family`.
        weights: Safetensors files that together hold exactly the network's parameters.

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
    try:
        tensors, sizes = _read(weights)
        network = FAMILIES[family](**sizes)
        network.load_state_dict(tensors)
    except (SafetensorError, RuntimeError, TypeError, ValueError, OSError) as error:
        raise ModelError(
            f"the weights {weights[0]} do not fit the network family {family}: {error}; "
            "restore the model folder"
        ) from error
    return network


def _read(weights: Sequence[Path]) -> tuple[dict[str, Tensor], dict[str, int]]:
    tensors: dict[str, Tensor] = {}
    sizes: dict[str, int] = {}
    for path in weights:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            sizes |= {name: int(told[name]) for name in SIZES if name in told}
            tensors |= {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (no dict)
    return tensors, sizes
