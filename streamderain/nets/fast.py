"""The fast network: three convolutions at 1/4 size, a handful at 1/8.

Convolutions at those sizes feed the vector units of a CPU (16, 32 and 64 channels) and see far (one 3x3 step
at 1/8 size is 8 px wide). What it reads and what is made of its answer: `streamderain.nets.luma`. See
docs/decisions/0003-fast-network.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamderain.nets.luma import BLOCK_CHANNELS, FRAMES, PARTS, LumaNetwork


class FastNet(LumaNetwork):
    """Removes rain from the luma of the middle of three frames.

    Args:
        width: Channels at 1/4 size.
        middle_width: Channels at 1/8 size.
        middle_layers: 3x3 convolutions at 1/8 size.
    """

    family = "fast"
    multiple = 8

    def __init__(self, *, width: int = 32, middle_width: int = 64, middle_layers: int = 4) -> None:
        super().__init__()
        self.head = nn.Conv2d(PARTS * BLOCK_CHANNELS, width, 3, padding=1)
        self.down = nn.Conv2d(width, middle_width, 3, stride=2, padding=1)
        self.middle = nn.ModuleList(
            nn.Conv2d(middle_width, middle_width, 3, padding=1) for _ in range(middle_layers)
        )
        self.up = nn.ConvTranspose2d(middle_width, width, 2, stride=2)
        self.validity = nn.Linear(FRAMES - 1, width, bias=False)
        self.merge = nn.Conv2d(width, width, 3, padding=1)
        self._add_tails(width)
        self._initialise()

    def _initialise(self) -> None:
        """Begin with a middle that passes its input on."""
        for module in (self.head, self.down, self.merge):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        # Every output of the transposed convolution reads each input channel once: stride equals size.
        nn.init.normal_(self.up.weight, std=(2.0 / self.up.in_channels) ** 0.5)
        for layer in self.middle:
            assert isinstance(layer, nn.Conv2d)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            with torch.no_grad():
                # Dirac identity plus a little noise: a residual block that costs nothing at run time.
                layer.weight.mul_(0.3)
                nn.init.zeros_(layer.bias) if layer.bias is not None else None
                centre = torch.arange(layer.out_channels)
                layer.weight[centre, centre, 1, 1] += 1.0

    def encode(self, window: Tensor, validity: Tensor) -> list[Tensor]:
        """See `LumaNetwork.encode`.

        Returns:
            What each layer gives after its ReLU, in order: the head (N, width, h, w), then the strided layer
            and the middle ones, (N, middle width, h / 2, w / 2) each.
        """
        stages = [functional.relu(self.head(window))]
        for layer in (self.down, *self.middle):
            stages.append(functional.relu(layer(stages[-1])))
        return stages

    def merge_stages(self, stages: Sequence[Tensor], validity: Tensor) -> Tensor:
        """See `LumaNetwork.merge_stages`."""
        trust = self.validity(validity)[:, :, None, None]
        return functional.relu(self.merge(functional.relu(self.up(stages[-1]) + stages[0] + trust)))
