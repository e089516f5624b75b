"""Detect scene cuts, so that no temporal window spans one."""

from __future__ import annotations

from collections import deque
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from streamderain.frame import Geometry, Lead, Plane
from streamderain.models import ModelCard

STEP_PX = 16
"""Every 16th sample of every 16th row: a few thousand samples decide as well as all of them."""

LEAST_CHANGE = 0.08
"""Mean absolute luma change, as a share of full scale, below which nothing is a cut."""

OUTLIER = 4.0
"""A cut changes the picture this many times as much as the frames around it do."""

SECOND = 1.5
"""And this many times as much as the second largest of the changes before it: what comes again and again, as
in video whose every third frame is new, is no cut."""

HISTORY = 6
"""So many changes before a frame tell what is usual; the largest of them may itself be a cut and does not
count. Whether a frame is a cut depends on this many frames and one more before it, and on nothing else."""


def lead_of(model: ModelCard) -> Lead:
    """Return how many frames around a piece decide what a model makes of it: its window, and scene cuts.

    Between a frame and its earliest neighbour a cut may lie, which is found by the `HISTORY` changes before
    it.
    """
    return Lead(model.before + HISTORY, model.after)


class CutDetector:
    """Compares each frame's luma with the one before, on a sparse grid.

    A frame starts a new scene when its mean absolute change is large and stands out from the changes before
    it: hard cuts do, fast motion and heavy rain do not. The first two frames start none: nothing tells what
        is
    usual.

    Args:
        geometry: What frames look like; only the depth is used.
    """

    def __init__(self, geometry: Geometry) -> None:
        self._top = float((2**geometry.bits - 1) << geometry.shift)
        self._last: NDArray[np.float32] | None = None
        self._changes: deque[float] = deque(maxlen=HISTORY)

    def is_cut(self, luma: Plane) -> bool:
        """Return whether this frame starts a new scene.

        Args:
            luma: (height, width) codes; any one component of an RGB frame serves as well.
        """
        sparse = luma[::STEP_PX, ::STEP_PX].astype(np.float32) / np.float32(self._top)
        last, self._last = self._last, sparse
        if last is None:
            return False
        change = float(np.abs(sparse - last).mean())
        cut = change > LEAST_CHANGE and self._stands_out(change)
        self._changes.append(change)
        return cut

    def _stands_out(self, change: float) -> bool:
        if not self._changes:
            return False
        usual = sorted(self._changes)[:-1] or list(self._changes)
        return change > OUTLIER * fmean(usual) and change > SECOND * usual[-1]
