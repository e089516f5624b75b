"""Losses, one per file; configurations name them."""

from collections.abc import Callable

from torch import Tensor

from trainer.losses.charbonnier import charbonnier
from trainer.losses.distillation import distillation
from trainer.losses.psnr import psnr
from trainer.losses.squared import squared

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "charbonnier": charbonnier,
    "distillation": distillation,
    "psnr": psnr,
    "squared": squared,
}
"""Supervised losses by name: (output, target) to a scalar; distillation's target is a teacher's output."""

TERMS = ("adversarial", "contrastive", "cycle", "identity", "colour", "frequency")
"""Terms of DCD-GAN's objective by name; see `trainer.translation`."""
