"""Bright things that move and are no rain."""

from __future__ import annotations

import numpy as np

from trainer.data.scenery import add_moving_lights


def draw(seed: int) -> np.ndarray:
    return add_moving_lights(np.random.default_rng(seed), np.full((3, 96, 96), 0.3, np.float32))


def test_lights_only_brighten_and_stay_in_range() -> None:
    for seed in range(20):
        lit = draw(seed)
        assert lit.dtype == np.float32
        assert lit.min() >= np.float32(0.3)
        assert lit.max() <= 1.0


def test_the_same_seed_draws_the_same() -> None:
    assert (draw(3) == draw(3)).all()
    assert (draw(3) != draw(4)).any()


def test_they_move_and_look_like_rain_to_a_look_at_single_pixels() -> None:
    """At some place the middle frame is brighter than both its neighbours, and the light is in those too."""
    excess = [lit[1] - np.maximum(lit[0], lit[2]) for lit in map(draw, range(20))]
    assert sum(float(one.max()) > 0.1 for one in excess) >= 10
    seen = [min(float(frame.max()) for frame in draw(seed)) > 0.4 for seed in range(20)]
    assert sum(seen) >= 10


def test_the_input_is_left_as_it_is() -> None:
    window = np.full((3, 32, 32), 0.3, np.float32)
    add_moving_lights(np.random.default_rng(0), window)
    assert (window == np.float32(0.3)).all()
