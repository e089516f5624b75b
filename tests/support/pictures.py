"""Textures to make pictures of, and colours by the textbook. Nothing here imports streamderain."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_LUMA_WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""Of red and blue, by FFmpeg's number of the matrix: BT.709, BT.601, BT.2020."""


def texture(index: int, width: int, height: int, *, seed: int = 0) -> NDArray[np.uint16]:
    """Give picture `index` of a moving texture, (height, width, 3), uint16 RGB over the whole range."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin((x + 2 * index) / (3.0 + c) + seed) + np.cos((y + index) / (4.0 + c)) for c in range(3)]
    noise = np.random.default_rng(seed * 1000 + index).normal(0, 0.05, (height, width, 3))
    picture = 0.5 + 0.2 * np.stack(waves, axis=-1) + noise
    return cast(NDArray[np.uint16], (np.clip(picture, 0.0, 1.0) * 65535).astype(np.uint16))


def smooth(height: int, width: int, *, seed: int = 0, sigma: float = 4.0) -> NDArray[np.float64]:
    """Give blurred noise, (height, width), stretched to 0..1."""
    blurred = ndimage.gaussian_filter(np.random.default_rng(seed).random((height, width)), sigma)
    return cast("NDArray[np.float64]", (blurred - blurred.min()) / np.ptp(blurred))


def rgb_of(
    y: NDArray[Any], u: NDArray[Any], v: NDArray[Any], matrix: int, *, full: bool
) -> NDArray[np.float64]:
    """Convert 8-bit codes to RGB by the equations of the ITU.

    Args:
        y: (height, width) luma codes.
        u: Likewise, of full size.
        v: Likewise.
        matrix: As FFmpeg numbers it: 1, 5 or 9.
        full: Whether the range is full.

    Returns:
        (height, width, 3), 0..255.
    """
    red, blue = _LUMA_WEIGHTS[matrix]
    black, luma, chroma = (0, 255, 255) if full else (16, 219, 224)
    y = (y.astype(float) - black) / luma
    u, v = ((plane.astype(float) - 128) / chroma for plane in (u, v))
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    return np.clip(np.stack([r, g, b], axis=-1), 0, 1) * 255
