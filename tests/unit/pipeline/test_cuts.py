from __future__ import annotations

import numpy as np

from streamderain.frame import Geometry
from streamderain.pipeline.cuts import HISTORY, CutDetector

GEOMETRY = Geometry(320, 240)


def scene(seed: int, shift: int = 0, noise: float = 0.0) -> np.ndarray:
    """A picture of smooth patches, moved to the left by `shift` px."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:240, 0:320]
    waves = sum(
        random.uniform(-1, 1)
        * np.sin((x + shift) * random.uniform(0.01, 0.06) + y * random.uniform(-0.06, 0.06))
        for _ in range(12)
    )
    picture = random.uniform(70, 180) + 25 * waves
    picture = picture + noise * np.random.default_rng(shift).standard_normal((240, 320))
    return np.clip(picture, 0, 255).astype(np.uint8)


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


def test_frames_that_are_new_only_now_and_then_are_no_cuts() -> None:
    for every in (2, 3):
        detector = CutDetector(GEOMETRY)
        frames = [scene(1, 40 * (number // every)) for number in range(30)]
        found = [number for number, frame in enumerate(frames) if detector.is_cut(frame)]
        assert max(found, default=0) <= 2 * every, "once it is known what comes again and again"


def test_whether_a_frame_is_a_cut_depends_on_a_few_frames_before_it() -> None:
    random = np.random.default_rng(3)
    cuts = {12, 13, 30, 36, 50}
    frames, seed = [], 0
    for number in range(60):
        seed += number in cuts
        frames.append(scene(seed, int(random.integers(3)), noise=5))
    detector = CutDetector(GEOMETRY)
    whole = [detector.is_cut(frame) for frame in frames]
    assert {number for number, cut in enumerate(whole) if cut} == cuts
    for start in range(1, 50):
        piece = CutDetector(GEOMETRY)
        found = [piece.is_cut(frame) for frame in frames[start:]]
        assert found[HISTORY + 1 :] == whole[start + HISTORY + 1 :]
