"""Initialise weights as the authors' code does."""

from __future__ import annotations

from torch import nn


def initialise(module: nn.Module, std: float = 0.02) -> None:
    """Draw the weights of all convolutions and linear layers from N(0, std), set biases to 0.

    Zhu et al. 2017, appendix 7.1. torch's own random state decides.

    Args:
        module: A generator, a discriminator or projection heads; changed in place.
        std: Standard deviation.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
