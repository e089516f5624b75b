"""How late frames are, by the clock."""

from __future__ import annotations

import random

from streamderain.pacing import Backoff, KeyframeGate, Pacing


def test_frames_in_time_are_never_late() -> None:
    pacing, noise = Pacing(0.1), random.Random(0)
    assert not any(
        pacing.is_late(number / 25, 1000 + number / 25 + noise.uniform(0, 0.05)) for number in range(10_000)
    )


def test_a_burst_after_a_stall_is_late_until_it_has_caught_up() -> None:
    pacing = Pacing(0.2)
    on_time = [pacing.is_late(number / 25, 10 + number / 25) for number in range(50)]
    # Two seconds of nothing, then all of it at once, a millisecond each; then the present again.
    burst = [pacing.is_late(number / 25, 14 + (number - 50) / 1000) for number in range(50, 100)]
    after = [pacing.is_late(number / 25, 10 + number / 25 + 0.05) for number in range(102, 150)]
    assert not any(on_time)
    assert all(burst[:40])
    assert not any(after)


def test_lag_that_builds_up_slowly_is_seen() -> None:
    pacing = Pacing(10)
    lags = [pacing.lag_s(number / 25, number / 25 * 1.5) for number in range(1000)]
    assert lags == sorted(lags)
    assert lags[-1] > 19


def test_a_camera_whose_clock_is_slow_is_not_late() -> None:
    pacing = Pacing(0.2)
    # 100 parts in a million for a day.
    assert not any(pacing.is_late(second, second * 1.0001) for second in range(86_400))


def test_a_camera_whose_clock_is_fast_is_not_late() -> None:
    pacing = Pacing(0.2)
    assert not any(pacing.is_late(second * 1.0001, second) for second in range(86_400))


def test_pauses_grow_and_never_far() -> None:
    backoff = Backoff(jitter=0)
    assert [backoff.pause_s(0) for _ in range(6)] == [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]
    assert backoff.pause_s(100) == 10.0
    assert backoff.pause_s(5, refused=True) == 60.0
    several = [Backoff() for _ in range(50)]
    for one in several:
        one.pause_s(0)
    pauses = {one.pause_s(0) for one in several}
    assert len(pauses) > 25
    assert 0.4 <= min(pauses) <= max(pauses) <= 0.6


def test_after_a_loss_a_video_goes_on_with_its_keyframe_and_sound_beside_it() -> None:
    gate = KeyframeGate()
    assert gate.passes(0, is_keyframe=False)
    assert gate.passes_beside()
    gate.shut()
    assert not gate.passes_beside()
    assert not gate.passes(0, is_keyframe=False)
    assert gate.passes(0, is_keyframe=True)
    assert gate.passes(0, is_keyframe=False)
    assert gate.passes_beside()
    assert not gate.passes(1, is_keyframe=False)  # another video waits for its own
    assert gate.lost == 3
