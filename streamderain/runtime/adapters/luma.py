"""The arithmetic of the adapter around a luma core: from codes to what the core reads, and back.

A luma core reads studio-range luma, a limited-range 8-bit code divided by 255, of the current frame, and by
how much it is brighter or darker than its neighbours: *excess*, *rest* and *deficit*
(`streamderain.motion.differences`). Every other kind of code is mapped onto that scale on the way in. The
core tells which shares of excess and rest are rain, and a correction; what is rain is taken from the codes,
so that a pixel without rain keeps its code exactly, at any depth.

    unit     = code * scale + offset              (RGB: of the weighted sum of the codes)
    excess   = relu(current - max(neighbours))
    rest     = relu(current - min(neighbours)) - excess
    deficit  = relu(min(neighbours) - current)
    misfit   = mean(deficit around)
    prior    = clamp(log((relu(mean(excess around) - misfit) + floor) / (misfit + floor)), -limit, limit)
    shares   = sigmoid(logits + odds)             (of the excess and of the rest)
    rain     = relu(share * excess + share_of_rest * rest + correction)
    out_code = clamp(round(code - strength * gain * rain), 0, top)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamderain import motion
from streamderain.frame import Geometry, Plane, Planes, luma_weights

PRIOR_BLOCKS = (3, 9, 33)
PRIOR_FLOOR = 0.1 / 255.0
PRIOR_LIMIT = 4.0
"""Those of `streamderain.nets.luma`, which imports torch."""


@dataclass(frozen=True, slots=True)
class LumaScale:
    """How codes of one geometry map onto the core's scale.

    Attributes:
        scale: Units per code.
        offset: Unit of code 0.
        gain: Codes per unit of residual.
        top: Largest code.
        weights: Share of each component in luma: one for a luma plane, three for R, G, B.
    """

    scale: float
    offset: float
    gain: float
    top: int
    weights: tuple[float, ...]


def luma_scale(geometry: Geometry) -> LumaScale:
    """Return the scale for a geometry (ITU-R BT.601/709/2020 luma weights and quantisation)."""
    top = 2**geometry.bits - 1
    weights = luma_weights(geometry.matrix) if geometry.is_rgb else (1.0,)
    if geometry.is_rgb or geometry.range == "full":
        return LumaScale(219 / 255 / top, 16 / 255, top * 255 / 219, top, weights)
    studio = 255.0 * 2 ** (geometry.bits - 8)
    return LumaScale(1 / studio, 0.0, studio, top, weights)


def luma_of(components: Planes, scale: LumaScale) -> Plane:
    """Return the luma of unshifted codes: the luma plane itself, or R, G and B weighted, as float32."""
    if len(components) == 1:
        return components[0]
    red, green, blue = (
        component * np.float32(weight) for component, weight in zip(components, scale.weights, strict=True)
    )
    return np.asarray(red + green + blue, np.float32)


def rain_prior(
    excess: NDArray[np.float32], deficit: NDArray[np.float32], target: NDArray[np.float32]
) -> None:
    """Weigh excess against deficit around each block, see `streamderain.nets.luma.rain_prior`.

    Args:
        excess: Each block's mean, units, (rows, columns).
        deficit: The same.
        target: Where to: one (rows, columns) for each of `PRIOR_BLOCKS`.
    """
    floor = np.float32(PRIOR_FLOOR)
    for prior, edge in zip(target, PRIOR_BLOCKS, strict=True):
        misfit = motion.means_around(deficit, edge)
        rain = np.maximum(motion.means_around(excess, edge) - misfit, 0.0)
        np.log((rain + floor) / (misfit + floor), out=prior)
        np.clip(prior, -PRIOR_LIMIT, PRIOR_LIMIT, out=prior)
