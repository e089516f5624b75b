"""The fast network: luma of three frames in, rain-free luma of the middle one out.

Everything dense runs on *blocks*: a plane of height x width whose 4x4 neighbourhoods were unshuffled into
16 channels at a quarter of the size. Convolutions at that size feed the vector units of a CPU (16, 32 and 64
channels) and see far (one 3x3 step at 1/8 size is 8 px wide), and nothing is ever thrown away: the residual
is predicted at full resolution, four by four samples at a time.

Rain brightens, so the network may only take light away: ``clean = clip(current - relu(residual), 0, 1)``.
The first layer sees all three frames beside each other; aligning them is left to the layers at 1/8 size,
whose receptive field covers the motion between neighbouring frames. See docs/decisions/0003-fast-network.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCK = 4
"""Edge of a block, px: one block is 4x4 luma samples, 16 channels in pixel_unshuffle order (dy * 4 + dx)."""

MULTIPLE = 8
"""Width and height must be multiples of this, px: the middle of the network works at 1/8 size."""

_BLOCK_CHANNELS = BLOCK * BLOCK
_FRAMES = 3


class FastNet(nn.Module):
    """Removes rain from the luma of the middle of three frames.

    Args:
        width: Channels at 1/4 size.
        middle_width: Channels at 1/8 size.
        middle_layers: 3x3 convolutions at 1/8 size.

    ``residual_slope`` is the slope of the residual below zero. Training starts leaky, so that no pixel's
    gradient dies while the residual is still small, and anneals it to 0, which is what evaluation uses.
    """

    def __init__(self, *, width: int = 32, middle_width: int = 64, middle_layers: int = 6) -> None:
        super().__init__()
        self.residual_slope = 0.0
        self.head = nn.Conv2d(_FRAMES * _BLOCK_CHANNELS, width, 3, padding=1)
        self.validity = nn.Linear(_FRAMES - 1, width, bias=False)
        self.down = nn.Conv2d(width, middle_width, 3, stride=2, padding=1)
        self.middle = nn.ModuleList(
            nn.Conv2d(middle_width, middle_width, 3, padding=1) for _ in range(middle_layers)
        )
        self.up = nn.Conv2d(middle_width, 4 * width, 1)
        self.merge = nn.Conv2d(width, width, 3, padding=1)
        self.tail = nn.Conv2d(width, _BLOCK_CHANNELS, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        """Start near identity: the middle passes its input on, the residual is small but not dead."""
        for module in (self.head, self.down, self.up, self.merge):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        for layer in self.middle:
            assert isinstance(layer, nn.Conv2d)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            with torch.no_grad():
                # Dirac identity plus a little noise: a residual block that costs nothing at run time.
                layer.weight.mul_(0.3)
                nn.init.zeros_(layer.bias) if layer.bias is not None else None
                centre = torch.arange(layer.out_channels)
                layer.weight[centre, centre, 1, 1] += 1.0
        nn.init.normal_(self.tail.weight, std=0.01)
        assert self.tail.bias is not None
        nn.init.zeros_(self.tail.bias)

    def residual_blocks(self, before: Tensor, current: Tensor, after: Tensor, validity: Tensor) -> Tensor:
        """Predict the light that rain added, before the slope is applied.

        Args:
            before: Blocks of the previous frame, (N, 16, h, w), float, luma code / 255 in 0..1; h and w even.
            current: Blocks of the frame to clean, same shape.
            after: Blocks of the next frame, same shape.
            validity: (N, 2), float 0 or 1, for (before, after). Where 0 the neighbour is a copy of current.

        Returns:
            Blocks of the raw residual, (N, 16, h, w), unbounded.
        """
        bias = self.validity(validity)[:, :, None, None]
        detail = functional.relu(self.head(torch.cat([before, current, after], dim=1)) + bias)
        wide = functional.relu(self.down(detail))
        for layer in self.middle:
            wide = functional.relu(layer(wide))
        raised = functional.pixel_shuffle(self.up(wide), 2)
        merged = functional.relu(self.merge(functional.relu(raised + detail)))
        residual: Tensor = self.tail(merged)
        return residual

    def forward(self, before: Tensor, current: Tensor, after: Tensor, validity: Tensor) -> Tensor:
        """Clean the middle frame, in blocks: the function that is exported as the *core*.

        Args and shapes as in `residual_blocks`.

        Returns:
            Blocks of the clean frame, (N, 16, h, w), in 0..1.
        """
        residual = self.residual_blocks(before, current, after, validity)
        return (current - functional.relu(residual)).clamp(0.0, 1.0)

    def clean_planes(self, window: Tensor, validity: Tensor, *, bounded: bool = True) -> Tensor:
        """Clean whole luma planes, for training and evaluation.

        Args:
            window: (N, 3, H, W), float, studio-range luma code / 255 in 0..1, frames t-1, t, t+1; H and W
                multiples of `MULTIPLE`.
            validity: (N, 2), float 0 or 1, for (t-1, t+1).
            bounded: Apply the hard ReLU and the clip of `forward`; False uses `residual_slope` and no clip,
                so that every pixel has a gradient.

        Returns:
            (N, 1, H, W) clean luma.
        """
        before, current, after = (
            functional.pixel_unshuffle(window[:, i : i + 1], BLOCK) for i in range(_FRAMES)
        )
        if bounded:
            blocks = self(before, current, after, validity)
        else:
            residual = self.residual_blocks(before, current, after, validity)
            blocks = current - functional.leaky_relu(residual, self.residual_slope)
        return functional.pixel_shuffle(blocks, BLOCK)


def multiply_accumulates(network: nn.Module, height: int, width: int) -> int:
    """Count the multiply-accumulates of the fast network's convolutions for one frame.

    Args:
        network: A `FastNet`.
        height: Height in px, a multiple of `MULTIPLE`.
        width: Width in px, a multiple of `MULTIPLE`.

    Returns:
        Multiply-accumulates per frame.
    """
    total = 0

    def count(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        taps = module.in_channels * module.kernel_size[0] * module.kernel_size[1] // module.groups
        total += taps * output[0].numel()

    handles = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    blocks = torch.zeros(1, _BLOCK_CHANNELS, height // BLOCK, width // BLOCK)
    with torch.no_grad():
        network(blocks, blocks, blocks, torch.ones(1, _FRAMES - 1))
    for handle in handles:
        handle.remove()
    return total
