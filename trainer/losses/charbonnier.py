"""The Charbonnier loss."""

from __future__ import annotations

from torch import Tensor

EPSILON = 1e-3
"""Where the error turns from quadratic to absolute: a quarter of an 8-bit code."""


def charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean of sqrt(d^2 + eps^2) (Charbonnier et al. 1994): an absolute error with a gradient at 0.

    Args:
        output: (N, C, H, W), float in 0..1.
        target: Same shape.

    Returns:
        Scalar.
    """
    return ((output - target).square() + EPSILON**2).sqrt().mean()
