"""Read pictures that hold the rainy and the clean side in one file, as Rain800 and DID-MDN do.

Which half is the rainy one differs between copies of the same set, and it is written nowhere. Rain adds
light: measured on 137 pairs of four sets, the rainy picture was the brighter one in every pair. So the halves
are compared over many pictures of the folder, and a vote that is not clear is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamderain.errors import OpenError
from trainer.data.pictures import Codes, read_rgb

FloatArray = NDArray[np.float64]
Half = Literal["left", "right"]

_LOOKED_AT = 25
_CORRELATION = 0.5
"""Median over the pictures, of the differences between rows, where falling rain shows least. Measured: 0.78
to 0.98 in four sets of pairs (0.38 in the worst picture), 0.00 to 0.03 in five sets of ordinary pictures."""
_SAME_CODES = 1.0
"""Mean difference of two copies of one picture: Rain800's test_nature has no clean side."""
_CLEAR_VOTE = 0.8


def rainy_half(paths: Sequence[Path]) -> Half | None:
    """Return which half of a folder's pictures is the rainy one.

    Args:
        paths: Pictures of one folder; some of them, evenly spaced, are looked at.

    Returns:
        None where the pictures are not joined: their halves are no pairs.

    Raises:
        OpenError: The pictures are joined but it cannot be told which half is rainy.
    """
    seen = paths[:: -(-len(paths) // _LOOKED_AT)] if paths else []
    pairs = [_halves(rgb) for rgb in map(read_rgb, seen) if rgb.shape[1] % 2 == 0]
    if not pairs or not _are_pairs(pairs):
        return None
    left_share = float(np.mean([left.mean() > right.mean() for left, right in pairs]))
    if 1 - _CLEAR_VOTE < left_share < _CLEAR_VOTE:
        raise OpenError(
            f"{paths[0].parent} holds joined pictures, but the left half is brighter in {left_share:.0%} of "
            "them only, so the rainy side cannot be told; split them into input/ and target/"
        )
    return "left" if left_share > 0.5 else "right"


def halves(rgb: Codes, path: Path) -> tuple[Codes, Codes]:
    """Return the left and right half of a joined picture.

    Args:
        rgb: (height, width, 3) uint8.
        path: Where it came from, for the error.

    Raises:
        OpenError: The width is odd.
    """
    if rgb.shape[1] % 2:
        raise OpenError(f"{path} is {rgb.shape[1]} px wide: no joined picture; remove or replace it")
    return _halves(rgb)


def _halves(rgb: Codes) -> tuple[Codes, Codes]:
    middle = rgb.shape[1] // 2
    return rgb[:, :middle], rgb[:, middle:]


def _are_pairs(pairs: Sequence[tuple[Codes, Codes]]) -> bool:
    grays = [(left.mean(axis=2), right.mean(axis=2)) for left, right in pairs]
    apart = np.median([np.abs(left - right).mean() for left, right in grays])
    alike = np.median([_correlation(np.diff(left, axis=0), np.diff(right, axis=0)) for left, right in grays])
    return bool(alike > _CORRELATION and apart > _SAME_CODES)


def _correlation(left: FloatArray, right: FloatArray) -> float:
    if left.size == 0 or left.std() == 0 or right.std() == 0:
        return 0.0
    return float(np.corrcoef(left.ravel(), right.ravel())[0, 1])
