from __future__ import annotations

import numpy as np

from streamderain.frame import Geometry
from streamderain.pipeline.cuts import CutDetector

GEOMETRY = Geometry(320, 240)


def scene(seed: int, shift: int = 0, noise: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (8, 10)).repeat(32, 0).repeat(32, 1)[:240]
    moved = np.roll(coarse, shift, axis=1) + noise * np.random.default_rng(shift).standard_normal((240, 320))
    return np.clip(moved, 0, 255).astype(np.uint8)


def test_a_hard_cut_is_found_once() -> None:
    detector = CutDetector(GEOMETRY)
    frames = [scene(1, shift) for shift in range(10)] + [scene(2, shift) for shift in range(10)]
    assert [number for number, frame in enumerate(frames) if detector.is_cut(frame)] == [10]


def test_fast_motion_and_noise_are_no_cuts() -> None:
    detector = CutDetector(GEOMETRY)
    assert not any(detector.is_cut(scene(1, 9 * number, noise=25)) for number in range(30))


def test_a_fade_is_no_cut() -> None:
    detector = CutDetector(GEOMETRY)
    assert not any(detector.is_cut((scene(1) * (1 - k / 25)).astype(np.uint8)) for k in range(25))


def test_shifted_codes_count_as_their_share_of_full_scale() -> None:
    detector = CutDetector(Geometry(320, 240, bits=10, shift=6))
    frames = [scene(1, 1), scene(1, 2), scene(1, 3), scene(2, 3)]
    assert [detector.is_cut(frame.astype(np.uint16) << 8) for frame in frames] == [False, False, False, True]
