"""The array API and the walk over a source's derained frames."""

from __future__ import annotations

import threading
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import streamderain
from streamderain import Derainer, EngineOptions, ReadOptions, RunOptions
from streamderain.errors import ConfigError
from tests.support import media

IDENTITY = EngineOptions(engine="identity")


def test_images_keep_shape_and_dtype_and_are_not_changed() -> None:
    rng = np.random.default_rng(0)
    with Derainer() as derainer:
        for shape, dtype in (((50, 70, 3), np.uint8), ((50, 70), np.uint8), ((33, 41, 3), np.uint16)):
            image = rng.integers(0, np.iinfo(dtype).max, shape).astype(dtype)
            kept = image.copy()
            clean = derainer.image(image)
            assert (clean.shape, clean.dtype) == (image.shape, image.dtype)
            assert (image == kept).all()
            assert (clean <= image).all(), "rain is light: taking it away never brightens"


def test_a_video_of_arrays_gives_one_result_per_frame_in_order() -> None:
    frames = [np.full((16, 16, 3), number, np.uint8) for number in range(0, 200, 10)]
    with Derainer(IDENTITY) as derainer:
        results = list(derainer.video(frames))
        assert [int(result[0, 0, 0]) for result in results] == list(range(0, 200, 10))
        assert list(derainer.video([])) == []


def test_a_video_can_be_left_early_and_the_derainer_used_again() -> None:
    frames = (np.full((16, 16), number, np.uint8) for number in range(100))
    with Derainer(IDENTITY) as derainer:
        assert len(list(islice(derainer.video(frames), 3))) == 3
        assert derainer.image(np.zeros((8, 8), np.uint8)).shape == (8, 8)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4), np.float32), np.zeros((0, 4), np.uint8), [[1, 2]]],
)
def test_what_is_no_image_is_refused(image: np.ndarray) -> None:
    with Derainer(IDENTITY) as derainer, pytest.raises(ConfigError, match="image"):
        derainer.image(image)


def test_a_frame_of_another_shape_is_named() -> None:
    frames = [np.zeros((8, 8), np.uint8), np.zeros((8, 9), np.uint8)]
    with Derainer(IDENTITY) as derainer, pytest.raises(ConfigError, match="frame 1"):
        list(derainer.video(frames))


def test_a_run_that_is_stopped_before_it_begins_says_so(tmp_path: Path) -> None:
    clip = media.write_video(tmp_path / "clip.mp4", frames=4)
    stop = threading.Event()
    stop.set()
    report = streamderain.run(clip, tmp_path / "o.mp4", options=RunOptions(engine=IDENTITY), stop=stop)
    assert (report.interrupted, report.exit_code, report.files) == (True, 130, ())


def test_an_empty_source_or_target_is_refused(tmp_path: Path) -> None:
    clip = media.write_video(tmp_path / "clip.mp4", frames=4)
    for source, target in (("", tmp_path / "o.mp4"), (clip, "")):
        with pytest.raises(ConfigError, match="empty"):
            streamderain.run(source, target)


def test_frames_walks_over_a_source(tmp_path: Path) -> None:
    clip = media.write_video(tmp_path / "clip.mp4", frames=10)
    walked = list(streamderain.frames(clip, RunOptions(read=ReadOptions(start_s=0.12), engine=IDENTITY)))
    assert len(walked) == 7
    assert walked[0].time_s == 0
    expected = [media.rgb(frame) for frame in media.decoded(clip)][3:]
    assert all((one.image == other).all() for one, other in zip(walked, expected, strict=True))


def test_frames_of_both_cameras(tmp_path: Path) -> None:
    clip = media.write(
        tmp_path / "clip.mp4", media.Video(frames=5), media.Video(frames=5, width=32, height=32)
    )
    walked = list(streamderain.frames(clip, RunOptions(engine=IDENTITY)))
    assert sorted((frame.stream, frame.image.shape[0]) for frame in walked) == [(0, 48)] * 5 + [(1, 32)] * 5


def test_frames_refuses_a_folder_of_files(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        media.write_video(tmp_path / name, frames=2)
    with pytest.raises(ConfigError, match="2 files"):
        next(streamderain.frames(tmp_path))


def test_run_tells_events_in_order(tmp_path: Path) -> None:
    clip = media.write_video(tmp_path / "clip.mp4", frames=10)
    seen: list[str] = []
    report = streamderain.run(
        clip,
        tmp_path / "clean.mp4",
        options=RunOptions(engine=IDENTITY),
        observer=lambda event: seen.append(type(event).__name__),
    )
    assert report.exit_code == 0
    assert (seen[0], seen[-1]) == ("Started", "Complete")
    assert set(seen[1:-1]) <= {"Progress"}
