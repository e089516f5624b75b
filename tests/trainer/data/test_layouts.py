"""Look-alikes of every set, written on the spot: found whole, paired rightly, explained where they fail."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from streamderain.errors import OpenError
from trainer.data.layouts import LAYOUTS, find_pairs, find_sets

RAIN = 40
"""What rain adds in these pictures, codes."""


def write(path: Path, code: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (code, code, code)).save(path, quality=100)


def lay_out(root: Path, pairs: list[tuple[str, str]]) -> None:
    """Clean pictures of codes 10, 12, ...; rainy ones are as much brighter as rain makes them."""
    codes: dict[str, int] = {}
    for rainy, clean in pairs:
        code = codes.setdefault(clean, 10 + 2 * len(codes))
        write(root / clean, code)
        write(root / rainy, code + RAIN)


def joined(path: Path, *, rainy: str = "left", seed: int = 0, bright: int = RAIN) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    clean = 150 * ndimage.gaussian_filter(np.random.default_rng(seed).random((48, 64)), 3)
    streaks = ndimage.gaussian_filter1d(
        (np.random.default_rng(seed + 99).random((48, 64)) > 0.97) * 1.0, 2, axis=0
    )
    wet = clean + bright * streaks
    both = [wet, clean] if rainy == "left" else [clean, wet]
    Image.fromarray(np.concatenate(both, axis=1).astype(np.uint8)).convert("RGB").save(path, quality=95)


SETS = {
    "Rain100L": [("input/1.png", "target/1.png"), ("input/2.png", "target/2.png")],
    "Rain13K, mixed endings": [("input/1.jpg", "target/1.png"), ("input/2.png", "target/2.jpg")],
    "Rain200H": [
        ("rain/X2/norain-1x2.png", "norain/norain-1.png"),
        ("rain/X2/norain-2x2.png", "norain/norain-2.png"),
    ],
    "Rain100H, old": [("rainX2/norain-1x2.png", "norain/norain-1.png")],
    "Rain200L, numbers": [("rain/X2/1x2.png", "norain/1.png")],
    "Rain800 unpacked": [("rain/rain-001.png", "norain/norain-001.png")],
    "Rain100H, same names": [("rain/norain-1.png", "norain/norain-1.png")],
    "Rain100L, rainy": [
        ("rainy/rain-001.png", "norain/norain-001.png"),
        ("rainy/rain-002.png", "norain/norain-002.png"),
    ],
    "Rain100L of PReNet": [
        ("rainy/rain-001.png", "norain-001.png"),
        ("rainy/rain-002.png", "norain-002.png"),
    ],
    "RainTrainL": [("rain-1.png", "norain-1.png"), ("rain-2.png", "norain-2.png")],
    "Rain12": [("001_in.png", "001_GT.png"), ("002_in.png", "002_GT.png")],
    "Rain1400": [
        (f"rainy_image/{i}_{k}.jpg", f"ground_truth/{i}.jpg") for i in (901, 902) for k in range(1, 15)
    ],
    "Rain1400, spaces": [("rainy image/1_1.jpg", "ground truth/1.jpg")],
    "Rain1400, unpacked": [("rain/901_1.jpg", "norain/901.jpg"), ("rain/901_2.jpg", "norain/901.jpg")],
    "SPA-Data, test": [("rain/000.png", "gt/000gt.png"), ("rain/001.png", "gt/001gt.png")],
    "SPA-Data, _gt": [("rain/000.png", "gt/000_gt.png")],
    "SPA-Data, training": [
        ("real_world/001/a.png", "real_world_gt/001/a.png"),
        ("real_world/002/a.png", "real_world_gt/002/a.png"),
    ],
    "SPA+": [
        ("real_world/1/3-1.png", "real_world_gt/1/3.png"),
        ("real_world/1/3-2.png", "real_world_gt/1/3.png"),
    ],
    "SPDNet": [("data/1.png", "label/1.png")],
    "lq and GT": [("LQ/a.png", "GT/a.png")],
    "one suffix": [("rainy/a_rain.png", "clean/a_clean.png"), ("rainy/b_rain.png", "clean/b_clean.png")],
}


@pytest.mark.parametrize("name", SETS)
def test_sets_are_found_and_paired(tmp_path: Path, name: str) -> None:
    lay_out(tmp_path / "Set", SETS[name])
    pairs = find_pairs(tmp_path / "Set")
    got = [
        (p.rainy.relative_to(tmp_path / "Set").as_posix(), p.clean.relative_to(tmp_path / "Set").as_posix())
        for p in pairs
    ]
    assert sorted(got) == sorted(SETS[name])
    assert got == sorted(got)
    assert {pair.dataset for pair in pairs} == {"Set"}
    for pair in pairs:
        rainy, clean = pair.read_rgb()
        assert rainy.astype(int).mean() - clean.mean() == pytest.approx(RAIN, abs=1)
        assert pair.rainy.as_posix().endswith(pair.name)


def test_every_row_of_the_table_is_tried_by_a_look_alike() -> None:
    """So that no row is without a test: each first folder name occurs above."""
    rainy = {Path(pair[0]).parent.as_posix().lower() for pairs in SETS.values() for pair in pairs}
    for layout in LAYOUTS:
        assert any(name in rainy or any(r.startswith(f"{name}/") for r in rainy) for name in layout.rainy), (
            layout
        )


def test_other_pictures_in_one_folder_are_no_rain(tmp_path: Path) -> None:
    """RainTrainH brings masks and streak layers in the same folder."""
    lay_out(tmp_path, SETS["RainTrainL"])
    for name in ("rainregion-1.png", "rainstreak-1.png"):
        write(tmp_path / name, 99)
    assert [pair.name for pair in find_pairs(tmp_path)] == ["rain-1.png", "rain-2.png"]


def test_a_list_of_pairs_comes_first(tmp_path: Path) -> None:
    lay_out(
        tmp_path,
        [("real_world/1/x_0.png", "real_world_gt/1/y.png"), ("real_world/1/z.png", "real_world_gt/1/z.png")],
    )
    (tmp_path / "real_world.txt").write_text("/real_world/1/x_0.png /real_world_gt/1/y.png\n\n")
    (tmp_path / "README.txt").write_text("Cite our paper.\n")
    (pair,) = find_pairs(tmp_path)
    assert (pair.rainy.name, pair.clean.name, pair.name) == ("x_0.png", "y.png", "real_world/1/x_0.png")
    (tmp_path / "real_world.txt").write_text("/real_world/1/gone.png /real_world_gt/1/y.png\n")
    with pytest.raises(
        OpenError, match=r"1 files of its list are missing, such as .*gone\.png; correct the list"
    ):
        find_pairs(tmp_path)


def test_splits_are_chosen_and_named(tmp_path: Path) -> None:
    for split, names in (("train", "ab"), ("test", "c"), ("validation", "d")):
        lay_out(tmp_path / split, [(f"input/{name}.png", f"target/{name}.png") for name in names])
    assert [pair.name for pair in find_pairs(tmp_path, split="train")] == ["a.png", "b.png"]
    assert [pair.name for pair in find_pairs(tmp_path, split="val")] == ["d.png"]
    assert {pair.dataset for pair in find_pairs(tmp_path, split="test")} == {tmp_path.name}
    assert len(find_pairs(tmp_path / "train")) == 2
    with pytest.raises(OpenError, match="holds the splits test, train, val; choose one"):
        find_pairs(tmp_path)
    with pytest.raises(OpenError, match="no split 'dev': it holds test, train, val"):
        find_pairs(tmp_path, split="dev")
    with pytest.raises(OpenError, match="no split 'test': it holds no splits"):
        find_pairs(tmp_path / "train", split="test")


def test_splits_may_be_lists_of_names(tmp_path: Path) -> None:
    """RealRain-1k: one pair of folders, and who belongs where in text files."""
    lay_out(tmp_path / "RealRain-1k-L", [(f"input/{i}.png", f"target/{i}.png") for i in range(4)])
    (tmp_path / "RealRain-1k-L" / "train.txt").write_text("0.png\n2.png\n")
    (tmp_path / "RealRain-1k-L" / "test.txt").write_text("1\n")
    assert [pair.name for pair in find_pairs(tmp_path, split="train")] == ["0.png", "2.png"]
    assert [pair.name for pair in find_pairs(tmp_path / "RealRain-1k-L", split="test")] == ["1.png"]
    with pytest.raises(OpenError, match="holds the splits test, train"):
        find_pairs(tmp_path)
    (tmp_path / "RealRain-1k-L" / "test.txt").write_text("9.png\n")
    with pytest.raises(OpenError, match="the test list names 9, which is not there"):
        find_pairs(tmp_path, split="test")


def test_the_old_names_of_splits(tmp_path: Path) -> None:
    for folder in ("rain_data_train_Heavy", "rain_data_test_Heavy"):
        lay_out(tmp_path / folder, SETS["Rain200H"])
    (found,) = find_sets(tmp_path, split="test")
    assert found.name == "rain_data_test_Heavy"
    assert len(found.pairs) == 2


def test_spa_data_as_it_is_given_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lay_out(tmp_path / "Training", SETS["SPA-Data, training"])
    lay_out(tmp_path / "Testing" / "real_test_1000", SETS["SPA-Data, test"])
    write(tmp_path / "Testing" / "Real_Internet" / "rain-001.png", 50)
    with caplog.at_level(logging.WARNING):
        (found,) = find_sets(tmp_path, split="test")
    assert (found.name, len(found.pairs)) == ("real_test_1000", 2)
    assert "Real_Internet fits no layout of a data set and is left out" in caplog.text


def test_folders_of_several_sets_keep_their_names(tmp_path: Path) -> None:
    names = ["Rain100H", "Rain100L", "Test100", "Test1200", "Test2800"]
    for name in names:
        lay_out(tmp_path / "Rain13K" / "test" / name, [(f"input/{name}.png", f"target/{name}.png")])
    lay_out(tmp_path / "Rain13K" / "train", SETS["Rain100L"])
    found = find_sets(tmp_path / "Rain13K", split="test")
    assert [(s.name, s.pairs[0].name) for s in found] == [(name, f"{name}.png") for name in names]
    assert [s.name for s in find_sets(tmp_path / "Rain13K" / "test")] == names
    assert [s.name for s in find_sets(tmp_path / "Rain13K" / "test", leave_out=["Test100"])] == [
        name for name in names if name != "Test100"
    ]


@pytest.mark.parametrize("side", ["left", "right"])
def test_rain800_is_cut_in_halves(tmp_path: Path, side: str) -> None:
    for index in range(5):
        joined(tmp_path / "rain" / "training" / f"{index}.jpg", rainy=side, seed=index)
        joined(tmp_path / "rain" / "test_syn" / f"{index}.jpg", rainy=side, seed=10 + index)
        joined(tmp_path / "rain" / "test_nature" / f"{index}.jpg", rainy=side, seed=20 + index, bright=0)
    (found,) = find_sets(tmp_path / "rain", split="test")
    assert found.name == "test_syn"  # test_nature holds the same picture twice: no pairs
    assert [pair.rainy_half for pair in found.pairs] == [side] * 5
    rainy, clean = found.pairs[0].read_rgb()
    assert rainy.shape == clean.shape == (48, 64, 3)
    assert rainy.mean() > clean.mean() + 0.5
    assert (found.pairs[0].rainy, found.pairs[0].name) == (found.pairs[0].clean, "0.jpg")
    assert len(find_pairs(tmp_path, split="train")) == 5


def test_did_mdn_has_three_densities(tmp_path: Path) -> None:
    for density in ("Rain_Heavy", "Rain_Light", "Rain_Medium"):
        for index in range(3):
            joined(tmp_path / "DID-MDN-training" / density / "train2018new" / f"{index}.jpg", seed=index)
    found = find_sets(tmp_path / "DID-MDN-training")
    assert [s.name for s in found] == [f"Rain_{d}/train2018new" for d in ("Heavy", "Light", "Medium")]
    assert all(pair.rainy_half == "left" for s in found for pair in s.pairs)


def test_joined_pictures_must_agree_on_the_rainy_side(tmp_path: Path) -> None:
    for index in range(6):
        joined(tmp_path / f"{index}.png", rainy="left" if index % 2 else "right", seed=index)
    with pytest.raises(OpenError, match="left half is brighter in 50% of them only"):
        find_pairs(tmp_path)


def test_an_odd_joined_picture_is_named(tmp_path: Path) -> None:
    for index in range(4):
        joined(tmp_path / f"{index}.png", seed=index)
    write(tmp_path / "odd.png", 30)
    Image.new("RGB", (7, 4)).save(tmp_path / "odd.png")
    with pytest.raises(OpenError, match=r"odd\.png is 7 px wide"):
        find_pairs(tmp_path)[-1].read_rgb()


@pytest.mark.parametrize("seeds", [range(9), [0] * 9])
def test_ordinary_photographs_are_no_joined_pictures(tmp_path: Path, seeds: Sequence[int]) -> None:
    """Nor are the frames of one clip, whose halves share a sky and a street."""
    sky_to_street = np.linspace(200, 60, 48)[:, None]
    for index, seed in enumerate(seeds):
        picture = sky_to_street + 300 * (
            ndimage.gaussian_filter(np.random.default_rng(seed).random((48, 128)), 3) - 0.5
        )
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{index}.png")
    with pytest.raises(OpenError, match="laid out like no known data set"):
        find_pairs(tmp_path)


def test_nturain_is_a_set_of_clips(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    testing = tmp_path / "Dataset_Testing_Synthetic"
    for clip in ("a1", "b2"):
        lay_out(testing, [(f"{clip}_Rain/{t:05d}.jpg", f"{clip}_GT/{t:05d}.jpg") for t in (1, 2, 10)])
    write(testing / "a1_spacCNN" / "00001.jpg", 20)
    write(tmp_path / "Dataset_Testing_RealRain" / "ra1_Rain" / "00001.jpg", 20)
    lay_out(tmp_path / "Dataset_Training_Synthetic", [(f"t1_Rain_0{k}/1.jpg", "t1_GT/1.jpg") for k in (1, 2)])
    with caplog.at_level(logging.WARNING):
        clips = find_sets(tmp_path, split="test")
    assert [clip.name for clip in clips] == [f"Dataset_Testing_Synthetic/{c}_Rain" for c in ("a1", "b2")]
    assert all(clip.moving for clip in clips)
    assert [pair.name for pair in clips[0].pairs] == ["00001.jpg", "00002.jpg", "00010.jpg"]
    assert clips[1].pairs[2].clean == testing / "b2_GT" / "00010.jpg"
    assert "ra1_Rain fits no layout" in caplog.text
    assert [clip.name for clip in find_sets(testing)] == ["a1_Rain", "b2_Rain"]
    assert [clip.name for clip in find_sets(tmp_path / "Dataset_Training_Synthetic")] == [
        "t1_Rain_01",
        "t1_Rain_02",
    ]
    assert find_sets(testing.parent, split="train")[0].pairs[0].dataset.endswith("t1_Rain_01")


def test_stills_are_no_sequences(tmp_path: Path) -> None:
    lay_out(tmp_path, SETS["Rain100L"])
    assert not any(found.moving for found in find_sets(tmp_path))


def test_a_rainy_picture_alone_is_named_with_both_trees(tmp_path: Path) -> None:
    lay_out(tmp_path, SETS["Rain100L"])
    write(tmp_path / "input" / "3.png", 60)
    with pytest.raises(OpenError) as caught:
        find_pairs(tmp_path)
    text = str(caught.value)
    assert "1 of 3 rainy pictures have no clean one, such as input/3.png" in text
    assert "\n  input/  1.png 2.png 3.png\n" in text
    assert "rainy_image/1_1.jpg  ground_truth/1.jpg" in text


def test_clean_pictures_may_be_more(tmp_path: Path) -> None:
    lay_out(tmp_path, SETS["Rain100L"])
    write(tmp_path / "target" / "7.png", 60)
    assert len(find_pairs(tmp_path)) == 2


def test_what_fits_nothing_shows_what_was_found_and_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(OpenError, match="no folder"):
        find_pairs(tmp_path / "nowhere")
    with pytest.raises(OpenError, match="Found:\n  nothing\n"):
        find_pairs(tmp_path)
    write(tmp_path / "wet" / "a.png", 60)
    with pytest.raises(OpenError) as caught:
        find_pairs(tmp_path)
    text = str(caught.value)
    assert "\n  wet/  a.png\n" in text
    for name in (
        "Rain13K",
        "Rain200L/H",
        "Rain800",
        "Rain1400",
        "DID-MDN",
        "SPA-Data",
        "NTURain",
        "RealRain-1k",
    ):
        assert name in text, name
    assert find_sets(tmp_path, needed=False) == []


def test_pictures_of_two_sizes_are_no_pair(tmp_path: Path) -> None:
    lay_out(tmp_path, SETS["Rain100L"])
    Image.new("RGB", (6, 5)).save(tmp_path / "target" / "2.png")
    with pytest.raises(OpenError, match=r"2\.png and .*2\.png differ in size, 6x4 and 6x5"):
        find_pairs(tmp_path)[1].read_rgb()
