"""The library and the batches: what is in them, what is skipped, and that they repeat exactly."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streamderain.errors import OpenError
from streamderain.measure.metrics import psnr
from tests.trainer.support import scene, write_clip
from trainer.config import TrainConfig
from trainer.data import clips, pictures
from trainer.data.layouts import find_pairs
from trainer.data.library import Library, open_library
from trainer.data.loader import WorkerLost, feed
from trainer.data.paired import Batch, BatchMaker
from trainer.data.rain_mix import remix


def equal(one: Batch, other: Batch) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("window", "validity", "target")
    )


def test_library_holds_every_kind(library: Library) -> None:
    counts = {kind: len(library.of_kind(kind)) for kind in ("clip", "coded", "still", "rainy", "layer")}
    assert counts == {"clip": 1, "coded": 1, "still": 3, "rainy": 2, "layer": 7}


def test_library_is_made_once(data: Path, config: TrainConfig, tmp_path: Path) -> None:
    open_library(data, tmp_path, config.data, seed=1)
    folder = next(tmp_path.iterdir())
    stamp = (folder / "samples.u8").stat().st_mtime_ns
    again = open_library(data, tmp_path, config.data, seed=1)
    assert (folder / "samples.u8").stat().st_mtime_ns == stamp
    assert again.of_kind("clip")
    assert not list(folder.glob("*partial*"))


def test_unreadable_pictures_are_skipped_counted_and_named(
    data: Path, config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        open_library(data, tmp_path, config.data, seed=1)
    assert "broken.jpg" in caplog.text
    assert "skipped 1 unreadable" in caplog.text


def test_clips_keep_their_codes(library: Library) -> None:
    clip = library.array(library.of_kind("clip")[0])
    assert clip.shape == (12, 80, 96)
    assert psnr(clip[3], scene(80, 96, shift=6)) > 38


def test_coded_segments_are_rainy_and_lie_over_their_clip(library: Library) -> None:
    entry = library.of_kind("coded")[0]
    coded, clean = library.array(entry), library.array(library.entries[entry.partner])
    difference = coded.astype(float) - clean[entry.start : entry.start + len(coded)]
    assert 15 < psnr(coded, clean[entry.start : entry.start + len(coded)]) < 45
    assert np.percentile(difference, 99.5) > -np.percentile(difference, 0.5)


def test_batches_are_the_same_whenever_they_are_asked_for(
    maker: BatchMaker, library: Library, config: TrainConfig
) -> None:
    first = maker.batch(5)
    maker.batch(6)
    fresh = BatchMaker(library, config.data, batch=config.batch, seed=config.seed)
    assert equal(fresh.batch(5), first)
    assert not equal(fresh.batch(6), first)


def test_batches_keep_their_promises(maker: BatchMaker) -> None:
    batches = [maker.batch(step) for step in range(40)]
    window = np.concatenate([b.window for b in batches])
    validity = np.concatenate([b.validity for b in batches])
    target = np.concatenate([b.target for b in batches])
    assert window.shape == (160, 3, 32, 32)
    assert target.shape == (160, 1, 32, 32)
    assert window.dtype == target.dtype == validity.dtype == np.float32
    assert window.min() >= 0.0
    assert window.max() <= 1.0
    np.testing.assert_allclose(window * 255, np.rint(window * 255), atol=1e-3)  # whole codes
    for side, position in ((0, 0), (1, 2)):
        missing = validity[:, side] == 0
        assert 0.1 < missing.mean() < 0.6
        np.testing.assert_array_equal(window[missing, position], window[missing, 1])
    dry = (window[:, 1] == target[:, 0]).all(axis=(1, 2))
    assert 0.03 < dry.mean() < 0.35
    brightened = (window[:, 1] - target[:, 0])[~dry]
    assert brightened.mean() > 0.005


def test_pictures_smaller_than_the_crop_are_extended(library: Library, config: TrainConfig) -> None:
    tiny = next(entry for entry in library.of_kind("still") if entry.name == "tiny.png")
    library.entries[:] = [entry for entry in library.entries if entry.kind != "still" or entry is tiny]
    try:
        maker = BatchMaker(library, config.data, batch=16, seed=0)
        assert maker.batch(0).window.shape == (16, 3, 32, 32)
    finally:
        library.entries[:] = Library(Path(library._samples.filename).parent).entries


@pytest.mark.parametrize("workers", [0, 1])
def test_the_feed_keeps_the_order_and_stops(maker: BatchMaker, workers: int) -> None:
    ahead = feed(maker, 2, 6, workers=workers)
    assert equal(next(ahead)[0], maker.batch(2))
    assert equal(next(ahead)[0], maker.batch(3))
    ahead.close()  # type: ignore[attr-defined]
    assert len(list(feed(maker, 0, 3, workers=workers))) == 3


def test_the_feed_deals_a_step_out_to_processes_and_parts(maker: BatchMaker) -> None:
    (mine,) = feed(maker, 4, 5, accumulate=2, rank=1, ranks=2, workers=0)
    assert len(mine) == 2
    for part, batch in zip((2, 3), mine, strict=True):
        assert equal(batch, maker.batch(4, part=part, parts=4))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_feed_hands_errors_over(maker: BatchMaker, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    def fail(step: int, *, part: int = 0, parts: int = 1) -> Batch:
        raise OpenError(f"disk gone at {step}")

    monkeypatch.setattr(maker, "batch", fail)
    with pytest.raises(OpenError, match="disk gone at 4"):
        list(feed(maker, 4, 8, workers=workers))


def test_the_feed_leaves_the_process_its_signals(maker: BatchMaker) -> None:
    before = signal.getsignal(signal.SIGCHLD)
    ahead = feed(maker, 0, 2, workers=1)
    next(ahead)
    assert signal.getsignal(signal.SIGCHLD) == before
    ahead.close()  # type: ignore[attr-defined]


def test_a_killed_worker_is_reported(maker: BatchMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(step: int, *, part: int = 0, parts: int = 1) -> Batch:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("not reached")

    monkeypatch.setattr(maker, "batch", die)
    with pytest.raises(WorkerLost, match=r"killed at step 4 .* --resume"):
        list(feed(maker, 4, 8, workers=1))


def test_missing_folders_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(OpenError, match="no folder"):
        pictures.list_files(tmp_path / "nowhere", pictures.PICTURE_SUFFIXES)
    with pytest.raises(OpenError, match="holds no file"):
        pictures.list_files(tmp_path, pictures.PICTURE_SUFFIXES)
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(OpenError, match=r"clip\.mp4"):
        clips.read_clip(tmp_path / "clip.mp4")


def test_an_empty_data_folder_shows_the_tree_that_is_expected(tmp_path: Path, config: TrainConfig) -> None:
    with pytest.raises(OpenError) as caught:
        open_library(tmp_path / "data", tmp_path / "cache", config.data, seed=1)
    for line in ("clips/", "stills/", "pairs/input/", "pairs/target/", "layers/"):
        assert f"\n  {line} " in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_pairs_need_namesakes(data: Path, tmp_path: Path) -> None:
    assert [(pair.rainy.name, pair.clean.name) for pair in find_pairs(data / "pairs")] == [
        ("0.jpg", "0.png"),
        ("1.jpg", "1.png"),
    ]
    for side, name in (("input", "a.png"), ("input", "b.png"), ("target", "a.png")):
        (tmp_path / side).mkdir(exist_ok=True)
        (tmp_path / side / name).write_bytes(b"")
    with pytest.raises(OpenError, match=r"b\.png"):
        find_pairs(tmp_path)


def test_codecs_add_noise_and_keep_the_picture(tmp_path: Path) -> None:
    frames = np.stack([scene(48, 64, shift=t) for t in range(5)])
    fine, coarse = (clips.through_h264(frames, crf=crf) for crf in (10, 40))
    assert fine.shape == frames.shape
    assert psnr(fine, frames) > 40 > psnr(coarse, frames) > 20
    assert 25 < psnr(pictures.through_jpeg(frames[0], quality=40), frames[0]) < 50


def test_clips_are_read_up_to_a_limit(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", np.stack([scene(32, 48, shift=t) for t in range(6)]))
    assert clips.read_clip(tmp_path / "clip.mp4", limit=4).shape == (4, 32, 48)


def test_the_key_of_a_library_stays_what_it_was(data: Path, config: TrainConfig, tmp_path: Path) -> None:
    """Libraries take long to make: those of input/ and target/ pairs must be found again."""
    folders = ["clips", "stills", "layers", "pairs/input", "pairs/target"]
    files = [
        (f"{folder}/{path.name}", path.stat().st_size)
        for folder in folders
        for path in sorted((data / folder).iterdir())
    ]
    table = config.data
    made_of = [table.coded_segments, table.coded_frames, table.drawn_layers, table.turned_layers, 1, files]
    open_library(data, tmp_path, table, seed=1)
    expected = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    assert [path.name for path in tmp_path.iterdir()] == [expected]


def test_remixed_layers_are_added_and_keep_their_brightness(
    data: Path, config: TrainConfig, tmp_path: Path
) -> None:
    table = dataclasses.replace(config.data, clips=(), stills=(), pairs=(), remixed_layers=4)
    library = open_library(data, tmp_path, table, seed=1)
    entries = library.of_kind("layer")
    layers = {entry.name: library.array(entry) for entry in entries}
    mixed = [layer for name, layer in layers.items() if name.startswith("remixed")]
    assert len(mixed) == 4
    assert all(layer.dtype == np.uint8 and layer.max() > 0 for layer in mixed)
    others = [layer for name, layer in layers.items() if not name.startswith("remixed")]
    for layer in mixed:
        same_size = [other for other in others if other.shape == layer.shape]
        assert int(layer.max()) in {int(other.max()) for other in same_size}
        assert not any(np.array_equal(layer, other) for other in same_size)


def test_a_layer_without_rain_stays_as_it_is() -> None:
    empty = np.zeros((40, 60), np.uint8)
    np.testing.assert_array_equal(remix(np.random.default_rng(0), empty), empty)


def test_pairs_may_lie_in_any_layout(data: Path, config: TrainConfig, tmp_path: Path) -> None:
    """One folder as in Rain12; one with another size on each side, which is skipped and named."""
    wet = tmp_path / "data" / "wet"
    wet.mkdir(parents=True)
    for index in range(2):
        clean = scene(40, 48, seed=index)
        Image.fromarray(clean).convert("RGB").save(wet / f"{index:03d}_GT.png")
        Image.fromarray(clean + np.uint8(30)).convert("RGB").save(wet / f"{index:03d}_in.png")
    table = dataclasses.replace(config.data, clips=(), stills=(), pairs=("wet",), layers=(), drawn_layers=0)
    table = dataclasses.replace(table, turned_layers=0)
    library = open_library(tmp_path / "data", tmp_path / "cache", table, seed=1)
    rainy = library.of_kind("rainy")
    assert [entry.name for entry in rainy] == ["000_in.png", "001_in.png"]
    partner = library.entries[rainy[1].partner]
    assert partner.name == "001_GT.png"
    added = library.array(rainy[1]).astype(int) - library.array(partner)
    assert abs(added.mean() - 30 * 219 / 255) < 0.5
    before = {path.name for path in (tmp_path / "cache").iterdir()}
    Image.fromarray(scene(44, 48)).convert("RGB").save(wet / "001_GT.png")
    library = open_library(tmp_path / "data", tmp_path / "cache", table, seed=1)
    assert len(library.of_kind("rainy")) == 1
    assert {path.name for path in (tmp_path / "cache").iterdir()} > before  # another key


def test_pictures_are_read_where_pyav_and_openvino_are_not_installed() -> None:
    data = [f"data.{name}" for name in ("library", "paired", "pictures", "layouts")]
    evaluation = [f"evaluation.{name}" for name in ("cases", "scores", "results", "validate", "derainers")]
    program = "import sys; sys.modules['av'] = sys.modules['openvino'] = None\n" + "\n".join(
        f"import trainer.{name}" for name in (*data, *evaluation)
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
