"""Estimate motion between two frames block by block, for flicker without ground-truth motion.

Phase correlation (Kuglin and Hines 1975): the peak of the inverse transform of the normalised cross spectrum
of two blocks lies at their shift. Coarse, but it need not be right everywhere: pixels at which the clean clip
itself does not fit are left out of the judgement.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 64
_FITS_CODES = 4.0
"""Where a clean pixel and the one it moves to differ by more codes than this, the motion is not trusted."""


def block_flow(current: NDArray[Any], following: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Estimate the motion of a clean clip between two frames.

    Args:
        current: Luma of frame t, (height, width) uint8.
        following: Luma of frame t+1, same shape.

    Returns:
        The flow, (height, width, 2) whole px, as `metrics.warping_error` reads it; and where it can be
        trusted, (height, width).
    """
    height, width = current.shape
    shifts = _shifts(_blocks(current), _blocks(following))
    whole = shifts.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)[:height, :width]
    still = np.zeros_like(whole)
    moved = _misfit(current, following, whole) < _misfit(current, following, still)
    flow = np.where(moved[..., None], whole, still)
    return flow, _misfit(current, following, flow) <= _FITS_CODES


def _blocks(picture: NDArray[Any]) -> NDArray[np.float32]:
    """(rows, columns, block, block), the last row and column extended by reflection."""
    height, width = picture.shape
    padding = ((0, -height % _BLOCK), (0, -width % _BLOCK))
    padded = np.pad(picture.astype(np.float32), padding, mode="symmetric")
    rows, columns = padded.shape[0] // _BLOCK, padded.shape[1] // _BLOCK
    return padded.reshape(rows, _BLOCK, columns, _BLOCK).swapaxes(1, 2)


def _shifts(current: NDArray[np.float32], following: NDArray[np.float32]) -> NDArray[np.int32]:
    """(rows, columns, 2) px in x and y."""
    window = np.outer(np.hanning(_BLOCK), np.hanning(_BLOCK)).astype(np.float32)
    before, after = (
        np.fft.rfft2((blocks - blocks.mean(axis=(2, 3), keepdims=True)) * window)
        for blocks in (current, following)
    )
    cross = after * before.conj()
    surface = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-6), s=(_BLOCK, _BLOCK))
    peaks = surface.reshape(*surface.shape[:2], -1).argmax(axis=2)
    y, x = np.divmod(peaks, _BLOCK)
    signed = (np.stack([x, y], axis=-1) + _BLOCK // 2) % _BLOCK - _BLOCK // 2
    return signed.astype(np.int32)


def _misfit(current: NDArray[Any], following: NDArray[Any], flow: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the absolute difference of each pixel and where it moves to; infinite where that is outside."""
    height, width = current.shape
    y, x = np.ogrid[0:height, 0:width]
    to_x, to_y = x + flow[..., 0], y + flow[..., 1]
    inside = (to_x >= 0) & (to_x < width) & (to_y >= 0) & (to_y < height)
    moved = following[to_y.clip(0, height - 1), to_x.clip(0, width - 1)]
    difference = np.abs(moved.astype(np.float32) - current)
    return np.where(inside, difference, np.float32(np.inf))
