"""Make clips of filmed footage: the demo clip scaled up, still or under a pan, rain drawn on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

import streamderain
from streamderain.measure.rain import known_rain
from streamderain.media.arrays import ClipWriter

_DEMO = Path(streamderain.__file__).parent / "assets" / "demo.mp4"
_RATE_FPS = 30
_CRF = 23
_ROOM = 1.5
"""How much wider and higher than the frames the footage is under a pan."""
_SWING_FRAMES = 60


def write_footage(path: Path, *, width: int, height: int, frames: int, pans: bool) -> None:
    """Write the clip; the same arguments always give the same pictures.

    Args:
        path: Where to; the extension chooses the container.
        width: Even, px.
        height: Even, px.
        frames: How many, 30 a second; the footage runs to and fro until there are enough.
        pans: Whether a camera swings over it, by up to a hundredth of the width a frame.
    """
    room = _ROOM if pans else 1.0
    across, down = round(room * width), round(room * height)
    rain = known_rain(width, height)
    with ClipWriter(path, rate_fps=Fraction(_RATE_FPS), crf=_CRF) as clip:
        for index, luma in enumerate(itertools.islice(_footage(across, down), frames)):
            swing = 0.5 + 0.5 * math.sin(2 * math.pi * index / _SWING_FRAMES)
            left, top = round(swing * (across - width)), round(0.3 * swing * (down - height))
            seen = luma[top : top + height, left : left + width]
            clip.write(rain.apply_to_codes(seen, index).astype(np.uint8))


def _footage(width: int, height: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the luma of the demo clip, scaled, to and fro without end."""
    with av.open(str(_DEMO)) as container:
        lumas: list[Any] = [
            frame.reformat(width, height, "gray").to_ndarray() for frame in container.decode(video=0)
        ]
    return itertools.cycle([*lumas, *lumas[-2:0:-1]])
