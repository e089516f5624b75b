"""Metrics against slow or independent versions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from streamderain.measure.metrics import matlab_luma, pool, psnr, ssim, warping_error


def pictures(seed: int, shape: tuple[int, ...] = (64, 80)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    clean = ndimage.gaussian_filter(rng.random(shape), (2, 2, 0)[: len(shape)])
    clean = np.rint(255 * (clean - clean.min()) / np.ptp(clean)).astype(np.uint8)
    noisy = np.clip(clean + rng.normal(0, 12, shape), 0, 255).round().astype(np.uint8)
    return clean, noisy


def test_psnr_by_hand() -> None:
    zeros = np.zeros((4, 4), np.uint8)
    assert psnr(zeros, zeros + np.uint8(255)) == pytest.approx(0.0)
    assert psnr(zeros, zeros + np.uint8(1)) == pytest.approx(20 * math.log10(255))
    assert psnr(zeros, zeros) == math.inf


@pytest.mark.parametrize("seed", range(3))
def test_psnr_against_skimage(seed: int) -> None:
    clean, noisy = pictures(seed)
    assert psnr(noisy, clean) == pytest.approx(peak_signal_noise_ratio(clean, noisy), abs=1e-9)


def test_psnr_of_ten_bits_uses_its_own_peak() -> None:
    clean, noisy = (p.astype(np.uint16) * 4 for p in pictures(0))
    expected = peak_signal_noise_ratio(clean, noisy, data_range=1023)
    assert psnr(noisy, clean, peak=1023.0) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(64, 80), (11, 11), (40, 33, 3)])
def test_ssim_against_skimage(shape: tuple[int, ...]) -> None:
    clean, noisy = pictures(1, shape)
    expected = structural_similarity(
        clean,
        noisy,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        channel_axis=2 if len(shape) == 3 else None,
    )
    assert ssim(noisy, clean) == pytest.approx(expected, abs=1e-7)


def test_ssim_against_a_loop() -> None:
    clean, noisy = (p.astype(float) for p in pictures(2, (14, 13)))
    offsets = np.arange(-5, 6)
    line = np.exp(-0.5 * (offsets / 1.5) ** 2)
    window = np.outer(line, line) / line.sum() ** 2
    values = []
    for y in range(14 - 10):
        for x in range(13 - 10):
            a, b = clean[y : y + 11, x : x + 11], noisy[y : y + 11, x : x + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            cov = (window * (a - mean_a) * (b - mean_b)).sum()
            c1, c2 = 2.55**2, 7.65**2
            top = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
            values.append(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    assert ssim(clean, noisy) == pytest.approx(np.mean(values), abs=1e-9)


def test_equal_pictures_are_perfectly_similar() -> None:
    clean, _ = pictures(0)
    assert ssim(clean, clean) == pytest.approx(1.0)


def test_matlab_luma_by_hand() -> None:
    rgb = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [10, 20, 30]]], np.uint8)
    expected = [16.0, 235.0, 81.481, 16 + (65.481 * 10 + 128.553 * 20 + 24.966 * 30) / 255]
    np.testing.assert_allclose(matlab_luma(rgb)[0], expected, atol=1e-9)


def test_a_moving_picture_does_not_flicker() -> None:
    clean, _ = pictures(3)
    moved = np.roll(clean, (2, 3), axis=(0, 1))
    flow = np.zeros((*clean.shape, 2))
    flow[..., 0], flow[..., 1] = 3, 2
    assert warping_error(clean, moved, flow) == pytest.approx(0.0, abs=1e-9)
    assert warping_error(clean, moved, np.zeros_like(flow)) > 5.0


def test_half_a_pixel_is_interpolated() -> None:
    ramp = np.tile(np.arange(20.0), (12, 1))
    flow = np.zeros((12, 20, 2))
    flow[..., 0] = 0.5
    assert warping_error(ramp + 0.5, ramp, flow) == pytest.approx(0.0, abs=1e-9)


def test_hidden_pixels_do_not_count() -> None:
    clean, noisy = pictures(4)
    flow = np.zeros((*clean.shape, 2))
    assert warping_error(clean, noisy, flow, visible=np.zeros(clean.shape, bool)) == 0.0
    assert warping_error(clean, noisy, flow) > 1.0


def test_pooling() -> None:
    pooled = pool([30.0, 40.0, math.inf])
    assert pooled.mean == pytest.approx((30 + 40 + 100) / 3)
    assert pooled.minimum == 30.0
    assert pooled.p5 == pytest.approx(31.0)
    assert pooled.count == 3
    with pytest.raises(ValueError, match="no values"):
        pool([])


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_shapes_must_agree(metric: object) -> None:
    assert callable(metric)
    with pytest.raises(ValueError, match="differ in shape"):
        metric(np.zeros((20, 20)), np.zeros((20, 21)))


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(ValueError, match="11x11"):
        ssim(np.zeros((10, 20)), np.zeros((10, 20)))
    with pytest.raises(ValueError, match="uint8"):
        matlab_luma(np.zeros((4, 4, 3)))
