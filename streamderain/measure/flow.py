"""Estimate motion between two frames, for flicker without ground-truth motion."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamderain import motion

_CELL_PX = 2
_FITS_CODES = 4.0
"""Where a clean pixel and the one it moves to differ by more codes than this, the motion is not trusted."""


def estimate_flow(current: NDArray[Any], following: NDArray[Any]) -> tuple[motion.Flow, NDArray[np.bool_]]:
    """Estimate the motion of a clean clip between two frames.

    It need not be right everywhere: pixels at which the clean clip itself does not fit are left out.

    Args:
        current: Luma of frame t, (height, width) uint8.
        following: Luma of frame t+1, same shape.

    Returns:
        The flow, (height, width, 2) px, as `metrics.warping_error` reads it; and where it can be trusted,
        (height, width).
    """
    height, width = current.shape
    small, next_small = (motion.coarse(picture, cell=_CELL_PX) for picture in (current, following))
    with motion.one_thread():
        forward = motion.flow(small, next_small, cell=_CELL_PX)
        backward = motion.flow(next_small, small, cell=_CELL_PX)
        warper = motion.Warper(width, height, cell=_CELL_PX)
        moved = warper.warp(np.ascontiguousarray(following), forward)
    fits = np.abs(moved.astype(np.int16) - current) <= _FITS_CODES
    trusted = motion.confidence(forward, backward, cell=_CELL_PX)
    return _of_pixels(forward)[:height, :width], fits & _of_pixels(trusted)[:height, :width]


def _of_pixels(cells: NDArray[Any]) -> NDArray[Any]:
    return cells.repeat(_CELL_PX, axis=0).repeat(_CELL_PX, axis=1)
