"""The colour loss: each channel keeps its own balance through a cycle."""

from __future__ import annotations

from torch import Tensor


def colour(again: Tensor, picture: Tensor) -> Tensor:
    """Return the sum over channels of the mean absolute difference (the colour term of the authors' code).

    It means something only between both ends of a cycle, R* and R or N* and N. The authors' code computes it
    between unpaired pictures, and then leaves it out of the sum.

    Args:
        again: R* or N*, (N, C, H, W), float.
        picture: R or N, same shape.

    Returns:
        Scalar, float32.
    """
    return (again.float() - picture.float()).abs().mean(dim=(0, 2, 3)).sum()
