"""Copy planes into blocks and back: the pixel unshuffle around a core, folded into the copy.

A *block* is a square of `block` x `block` neighbouring codes. A plane of (height, width) becomes
(rows, columns, block * block): the codes of a block lie beside each other, row by row, which is the channel
order of `torch.pixel_unshuffle` in a channels-last layout. Moving a row of four 8-bit codes as one 32-bit
word makes this as quick as a plain copy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamderain.frame import Plane

_WORDS = {4: np.uint32, 8: np.uint64}


def padded(size: int, multiple: int) -> int:
    """Return `size` rounded up to a multiple of `multiple`."""
    return -(-size // multiple) * multiple


def to_blocks(plane: Plane, *, block: int, multiple: int, shift: int = 0) -> NDArray[Any]:
    """Copy a plane into blocks.

    Args:
        plane: (height, width) of `uint8` or `uint16` codes in any byte order and with any strides.
        block: Edge of a block in pixels.
        multiple: The plane is extended to a multiple of this many pixels, its last row and column repeated.
        shift: How far the codes are shifted left in their words.

    Returns:
        (rows, columns, block * block) in native byte order, contiguous.
    """
    height, width = plane.shape
    rows, columns = padded(height, multiple) // block, padded(width, multiple) // block
    native = plane.astype(plane.dtype.newbyteorder("="), copy=False)
    if shift:
        native = native >> shift
    if native.strides[1] != native.itemsize:
        native = np.ascontiguousarray(native)
    missing = (rows * block - height, columns * block - width)
    if any(missing):
        native = np.pad(native, ((0, missing[0]), (0, missing[1])), mode="edge")
    return _swap(native, (rows, block, columns), block).reshape(rows, columns, block * block)


def from_blocks(blocks: NDArray[Any], *, block: int, width: int, height: int, shift: int = 0) -> Plane:
    """Copy blocks back into a plane of (height, width); the reverse of `to_blocks`."""
    rows, columns = blocks.shape[:2]
    lines = blocks.reshape(rows, columns * block, block)
    plane = _swap(lines, (rows, columns, block), block).reshape(rows * block, columns * block)
    cropped = plane[:height, :width]
    return cropped << shift if shift else cropped


def _swap(array: NDArray[Any], shape: tuple[int, int, int], block: int) -> NDArray[Any]:
    """Swap the two inner axes of `shape`, whose elements are runs of `block` codes, into a new array."""
    word = _WORDS.get(array.itemsize * block)
    if word is None:
        return np.ascontiguousarray(array.reshape(*shape, block).swapaxes(1, 2))
    return np.ascontiguousarray(array.view(word).reshape(shape).swapaxes(1, 2)).view(array.dtype)
