"""The cycle consistency loss."""

from __future__ import annotations

from torch import Tensor


def cycle(again: Tensor, picture: Tensor) -> Tensor:
    """Return the mean absolute difference between a picture and what both generators made of it.

    DCD-GAN section 3.1 (bidirectional translation), R* against R and N* against N; Zhu et al. 2017, eq. 2.

    Args:
        again: R* or N*, (N, C, H, W), float.
        picture: R or N, same shape.

    Returns:
        Scalar, float32.
    """
    return (again.float() - picture.float()).abs().mean()
