"""Motion between frames of clips whose motion nobody wrote down."""

from __future__ import annotations

import numpy as np
import pytest

from streamderain.measure.flow import estimate_flow
from streamderain.measure.metrics import warping_error
from streamderain.measure.scene import rainy_scene
from tests.support.pictures import smooth


def scene(seed: int = 0, height: int = 200, width: int = 260) -> np.ndarray:
    return np.rint(255 * smooth(height, width, seed=seed, sigma=2.5)).astype(np.uint8)


@pytest.mark.parametrize("shift", [(0, 0), (3, -5), (-7, 2), (12, 12)])
def test_a_shift_is_found(shift: tuple[int, int]) -> None:
    current = scene()
    following = np.roll(current, shift, axis=(0, 1))
    flow, visible = estimate_flow(current, following)
    inside = (slice(20, -20), slice(20, -20))
    assert (np.abs(flow[inside] - (shift[1], shift[0])).max(axis=-1) < 0.3).mean() > 0.95
    assert visible[inside].mean() > 0.8
    assert warping_error(current, following, flow, visible=visible) < 1.0


def test_pixels_without_a_partner_are_not_trusted() -> None:
    current, other = scene(0), scene(1)
    _, visible = estimate_flow(current, other)
    assert visible.mean() < 0.2


def test_the_built_in_scene_moves_as_it_says() -> None:
    first, second = (frame for frame in rainy_scene(width=320, height=192, frames=2))
    flow, _ = estimate_flow(first, second)
    assert np.median(flow.reshape(-1, 2), axis=0).tolist() == pytest.approx([-2, 0], abs=0.2)


def test_whole_and_fractional_flows_agree() -> None:
    current = scene()
    following = np.roll(current, 3, axis=1)
    whole = np.full((*current.shape, 2), 3, np.int32)
    assert warping_error(current, following, whole) == pytest.approx(
        warping_error(current, following, whole.astype(float))
    )
