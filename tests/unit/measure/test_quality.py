"""Frames paired by time, and what is measured of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streamderain.errors import ConfigError
from streamderain.measure.metrics import psnr
from streamderain.measure.quality import (
    METRICS,
    Matched,
    Picture,
    Quality,
    Triple,
    judge,
    require_same_size,
    values,
)


def picture(value: int, size: tuple[int, int] = (16, 24)) -> np.ndarray:
    rng = np.random.default_rng(value)
    return (rng.integers(0, 20, (*size, 3)) + value).astype(np.uint8)


def pairs(first: list[float], second: list[float]) -> tuple[list[tuple[float, float]], int]:
    match = Matched(((t, t) for t in first), (Picture(t, picture(0)) for t in second), names=("A", "B"))
    return [(one, other.time_s) for one, other in match], match.unmatched


def test_frames_of_equal_times_belong_together() -> None:
    assert pairs([0, 1, 2], [0, 1, 2]) == ([(0, 0), (1, 1), (2, 2)], 0)


def test_times_count_from_the_beginning_of_each() -> None:
    assert pairs([5.0, 5.5], [0.02, 0.52]) == ([(5.0, 0.02), (5.5, 0.52)], 0)


def test_small_differences_of_rounding_are_nothing() -> None:
    assert pairs([0, 0.040, 0.080], [0, 0.041, 0.079])[1] == 0


def test_lost_frames_are_counted_and_surplus_ones_passed_over() -> None:
    assert pairs([0, 1, 2, 3], [0, 2, 3]) == ([(0, 0), (2, 2), (3, 3)], 1)
    assert pairs([0, 2, 4], [0, 1, 2, 3, 4]) == ([(0, 0), (2, 2), (4, 4)], 0)


def test_a_gap_in_both_does_not_shift_what_follows() -> None:
    assert pairs([0, 1, 2, 5, 6], [0, 1, 4, 5, 6])[0] == [(0, 0), (1, 1), (5, 5), (6, 6)]


def test_an_ended_reference_leaves_the_rest_unmatched() -> None:
    assert pairs([0, 1, 2], [0]) == ([(0, 0)], 2)


def test_clips_without_a_common_frame_are_refused() -> None:
    with pytest.raises(ConfigError, match="no frame of B has the time of a frame of A"):
        pairs([0, 1], [])


def test_sizes_must_agree() -> None:
    with pytest.raises(ConfigError, match="clean is 24x20 and rainy is 24x16"):
        require_same_size((24, 16), (24, 20), names=("rainy", "clean"))


def test_values_of_equal_pictures() -> None:
    found = values(picture(3), picture(3))
    assert set(found) == set(METRICS)
    assert found["psnr_y_db"] == math.inf
    assert found["ssim_rgb"] == pytest.approx(1.0)


def triples(count: int) -> list[Triple | int]:
    reference = [picture(50 + index) for index in range(count)]
    made = [
        Triple(index, index / 25, np.clip(clean + 9, 0, 255).astype(np.uint8), clean + np.uint8(index), clean)
        for index, clean in enumerate(reference)
    ]
    return [*made, 2]


def test_a_clip_is_judged_in_order_with_its_worst_frames() -> None:
    *progress, quality = judge(triples(7))
    assert isinstance(quality, Quality)
    assert progress == [1, 2, 3, 4, 5, 6, 7]
    assert [frame.index for frame in quality.frames] == list(range(7))
    assert [triple.index for triple in quality.worst] == [6, 5, 4]
    assert quality.unmatched == 2
    third = triples(7)[3]
    assert isinstance(third, Triple)
    assert quality.frames[3].after["psnr_rgb_db"] == psnr(third.after, third.reference)
    assert quality.frames[3].before["psnr_rgb_db"] == psnr(third.before, third.reference)
    assert set(quality.frames[0].flicker) == {"after", "before", "reference"}
    assert quality.frames[-1].flicker == {}


def moving(index: int) -> np.ndarray:
    rng = np.random.default_rng(9)
    wide = rng.integers(0, 200, (16, 10, 3)).repeat(4, axis=1)
    return wide[:, index : index + 24].astype(np.uint8)


@pytest.mark.parametrize(("offset", "word"), [(0, ""), (1, "a frame early"), (-1, "a frame late")])
def test_a_reference_that_runs_beside_is_suspected(offset: int, word: str) -> None:
    made = [Triple(n, n / 25, moving(n + 1), moving(n + 1), moving(n + 1 + offset)) for n in range(6)]
    *_, quality = judge([*made, 0])
    assert isinstance(quality, Quality)
    assert (word in quality.suspicion) if word else quality.suspicion == ""
