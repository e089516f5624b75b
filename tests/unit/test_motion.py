"""Motion between planes: found, blind to streaks, and undone by the warp, for every depth and size."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from streamderain import motion
from tests.support.pictures import smooth

CELL = 4


def texture(height: int = 160, width: int = 224, *, seed: int = 0) -> NDArray[np.uint8]:
    return np.rint(40 + 150 * smooth(height, width, seed=seed, sigma=3.0)).astype(np.uint8)


def moved(picture: NDArray[np.uint8], right: float, down: float) -> NDArray[np.uint8]:
    matrix = np.array([[1, 0, right], [0, 1, down]], np.float64)
    size = (picture.shape[1], picture.shape[0])
    return np.asarray(cv2.warpAffine(picture, matrix, size, borderMode=cv2.BORDER_REPLICATE))


def found(current: NDArray[np.uint8], other: NDArray[np.uint8], *, cell: int = CELL) -> motion.Flow:
    small = [motion.coarse(plane, cell=cell) for plane in (current, other)]
    return motion.flow(small[0], small[1], cell=cell)


@pytest.mark.parametrize("cell", [2, 4])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.0, -2.0), (-9.5, 4.25), (16.0, 0.0)])
def test_a_shift_is_found_in_pixels_of_the_full_plane(shift: tuple[float, float], cell: int) -> None:
    picture = texture()
    vectors = found(picture, moved(picture, *shift), cell=cell)
    inside = vectors[6:-6, 6:-6].reshape(-1, 2)
    assert np.median(inside, axis=0) == pytest.approx(shift, abs=0.2)


def test_streaks_are_not_followed() -> None:
    """Both frames have strong rain of their own on a scene that stands still."""
    picture = texture()
    rng = np.random.default_rng(1)
    frames = []
    for _ in range(2):
        rainy = picture.astype(int)
        for x, y in rng.integers((0, 0), (220, 130), (50, 2)):
            rainy[y : y + 25, x : x + 3] += 70
        frames.append(np.clip(rainy, 0, 255).astype(np.uint8))
    length = np.hypot(*np.moveaxis(found(frames[0], frames[1]), -1, 0))
    assert np.quantile(length, 0.9) < 1.0


def test_the_flow_depends_on_the_two_frames_alone() -> None:
    one, two, three = texture(), moved(texture(), 5, 1), texture(seed=3)
    first = found(one, two)
    found(one, three)
    np.testing.assert_array_equal(found(one, two), first)


@pytest.mark.parametrize("size", [(45, 70), (64, 64), (160, 224), (33, 200)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_no_motion_leaves_every_code(size: tuple[int, int], dtype: type) -> None:
    height, width = size
    plane = np.random.default_rng(0).integers(0, 255, size).astype(dtype)
    warper = motion.Warper(width, height, cell=CELL)
    still = np.zeros((-(-height // CELL), -(-width // CELL), 2), np.float32)
    np.testing.assert_array_equal(warper.warp(plane, still), plane)


@pytest.mark.parametrize("height", [48, 200])
def test_whole_pixels_are_moved_exactly_and_borders_are_clamped(height: int) -> None:
    plane = np.random.default_rng(0).integers(0, 255, (height, 61), dtype=np.uint8)
    vectors = np.random.default_rng(1).integers(-9, 9, (height // CELL, 16, 2)).astype(np.float32)
    whole = vectors.repeat(CELL, axis=0).repeat(CELL, axis=1)[:, :61].astype(int)
    y, x = np.mgrid[0:height, 0:61]
    expected = plane[np.clip(y + whole[..., 1], 0, height - 1), np.clip(x + whole[..., 0], 0, 60)]
    np.testing.assert_array_equal(motion.Warper(61, height, cell=CELL).warp(plane, vectors), expected)


def test_an_inverse_leads_back() -> None:
    picture = texture()
    forward = found(picture, moved(picture, 5, -3))
    backward = motion.inverse(forward, cell=CELL)
    assert motion.confidence(forward, backward, cell=CELL)[4:-4, 4:-4].mean() > 0.98


def test_a_window_is_aligned_onto_its_middle_frame() -> None:
    picture = texture()
    window = np.stack([moved(picture, -7.5, 2), picture, moved(picture, 7.5, -2)])
    aligned = motion.align(window, cell=CELL)
    inside = (slice(12, -12), slice(12, -12))
    np.testing.assert_array_equal(aligned[1], picture)
    for frame, before in ((aligned[0], window[0]), (aligned[2], window[2])):
        error = np.abs(frame[inside].astype(int) - picture[inside]).mean()
        assert error < 0.1 * np.abs(before[inside].astype(int) - picture[inside]).mean()


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (40, 40), (60, 61)])
def test_planes_too_small_for_motion_stay_as_they_are(size: tuple[int, int]) -> None:
    window = np.random.default_rng(0).integers(0, 255, (3, *size), dtype=np.uint8)
    np.testing.assert_array_equal(motion.align(window, cell=CELL), window)


def test_what_does_not_come_back_is_not_trusted() -> None:
    picture = texture()
    hidden = moved(picture, 6, 0)
    hidden[40:100, 60:140] = texture(60, 80, seed=9)
    forward, backward = found(picture, hidden), found(hidden, picture)
    trusted = motion.confidence(forward, backward, cell=CELL)
    assert trusted[2:8, 5:-8].mean() > 0.9
    assert trusted[12:22, 16:32].mean() < 0.5


def test_deep_planes_are_followed_by_their_upper_bits() -> None:
    picture = texture()
    deep = picture.astype(np.uint16) << 2
    np.testing.assert_array_equal(motion.coarse(deep, cell=CELL, shift=2), motion.coarse(picture, cell=CELL))


def test_opencv_gets_its_threads_back() -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        inside: list[int] = []

        def other() -> None:
            with motion.one_thread():
                inside.append(cv2.getNumThreads())

        with motion.one_thread():
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            inside.append(cv2.getNumThreads())
        assert inside == [1, 1]
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)
