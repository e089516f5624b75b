"""`streamderain estimate`: what it says of a run, beside the run itself. Speed is not judged here."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.scaling import repeat_clip
from streamderain.cli.estimate import duration_text
from streamderain.cli.text import rate_text
from streamderain.measure import estimate
from streamderain.media.arrays import ClipWriter, save_picture
from streamderain.media.probing import packets_of
from streamderain.options import EngineOptions, RunOptions, WorkOptions
from tests.support import media
from tests.support.command import streamderain

FAST = ("--engine", "identity", "--preset", "ultrafast")


def files(*arguments: Any) -> list[dict[str, Any]]:
    outcome = streamderain("estimate", *arguments, "--json", "-q")
    assert outcome.code == 0, outcome.err
    found: list[dict[str, Any]] = outcome.summary["files"]
    return found


@pytest.fixture(scope="module")
def piece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("estimate") / "piece.mp4"
    rng = np.random.default_rng(0)
    with ClipWriter(path, rate_fps=Fraction(30)) as clip:
        for _ in range(60):
            clip.write(rng.integers(40, 200, (12, 20), dtype=np.uint8).repeat(8, 0).repeat(8, 1))
    return path


def test_a_short_clip_is_measured_whole(piece: Path, tmp_path: Path) -> None:
    (found,) = files(piece, *FAST)
    assert streamderain("run", piece, "-o", tmp_path / "out.mkv", *FAST).code == 0
    size = (tmp_path / "out.mkv").stat().st_size
    assert (found["frames"], found["pieces"]) == (60, 1)
    assert found["output_low_bytes"] < size < found["output_high_bytes"]
    assert found["fps_low"] <= found["fps"] <= found["fps_high"]
    assert found["time_s"] > found["frames"] / found["fps"]
    assert found["memory_bytes"] > 20_000_000


def test_a_long_clip_is_told_from_pieces(piece: Path, tmp_path: Path) -> None:
    clip = tmp_path / "long.mp4"
    repeat_clip(piece, clip, times=60)
    (found,) = files(clip, *FAST)
    assert streamderain("run", clip, "-o", tmp_path / "out.mkv", *FAST).code == 0
    size = (tmp_path / "out.mkv").stat().st_size
    assert (found["frames"], found["pieces"]) == (3600, 5)
    assert found["duration_s"] == pytest.approx(120, abs=0.5)
    assert found["output_low_bytes"] < size < found["output_high_bytes"]


def test_a_trim_counts(piece: Path) -> None:
    (found,) = files(piece, *FAST, "-ss", "0.5", "-t", "1")
    assert found["frames"] == 30


def test_an_unknown_length_may_be_given(tmp_path: Path) -> None:
    clip = media.write(tmp_path / "raw.h264", media.Video(frames=50))
    (found,) = files(clip, *FAST, "-t", "1")
    assert found["frames"] == 25


def test_sound_is_part_of_the_size(tmp_path: Path) -> None:
    clip = media.write(
        tmp_path / "loud.mkv", media.Video(frames=50), audio=[media.Sound(codec="pcm_s16le", seconds=2)]
    )
    (found,) = files(clip, *FAST)
    assert found["output_bytes"] > packets_of(clip).copied_bytes > 100_000


def test_a_folder_is_told_file_by_file_and_together(piece: Path, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(piece.read_bytes())
    outcome = streamderain("estimate", tmp_path, *FAST)
    assert outcome.code == 0, outcome.err
    shown = outcome.out.decode()
    assert "a.mp4" in shown
    assert "b.mp4" in shown
    assert "together" in shown
    assert "120" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("-",), 2, "pipe"),
        (("missing.mp4",), 3, "missing.mp4"),
        (("raw.h264",), 2, "nobody knows how long raw.h264 is"),
        (("photo.png",), 2, "single picture"),
    ],
)
def test_what_cannot_be_estimated_is_said(
    tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    media.write(tmp_path / "raw.h264", media.Video(frames=5))
    save_picture(tmp_path / "photo.png", np.zeros((48, 64, 3), np.uint8))
    outcome = streamderain("estimate", *arguments, *FAST, cwd=tmp_path)
    assert (outcome.code, message in outcome.err) == (code, True), outcome.err


def test_jobs_are_measured_at_the_same_time(piece: Path) -> None:
    engine = EngineOptions(engine="identity")
    one, two = (
        estimate.estimate(
            str(piece), RunOptions(engine=engine, work=WorkOptions(jobs=jobs, segment_length_s=0.5))
        )[0]
        for jobs in (1, 2)
    )
    assert (one.jobs, two.jobs) == (1, 2)
    assert two.memory_bytes > 1.5 * one.memory_bytes
    assert two.frames == one.frames


def test_durations_for_people() -> None:
    assert [duration_text(seconds) for seconds in (0.4, 59.6, 61, 3661)] == [
        "0:00",
        "1:00",
        "1:01",
        "1:01:01",
    ]


def test_a_slow_model_is_told_from_few_frames(
    piece: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = tmp_path / "long.mp4"
    repeat_clip(piece, clip, times=3)
    monkeypatch.setattr(estimate, "_SLOW_S", 0.0)
    measured, lengths = estimate._measured, []

    def noted(*arguments: Any) -> Any:
        found = measured(*arguments)
        lengths.append([one.frames for one in found[1]])
        return found

    monkeypatch.setattr(estimate, "_measured", noted)
    monkeypatch.setattr(estimate, "_BUDGET_S", 0.0)
    options = RunOptions(engine=EngineOptions(engine="identity"))
    (found,) = estimate.estimate(str(clip), options)
    assert lengths == [[2], [2] * 5]
    assert found.frames == 180


@pytest.mark.parametrize(("fps", "text"), [(0.0, "0.0"), (0.0823, "0.082"), (0.5, "0.5"), (31.26, "31.3")])
def test_rates_for_people(fps: float, text: str) -> None:
    assert rate_text(fps) == text
