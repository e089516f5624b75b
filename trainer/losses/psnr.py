"""The negative PSNR loss, the mean over samples."""

from __future__ import annotations

from torch import Tensor

FLOOR = 10.0**-4.5
"""Mean squared error added to every sample: 45 dB is as good as it gets.

Without it a rain-free sample that is already perfect would have an endless gradient. Without squared error
beside it rain-free samples outweigh all others at this floor, and stills fall back to 'do nothing'.
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
