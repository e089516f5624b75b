"""Compute PSNR, SSIM, MATLAB's luma and warping error. numpy only.

Conventions of the deraining literature: PSNR and SSIM on the Y of MATLAB's rgb2ycbcr, peak 255, no border
crop, mean over pictures. Studio-range Y flatters by about 1.3 dB against RGB, so print both, and always the
do-nothing row beside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
FloatArray = NDArray[np.float64]

_SSIM_SIGMA = 1.5
_SSIM_RADIUS = 5
_STRIP = 32
"""Rows that are worked on at a time, so that they stay in the processor's cache: eight times as fast."""
_MATLAB_Y = np.array([65.481, 128.553, 24.966])


def matlab_luma(rgb: Array) -> FloatArray:
    """Return the luma of MATLAB's rgb2ycbcr: 16 + 65.481 R + 128.553 G + 24.966 B with R, G, B in 0..1.

    Args:
        rgb: (..., 3) uint8.

    Returns:
        (...) float64 in 16..235, not rounded.
    """
    if rgb.dtype != np.uint8 or rgb.shape[-1] != 3:
        raise ValueError(f"matlab_luma wants (..., 3) uint8, not {rgb.shape} {rgb.dtype}")
    luma: FloatArray = 16.0 + rgb.astype(np.float64) @ (_MATLAB_Y / 255.0)
    return luma


def psnr(first: Array, second: Array, *, peak: float = 255.0) -> float:
    """Return the peak signal-to-noise ratio, dB; infinite for equal arrays.

    Args:
        first: Any shape and real dtype, in 0..peak.
        second: Same shape.
        peak: Largest possible value: 255 for 8-bit codes, 1023 for 10-bit codes.
    """
    _same_shape(first, second)
    error = float(np.mean(np.square(first.astype(np.float64) - second.astype(np.float64))))
    return math.inf if error == 0.0 else 10.0 * math.log10(peak * peak / error)


def ssim(first: Array, second: Array, *, peak: float = 255.0) -> float:
    """Return SSIM (Wang et al. 2004, eq. 13): 11x11 Gaussian, sigma 1.5, the mean of the valid map.

    Args:
        first: (height, width), or (height, width, channels) where the channels' values are averaged; at least
            11 px each way; in 0..peak.
        second: Same shape.
        peak: Largest possible value.

    Returns:
        At most 1.
    """
    _same_shape(first, second)
    if first.ndim == 3:
        return float(
            np.mean([ssim(first[..., c], second[..., c], peak=peak) for c in range(first.shape[-1])])
        )
    if first.ndim != 2 or min(first.shape) < 2 * _SSIM_RADIUS + 1:
        raise ValueError(f"ssim wants pictures of at least 11x11 px, not shape {first.shape}")
    margin = 2 * _SSIM_RADIUS
    maps = [
        _ssim_map(first[top : top + _STRIP + margin], second[top : top + _STRIP + margin], peak)
        for top in range(0, first.shape[0] - margin, _STRIP)
    ]
    return float(sum(part.sum() for part in maps) / sum(part.size for part in maps))


def _ssim_map(first: Array, second: Array, peak: float) -> FloatArray:
    x, y = first.astype(np.float64), second.astype(np.float64)
    # The denominator needs no more of the variances than their sum.
    mean_x, mean_y, squares, products = _gaussian(np.stack([x, y, x * x + y * y, x * y]))
    means, squared_means = mean_x * mean_y, mean_x**2 + mean_y**2
    steady_1, steady_2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    numerator = (2 * means + steady_1) * (2 * (products - means) + steady_2)
    denominator = (squared_means + steady_1) * (squares - squared_means + steady_2)
    result: FloatArray = numerator / denominator
    return result


def _gaussian(pictures: FloatArray) -> FloatArray:
    """Return the separable 11-tap Gaussian of (count, height, width), valid part only."""
    offsets = np.arange(_SSIM_RADIUS + 1)
    taps = np.exp(-0.5 * (offsets / _SSIM_SIGMA) ** 2)
    taps /= 2 * taps.sum() - taps[0]
    for axis in (1, 2):
        pictures = np.moveaxis(_weighted(np.moveaxis(pictures, axis, 1), taps), 1, axis)
    return pictures


def _weighted(pictures: FloatArray, taps: FloatArray) -> FloatArray:
    """Return weighted sums along the second axis; `taps` holds the middle weight first, then outward."""
    length = pictures.shape[1] - 2 * _SSIM_RADIUS
    result: FloatArray = pictures[:, _SSIM_RADIUS : _SSIM_RADIUS + length] * taps[0]
    for distance, tap in enumerate(taps[1:], start=1):
        before, after = _SSIM_RADIUS - distance, _SSIM_RADIUS + distance
        result += (pictures[:, before : before + length] + pictures[:, after : after + length]) * tap
    return result


def warping_error(current: Array, following: Array, flow: Array, *, visible: Array | None = None) -> float:
    """Return the flicker between two frames: mean absolute difference after the motion is undone.

    Blurring lowers this value too: print the rainy input's and the clean clip's own values beside it.

    Args:
        current: Frame t, (height, width).
        following: Frame t+1, same shape.
        flow: (height, width, 2), px: pixel (x, y) of `current` moves to (x + flow[..., 0], y + flow[...,
            1]) in `following`. Zeros for a camera that stands still.
        visible: (height, width) bool; pixels that count. Pixels that leave the picture never count.

    Returns:
        Mean absolute difference in the frames' own units; 0 where no pixel counts.
    """
    _same_shape(current, following)
    height, width = current.shape
    y, x = np.ogrid[0:height, 0:width]
    to_x, to_y = x + flow[..., 0], y + flow[..., 1]
    counts = (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)
    if visible is not None:
        counts &= visible
    if not counts.any():
        return 0.0
    if np.issubdtype(flow.dtype, np.integer):
        warped = following[to_y[counts], to_x[counts]].astype(np.float64)
        return float(np.abs(warped - current[counts]).mean())
    warped = _bilinear(following.astype(np.float64), to_x, to_y)
    return float(np.abs(warped - current.astype(np.float64))[counts].mean())


def _bilinear(picture: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    height, width = picture.shape
    left = np.clip(np.floor(x), 0, max(width - 2, 0)).astype(np.int64)
    top = np.clip(np.floor(y), 0, max(height - 2, 0)).astype(np.int64)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = np.clip(x - left, 0, 1), np.clip(y - top, 0, 1)
    upper = picture[top, left] * (1 - across) + picture[top, right] * across
    lower = picture[bottom, left] * (1 - across) + picture[bottom, right] * across
    result: FloatArray = upper * (1 - down) + lower * down
    return result


@dataclass(frozen=True)
class Pooled:
    """Per-frame values of a clip, pooled: the mean hides bad frames, the other two do not."""

    mean: float
    p5: float
    minimum: float
    count: int


def pool(values: Sequence[float]) -> Pooled:
    """Pool per-frame values; infinite PSNR (equal frames) counts as 100 dB.

    Raises:
        ValueError: No values.
    """
    if not values:
        raise ValueError("no values to pool")
    finite = np.minimum(np.asarray(values, np.float64), 100.0)
    return Pooled(float(finite.mean()), float(np.percentile(finite, 5)), float(finite.min()), len(values))


def _same_shape(first: Array, second: Array) -> None:
    if first.shape != second.shape:
        raise ValueError(f"the pictures differ in shape: {first.shape} and {second.shape}")
