"""The generators of both families behind one face: pictures of a domain in, pictures of the other out.

Pictures are (N, channels, H, W) float in -1..1. `translate` gives the encoder's features beside the picture,
so that the contrastive loss costs no second pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamderain.nets.fast import BLOCK, FastNet, core_window, residual_planes
from streamderain.nets.generator import Generator
from trainer.config import NetworkConfig


class Translator(Protocol):
    """A generator with reachable features."""

    def translate(self, picture: Tensor, layers: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """The translated picture, and the outputs of some layers, (N, C, h, w) each."""
        ...

    def features(self, picture: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """The outputs of some layers alone."""
        ...


class PlaneDerainer(nn.Module):
    """The fast network on single luma pictures: both neighbours are missing.

    Feature layers count from 0: the head at 1/4 size, the strided layer at 1/8, the middle layers.

    Args:
        network: Shared with the run's state.
    """

    def __init__(self, network: FastNet) -> None:
        super().__init__()
        self.network = network

    def translate(self, picture: Tensor, layers: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """See `Translator`; light is taken away, below zero with the network's `residual_slope`."""
        blocks, stages = self._encode(picture)
        share, correction = self.network.decode(stages, picture.new_zeros(len(picture), 2))
        residual = residual_planes(blocks, share, correction)
        # Planes are in 0..1, pictures in -1..1: twice the light.
        cleaned = picture - 2.0 * functional.leaky_relu(residual, self.network.residual_slope)
        return cleaned, [stages[layer] for layer in layers]

    def features(self, picture: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """See `Translator`."""
        _, stages = self._encode(picture)
        return [stages[layer] for layer in layers]

    def _encode(self, picture: Tensor) -> tuple[Tensor, list[Tensor]]:
        blocks = core_window(((picture + 1.0) / 2.0).expand(-1, 3, -1, -1))
        return blocks, self.network.encode(blocks)


class PlaneRainer(nn.Module):
    """A network of the same shape that adds rain: noise stands where the neighbours would.

    One clean picture has many rainy ones. Without noise the network could only make streaks of what it sees,
    the same every time. The noise comes from torch's random state.

    Args:
        network: Shared with the run's state.
    """

    def __init__(self, network: FastNet) -> None:
        super().__init__()
        self.network = network

    def translate(self, picture: Tensor, layers: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """See `Translator`; light is added."""
        stages = self._encode(picture)
        _, correction = self.network.decode(stages, picture.new_ones(len(picture), 2))
        light = functional.pixel_shuffle(correction, BLOCK)
        rained = picture + 2.0 * functional.leaky_relu(light, self.network.residual_slope)
        return rained, [stages[layer] for layer in layers]

    def features(self, picture: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """See `Translator`."""
        stages = self._encode(picture)
        return [stages[layer] for layer in layers]

    def _encode(self, picture: Tensor) -> list[Tensor]:
        plane = (picture + 1.0) / 2.0
        noise = torch.rand(len(plane), 2, *plane.shape[2:], device=plane.device, dtype=plane.dtype)
        window = torch.cat([noise[:, :1], plane, noise[:, 1:], torch.zeros_like(plane)], dim=1)
        return self.network.encode(functional.pixel_unshuffle(window, BLOCK))


def new_network(config: NetworkConfig) -> FastNet | Generator:
    """A network with fresh weights."""
    if config.family == "generator":
        return Generator(width=config.width, blocks=config.blocks)
    return FastNet(width=config.width, middle_width=config.middle_width, middle_layers=config.middle_layers)


def derainer(network: nn.Module) -> Translator:
    """The translator from rainy to clean around a network of either family."""
    if isinstance(network, FastNet):
        return PlaneDerainer(network)
    assert isinstance(network, Generator)
    return network


def rainer(network: nn.Module) -> Translator:
    """The translator from clean to rainy around a network of either family."""
    if isinstance(network, FastNet):
        return PlaneRainer(network)
    assert isinstance(network, Generator)
    return network
