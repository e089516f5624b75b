"""Learn from rainy video that has no clean version: what frames around one agree on, and its streaks.

Rain is independent from frame to frame, the scene is not. So the frames two and three before and behind one,
aligned with it, tell what is behind its rain wherever they agree with most of it; and a camera that does not
move shows real streaks, frame after frame, above what it shows most of the time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamderain import motion

Codes = NDArray[np.uint8]
FloatArray = NDArray[np.float32]

TOLD_BY = (-3, -2, 2, 3)
"""The frames that tell, counted from the one in question. The next ones on both sides are what the network
sees, and low bit rates copy rain into them (H.264 skips blocks): a target made of them would teach to keep
rain."""

PATCH_PX = 32
AGREES = np.float32(0.03)
"""How far a pixel may lie from the target to agree with it, in luma code / 255."""

AGREEING = 0.8
"""Share of a patch's pixels that must agree: elsewhere the scene moved in a way that the flow does not know,
or it rains so hard that most of what is told is rain."""

DARKER_CODES = 8.0
"""Rain only brightens. Where a tenth of the frames is darker than half of them by more than this, something
else moves: leaves, cars, the camera."""

STILL = 0.5
"""A camera stands still where nothing else moves in at least this share of its picture."""

NOISE_CODES, NOISE_TIMES = 4.0, 1.5
"""What rises above the scene by no more is taken for noise, or by no more than so many times as the darkest
tenth lies below it."""

WHITE_CODE = 235


def agreed(window: Codes, *, cell: int) -> tuple[FloatArray, FloatArray]:
    """Return what frames around one agree on, and where that may be learned from.

    Args:
        window: (5, height, width) uint8 luma: the frames of `TOLD_BY` in order, the one in question in the
            middle.
        cell: Edge of a cell of the flow, px.

    Returns:
        The target, (height, width) in 0..1: the mean of the middle two of the four aligned frames. Where it
        is trusted, same shape, 0 or 1 for whole patches of `PATCH_PX`; what is left of a patch at the lower
        and right edge is not.
    """
    aligned = motion.align(window, cell=cell)
    middle = len(window) // 2
    told = np.sort(np.delete(aligned, middle, axis=0).astype(np.float32), axis=0)
    target = (told[1] + told[2]) * np.float32(0.5 / 255.0)
    agrees = np.abs(target - window[middle].astype(np.float32) / np.float32(255.0)) <= AGREES
    trusted = np.zeros(target.shape, np.float32)
    rows, columns = (size // PATCH_PX for size in target.shape)
    inner = (slice(rows * PATCH_PX), slice(columns * PATCH_PX))
    patches = agrees[inner].reshape(rows, PATCH_PX, columns, PATCH_PX).mean(axis=(1, 3)) >= AGREEING
    trusted[inner] = np.repeat(np.repeat(patches, PATCH_PX, 0), PATCH_PX, 1)
    return target, trusted


def moving_streaks(frames: Codes) -> Codes | None:
    """Return the streaks of a camera that stands still, or None where it moves.

    Args:
        frames: (frames, height, width) uint8 luma, at least 9 frames.

    Returns:
        Opacity 0..1 as 0..255, same shape: what must be laid over the scene in white to see what is seen.
    """
    # Of a long clip every so many frames: the scene is what most of them show.
    darkest, shown = np.percentile(frames[:: max(1, len(frames) // 64)], (10, 50), axis=0).astype(np.float32)
    spread = shown - darkest
    steady = spread <= DARKER_CODES
    if steady.mean() < STILL:
        return None
    least = np.where(steady, np.maximum(NOISE_CODES, NOISE_TIMES * spread), np.inf)
    room = np.maximum(WHITE_CODE - shown, 1.0)
    layers = np.empty(frames.shape, np.uint8)
    for layer, frame in zip(layers, frames, strict=True):
        above = frame - shown
        above[above <= least] = 0.0
        layer[:] = np.rint(255.0 * np.clip(above / room, 0.0, 1.0))
    return layers
