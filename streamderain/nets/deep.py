"""The deep network: the fast one, and beside it many times its layers, whose answer is added to its own.

Three sizes, 1/4, 1/8 and 1/16, each with residual blocks on the way down and on the way up (a U-Net:
Ronneberger et al., MICCAI 2015, with the plain residual blocks of EDSR: Lim et al., CVPRW 2017: no norm, so
that brightness survives and tiles agree with the whole). At 1/16 one 3x3 step is 16 px wide: streaks of any
length are seen whole, in a single picture too. All that lies around the layers is the fast network's: planes,
prior, shares and correction. It reads what the fast one found, too, and starts as the fast one: training goes
up from there. See docs/decisions/0016-quality.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamderain.nets.fast import FastNet
from streamderain.nets.luma import BLOCK, FRAMES, PARTS, Answer, LumaNetwork


class DeepNet(LumaNetwork):
    """Removes rain from the luma of the middle of three frames.

    Args:
        width: Channels at 1/4 size; twice as many at 1/8, four times as many at 1/16.
        blocks: Residual blocks at each size, on the way down and again on the way up.
    """

    family = "deep"
    multiple = 4 * BLOCK

    def __init__(self, *, width: int = 48, blocks: int = 2) -> None:
        super().__init__()
        self.width, self.blocks = width, blocks
        widths = (width, 2 * width, 4 * width)
        self.fast = FastNet()
        self.head = nn.Conv2d(PARTS * BLOCK * BLOCK + self.fast.merge.out_channels, width, 3, padding=1)
        self.validity = nn.ModuleList(nn.Linear(FRAMES - 1, wide, bias=False) for wide in widths)
        self.downwards = nn.ModuleList(_chain(wide, blocks) for wide in widths)
        self.downs = nn.ModuleList(
            nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in itertools.pairwise(widths)
        )
        self.upwards = nn.ModuleList(_chain(wide, blocks) for wide in widths)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in itertools.pairwise(widths)
        )
        nn.init.kaiming_normal_(self.head.weight, nonlinearity="relu")
        for layer in self.ups:
            assert isinstance(layer, nn.ConvTranspose2d)
            # Every output reads each input channel once: stride equals size.
            nn.init.normal_(layer.weight, std=(1.0 / layer.in_channels) ** 0.5)
        self._add_tails(width, beside_another=True)

    def encode(self, window: Tensor, validity: Tensor) -> list[Tensor]:
        """See `LumaNetwork.encode`: what is left at 1/4, 1/8 and 1/16 size, then what the fast one found."""
        found = self.fast.merge_stages(self.fast.encode(window, validity), validity)
        stages: list[Tensor] = []
        now = functional.relu(self.head(torch.cat([window, found], dim=1)))
        for level, (chain, trust) in enumerate(zip(self.downwards, self.validity, strict=True)):
            if level:
                now = self.downs[level - 1](now)
            now = chain(now + trust(validity)[:, :, None, None])
            stages.append(now)
        return [*stages, found]

    def judge(self, stages: Sequence[Tensor], prior: Tensor, validity: Tensor) -> Answer:
        """See `LumaNetwork.judge`: the fast network's answer and its own are added."""
        both = zip(super().judge(stages, prior, validity), self.fast.answer(stages[-1], prior), strict=True)
        return Answer(*(own + fast for own, fast in both))

    def merge_stages(self, stages: Sequence[Tensor], validity: Tensor) -> Tensor:
        """See `LumaNetwork.merge_stages`."""
        *stages, _ = stages
        now = self.upwards[-1](stages[-1])
        for level in reversed(range(len(self.ups))):
            now = self.upwards[level](self.ups[level](now) + stages[level])
        return functional.relu(now)


class _Residual(nn.Module):
    """x + convolution(relu(convolution(x))); it starts as x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        nn.init.normal_(self.second.weight, std=0.1 * (1.0 / (9 * width)) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.second(functional.relu(self.first(x)))
        return x + changed


def _chain(width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(_Residual(width) for _ in range(blocks)))
