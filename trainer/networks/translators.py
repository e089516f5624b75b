"""Networks as generators of one direction: pictures of a domain in, pictures of the other out.

Pictures are (N, channels, H, W) float in -1..1. `translate` gives the encoder's features beside the picture,
so that the contrastive loss costs no second pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from streamderain.nets.deep import DeepNet
from streamderain.nets.fast import FastNet
from streamderain.nets.generator import Generator, ResidualGenerator
from streamderain.nets.network import Network
from trainer.config import NetworkConfig


@dataclass(frozen=True)
class Translator:
    """A network in one direction; see `Network.translate` and `Network.features`.

    Attributes:
        network: Shared with the run's state.
        adds_rain: Whether it goes from clean to rainy.
    """

    network: Network
    adds_rain: bool

    def translate(self, picture: Tensor, layers: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """Give the translated picture, and the outputs of some layers, (N, C, h, w) each."""
        return self.network.translate(picture, layers, adds_rain=self.adds_rain)

    def features(self, picture: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Give the outputs of some layers alone."""
        return self.network.features(picture, layers, adds_rain=self.adds_rain)


def new_network(config: NetworkConfig) -> Network:
    """Make a network with fresh weights."""
    for family in (DeepNet, Generator, ResidualGenerator):
        if config.family == family.family:
            return family(width=config.width, blocks=config.blocks)
    return FastNet(width=config.width, middle_width=config.middle_width, middle_layers=config.middle_layers)


def derainer(network: Network) -> Translator:
    """Give the translator from rainy to clean."""
    return Translator(network, adds_rain=False)


def rainer(network: Network) -> Translator:
    """Give the translator from clean to rainy."""
    return Translator(network, adds_rain=True)
