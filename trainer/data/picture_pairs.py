"""Make supervised batches for networks of RGB: single rainy pictures, and the same without rain.

A batch is a pure function of (library, configuration, step), as in `trainer.data.paired`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.config import DataConfig
from trainer.data import pictures
from trainer.data.crops import Mixture, crop, pick, relit, unit, whole_codes
from trainer.data.drawn_rain import RainDrawer
from trainer.data.library import Library

Codes = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class PictureBatch:
    """Input and target of one step of a network of RGB.

    Attributes:
        rainy: (N, 3, crop, crop) float32, full-range R, G, B in 0..1.
        target: Same shape.
    """

    rainy: FloatArray
    target: FloatArray


class PicturePairMaker:
    """Draws batches from a library of pictures in RGB.

    Args:
        library: Where the samples come from; see `trainer.data.library.open_library`.
        config: Shares and crop size. The shares of stills, pairs, rain-free and flat pictures count.
        batch: Samples per step.
        seed: Seed of all batches.
    """

    def __init__(self, library: Library, config: DataConfig, *, batch: int, seed: int) -> None:
        self._library, self._config, self._batch, self._seed = library, config, batch, seed
        self._stills, self._rainy = library.of_kind("still"), library.of_kind("rainy")
        self._rain = RainDrawer(library.arrays("layer"), heavy=config.heavy)
        kinds = [
            (config.share_still, self._stills, self._still),
            (config.share_pair, self._rainy, self._pair),
            (config.share_dry, self._stills, self._dry),
            (config.share_flat, self._stills, self._flat),
        ]
        self._mixture = Mixture(kinds)

    @property
    def counts(self) -> dict[str, int]:
        """How many arrays of each kind the library holds."""
        return self._library.counts()

    def batch(self, step: int, *, part: int = 0, parts: int = 1) -> PictureBatch:
        """Return one part of a step's batch, the same whenever it is asked for.

        Args:
            step: Number of the step.
            part: Which part, from 0.
            parts: How many parts the batch is worked through in; they share its samples evenly.
        """
        rng = np.random.default_rng([self._seed, step, 0x7270, part])
        samples = [self._sample(rng) for _ in range(self._batch // parts)]
        return PictureBatch(*(np.stack(side) for side in zip(*samples, strict=True)))

    def _sample(self, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        both = np.stack(self._mixture.draw(rng))
        for axis, chance in ((3, 0.5), (2, 0.15)):
            if rng.random() < chance:
                both = np.flip(both, axis)
        if rng.random() < self._config.quarter_turn:
            both = np.rot90(both, int(rng.choice([1, 3])), (2, 3))
        rainy, target = np.ascontiguousarray(both)
        return rainy, target

    def _still(self, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        clean = self._clean(rng)
        rainy = self._rain.draw(rng, clean[None])[0]
        if rng.random() < 0.4:
            codes = np.rint(255.0 * rainy).astype(np.uint8).transpose(1, 2, 0)
            coded = pictures.through_jpeg(codes, quality=int(rng.integers(60, 97)))
            rainy = unit(coded.transpose(2, 0, 1))
        return rainy, clean

    def _pair(self, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        entry = pick(rng, self._rainy)
        pair = [self._library.array(e) for e in (entry, self._library.entries[entry.partner])]
        rainy, clean = unit(crop(rng, np.stack(pair), self._config.crop_px))
        return rainy, clean

    def _dry(self, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        clean = self._clean(rng)
        return clean, clean

    def _flat(self, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return a flat area or a gradient of one colour, sometimes noisy."""
        size = self._config.crop_px
        y, x = np.mgrid[0:size, 0:size].astype(np.float32) / np.float32(size) - np.float32(0.5)
        slope = rng.uniform(-0.3, 0.3, 2) * (rng.random() < 0.6)
        level = rng.uniform(0.0, 1.0, (3, 1, 1)) + slope[0] * y + slope[1] * x
        noise = rng.uniform(0.0, 0.01) * (rng.random() < 0.5)
        flat = whole_codes((level + noise * rng.standard_normal((3, size, size))).astype(np.float32))
        return flat, flat

    def _clean(self, rng: np.random.Generator) -> FloatArray:
        """Return a crop of a still, most often of other gain and gamma, sometimes towards night."""
        clean = unit(crop(rng, self._library.array(pick(rng, self._stills)), self._config.crop_px))
        if rng.random() < 0.4:
            return clean
        return whole_codes(relit(rng, clean))
