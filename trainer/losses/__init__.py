"""Losses, one per file; configurations name them."""

from collections.abc import Callable

from torch import Tensor

from trainer.losses.charbonnier import charbonnier
from trainer.losses.psnr import psnr
from trainer.losses.squared import squared

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "charbonnier": charbonnier,
    "psnr": psnr,
    "squared": squared,
}
"""Supervised losses by name: (output, target) to a scalar."""
