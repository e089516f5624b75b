"""Draw rain on training crops from streak layers: a fresh crop of a layer for every frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamderain.measure.rain import composite
from trainer.data.crops import crop, pick, whole_codes

Codes = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


class RainDrawer:
    """Draws rain of one look on the frames of a sample, independent from frame to frame.

    Args:
        layers: Streak layers, (height, width) uint8 each: opacity 0..1 as 0..255.
        heavy: Chance of heavy rain of several directions, in 0..1.
        faintest: Least opacity of the brightest streaks, in 0..0.9.
        black: The pictures' black, in 0..1.
        white: The pictures' white, in 0..1.
    """

    def __init__(
        self,
        layers: Sequence[Codes],
        *,
        heavy: float,
        faintest: float = 0.1,
        black: float = 0.0,
        white: float = 1.0,
    ) -> None:
        self._layers, self._heavy, self._faintest = layers, heavy, faintest
        self._black, self._white = black, white

    def draw(self, rng: np.random.Generator, clean: FloatArray) -> FloatArray:
        """Rain on every frame.

        Args:
            rng: Decides everything.
            clean: (frames, height, width) or (frames, channels, height, width), square frames, in 0..1.

        Returns:
            Same shape, rounded to whole 8-bit codes.
        """
        heavy = rng.random() < self._heavy
        layers = [
            pick(rng, self._layers)
            for _ in range(int(rng.integers(2, 6)) if heavy else 1 + (rng.random() < 0.25))
        ]
        looks = [(layer, bool(rng.random() < 0.5), _gain(rng, heavy, self._faintest)) for layer in layers]
        light, screen = rng.uniform(0.65, 1.0), rng.choice([0.0, 1.0, rng.random()])
        noise = rng.choice([0.0, 0.0, rng.uniform(0.0, 0.012)])
        rainy = np.empty_like(clean)
        for index, frame in enumerate(clean):
            size = frame.shape[-1]
            alpha = np.zeros((size, size), np.float32)
            for layer, mirrored, gain in looks:
                streaks = crop(rng, layer, size)
                streaks = streaks[:, ::-1] if mirrored else streaks
                alpha += np.float32(gain * rng.uniform(0.85, 1.15) / 255.0) * streaks
            mixed = composite(
                frame,
                np.minimum(alpha, 1.0),
                light=light,
                screen=screen,
                black=self._black,
                white=self._white,
            )
            if noise:
                mixed = mixed + np.float32(noise) * rng.standard_normal(mixed.shape, dtype=np.float32)
            rainy[index] = mixed
        return whole_codes(rainy)


def _gain(rng: np.random.Generator, heavy: bool, faintest: float) -> float:
    return float(rng.uniform(0.4, 1.0) if heavy else np.exp(rng.uniform(np.log(faintest), np.log(0.95))))
