"""Make many looks of one streak layer, so that rain of few kinds teaches of more.

After RainMix (Guo et al., "EfficientDeRain", AAAI 2021): a layer goes through a few chains of turning,
shearing and stretching, whose results are mixed; some rain is near and out of focus besides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Codes = NDArray[np.uint8]

_CHAINS = 3
_TURN_DEGREES = 20.0
_SHEAR = 0.25
_STRETCH = (0.7, 2.5)
_NEAR = 0.3
"""Share of layers that are rain near the camera, out of focus."""
_BLUR_PX = (0.6, 4.0)


def remix(rng: np.random.Generator, layer: Codes) -> Codes:
    """Return a streak layer that looks different, of the same brightest opacity.

    Args:
        rng: Decides everything.
        layer: (height, width) uint8, opacity 0..1 as 0..255.

    Returns:
        Same shape.
    """
    picture = Image.fromarray(layer)
    weights = rng.dirichlet(np.ones(int(rng.integers(1, _CHAINS + 1))))
    mixed = np.zeros(layer.shape, np.float32)
    for weight in weights:
        mixed += np.float32(weight) * np.asarray(_turned(rng, picture), np.float32)
    if rng.random() < _NEAR:
        radius = float(np.exp(rng.uniform(np.log(_BLUR_PX[0]), np.log(_BLUR_PX[1]))))
        blur = ImageFilter.GaussianBlur(radius)
        mixed = np.asarray(Image.fromarray(np.rint(mixed).astype(np.uint8)).filter(blur), np.float32)
    brightest = float(mixed.max())
    if brightest <= 0.0:
        return layer
    codes: Codes = np.rint(mixed * (float(layer.max()) / brightest)).astype(np.uint8)
    return codes


def _turned(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    """Turn, shear and stretch about a place in the picture."""
    angle = np.deg2rad(rng.normal(0.0, _TURN_DEGREES / 2.0))
    sheared = np.array([[1.0, rng.uniform(-_SHEAR, _SHEAR)], [0.0, 1.0]])
    scale = np.exp(rng.uniform(np.log(_STRETCH[0]), np.log(_STRETCH[1]), 2))
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turned @ sheared @ np.diag(1.0 / scale)
    centre = np.array(picture.size) * rng.uniform(0.25, 0.75, 2)
    shift = centre - matrix @ centre
    coefficients = (*matrix[0], shift[0], *matrix[1], shift[1])
    return picture.transform(picture.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
