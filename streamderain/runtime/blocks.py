"""Copy planes into blocks and back: the pixel unshuffle around a core, folded into the copy.

A *block* is a square of `block` x `block` neighbouring codes. A plane of (height, width) becomes
(rows, columns, block * block): the codes of a block lie beside each other, row by row, which is the channel
order of `torch.pixel_unshuffle` in a channels-last layout. A row of a block moves as one word, and all rows
of all planes at once: OpenCV's merge is twice as quick as one copy after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2 as _cv2
import numpy as np
from numpy.typing import NDArray

from streamderain.frame import Plane

cv2: Any = _cv2
"""OpenCV's own annotations lack what is used here."""

_WORDS = {1: np.uint8, 2: np.uint16, 4: np.int32}
"""Types that OpenCV moves, by their bytes; wider words are runs of 64 bits."""


def padded(size: int, multiple: int) -> int:
    """Return `size` rounded up to a multiple of `multiple`."""
    return -(-size // multiple) * multiple


def extended(plane: Plane, multiple: int) -> Plane:
    """Return a plane whose edges are multiples of `multiple`, its last row and column repeated."""
    height, width = plane.shape
    missing = (padded(height, multiple) - height, padded(width, multiple) - width)
    return np.pad(plane, ((0, missing[0]), (0, missing[1])), mode="edge") if any(missing) else plane


def to_blocks(planes: Sequence[Plane], target: NDArray[Any], *, block: int) -> None:
    """Copy planes into blocks beside each other.

    Args:
        planes: Each (rows * block, columns * block), of one type in native byte order, rows contiguous.
        target: (rows, columns, planes * block * block) of the same type, contiguous.
        block: Edge of a block, px.
    """
    columns = target.shape[1]
    word = _WORDS.get(block * target.itemsize, np.float64)

    def words(lines: NDArray[Any]) -> NDArray[Any]:
        return lines.view(word).reshape(len(lines), columns, -1)

    lines = [words(plane[row::block]) for plane in planes for row in range(block)]
    whole = cv2.merge(lines, words(target.reshape(len(target), -1)))
    assert np.shares_memory(whole, target), "OpenCV takes the target where shape and type fit"


def from_blocks(blocks: NDArray[Any], *, block: int, width: int, height: int, shift: int = 0) -> Plane:
    """Copy the blocks of one plane back into a plane.

    Args:
        blocks: (rows, columns, block * block), contiguous.
        block: Edge of a block, px.
        width: Of the plane, px.
        height: Of the plane, px.
        shift: How far codes are shifted left in their words.

    Returns:
        (height, width).
    """
    rows, columns = blocks.shape[:2]
    word = _WORDS.get(block * blocks.itemsize, np.float64)
    lines = blocks.view(word).reshape(rows, columns, block, -1).swapaxes(1, 2)
    cropped = np.ascontiguousarray(lines).view(blocks.dtype).reshape(rows * block, -1)[:height, :width]
    return cropped << shift if shift else cropped


def block_means(blocks: Plane) -> NDArray[np.float32]:
    """Return the mean of each block.

    Args:
        blocks: (rows, columns, samples) `uint8`, `uint16` or `float32`, the last axis contiguous.

    Returns:
        (rows, columns) float32.
    """
    rows, columns, samples = blocks.shape
    # OpenCV sums bytes as whole numbers twice as fast as it sums them as floats.
    kind = cv2.CV_32S if blocks.dtype == np.uint8 else cv2.CV_32F
    sums = cv2.reduce(blocks.reshape(rows * columns, samples), 1, cv2.REDUCE_SUM, dtype=kind)
    return np.asarray(sums.reshape(rows, columns) * np.float32(1 / samples), np.float32)
