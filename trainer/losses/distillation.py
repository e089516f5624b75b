"""The distillation loss: the distance to a teacher's output."""

from __future__ import annotations

from torch import Tensor

from trainer.losses.squared import squared


def distillation(output: Tensor, teachers: Tensor) -> Tensor:
    """Return the mean squared difference from a larger network's output (Hinton et al. 2015).

    For a network that returns a picture and no probabilities, matching outputs is all there is to it.

    Args:
        output: The student's, (N, C, H, W), float in 0..1.
        teachers: The teacher's, same shape; no gradient is sent there.

    Returns:
        Scalar.
    """
    return squared(output, teachers.detach())
