"""Known rain: determinism, physics, statistics, and what it may never do to a picture."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from streamderain.errors import ConfigError
from streamderain.measure.metrics import psnr
from streamderain.measure.rain import (
    RainParameters,
    RainSequence,
    composite,
    terminal_speed_m_s,
    veil_fraction,
)
from tests.support.pictures import smooth

GRAY = np.full((240, 320), 0.35, np.float32)


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    return smooth(height, width, seed=seed, sigma=6).astype(np.float32)


def test_the_same_seed_gives_the_same_rain_in_any_order() -> None:
    first = RainSequence(RainParameters(), 7, 320, 240)
    second = RainSequence(RainParameters(), 7, 320, 240)
    forward = [first.apply(GRAY, i) for i in range(3)]
    backward = [second.apply(GRAY, i) for i in (2, 1, 0)][::-1]
    for one, other in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(one, other)


def test_seeds_and_frames_differ() -> None:
    rain = RainSequence(RainParameters(), 7, 320, 240)
    other = RainSequence(RainParameters(), 8, 320, 240)
    assert np.abs(rain.opacity(0) - rain.opacity(1)).mean() > 1e-3
    assert np.abs(rain.opacity(0) - other.opacity(0)).mean() > 1e-3


def test_frames_are_independent_draws() -> None:
    rain = RainSequence(RainParameters(), 3, 320, 240)
    one, two = rain.opacity(10).ravel(), rain.opacity(11).ravel()
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.1


def test_the_wind_swings_slowly() -> None:
    parameters = RainParameters(angle_deg=10.0, angle_drift_deg=6.0, drift_period_frames=60.0)
    rain = RainSequence(parameters, 1, 64, 64)
    angles = np.array([rain.angle_deg(i) for i in range(240)])
    assert np.abs(np.diff(angles)).max() < 1.0
    assert angles.min() >= 4.0
    assert angles.max() <= 16.0
    assert np.ptp(angles) > 6.0


def test_default_rain_looks_like_measured_rain() -> None:
    """The table of real footage (NTURain a1): length 17, peak 30, coverage 5 %, about 30 dB, with leeway."""
    clean = np.rint(40 + 120 * textured(480, 640)).astype(np.uint8)
    rain = RainSequence(RainParameters(), 1, 640, 480)
    scores, coverages, peaks, lengths = [], [], [], []
    for index in range(4):
        added = rain.apply_to_codes(clean, index).astype(float) - clean
        labels, count = ndimage.label(added > 12)
        boxes = ndimage.find_objects(labels)
        scores.append(psnr(clean + added, clean))
        coverages.append((added > 12).mean())
        peaks.extend(ndimage.maximum(added, labels, range(1, count + 1)))
        lengths.extend(max(s.stop - s.start for s in box) for box in boxes)
    assert 28.5 < np.mean(scores) < 32.5
    assert 0.03 < np.mean(coverages) < 0.09
    assert 22 < np.median(peaks) < 36
    assert 12 < np.median(lengths) < 22


def test_streaks_follow_the_angle() -> None:
    parameters = RainParameters(
        angle_deg=30.0,
        angle_spread_deg=0.0,
        angle_drift_deg=0.0,
        length_px=40.0,
        density_per_mpx=400.0,
        near_density_per_mpx=0.0,
    )
    alpha = RainSequence(parameters, 2, 320, 240).opacity(0)
    gradient_y, gradient_x = np.gradient(alpha.astype(float))
    tensor_xx, tensor_yy = (gradient_x**2).sum(), (gradient_y**2).sum()
    tensor_xy = (gradient_x * gradient_y).sum()
    # The direction across the streaks, from the structure tensor; the streaks run a quarter turn from it.
    across = 0.5 * math.degrees(math.atan2(2 * tensor_xy, tensor_xx - tensor_yy))
    assert across == pytest.approx(-30.0, abs=6.0)  # thin streaks on a square grid pull it a little


def test_a_layer_is_mixed_in_and_small_layers_are_repeated() -> None:
    layer = np.zeros((20, 30), np.uint8)
    layer[5:15, 10:12] = 255
    parameters = RainParameters(density_per_mpx=0.0, near_density_per_mpx=0.0, layer_gain=0.5)
    alpha = RainSequence(parameters, 1, 100, 80, layers=[layer]).opacity(0)
    assert alpha.shape == (80, 100)
    assert alpha.max() == pytest.approx(0.5)
    assert (alpha > 0).mean() == pytest.approx((layer > 0).mean(), rel=0.4)


def test_rgb_and_luma_get_the_same_streaks() -> None:
    rain = RainSequence(RainParameters(), 5, 320, 240)
    luma = rain.apply(GRAY, 0)
    rgb = rain.apply(np.repeat(GRAY[:, :, None], 3, axis=2), 0)
    np.testing.assert_allclose(rgb[..., 1], luma, atol=1e-6)


@pytest.mark.parametrize(("bits", "full_range"), [(8, False), (8, True), (10, False), (10, True)])
def test_codes_stay_in_range(bits: int, full_range: bool) -> None:
    dtype = np.uint8 if bits == 8 else np.uint16
    picture = np.full((60, 80), 230 << (bits - 8), dtype)
    parameters = RainParameters(peak=0.9, screen=0.0, density_per_mpx=20_000.0)
    rainy = RainSequence(parameters, 1, 80, 60).apply_to_codes(picture, 0, bits=bits, full_range=full_range)
    assert rainy.dtype == dtype
    assert rainy.max() == (2**bits - 1 if full_range else 235 << (bits - 8))
    assert rainy.min() >= picture.min()


def test_noise_has_the_asked_strength() -> None:
    parameters = RainParameters(density_per_mpx=0.0, near_density_per_mpx=0.0, noise=0.02)
    rainy = RainSequence(parameters, 1, 320, 240).apply(GRAY, 0)
    assert (rainy - GRAY).std() == pytest.approx(0.02, rel=0.05)


def test_the_veil_pulls_towards_the_light() -> None:
    parameters = RainParameters(density_per_mpx=0.0, near_density_per_mpx=0.0, veil=0.25, light=0.8)
    rain = RainSequence(parameters, 1, 320, 240)
    np.testing.assert_allclose(rain.background(GRAY), 0.75 * GRAY + 0.25 * 0.8, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    level=st.floats(0.0, 1.0),
    alpha=st.floats(0.0, 1.0),
    light=st.floats(0.0, 1.0),
    screen=st.floats(0.0, 1.0),
)
def test_streaks_never_darken_and_never_pass_white(
    level: float, alpha: float, light: float, screen: float
) -> None:
    picture = np.full((2, 2), level, np.float32)
    rainy = composite(picture, np.float32(alpha), light=light, screen=screen)
    assert (rainy >= picture).all()
    assert (rainy <= max(1.0, level)).all()


def test_composites_by_hand() -> None:
    picture, alpha = np.full((1, 1), 0.4, np.float32), np.full((1, 1), 0.5, np.float32)
    assert composite(picture, alpha, light=0.9, screen=0.0)[0, 0] == pytest.approx(0.4 + 0.45)
    assert composite(picture, alpha, light=0.9, screen=1.0)[0, 0] == pytest.approx(0.4 + 0.5 * 0.5)


def test_physics() -> None:
    assert terminal_speed_m_s(2.0) == pytest.approx(6.548, abs=0.01)  # Gunn and Kinzer measured 6.49
    assert terminal_speed_m_s(0.0) == 0.0
    assert veil_fraction(0.0, 1000.0) == 0.0
    assert veil_fraction(10.0, 1000.0) == pytest.approx(1 - math.exp(-0.312 * 10**0.67))


def test_physics_sets_the_look() -> None:
    short = RainParameters.from_physics(20.0, 1 / 500)
    long = RainParameters.from_physics(20.0, 1 / 60)
    assert long.length_px == pytest.approx(short.length_px * 500 / 60, rel=1e-6)
    assert long.peak < short.peak
    assert RainParameters.from_physics(50.0, 1 / 60).density_per_mpx > 2 * long.density_per_mpx
    assert RainParameters.from_physics(20.0, 1 / 60, wind_m_s=4.0).angle_deg > 20.0


def test_scaled_rain_covers_as_much() -> None:
    parameters = dataclasses.replace(RainParameters(), near_density_per_mpx=0.0, length_spread=0.1)
    small = RainSequence(parameters, 1, 320, 240)
    large = RainSequence(parameters.scaled(2.0), 1, 640, 480)
    cover = [np.mean([(s.opacity(i) > 0.05).mean() for i in range(6)]) for s in (small, large)]
    assert cover[1] == pytest.approx(cover[0], rel=0.25)


@pytest.mark.parametrize(
    "wrong",
    [{"peak": 1.5}, {"screen": -0.1}, {"length_px": 0.0}, {"density_per_mpx": -1.0}, {"angle_deg": 120.0}],
)
def test_parameters_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RainParameters(**wrong)


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="width 320"):
        RainSequence(RainParameters(), 1, 320, 240).apply(np.zeros((320, 240), np.float32), 0)
