"""The frequency loss: the spectrum's amplitudes come through a cycle unchanged."""

from __future__ import annotations

import torch
from torch import Tensor


def frequency(again: Tensor, picture: Tensor) -> Tensor:
    """Return the mean absolute difference of both spectra's amplitudes (the authors' frequency term).

    The whole spectrum of `torch.fft.fft2`, scaled so that energy is kept ("ortho"), each channel on its own.
    Like `colour` it is for both ends of a cycle only.

    Args:
        again: R* or N*, (N, C, H, W), float.
        picture: R or N, same shape.

    Returns:
        Scalar, float32.
    """
    one, other = (torch.fft.fft2(p.float(), norm="ortho").abs() for p in (again, picture))
    difference: Tensor = (one - other).abs().mean()
    return difference
