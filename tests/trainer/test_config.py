"""Configurations: the shipped ones load, mistakes are named, what is saved reads back."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path

import pytest

from streamderain.errors import ConfigError
from tests.trainer.support import TINY
from trainer.config import CONFIGS, TrainConfig, dump_toml, known_losses, load_config, parse_config


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.toml")))
def test_shipped_configurations_load(name: str) -> None:
    config = load_config(name)
    assert config.name == name
    assert {loss for phase in config.phases for loss in phase.losses} <= set(known_losses(config.method))


def test_what_is_saved_reads_back(config: TrainConfig) -> None:
    again = parse_config(tomllib.loads(dump_toml(config.as_dict())), where="saved")
    assert again == config


def test_steps_can_be_replaced() -> None:
    assert load_config("paired", overrides={"steps": 12}).steps == 12


def test_phases_follow_the_steps(config: TrainConfig) -> None:
    assert [next(iter(config.phase(step).losses)) for step in (0, 3, 4, 7, 99)] == [
        "squared",
        "squared",
        "psnr",
        "psnr",
        "psnr",
    ]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"speed": 3}, "unknown speed"),
        ({"data": {"crop_px": 33}}, "crop_px"),
        ({"phases": []}, "phases"),
        ({"phases": [{"until": 0.5, "losses": {}}]}, "must end at 1.0"),
        ({"phases": [{"losses": {}}]}, "until"),
        ({"phases": [{"until": 1.0, "losses": {"magic": 1.0}}]}, "magic"),
        ({"rate": 0.0}, "rate"),
    ],
)
def test_mistakes_are_named(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_config({**copy.deepcopy(TINY), **change}, where="test")


def test_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="paired"):
        load_config("imaginary")
    broken = tmp_path / "broken.toml"
    broken.write_text("steps = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(str(broken))
