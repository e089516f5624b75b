"""Damaged files made of whole ones."""

from __future__ import annotations

import numpy as np


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """A file with one kind of damage: bits, blocks, a cut end or middle, a header, pieces that change places.

    Args:
        data: A whole file.
        random: Decides everything.
    """
    damages = (_flipped, _zeroed, _shortened, _gap, _header, _swapped, _repeated)
    damaged = damages[int(random.integers(len(damages)))](bytearray(data), random)
    return bytes(damaged) or b"\0"


def _span(size: int, random: np.random.Generator, *, largest: float) -> slice:
    length = int(random.integers(1, max(2, int(size * largest))))
    begin = int(random.integers(max(1, size - length)))
    return slice(begin, begin + length)


def _flipped(data: bytearray, random: np.random.Generator) -> bytearray:
    for place in random.integers(len(data), size=int(random.integers(1, 60))):
        data[place] ^= 1 << int(random.integers(8))
    return data


def _zeroed(data: bytearray, random: np.random.Generator) -> bytearray:
    span = _span(len(data), random, largest=0.2)
    data[span] = bytes(span.stop - span.start)
    return data


def _shortened(data: bytearray, random: np.random.Generator) -> bytearray:
    return data[: int(random.integers(1, len(data)))]


def _gap(data: bytearray, random: np.random.Generator) -> bytearray:
    del data[_span(len(data), random, largest=0.2)]
    return data


def _header(data: bytearray, random: np.random.Generator) -> bytearray:
    for place in random.integers(min(len(data), 600), size=int(random.integers(1, 8))):
        data[place] = int(random.integers(256))
    return data


def _swapped(data: bytearray, random: np.random.Generator) -> bytearray:
    one, other = (_span(len(data), random, largest=0.1) for _ in range(2))
    data[one], data[other] = data[other], data[one]
    return data


def _repeated(data: bytearray, random: np.random.Generator) -> bytearray:
    span = _span(len(data), random, largest=0.2)
    return data[: span.stop] + data[span] + data[span.stop :]
