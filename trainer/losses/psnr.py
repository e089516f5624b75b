"""The negative PSNR loss, the mean over samples."""

from __future__ import annotations

from torch import Tensor

FLOOR = 10.0**-4.25
"""Mean squared error added to every sample: 42.5 dB is as good as it gets.

Without it a rain-free sample that is already perfect would have an endless gradient. With a floor of 54 or
45 dB and nothing beside it the rain-free samples outweighed all others, and stills fell back to 'do nothing'.
"""


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean over samples of 10 log10(MSE + FLOOR), as in Chen et al. 2022 (NAFNet).

    The logarithm gives a lightly rained and a rain-free sample as much say as a downpour, whose squared
    error is a thousand times theirs.

    Args:
        output: (N, C, H, W), float in 0..1.
        target: Same shape.

    Returns:
        Scalar, dB, the lower the better.
    """
    mean_squared = (output - target).square().mean(dim=(1, 2, 3))
    return 10.0 * (mean_squared + FLOOR).log10().mean()
