"""The mean squared error."""

from __future__ import annotations

from torch import Tensor


def squared(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error over all samples and pixels.

    Args:
        output: (N, C, H, W), float.
        target: Same shape.

    Returns:
        Scalar.
    """
    return (output - target).square().mean()
