"""Estimate motion between luma planes, blind to rain streaks, and warp planes along it (OpenCV)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, reduce
from typing import Any

import cv2 as _cv2
import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint8]
Plane = NDArray[Any]
Flow = NDArray[np.float32]
"""(rows, columns, 2), x then y, px of the full plane: other(p + flow(p)) ~ current(p) at cells' centres."""

LEAST_CELLS = 16
"""Flow is sought where a plane has at least so many cells each way; smaller ones count as not moving."""

_STREAK_PX = 7
"""Bright things narrower than this, px, vanish before the flow looks: streaks move on their own."""

_PATCH_STRIDE, _STEPS = 5, 12
"""Of DIS (Kroeger et al., ECCV 2016). Variational refinement costs as much again and gains 0.1 dB."""

cv2: Any = _cv2
"""OpenCV's own annotations lack what is used here."""

_STRIP_CELLS = 16

_threads = threading.local()
_lock = threading.Lock()
_users = 0
_before = 0


def coarse(plane: Plane, *, cell: int, shift: int = 0) -> Codes:
    """Shrink a luma plane to what the flow looks at.

    Args:
        plane: (height, width) codes, `uint8`, `uint16` in native byte order, or `float32`.
        cell: Edge of a cell, px.
        shift: How many more bits than 8 the codes have.

    Returns:
        (ceil(height / cell), ceil(width / cell)) uint8, without streaks.
    """
    codes = _bytes(plane, shift)
    height, width = codes.shape
    rows, columns = -(-height // cell), -(-width // cell)
    if (rows * cell, columns * cell) != (height, width):
        codes = np.pad(codes, ((0, rows * cell - height), (0, columns * cell - width)), mode="edge")
    opened = cv2.morphologyEx(np.ascontiguousarray(codes), cv2.MORPH_OPEN, np.ones((1, _STREAK_PX), np.uint8))
    return np.asarray(cv2.resize(opened, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


def _bytes(plane: Plane, shift: int) -> Codes:
    if plane.dtype == np.uint8:
        return plane
    return (plane * np.float32(0.5**shift) if plane.dtype == np.float32 else plane >> shift).astype(np.uint8)


def flow(current: Codes, other: Codes, *, cell: int) -> Flow:
    """Estimate the flow between two planes; it depends on these two alone.

    Args:
        current: From `coarse`.
        other: The same of the other frame.
        cell: Edge of a cell, px.

    Returns:
        (rows, columns, 2) float32, px of the full plane; zeros where planes are too small.
    """
    if min(current.shape) < LEAST_CELLS:
        return np.zeros((*current.shape, 2), np.float32)
    found: Flow = _estimator().calc(current, other, None)
    found *= np.float32(cell)
    return found


def inverse(vectors: Flow, *, cell: int) -> Flow:
    """Turn the flow from one plane to another into that from the other to the one.

    The inverse at p is minus the flow at the place that comes to p: one step of fixed-point iteration, more
    gain nothing. It costs a tenth of a second search, and aligns nearly as well (docs/experiments.md).

    Args:
        vectors: (rows, columns, 2), px of the full plane.
        cell: Edge of a cell, px.

    Returns:
        The same shape.
    """
    back = -vectors
    return np.asarray(_remapped(back, back / np.float32(cell)), np.float32)


def _estimator() -> Any:
    """Return this thread's own: one is not to be used by two threads at a time."""
    if not hasattr(_threads, "estimator"):
        estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        estimator.setFinestScale(0)
        estimator.setPatchStride(_PATCH_STRIDE)
        estimator.setGradientDescentIterations(_STEPS)
        estimator.setVariationalRefinementIterations(0)
        _threads.estimator = estimator
    return _threads.estimator


class Warper:
    """Warps planes of one size along flows; its memory is made once, and belongs to one thread at a time.

    All pixels of a cell move alike: between cells there is less than the vectors' own error. Vectors for
    every pixel would fill eight times a plane's memory, so they are made for a few rows of cells at a time.

    Args:
        width: Of the planes, px.
        height: Of the planes, px.
        cell: Edge of a cell of the flow, px.
    """

    def __init__(self, width: int, height: int, *, cell: int) -> None:
        self._width, self._height, self._cell = width, height, cell
        self._strip = np.empty((_STRIP_CELLS * cell, -(-width // cell) * cell, 2), np.float32)

    def warp(self, plane: Plane, vectors: Flow, target: Plane | None = None) -> Plane:
        """Warp a plane: the result at p is the plane at p + flow(p), bilinear, borders clamped.

        Args:
            plane: (height, width) `uint8`, `uint16` or `float32`, native byte order.
            vectors: (rows, columns, 2), px of the full plane.
            target: Where to; made where None.
        """
        warped = np.empty_like(plane) if target is None else target
        for row in range(0, len(vectors), _STRIP_CELLS):
            top = row * self._cell
            bottom = min(top + len(self._strip), self._height)
            # OpenCV adds a strip's own coordinates: its first row has number 0.
            from_top = vectors[row : row + _STRIP_CELLS] + np.array([0, top], np.float32)
            whole = self._strip[: len(from_top) * self._cell]
            cv2.resize(from_top, whole.shape[1::-1], dst=whole, interpolation=cv2.INTER_NEAREST)
            _remapped(plane, whole[: bottom - top, : self._width], warped[top:bottom])
        return warped


def _remapped(plane: Plane, vectors: Flow, target: Plane | None = None) -> Plane:
    how = cv2.INTER_LINEAR | cv2.WARP_RELATIVE_MAP
    return np.asarray(cv2.remap(plane, vectors, None, how, target, borderMode=cv2.BORDER_REPLICATE))


def confidence(forward: Flow, backward: Flow, *, cell: int, tolerance_px: float = 1.5) -> NDArray[np.bool_]:
    """Tell where two opposite flows agree: there and back again is where one began.

    Args:
        forward: (rows, columns, 2), from the current frame to the other.
        backward: From the other frame to the current one.
        cell: Edge of a cell, px.
        tolerance_px: How far one may end from where one began.

    Returns:
        (rows, columns), False also where the flow leads outside.
    """
    rows, columns = forward.shape[:2]
    x, y = np.meshgrid(np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32))
    at_x, at_y = x + forward[..., 0] / cell, y + forward[..., 1] / cell
    back = cv2.remap(backward, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    off = np.hypot(forward[..., 0] + back[..., 0], forward[..., 1] + back[..., 1])
    inside = (at_x >= 0) & (at_x <= columns - 1) & (at_y >= 0) & (at_y <= rows - 1)
    trusted: NDArray[np.bool_] = inside & (off <= tolerance_px)
    return trusted


def align(window: Codes, *, cell: int) -> Codes:
    """Warp the frames of a window onto its middle one.

    Args:
        window: (frames, height, width) uint8 luma; not changed.
        cell: Edge of a cell of the flow, px.

    Returns:
        A new array of the same shape.
    """
    middle = len(window) // 2
    small = [coarse(frame, cell=cell) for frame in window]
    warper = Warper(window.shape[2], window.shape[1], cell=cell)
    aligned = window.copy()
    for index, frame in enumerate(window):
        if index != middle:
            older, newer = sorted((index, middle))
            onward = flow(small[older], small[newer], cell=cell)
            vectors = onward if index > middle else inverse(onward, cell=cell)
            warper.warp(np.ascontiguousarray(frame), vectors, aligned[index])
    return aligned


def differences(current: Plane, neighbours: Sequence[Plane]) -> tuple[Plane, Plane, Plane]:
    """Compare a plane with what its neighbours show at the same place.

    Args:
        current: (height, width) `uint8`, `uint16` or `float32`.
        neighbours: One or more of the same, aligned.

    Returns:
        Excess, by how much it is brighter than all of them, rest, by how much it is brighter than the darkest
        beyond that, and deficit, by how much it is darker than all, of the same type, never negative.
    """
    # Results take the place of what they are made of: a frame's planes are not small.
    brightest, darkest = (reduce(what, neighbours[1:], neighbours[0].copy()) for what in (cv2.max, cv2.min))
    above = _above(current, darkest)
    excess = _above(current, brightest, into=brightest)
    return excess, cv2.subtract(above, excess, above), _above(darkest, current, into=darkest)


def _above(one: Plane, other: Plane, into: Plane | None = None) -> Plane:
    difference = cv2.subtract(one, other, into)  # integers stop at 0 by themselves
    return np.asarray(cv2.max(difference, 0.0, difference) if difference.dtype == np.float32 else difference)


def means_around(plane: NDArray[np.float32], edge: int) -> NDArray[np.float32]:
    """Return the mean over a square around each sample; squares end at the plane's borders.

    Args:
        plane: (rows, columns).
        edge: Edge of the squares, an odd number of samples.

    Returns:
        The same shape.
    """
    rows, columns = plane.shape
    return _sums_around(plane, edge) * _shares_around(rows, columns, edge)


def _sums_around(plane: NDArray[np.float32], edge: int) -> NDArray[np.float32]:
    sums = cv2.boxFilter(plane, -1, (edge, edge), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(sums, np.float32)


@lru_cache(maxsize=16)
def _shares_around(rows: int, columns: int, edge: int) -> NDArray[np.float32]:
    """Return one divided by how many samples lie in each square."""
    return np.float32(1) / _sums_around(np.ones((rows, columns), np.float32), edge)


@contextmanager
def one_thread() -> Iterator[None]:
    """Have OpenCV compute on the calling thread alone inside the block, for the whole process.

    Callers bring threads of their own, and OpenCV's would fight with them. What the process had set before
    the first block comes back after the last one. The flow is the same at any number.
    """
    global _users, _before
    with _lock:
        if not _users:
            _before = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                cv2.setNumThreads(_before)
