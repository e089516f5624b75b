"""The arithmetic of the adapter around a core that reads RGB: from codes to R, G, B, and its change back.

Such a core reads a picture of R, G and B in 0..1 and tells what has to be added to it. The adapter makes R, G
and B of whatever a source has, and takes the change back to the source's own codes: where the core changes
nothing, every code stays as it is, at any depth and chroma layout.

    unit     = code * scale + offset                        (Y in 0..1, Cb and Cr in -0.5..0.5)
    picture  = clamp(to_rgb x resampled(unit), 0, 1)
    change   = clamp(picture + core(picture), 0, 1) - picture
    out_code = clamp(round(code + strength / scale * resampled(from_rgb x change)), 0, top)

Resampling (chroma, and frames that are looked at in a smaller size) is separable and linear: a product with a
matrix on either side. So every runtime uses the same numbers, and none needs an operation of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamderain.frame import Geometry, luma_weights
from streamderain.models import ModelCard
from streamderain.runtime.blocks import padded

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RgbScale:
    """How codes of one geometry map onto R, G and B.

    Attributes:
        scales: Units per code, for each component.
        offsets: Unit of code 0, for each component.
        to_rgb: (3, components): R, G and B of units.
        from_rgb: (components, 3): the change of units that a change of R, G and B is.
        top: Largest code.
    """

    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    to_rgb: tuple[tuple[float, ...], ...]
    from_rgb: tuple[tuple[float, ...], ...]
    top: int


def rgb_scale(geometry: Geometry) -> RgbScale:
    """Return the scale for a geometry (ITU-R BT.601-7, BT.709-6 and BT.2020-2, quantisation and matrices)."""
    top = 2**geometry.bits - 1
    if geometry.is_rgb:
        unchanged = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
        return RgbScale((1 / top,) * 3, (0.0,) * 3, unchanged, unchanged, top)
    step = 2 ** (geometry.bits - 8)
    red, green, blue = luma_weights(geometry.matrix)
    if geometry.range == "full":
        luma, luma_offset, chroma = 1 / top, 0.0, 1 / top
    else:
        luma, luma_offset, chroma = 1 / (219 * step), -16 / 219, 1 / (224 * step)
    if geometry.chroma == "gray":
        return RgbScale((luma,), (luma_offset,), ((1.0,),) * 3, ((red, green, blue),), top)
    of_blue, of_red = 2 * (1 - blue), 2 * (1 - red)
    to_rgb = (
        (1.0, 0.0, of_red),
        (1.0, -blue * of_blue / green, -red * of_red / green),
        (1.0, of_blue, 0.0),
    )
    from_rgb = (
        (red, green, blue),
        (-red / of_blue, -green / of_blue, (1 - blue) / of_blue),
        ((1 - red) / of_red, -green / of_red, -blue / of_red),
    )
    middle = -128 * step * chroma
    return RgbScale((luma, chroma, chroma), (luma_offset, middle, middle), to_rgb, from_rgb, top)


@dataclass(frozen=True, slots=True)
class Resampling:
    """How one component is brought to the size that the core works at, and a change of it back.

    Attributes:
        rows: (working height, height), the product's left side; None where nothing is to be done.
        columns: (width, working width), its right side; None likewise.
        rows_back: (height, working height), likewise.
        columns_back: (working width, width), likewise.
    """

    rows: Matrix | None
    columns: Matrix | None
    rows_back: Matrix | None
    columns_back: Matrix | None


def working_size(geometry: Geometry, max_size: int) -> tuple[int, int]:
    """Return width and height in px at which the core sees a frame.

    Args:
        geometry: What frames look like.
        max_size: Longest side, px; 0 for the frame's own.
    """
    longest = max(geometry.width, geometry.height)
    if not max_size or longest <= max_size:
        return geometry.width, geometry.height
    width, height = (max(1, round(side * max_size / longest)) for side in (geometry.width, geometry.height))
    return width, height


def padded_size(model: ModelCard, geometry: Geometry, max_size: int) -> tuple[int, int]:
    """Return width and height in px of what the core reads: the working size, extended as the model needs."""
    width, height = (
        padded(max(side, model.least_px), model.multiple) for side in working_size(geometry, max_size)
    )
    return width, height


def resamplings(geometry: Geometry, max_size: int) -> list[Resampling]:
    """Return how each component comes to the core and back.

    Args:
        geometry: What frames look like.
        max_size: See `working_size`.
    """
    width, height = working_size(geometry, max_size)
    found = []
    for rows, columns in geometry.plane_shapes:
        # A chroma sample may reach beyond the frame where its size is odd.
        down, across = -(-geometry.height // rows), -(-geometry.width // columns)
        vertical = ((rows, float(down)), (height, geometry.height / height))
        horizontal = ((columns, float(across)), (width, geometry.width / width))
        left, right = _weights(*vertical), _weights(*horizontal)
        left_back, right_back = _weights(*reversed(vertical)), _weights(*reversed(horizontal))
        found.append(Resampling(left, _turned(right), left_back, _turned(right_back)))
    return found


def _turned(weights: Matrix | None) -> Matrix | None:
    return None if weights is None else np.ascontiguousarray(weights.T)


def _weights(source: tuple[int, float], target: tuple[int, float]) -> Matrix | None:
    """Return each target sample's share of each source sample: a triangle as wide as the coarser pitch.

    Args:
        source: How many samples there are, and their pitch in px of the frame.
        target: The same of the result.

    Returns:
        (target samples, source samples), each row's sum 1; None where both are the same.
    """
    if source == target:
        return None
    places, wanted = ((np.arange(count) + 0.5) * pitch for count, pitch in (source, target))
    reach = max(source[1], target[1])
    weights = np.maximum(0.0, 1.0 - np.abs(wanted[:, None] - places) / reach)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
