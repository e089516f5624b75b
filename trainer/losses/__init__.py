"""Losses, one per file; configurations name them."""

from collections.abc import Callable

from torch import Tensor

from trainer.losses.charbonnier import charbonnier
from trainer.losses.distillation import distillation
from trainer.losses.harm import harm
from trainer.losses.psnr import psnr
from trainer.losses.squared import squared

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "charbonnier": charbonnier,
    "distillation": distillation,
    "harm": harm,
    "harm_in_video": harm,
    "psnr": psnr,
    "squared": squared,
}
"""Supervised losses by name: (output, target) to a scalar.

Distillation's target is a teacher's output; harm in video is asked where a neighbour is there.
"""

TERMS = ("adversarial", "contrastive", "cycle", "identity", "colour", "frequency", "restoration")
"""Terms of DCD-GAN's objective by name; see `trainer.methods.translation`."""

SIDES = ("clean", "rainy")
_TWO_SIDED = ("adversarial", "cycle", "identity", "colour", "frequency")
SIDED_TERMS = tuple(f"{term}_{side}" for term in _TWO_SIDED for side in SIDES)
"""The same of one side alone: of what should be clean (N_R; N* and N), or rainy (R_N; R* and R)."""
