"""The arithmetic of the adapter around a luma core: from codes to what the core reads, and back.

A luma core reads studio-range luma, a limited-range 8-bit code divided by 255, of the frames of its window,
and the *excess*: by how much the current frame is brighter than all its neighbours. Every other kind of code
is mapped onto that scale on the way in. The core returns the share of the excess that is rain, and a
correction; what is rain is taken from the codes, so that a pixel without rain keeps its code exactly, at any
depth.

    unit     = code * scale + offset              (RGB: of the luma of the codes)
    excess   = relu(current - max(neighbours))
    rest     = relu(current - min(neighbours)) - excess
    deficit  = relu(min(neighbours) - current)
    misfit   = mean(deficit around)
    prior    = clamp(log(relu(mean(excess around) - misfit) + floor) - log(misfit + floor), -limit, limit)
    rain     = relu(share * excess + share_of_rest * rest + correction)
    out_code = clamp(round(code - strength * gain * rain), 0, top)
"""

from __future__ import annotations

from dataclasses import dataclass

from streamderain.frame import Geometry
from streamderain.models import ModelCard

PRIOR_BLOCKS = (3, 9)
PRIOR_FLOOR = 0.1 / 255.0
PRIOR_LIMIT = 4.0
"""Those of `streamderain.nets.fast`, which imports torch."""

_WEIGHTS = {
    "bt601": (0.299, 0.587, 0.114),
    "bt709": (0.2126, 0.7152, 0.0722),
    "bt2020": (0.2627, 0.6780, 0.0593),
}


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
    weights = _WEIGHTS[geometry.matrix] if geometry.is_rgb else (1.0,)
    if geometry.is_rgb or geometry.range == "full":
        return LumaScale(219 / 255 / top, 16 / 255, top * 255 / 219, top, weights)
    studio = 255.0 * 2 ** (geometry.bits - 8)
    return LumaScale(1 / studio, 0.0, studio, top, weights)


def window_names(model: ModelCard) -> tuple[str, ...]:
    """Return names of the window's frames, oldest first: `before1`, `current`, `after1` and so on."""
    earlier = (f"before{i}" for i in range(model.before, 0, -1))
    later = (f"after{i}" for i in range(1, model.after + 1))
    return (*earlier, "current", *later)
