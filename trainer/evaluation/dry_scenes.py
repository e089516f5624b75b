"""Draw rain-free scenes in which a network that removes rain does harm most easily, the same every time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from trainer.data.crops import whole_codes
from trainer.data.scenery import add_moving_lights

Codes = NDArray[np.uint8]
FloatArray = NDArray[np.float32]

_HEIGHT, _WIDTH = 160, 256
_SCENES = 16
"""How many of each kind."""
_NOISE = 1.2 / 255
"""Standard deviation of a camera's noise, where there is some."""


def dry_scenes() -> Iterator[tuple[str, Codes]]:
    """Yield kinds of scenes and three frames of one, (3, height, width) uint8 studio-range luma.

    Flat areas of all levels, without noise and with it; gradients; skies that pan past with clouds; lights
    and lamps that pass at night; poles and lane marks that rush past by day; a text overlay over a pan.
    """
    for index in range(_SCENES):
        rng = np.random.default_rng([0xD27, index])
        level = np.float32(16 + 219 * index / (_SCENES - 1)) / 255
        flat = np.full((3, _HEIGHT, _WIDTH), level, np.float32)
        yield "flat", _codes(flat)
        yield "flat, noisy", _codes(flat + _noise(rng))
        yield "gradient", _codes(_gradient(rng) + _noise(rng) * (index % 2))
        yield "sky", _codes(_panned(rng, low=0.6, high=0.9, detail_px=12.0) + _noise(rng))
        night = _panned(rng, low=0.08, high=0.25, detail_px=3.0)
        yield "lights at night", _codes(add_moving_lights(rng, night) + _noise(rng))
        day = _panned(rng, low=0.2, high=0.7, detail_px=2.0)
        yield "poles and marks", _codes(add_moving_lights(rng, day) + _noise(rng))
        yield "text over a pan", _codes(_with_text(day) + _noise(rng))


def _codes(frames: FloatArray) -> Codes:
    return np.rint(255 * whole_codes(frames)).astype(np.uint8)


def _noise(rng: np.random.Generator) -> FloatArray:
    return np.float32(_NOISE) * rng.standard_normal((3, _HEIGHT, _WIDTH), dtype=np.float32)


def _gradient(rng: np.random.Generator) -> FloatArray:
    y, x = np.mgrid[-0.5 : 0.5 : _HEIGHT * 1j, -0.5 : 0.5 : _WIDTH * 1j].astype(np.float32)
    down, right = rng.uniform(-0.7, 0.7, 2).astype(np.float32)
    return np.repeat((np.float32(0.5) + down * y + right * x)[None], 3, axis=0)


def _panned(rng: np.random.Generator, *, low: float, high: float, detail_px: float) -> FloatArray:
    """Return three frames of a camera that pans over noise of one scale and all coarser ones."""
    speed = int(rng.integers(-14, 15))
    wide = np.zeros((_HEIGHT, _WIDTH + 2 * abs(speed)), np.float32)
    for scale in (detail_px, 3 * detail_px, 9 * detail_px):
        octave = ndimage.gaussian_filter(rng.standard_normal(wide.shape).astype(np.float32), scale)
        wide += octave / octave.std()
    wide = np.float32(low) + np.float32(high - low) * (wide - wide.min()) / np.float32(np.ptp(wide))
    places = (abs(speed) + step * speed for step in (-1, 0, 1))
    return np.stack([wide[:, left : left + _WIDTH] for left in places])


def _with_text(frames: FloatArray) -> FloatArray:
    """Return frames with bright strokes that stand still, as a recorder's clock does."""
    written = frames.copy()
    for number in range(14):
        left, top = 20 + 12 * number, 16
        written[:, top : top + 14, left : left + 2] = 0.92
        if number % 2:
            written[:, top : top + 2, left : left + 8] = 0.92
        if number % 3:
            written[:, top + 12 : top + 14, left : left + 8] = 0.92
    return written
