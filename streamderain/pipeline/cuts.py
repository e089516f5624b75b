"""Finds scene cuts, so that no temporal window spans one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamderain.frame import Geometry, Plane

STEP_PX = 16
"""Every 16th sample of every 16th row: a few thousand samples decide as well as all of them."""

LEAST_CHANGE = 0.08
"""Mean absolute luma change, as a share of full scale, below which nothing is a cut."""

OUTLIER = 4.0
"""A cut changes the picture this many times as much as the frames around it do."""

MEMORY = 0.9
"""How slowly the running mean of changes forgets."""


class CutDetector:
    """Compares each frame's luma with the one before, on a sparse grid.

    A frame starts a new scene when its mean absolute change is large and stands out from the recent changes:
    hard cuts do, fast motion and heavy rain do not.

    Args:
        geometry: What frames look like; only the depth is used.
    """

    def __init__(self, geometry: Geometry) -> None:
        self._top = float((2**geometry.bits - 1) << geometry.shift)
        self._last: NDArray[np.float32] | None = None
        self._usual: float | None = None

    def is_cut(self, luma: Plane) -> bool:
        """Whether this frame starts a new scene.

        Args:
            luma: (height, width) codes; any one component of an RGB frame serves as well.
        """
        sparse = luma[::STEP_PX, ::STEP_PX].astype(np.float32) / np.float32(self._top)
        last, self._last = self._last, sparse
        if last is None:
            return False
        change = float(np.abs(sparse - last).mean())
        usual = change if self._usual is None else self._usual
        cut = self._usual is not None and change > LEAST_CHANGE and change > OUTLIER * usual
        if not cut:
            self._usual = MEMORY * usual + (1 - MEMORY) * change
        return cut
