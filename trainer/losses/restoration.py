"""The restoration loss: derain what the run itself rained on."""

from __future__ import annotations

from torch import Tensor


def restoration(restored: Tensor, clean: Tensor) -> Tensor:
    """Return the mean squared difference between G_R2N(R_N) and N, where R_N = G_N2R(N) is taken as it is.

    The cycle's forward half, without its gradient to G_N2R: a cycle is shortest when no rain is made at all,
    and small generators find that way out. Not in the DCD-GAN paper; the idea is that of the pseudo-pairs of
    CSUD (CVPR 2025, section 3), drawn anew in every step.

    Args:
        restored: G_R2N(R_N), (N, channels, H, W) in -1..1.
        clean: N, same shape.

    Returns:
        Scalar, float32.
    """
    return (restored.float() - clean.float()).square().mean()
