"""Draw bright moving things (poles, lane marks, lamps) that a network must not take for rain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def add_moving_lights(rng: np.random.Generator, window: FloatArray) -> FloatArray:
    """Draw bright bars and spots that pass through consecutive frames.

    At every place they cross they are brighter than both neighbouring frames, as rain is; what tells them
    apart is that they are there in the neighbours too, moved. Rain is drawn over them afterwards.

    Args:
        rng: Decides all.
        window: (frames, height, width), float in 0..1; not changed.

    Returns:
        A new array of the same shape.
    """
    frames, height, width = window.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    result = window.copy()
    speed = _speed(rng)
    for _ in range(int(rng.integers(1, 5))):
        centre = rng.uniform((0, 0), (height, width))
        own = speed * rng.uniform(0.8, 1.25)
        light = rng.uniform(0.5, 0.92)
        opacity = rng.uniform(0.5, 1.0)
        shape = _spot(rng) if rng.random() < 0.35 else _bar(rng)
        for index in range(frames):
            at = centre + own * (index - frames // 2)
            alpha = np.float32(opacity) * _coverage(y - at[0], x - at[1], *shape)
            result[index] += alpha * np.maximum(np.float32(light) - result[index], 0.0)
    return result


def _speed(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return pixels per frame, (down, right): mostly sideways, as scenery passes a camera."""
    return np.array([rng.normal(0.0, 3.0), rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 24.0)])


def _bar(rng: np.random.Generator) -> tuple[float, float, float]:
    angle = rng.normal(0.0, 0.15) if rng.random() < 0.75 else rng.uniform(-1.6, 1.6)
    return float(np.exp(rng.uniform(np.log(12.0), np.log(160.0)))), float(rng.uniform(1.2, 9.0)), float(angle)


def _spot(rng: np.random.Generator) -> tuple[float, float, float]:
    size = float(np.exp(rng.uniform(np.log(2.0), np.log(16.0))))
    return size, size, 0.0


def _coverage(down: FloatArray, right: FloatArray, length: float, breadth: float, angle: float) -> FloatArray:
    """Return how much of each pixel a bar of `length` by `breadth` px covers, `angle` from vertical."""
    along = np.cos(angle) * down + np.sin(angle) * right
    across = np.cos(angle) * right - np.sin(angle) * down
    inside = np.clip(length / 2 + 0.5 - np.abs(along), 0.0, 1.0)
    covered: FloatArray = inside * np.clip(breadth / 2 + 0.5 - np.abs(across), 0.0, 1.0)
    return covered
