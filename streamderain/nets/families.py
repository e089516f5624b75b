"""Which network a model card's ``family`` stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from streamderain.errors import ModelError
from streamderain.nets.fast import FastNet

FAMILIES: Mapping[str, Callable[[], nn.Module]] = MappingProxyType({"fast": FastNet})


def load_core(family: str, weights: Path) -> nn.Module:
    """Builds a network of a family and loads its weights.

    Args:
        family: The card's ``family``.
        weights: A safetensors file with exactly the network's parameters.

    Returns:
        The core, float32; for the fast family see :meth:`streamderain.nets.fast.FastNet.forward`.

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
