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
        moving: Streaks of cameras that stood still, (frames, height, width) uint8 each: successive frames of
            a sample get successive ones.
        share_moving: Chance that a sample's rain is of these, where there are any.
    """

    def __init__(
        self,
        layers: Sequence[Codes],
        *,
        heavy: float,
        faintest: float = 0.1,
        black: float = 0.0,
        white: float = 1.0,
        moving: Sequence[Codes] = (),
        share_moving: float = 0.0,
    ) -> None:
        self._moving, self._share_moving = moving, share_moving if moving else 0.0
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
        # Nothing is drawn from the generator without such streaks: batches stay what they were.
        real = self._real_streaks(rng, clean) if self._share_moving else None
        for index, frame in enumerate(clean):
            size = frame.shape[-1]
            alpha = np.zeros((size, size), np.float32) if real is None else real[index]
            for layer, mirrored, gain in looks if real is None else ():
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

    def _real_streaks(self, rng: np.random.Generator, clean: FloatArray) -> FloatArray | None:
        """Return the opacity of successive frames of one real clip, or None."""
        if rng.random() >= self._share_moving:
            return None
        clip = pick(rng, self._moving)
        first = int(rng.integers(max(1, len(clip) - len(clean) + 1)))
        streaks = crop(rng, clip[first : first + len(clean)], clean.shape[-1])
        streaks = streaks[..., ::-1] if rng.random() < 0.5 else streaks
        return np.float32(rng.uniform(0.5, 1.5) / 255.0) * streaks


def _gain(rng: np.random.Generator, heavy: bool, faintest: float) -> float:
    return float(rng.uniform(0.4, 1.0) if heavy else np.exp(rng.uniform(np.log(faintest), np.log(0.95))))
