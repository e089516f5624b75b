"""Choose, cut and light training crops; everything random comes from the generator that is handed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
T = TypeVar("T")


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """Return one of the items, each as likely as any other."""
    return items[int(rng.integers(len(items)))]


class Mixture(Generic[T]):
    """Kinds of samples, each drawn as often as its share says.

    Args:
        kinds: Of each kind its share, what it is made of, and what draws one. Kinds that are made of nothing,
            or have no share, are left out; shares need not sum to 1.
    """

    def __init__(
        self, kinds: Sequence[tuple[float, Sequence[Any], Callable[[np.random.Generator], T]]]
    ) -> None:
        usable = [(share, draw) for share, made_of, draw in kinds if made_of and share > 0]
        shares = np.array([share for share, _ in usable])
        self._shares, self._draws = shares / shares.sum(), [draw for _, draw in usable]

    def draw(self, rng: np.random.Generator) -> T:
        """Return a sample of some kind."""
        return self._draws[int(rng.choice(len(self._draws), p=self._shares))](rng)


def relit(rng: np.random.Generator, level: FloatArray) -> FloatArray:
    """Vary the gain and gamma of a picture, sometimes towards night.

    Args:
        rng: Decides how.
        level: Any shape, in 0..1 from black to white.
    """
    gain, gamma = rng.uniform(0.7, 1.15), np.exp(rng.uniform(-0.3, 0.3))
    if rng.random() < 0.15:
        gain *= rng.uniform(0.2, 0.6)
    lit: FloatArray = np.minimum(np.float32(gain) * level ** np.float32(gamma), 1.0)
    return lit


def corner(rng: np.random.Generator, shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """Return the top left corner (y, x) of a square that lies inside a picture of shape (height, width)."""
    return int(rng.integers(shape[0] - size + 1)), int(rng.integers(shape[1] - size + 1))


def crop(rng: np.random.Generator, pictures: Codes, size: int) -> Codes:
    """Return the same random square of pictures (..., height, width), small ones extended by reflection."""
    pictures = at_least(pictures, size)
    top, left = corner(rng, pictures.shape[-2:], size)
    return pictures[..., top : top + size, left : left + size]


def at_least(pictures: Codes, size: int) -> Codes:
    """Extend pictures smaller than `size` by reflection, again and again where they are much smaller."""
    height, width = pictures.shape[-2:]
    if min(height, width) >= size:
        return pictures
    pad = [(0, 0)] * (pictures.ndim - 2) + [(0, max(0, size - height)), (0, max(0, size - width))]
    return np.pad(pictures, pad, mode="symmetric")


def unit(codes: Codes) -> FloatArray:
    """Convert 8-bit codes to float32 in 0..1."""
    return codes.astype(np.float32) * np.float32(1.0 / 255.0)


def whole_codes(picture: FloatArray) -> FloatArray:
    """Round to whole 8-bit codes, as decoded planes hold them; float32 in 0..1."""
    codes: FloatArray = np.rint(np.clip(picture, 0.0, 1.0) * np.float32(255.0))
    return (codes * np.float32(1.0 / 255.0)).astype(np.float32)
