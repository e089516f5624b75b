"""Make a narrow generator wider, computing the same: what it knows is where a larger one begins.

After "Net2Net: Accelerating Learning via Knowledge Transfer" (Chen, Goodfellow and Shlens, ICLR 2016),
section 2.3. Every channel becomes several; what reads them shares its weight among them. Instance norm looks
at each channel alone, so the copies leave it as the original did. They would stay equal for ever, since equal
channels get equal gradients: the shares differ, and a little noise on the weights makes the copies differ.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamderain.errors import ConfigError
from streamderain.nets.generator import Generator

NOISE = 0.02
"""Standard deviation of the noise, as a share of each weight."""


@torch.no_grad()
def widened(network: Generator, width: int, *, seed: int = 0) -> Generator:
    """Return a generator of another width that computes nearly the same.

    Args:
        network: Left as it is.
        width: A multiple of the network's own.
        seed: Of the shares and the noise.

    Raises:
        ConfigError: It is no multiple.
    """
    factor, rest = divmod(width, network.width)
    if rest or factor < 1:
        raise ConfigError(f"a generator of width {network.width} cannot be made one of width {width}")
    wide = type(network)(width=width, blocks=network.blocks)
    random = torch.Generator().manual_seed(seed)
    pairs = zip(_convolutions(network), _convolutions(wide), strict=True)
    for number, (narrow_layer, wide_layer) in enumerate(pairs):
        copies_in = 1 if number == 0 else factor
        copies_out = wide_layer.out_channels // narrow_layer.out_channels
        weight = narrow_layer.weight.repeat_interleave(copies_out, dim=0)
        weight = weight.repeat_interleave(copies_in, dim=1) * _shares(weight, copies_in, random)
        weight = weight * (1.0 + NOISE * torch.randn(weight.shape, generator=random))
        wide_layer.weight.copy_(weight)
        assert narrow_layer.bias is not None
        assert wide_layer.bias is not None
        wide_layer.bias.copy_(narrow_layer.bias.repeat_interleave(copies_out))
    return wide


def _convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def _shares(weight: Tensor, copies: int, random: torch.Generator) -> Tensor:
    """Return what each copy of an input carries, (outputs, inputs * copies, 1, 1); an input's sum is 1."""
    outputs, inputs = weight.shape[:2]
    drawn = 0.5 + torch.rand(outputs, inputs, copies, generator=random)
    return (drawn / drawn.sum(dim=2, keepdim=True)).reshape(outputs, inputs * copies, 1, 1)
