"""Make the built-in clip of the bench: a textured scene in rain, under a moving camera, as H.264."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamderain.measure.rain import known_rain

RATE_FPS = 30

_CRF = 23
_OCTAVES_PX = (4, 16, 64)
_SHIFT_PX = 2


def write_scene(path: Path, *, width: int, height: int, frames: int) -> None:
    """Write the clip; the same arguments always give the same pictures.

    Args:
        path: Where to; the extension chooses the container.
        width: Even, px.
        height: Even, px.
        frames: How many, 30 a second.

    Raises:
        EncodeError: It cannot be written.
    """
    from streamderain.media.arrays import ClipWriter  # pictures are drawn where there is no PyAV, too

    with ClipWriter(path, rate_fps=Fraction(RATE_FPS), crf=_CRF) as clip:
        for luma in rainy_scene(width=width, height=height, frames=frames):
            clip.write(luma)


def rainy_scene(*, width: int, height: int, frames: int) -> Iterator[NDArray[np.uint8]]:
    """Yield (height, width) studio-range luma."""
    scene = _scene(2 * width, height)
    rain = known_rain(width, height)
    for index in range(frames):
        left = _SHIFT_PX * index % width
        yield rain.apply_to_codes(scene[:, left : left + width], index).astype(np.uint8)


def _scene(width: int, height: int) -> NDArray[np.uint8]:
    """Return noise of several scales, as natural pictures have it."""
    rng = np.random.default_rng(0)
    picture = np.full((height, width), 110.0)
    for size in _OCTAVES_PX:
        noise = rng.standard_normal((height // size + 2, width // size + 2)) * size**0.5
        picture += 6 * noise.repeat(size, axis=0).repeat(size, axis=1)[:height, :width]
    scene: NDArray[np.uint8] = np.clip(picture, 16, 235).astype(np.uint8)
    return scene
