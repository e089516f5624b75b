"""The identity loss: what is in the target domain already stays as it is."""

from __future__ import annotations

from torch import Tensor


def identity(same: Tensor, picture: Tensor) -> Tensor:
    """Return the mean absolute difference between a picture and its translation into the domain it is in.

    G_R2N(N) against N, G_N2R(R) against R: as in the authors' code (Zhu et al. 2017, section 5.2).

    Args:
        same: The translation, (N, C, H, W), float.
        picture: Same shape.

    Returns:
        Scalar, float32.
    """
    return (same.float() - picture.float()).abs().mean()
