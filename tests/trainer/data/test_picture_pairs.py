"""Batches for networks of RGB: pictures in colour, and that they repeat exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from streamderain.errors import ConfigError
from tests.trainer.support import TINY_RGB
from trainer.config import DataConfig, TrainConfig, parse_config
from trainer.data.library import Library, open_library
from trainer.data.picture_pairs import PicturePairMaker

SHARES = ("share_still", "share_pair", "share_dry", "share_flat")


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    return parse_config(TINY_RGB, where="test")


@pytest.fixture(scope="module")
def colours(data: Path, config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Library:
    return open_library(data, tmp_path_factory.mktemp("cache"), config.data, seed=1, channels=3)


@pytest.fixture
def only(config: TrainConfig, colours: Library) -> Callable[[str], PicturePairMaker]:
    def made(share: str) -> PicturePairMaker:
        shares = {name: float(name == share) for name in SHARES}
        data: DataConfig = dataclasses.replace(config.data, **shares)
        return PicturePairMaker(colours, data, batch=6, seed=2)

    return made


def test_the_library_holds_pictures_in_colour(colours: Library) -> None:
    counts = colours.counts()
    assert {kind: counts[kind] for kind in ("still", "rainy", "target")} == {
        "still": 3,
        "rainy": 2,
        "target": 2,
    }
    assert all(entry.shape[0] == 3 for entry in colours.of_kind("still") + colours.of_kind("rainy"))


def test_batches_repeat_and_parts_share_them(config: TrainConfig, colours: Library) -> None:
    one, other = (PicturePairMaker(colours, config.data, batch=4, seed=2) for _ in range(2))
    assert one.batch(3).rainy.shape == (4, 3, 32, 32)
    np.testing.assert_array_equal(one.batch(3).rainy, other.batch(3).rainy)
    np.testing.assert_array_equal(one.batch(3).target, other.batch(3).target)
    assert not np.array_equal(one.batch(3).rainy, one.batch(4).rainy)
    assert one.batch(3, part=1, parts=2).rainy.shape == (2, 3, 32, 32)


@pytest.mark.parametrize("share", SHARES)
def test_pictures_are_codes_in_0_to_1(only: Callable[[str], PicturePairMaker], share: str) -> None:
    batch = only(share).batch(1)
    for pictures in (batch.rainy, batch.target):
        assert pictures.dtype == np.float32
        codes = 255.0 * pictures
        assert codes.min() >= 0.0
        assert codes.max() <= 255.001
        np.testing.assert_allclose(codes, np.rint(codes), atol=1e-3)


@pytest.mark.parametrize("share", ["share_dry", "share_flat"])
def test_rain_free_samples_are_their_own_target(only: Callable[[str], PicturePairMaker], share: str) -> None:
    batch = only(share).batch(1)
    np.testing.assert_array_equal(batch.rainy, batch.target)


def test_drawn_rain_brightens(only: Callable[[str], PicturePairMaker]) -> None:
    batch = only("share_still").batch(1)
    assert (batch.rainy - batch.target).mean() > 0.002


def test_clips_are_refused_for_networks_of_rgb() -> None:
    with pytest.raises(ConfigError, match=r"data\.clips must be empty"):
        parse_config({**TINY_RGB, "data": {**TINY_RGB["data"], "clips": ["clips"]}}, where="test")
