"""Scoring what any other method wrote: matched by name, complete, of the right size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from streamderain.errors import OpenError
from streamderain.measure.metrics import psnr
from tests.trainer.support import scene
from trainer.cli import cli
from trainer.data.pictures import Codes
from trainer.evaluation.cases import VideoPlan, all_cases
from trainer.evaluation.results import results_clean


def picture(code: int = 0) -> Codes:
    return np.repeat(scene(32, 40, seed=code)[:, :, None], 3, axis=2)


def save(path: Path, rgb: Codes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Rain200H's names: rain/X2/norain-1x2.png belongs to norain/norain-1.png."""
    for index in (1, 2):
        save(tmp_path / "Rain200H" / "norain" / f"norain-{index}.png", picture(index))
        save(tmp_path / "Rain200H" / "rain" / "X2" / f"norain-{index}x2.png", picture(index) + np.uint8(20))
    return tmp_path / "Rain200H"


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("norain-{}x2.png", ""),
        ("norain-{}.bmp", ""),
        ("NoRain-{}x2.png", ""),
        ("norain-{}x2_derained.png", "_derained"),
        ("deep/er/norain-{}-out.png", "-out"),
    ],
)
def test_results_are_scored_like_a_model(tmp_path: Path, dataset: Path, name: str, suffix: str) -> None:
    out = tmp_path / "out"
    for index in (1, 2):
        save(out / name.format(index), picture(index) + np.uint8(2 * index))
    command = ["results", "--dir", str(out), "--dataset", str(dataset), "--suffix", suffix]
    report = tmp_path / "r.json"
    done = CliRunner().invoke(cli, [*command, "--json", str(report), "--per-image"], catch_exceptions=False)
    assert done.exit_code == 0
    document = json.loads(report.read_text())
    assert (document["model"], document["precision"]) == ("out", "results")
    values = [found["values"]["psnr_rgb_db"] for found in document["pictures"]]
    assert values == pytest.approx([20 * np.log10(255 / 2), 20 * np.log10(255 / 4)])
    row = next(row for row in document["rows"] if row["metric"] == "psnr_rgb_db")
    assert row["value"] == pytest.approx(np.mean(values))
    assert row["do_nothing"] == pytest.approx(20 * np.log10(255 / 20))


def test_the_rainy_name_comes_before_the_clean_one(tmp_path: Path, dataset: Path) -> None:
    """A method's folder often holds both."""
    for index in (1, 2):
        save(tmp_path / "out" / f"norain-{index}x2.png", picture(index) + np.uint8(3))
        save(tmp_path / "out" / f"norain-{index}.png", picture(index))
    clean = results_clean(tmp_path / "out", dataset)
    case = next(iter(all_cases(dataset, VideoPlan())))
    assert case.target_rgb is not None
    assert psnr(clean(case), case.target_rgb) == pytest.approx(20 * np.log10(255 / 3))


def test_missing_results_are_named(tmp_path: Path, dataset: Path) -> None:
    with pytest.raises(OpenError, match="name the folder of the results with --dir"):
        results_clean(tmp_path / "nowhere", dataset)
    save(tmp_path / "out" / "norain-1x2.png", picture())
    with pytest.raises(OpenError, match=r"no result for 1 of 2 pictures, such as Rain200H/norain-2x2\.png;"):
        results_clean(tmp_path / "out", dataset)
    with pytest.raises(OpenError, match="no result for 2 of 2 pictures"):
        results_clean(tmp_path / "out", dataset, suffix="_x")


def test_results_of_another_size_are_named(tmp_path: Path, dataset: Path) -> None:
    for index in (1, 2):
        save(tmp_path / "out" / f"norain-{index}.png", picture(index)[:, :36])
    clean = results_clean(tmp_path / "out", dataset)
    with pytest.raises(OpenError, match=r"norain-1\.png is 36x32 px, but Rain200H/norain-1x2\.png 40x32"):
        clean(next(iter(all_cases(dataset, VideoPlan()))))


def test_two_results_of_one_picture_are_an_error(tmp_path: Path, dataset: Path) -> None:
    for index in (1, 2):
        save(tmp_path / "out" / f"norain-{index}x2.png", picture(index))
    save(tmp_path / "out" / "norain-2x2.bmp", picture(2))
    with pytest.raises(OpenError, match="are results of one picture; keep one"):
        results_clean(tmp_path / "out", dataset)


def test_one_result_is_not_taken_for_many_pictures(tmp_path: Path) -> None:
    """Fourteen rains of one scene want fourteen results, though all have the same clean name."""
    save(tmp_path / "Rain1400" / "ground_truth" / "1.png", picture())
    for index in (1, 2):
        save(tmp_path / "Rain1400" / "rainy_image" / f"1_{index}.png", picture())
    save(tmp_path / "out" / "1.png", picture())
    with pytest.raises(
        OpenError, match=r"1\.png would be the result of Rain1400/1_1\.png and of Rain1400/1_2"
    ):
        results_clean(tmp_path / "out", tmp_path / "Rain1400")


def test_clips_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for clip, code in (("a1", 1), ("b1", 2)):
        for t in (1, 2):
            save(tmp_path / "NTU" / f"{clip}_GT" / f"{t:05d}.png", picture(code))
            save(tmp_path / "NTU" / f"{clip}_Rain" / f"{t:05d}.png", picture(code) + np.uint8(9))
            save(tmp_path / "out" / f"{clip}_Rain" / f"{t:05d}.png", picture(code))
    clean = results_clean(tmp_path / "out", tmp_path / "NTU")
    for case in all_cases(tmp_path / "NTU", VideoPlan()):
        np.testing.assert_array_equal(clean(case), case.target_rgb)
    for t in (1, 2):
        (tmp_path / "out" / "b1_Rain" / f"{t:05d}.png").unlink()
    with pytest.raises(
        OpenError, match=r"would be the result of a1_Rain/00001\.png and of b1_Rain/00001\.png"
    ):
        results_clean(tmp_path / "out", tmp_path / "NTU")


def test_rendered_clips_have_no_results(tmp_path: Path, dataset: Path, validation: Path) -> None:
    for index in (1, 2):
        save(tmp_path / "out" / f"norain-{index}.png", picture(index))
    clean = results_clean(tmp_path / "out", dataset)
    rendered = next(iter(all_cases(validation, VideoPlan(frames=4))))
    with pytest.raises(OpenError, match="is rendered and has no results; name the data set alone"):
        clean(rendered)
