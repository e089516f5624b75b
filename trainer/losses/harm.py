"""The harm loss: light taken that was no rain."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def harm(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean square of how far the output is too dark.

    Rain only brightens. A streak that stays is forgiven, texture that is gone is not: beside the squared
    error this one makes a mistake of the second kind dearer than one of the first. In a picture without
    neighbours thin texture and faint rain look alike, and rain that stays is what is left to win there:
    `harm_in_video` asks this of windows with a neighbour alone.

    Args:
        output: (N, C, H, W), float.
        target: Same shape.

    Returns:
        Scalar.
    """
    return functional.relu(target - output).square().mean()
