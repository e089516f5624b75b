"""Make supervised batches: rainy three-frame windows with missing neighbours, and clean middle frames.

A batch is a pure function of (library, configuration, step): nothing is carried from one to the next, so a
resumed run sees exactly the batches that an uninterrupted one would.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamderain import motion
from streamderain.measure.rain import composite
from trainer.config import DataConfig
from trainer.data import pictures
from trainer.data.crops import Mixture, at_least, crop, pick, relit, unit, whole_codes
from trainer.data.drawn_rain import RainDrawer
from trainer.data.library import Library
from trainer.data.real_rain import TOLD_BY, agreed
from trainer.data.scenery import add_moving_lights

Codes = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
_BLACK, _WHITE = 16.0 / 255.0, 235.0 / 255.0
_REACH = max(map(abs, TOLD_BY))
_PAN_MARGIN_PX = 40
"""The widest pan and zoom stay inside the picture."""


@dataclass(frozen=True)
class Batch:
    """Input and target of one step of a network of luma.

    Attributes:
        window: (N, 3, crop, crop) float32, studio-range luma code / 255, frames t-1, t, t+1, the outer ones
            warped onto the middle one.
        validity: (N, 2) float32, 0 where the neighbour is missing and a copy of the middle frame.
        target: (N, 1, crop, crop) float32.
        trusted: (N, 1, crop, crop) float32, 0 where the target tells nothing; None where all of it does.
    """

    window: FloatArray
    validity: FloatArray
    target: FloatArray
    trusted: FloatArray | None = None


@dataclass
class _Sample:
    window: FloatArray
    target: FloatArray
    has_neighbours: bool
    trusted: FloatArray | None = None


class BatchMaker:
    """Draws batches from a library.

    Args:
        library: Where the samples come from.
        config: Shares and crop size.
        batch: Samples per step.
        seed: Seed of all batches.
        pseudo: Pairs and layers of `trainer.run.pseudo`.
    """

    def __init__(
        self, library: Library, config: DataConfig, *, batch: int, seed: int, pseudo: Library | None = None
    ) -> None:
        self._library, self._config, self._batch, self._seed = library, config, batch, seed
        self._pseudo = pseudo
        self._size = config.crop_px + 2 * config.margin_px
        self._clips = library.of_kind("clip")
        self._coded = library.of_kind("coded")
        self._stills = library.of_kind("still")
        self._rainy = library.of_kind("rainy")
        self._layers = library.arrays("layer") + (pseudo.arrays("layer") if pseudo else [])
        pseudo_rainy = pseudo.of_kind("rainy") if pseudo else []
        self._reals = [entry for entry in library.of_kind("real") if entry.shape[0] > 2 * _REACH]
        streaks = [library.array(entry) for entry in library.of_kind("moving layer")]
        self._rain = RainDrawer(
            self._layers,
            heavy=config.heavy,
            black=_BLACK,
            white=_WHITE,
            moving=streaks,
            share_moving=config.real_streaks,
        )
        kinds = [
            (config.share_clip, self._clips, self._clip),
            (config.share_coded, self._coded, self._coded_clip),
            (config.share_moving_still, self._stills, self._moving_still),
            (config.share_still, self._stills, self._still),
            (config.share_pair, self._rainy, self._pair),
            (config.share_pseudo, pseudo_rainy, self._pseudo_pair),
            (config.share_dry, self._clips + self._stills, self._dry),
            (config.share_flat, self._clips + self._stills, self._flat),
            (config.share_real, self._reals, self._real),
        ]
        self._mixture = Mixture(kinds)

    @property
    def counts(self) -> dict[str, int]:
        """How many arrays of each kind the library holds."""
        return self._library.counts()

    def batch(self, step: int, *, part: int = 0, parts: int = 1) -> Batch:
        """Return one part of a step's batch, the same whenever it is asked for.

        Args:
            step: Number of the step.
            part: Which part, from 0.
            parts: How many parts the batch is worked through in; they share its samples evenly.
        """
        with motion.one_thread():
            return self._made(np.random.default_rng([self._seed, step, 0x62, part]), self._batch // parts)

    def _made(self, rng: np.random.Generator, count: int) -> Batch:
        samples = [self._sample(rng) for _ in range(count)]
        for sample, other in itertools.pairwise(samples):
            if sample.has_neighbours and rng.random() < self._config.strange_neighbour:
                # A cut that nobody noticed: the neighbour is there, but shows something else.
                sample.window = np.array(sample.window)
                sample.window[int(rng.choice([0, 2]))] = other.window[1]
        validity = np.stack([_drop_neighbours(rng, s, self._config.drop_neighbour) for s in samples])
        inner = slice(self._config.margin_px, self._config.margin_px + self._config.crop_px)
        windows = [self._aligned(rng, sample, valid) for sample, valid in zip(samples, validity, strict=True)]
        return Batch(
            np.stack([window[:, inner, inner] for window in windows]),
            validity,
            np.stack([sample.target[None, inner, inner] for sample in samples]),
            _trusted(samples, inner),
        )

    def _aligned(self, rng: np.random.Generator, sample: _Sample, validity: FloatArray) -> FloatArray:
        """Return the window as a session hands it to the core."""
        cell = int(rng.choice(self._config.cells_px))
        if not validity.any():
            return sample.window
        return unit(motion.align(np.rint(255.0 * sample.window).astype(np.uint8), cell=cell))

    def _sample(self, rng: np.random.Generator) -> _Sample:
        sample = self._mixture.draw(rng)
        for axis, chance in ((2, 0.5), (1, 0.15)):
            if rng.random() < chance:
                sample.window = np.flip(sample.window, axis)
                sample.target = np.flip(sample.target, axis - 1)
                if sample.trusted is not None:
                    sample.trusted = np.flip(sample.trusted, axis - 1)
        if rng.random() < self._config.quarter_turn:
            turns = int(rng.choice([1, 3]))
            sample.window = np.rot90(sample.window, turns, (1, 2))
            sample.target = np.rot90(sample.target, turns)
            if sample.trusted is not None:
                sample.trusted = np.rot90(sample.trusted, turns)
        return sample

    def _clip(self, rng: np.random.Generator) -> _Sample:
        clean = self._clip_window(rng)
        clean = self._relight(rng, clean)
        if rng.random() < 0.08:
            clean = self._with_fixed_streaks(rng, clean)
        return _Sample(self._rain.draw(rng, clean), clean[1], has_neighbours=True)

    def _coded_clip(self, rng: np.random.Generator) -> _Sample:
        entry = pick(rng, self._coded)
        coded, clean = self._library.array(entry), self._library.array(self._library.entries[entry.partner])
        middle = int(rng.integers(1, len(coded) - 1))
        frames = np.stack([*coded[middle - 1 : middle + 2], clean[entry.start + middle]])
        *window, target = unit(self._crop(rng, frames))
        if rng.random() < 0.5:
            window.reverse()
        return _Sample(np.stack(window), target, has_neighbours=True)

    def _moving_still(self, rng: np.random.Generator) -> _Sample:
        panned = self._panned(rng)
        clean = self._relight(rng, self._with_moving_lights(rng, panned))
        return _Sample(self._rain.draw(rng, clean), clean[1], has_neighbours=True)

    def _still(self, rng: np.random.Generator) -> _Sample:
        clean = self._relight(rng, unit(self._crop(rng, self._still_picture(rng)))[None])
        rainy = self._rain.draw(rng, clean)
        if rng.random() < 0.4:
            codes = np.rint(255.0 * rainy[0]).astype(np.uint8)
            rainy = unit(pictures.through_jpeg(codes, quality=int(rng.integers(60, 97))))[None]
        return _Sample(np.repeat(rainy, 3, 0), clean[0], has_neighbours=False)

    def _pair(self, rng: np.random.Generator) -> _Sample:
        return self._of_pairs(rng, self._library)

    def _pseudo_pair(self, rng: np.random.Generator) -> _Sample:
        assert self._pseudo is not None
        return self._of_pairs(rng, self._pseudo)

    def _of_pairs(self, rng: np.random.Generator, library: Library) -> _Sample:
        entry = pick(rng, library.of_kind("rainy"))
        rainy, clean = library.array(entry)[0], library.array(library.entries[entry.partner])[0]
        both = self._crop(rng, np.stack([rainy, clean]))
        return _Sample(np.repeat(unit(both[:1]), 3, 0), unit(both[1]), has_neighbours=False)

    def _dry(self, rng: np.random.Generator) -> _Sample:
        """Return rain-free input whose target is itself: what must not be harmed."""
        if self._clips and (not self._stills or rng.random() < 0.7):
            window = self._relight(rng, self._clip_window(rng))
            if rng.random() < 0.3:
                window = self._with_fixed_streaks(rng, window)
            return _Sample(window, window[1], has_neighbours=True)
        picture = self._still_picture(rng)
        if rng.random() < 0.5:
            window = whole_codes(self._panned(rng))
            return _Sample(window, window[1], has_neighbours=True)
        still = unit(self._crop(rng, picture))
        return _Sample(np.repeat(still[None], 3, 0), still, has_neighbours=False)

    def _real(self, rng: np.random.Generator) -> _Sample:
        """Return rain that fell, and what the frames around agree on: none of them is seen by the network."""
        clip = self._library.array(pick(rng, self._reals))
        middle = int(rng.integers(_REACH, len(clip) - _REACH))
        told = (*TOLD_BY[:2], 0, *TOLD_BY[2:])
        frames = self._crop(rng, np.stack([clip[middle + offset] for offset in (*told, -1, 1)]))
        target, trusted = agreed(frames[: len(told)], cell=min(self._config.cells_px))
        window = unit(frames[[-2, len(told) // 2, -1]])
        if rng.random() < 0.5:
            window = window[::-1]
        return _Sample(window, target, has_neighbours=True, trusted=trusted)

    def _flat(self, rng: np.random.Generator) -> _Sample:
        """Return a flat area or a gradient, still or noisy, where nothing may be taken."""
        size = self._size
        y, x = np.mgrid[0:size, 0:size].astype(np.float32) / np.float32(size) - np.float32(0.5)
        slope = rng.uniform(-0.3, 0.3, 2) * (rng.random() < 0.6)
        level = rng.uniform(_BLACK, _WHITE) + np.float32(slope[0]) * y + np.float32(slope[1]) * x
        noise = rng.uniform(0.0, 0.01) * (rng.random() < 0.5)
        frames = level + np.float32(noise) * rng.standard_normal((3, size, size), dtype=np.float32)
        window = whole_codes(np.clip(frames, 0.0, 1.0).astype(np.float32))
        return _Sample(window, window[1], has_neighbours=bool(rng.random() < 0.7))

    def _panned(self, rng: np.random.Generator) -> FloatArray:
        """Return three frames of a moving camera over a still, sometimes with a nearer layer of another."""
        size = self._size
        window = _pan(self._still_picture(rng), _Move.drawn(rng), size)
        if rng.random() >= self._config.parallax:
            return window
        move = _Move.drawn(rng, faster=2.0)
        near, shape = (_pan(self._still_picture(rng), move, size) for _ in range(2))
        mask = shape > np.quantile(shape[1], rng.uniform(0.5, 0.85))
        return np.where(mask, near, window)

    def _clip_window(self, rng: np.random.Generator) -> FloatArray:
        clip = self._library.array(pick(rng, self._clips))
        stride = int(rng.choice(self._config.strides))
        stride = min(stride, (len(clip) - 1) // 2)
        middle = int(rng.integers(stride, len(clip) - stride))
        order = [middle - stride, middle, middle + stride]
        if rng.random() < 0.5:
            order.reverse()
        window = self._crop(rng, np.stack([clip[i] for i in order]))
        return self._with_moving_lights(rng, unit(window))

    def _still_picture(self, rng: np.random.Generator) -> Codes:
        picture = self._library.array(pick(rng, self._stills))[0]
        return at_least(picture, self._size + 2 * _PAN_MARGIN_PX)

    def _crop(self, rng: np.random.Generator, pictures: Codes) -> Codes:
        return crop(rng, pictures, self._size)

    def _relight(self, rng: np.random.Generator, clean: FloatArray) -> FloatArray:
        """Vary gain and gamma, sometimes towards night; back to whole codes, as a camera gives them."""
        if rng.random() < 0.4:
            return clean
        level = np.clip((clean - _BLACK) / (_WHITE - _BLACK), 0.0, 1.0)
        return whole_codes(_BLACK + (_WHITE - _BLACK) * relit(rng, level))

    def _with_moving_lights(self, rng: np.random.Generator, clean: FloatArray) -> FloatArray:
        if rng.random() >= self._config.moving_lights:
            return clean
        return whole_codes(add_moving_lights(rng, clean))

    def _with_fixed_streaks(self, rng: np.random.Generator, clean: FloatArray) -> FloatArray:
        """Draw streaks at the same place in all frames: scenery (poles, drops on a windscreen), not rain."""
        crop = self._crop(rng, pick(rng, self._layers))
        alpha = np.float32(rng.uniform(0.1, 0.8) / 255.0) * crop
        fixed = composite(
            clean, alpha[None], light=rng.uniform(0.5, 1.0), screen=1.0, black=_BLACK, white=_WHITE
        )
        return whole_codes(fixed)


@dataclass(frozen=True)
class _Move:
    """How a camera moves: px, share and radians a frame, and the shake of the frames before and after."""

    corner: tuple[float, float]
    pan: tuple[float, float]
    zoom: float
    roll: float
    shake: FloatArray

    @classmethod
    def drawn(cls, rng: np.random.Generator, *, faster: float = 1.0) -> _Move:
        reach = min(faster * float(rng.choice([0.0, 2.0, 8.0, 16.0, 28.0])), _PAN_MARGIN_PX - 8.0)
        moving = reach > 0
        return cls(
            corner=(rng.random(), rng.random()),
            pan=(rng.uniform(-reach, reach), rng.uniform(-reach / 3, reach / 3)),
            zoom=rng.uniform(-0.03, 0.03) * moving,
            roll=rng.normal(0.0, 0.01) * moving,
            shake=rng.normal(0.0, 0.5, (3, 2)).astype(np.float32) * moving,
        )


def _pan(picture: Codes, move: _Move, size: int) -> FloatArray:
    """Return three frames of a camera that moves over a still; the middle one is untouched."""
    margin = _PAN_MARGIN_PX
    picture = at_least(picture, size + 2 * margin)
    room = (picture.shape[0] - size - 2 * margin, picture.shape[1] - size - 2 * margin)
    top, left = (margin + int(at * (left + 1)) for at, left in zip(move.corner, room, strict=True))
    source = Image.fromarray(picture)
    half = size / 2
    frames = []
    for time, shake in zip((-1.0, 0.0, 1.0), move.shake, strict=True):
        scale = 1.0 + move.zoom * time
        cos, sin = scale * np.cos(move.roll * time), scale * np.sin(move.roll * time)
        x = left + half - half * cos + half * sin + move.pan[0] * time + shake[0] * abs(time)
        y = top + half - half * sin - half * cos + move.pan[1] * time + shake[1] * abs(time)
        matrix = (cos, -sin, x, sin, cos, y)
        frame = source.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
        frames.append(np.asarray(frame))
    return unit(np.stack(frames))


def _trusted(samples: Sequence[_Sample], inner: slice) -> FloatArray | None:
    if all(sample.trusted is None for sample in samples):
        return None
    whole = np.ones_like(samples[0].target)
    told = [whole if sample.trusted is None else sample.trusted for sample in samples]
    return np.stack([one[None, inner, inner] for one in told])


def _drop_neighbours(rng: np.random.Generator, sample: _Sample, chance: float) -> FloatArray:
    """Replace dropped neighbours by the middle frame, in place; return the sample's validity."""
    sample.window = np.ascontiguousarray(sample.window)
    if not sample.has_neighbours:
        return np.zeros(2, np.float32)
    validity = np.ones(2, np.float32)
    # Both at once as often as one alone: stills lack both, first frames and cuts lack one.
    if rng.random() < chance:
        validity[[(0,), (1,), (0, 1), (0, 1)][int(rng.integers(4))],] = 0.0
    for position, valid in ((0, validity[0]), (2, validity[1])):
        if not valid:
            sample.window[position] = sample.window[1]
    return validity
