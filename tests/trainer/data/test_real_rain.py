"""What is learned from rainy video without a clean version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from streamderain.measure.rain import RainParameters, RainSequence
from tests.trainer.support import TINY, scene, write_clip
from trainer.config import TrainConfig, parse_config
from trainer.data.library import open_library
from trainer.data.paired import Batch, BatchMaker
from trainer.data.real_rain import PATCH_PX, TOLD_BY, agreed, moving_streaks
from trainer.methods.supervised import Supervised
from trainer.run.loop import one_device

Codes = NDArray[np.uint8]
RAIN = RainParameters(density_per_mpx=900, peak=0.4, length_px=14)


def rained(clean: Codes, seed: int = 0) -> Codes:
    rain = RainSequence(RAIN, seed, clean.shape[2], clean.shape[1])
    return np.stack([rain.apply_to_codes(frame, number) for number, frame in enumerate(clean)]).astype(
        np.uint8
    )


def psnr(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(-10 * np.log10(np.mean((one - other) ** 2)))


def told(frames: Codes, middle: int) -> Codes:
    offsets = (*TOLD_BY[:2], 0, *TOLD_BY[2:])
    return np.stack([frames[middle + offset] for offset in offsets])


@pytest.mark.parametrize("pan_px", [0, 3])
def test_frames_around_agree_on_what_is_behind_the_rain(pan_px: int) -> None:
    clean = np.stack([scene(128, 160, shift=pan_px * number) for number in range(7)])
    rainy = rained(clean)
    target, trusted = agreed(told(rainy, 3), cell=2)
    inside = trusted > 0
    assert inside.mean() > 0.5
    truth, seen = clean[3] / np.float32(255), rainy[3] / np.float32(255)
    assert psnr(target[inside], truth[inside]) > psnr(seen[inside], truth[inside]) + 3


def test_what_changes_is_not_trusted() -> None:
    """A scene that jumps tells nothing of another; patches that stayed are told apart."""
    still = scene(128, 160)
    frames = np.repeat(still[None], 7, 0)
    frames[:, :64, :64] = np.random.default_rng(0).integers(30, 200, (7, 64, 64))
    _, trusted = agreed(told(frames, 3), cell=2)
    assert not trusted[:64, :64].any()
    assert trusted[PATCH_PX * 2 :, PATCH_PX * 2 :].all()


def test_streaks_of_a_still_camera_are_what_is_above_the_scene() -> None:
    scene_alone = scene(96, 128)
    clean = np.repeat(scene_alone[None], 30, 0)
    rainy = rained(clean)
    layers = moving_streaks(rainy)
    assert layers is not None
    assert layers.shape == rainy.shape
    opacity = layers.astype(np.float32) / 255
    redrawn = clean + opacity * (235 - clean.astype(np.float32))
    # Laid over the scene again they are the rain, but for what lies in the noise.
    assert np.abs(redrawn - rainy).mean() < 1.0
    assert (rainy.astype(int) - clean > 20).mean() > 0.01
    moving = np.stack([scene(96, 128, shift=2 * number) for number in range(30)])
    assert moving_streaks(rained(moving)) is None


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    data = {**TINY["data"], "real": ["real"], "share_real": 0.5, "real_streaks": 0.5}
    return parse_config({**TINY, "name": "tiny-real", "data": data}, where="test")


@pytest.fixture
def maker(data: Path, config: TrainConfig, tmp_path: Path) -> BatchMaker:
    folder = data / "real"
    folder.mkdir(exist_ok=True)
    write_clip(folder / "still.mp4", rained(np.repeat(scene(80, 96, seed=7)[None], 12, 0)))
    moving = np.stack([scene(80, 96, seed=8, shift=2 * number) for number in range(12)])
    write_clip(folder / "drive.mp4", rained(moving))
    library = open_library(data, tmp_path / "cache", config.data, seed=config.seed)
    assert library.counts()["real"] == 2
    assert library.counts()["moving layer"] == 1
    return BatchMaker(library, config.data, batch=config.batch, seed=config.seed)


def test_batches_say_where_their_targets_are_trusted(maker: BatchMaker, config: TrainConfig) -> None:
    batches = [maker.batch(step) for step in range(8)]
    found = [batch.trusted for batch in batches if batch.trusted is not None]
    assert found
    size = config.data.crop_px
    assert all(trusted.shape == (config.batch, 1, size, size) for trusted in found)
    values = np.unique(np.concatenate([trusted.ravel() for trusted in found]))
    assert set(values) <= {0.0, 1.0}
    again = maker.batch(0)
    np.testing.assert_array_equal(again.window, batches[0].window)
    np.testing.assert_array_equal(again.target, batches[0].target)


def test_nothing_is_learned_where_nothing_is_trusted(maker: BatchMaker, config: TrainConfig) -> None:
    batch = maker.batch(0)
    nowhere = np.zeros_like(batch.target)
    method = Supervised(config, one_device(config))
    before = {key: value.clone() for key, value in method.state.modules["network"].state_dict().items()}
    values = method.step([Batch(batch.window, batch.validity, batch.target, nowhere)])
    assert values["squared"] == 0
    torch.testing.assert_close(method.state.modules["network"].state_dict(), before)
    method.step([Batch(batch.window, batch.validity, batch.target, np.ones_like(nowhere))])
    moved = method.state.modules["network"].state_dict()
    assert any(not torch.equal(moved[key], before[key]) for key in before)
