"""Fitting a model to rainy footage of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from streamderain.errors import ConfigError
from streamderain.measure.rain import RainParameters, RainSequence
from streamderain.models import load_model
from streamderain.nets.deep import DeepNet
from streamderain.nets.fast import FastNet
from streamderain.nets.generator import ResidualGenerator
from tests.trainer.support import scene, write_clip
from trainer.cli.adapt import SHEET
from trainer.cli.main import cli
from trainer.run.adapt import Harmed, adapting_config, harm_of


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rainy clips, one of a camera that stands still."""
    folder = tmp_path_factory.mktemp("footage")
    rain = RainSequence(RainParameters(density_per_mpx=900, peak=0.4), 1, 192, 160)
    for name, step in (("still", 0), ("drive", 2)):
        frames = [rain.apply_to_codes(scene(160, 192, shift=step * n), n) for n in range(12)]
        write_clip(folder / f"{name}.mp4", np.stack(frames).astype(np.uint8))
    return folder


def adapt(*arguments: str | Path, footage: Path, to: Path) -> str:
    words = ["adapt", "--footage", str(footage), "--to", str(to), *map(str, arguments)]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_model_is_fitted_to_footage(folder: Path, footage: Path, validation: Path, tmp_path: Path) -> None:
    to = tmp_path / "mine"
    output = adapt("--model", folder, "--steps", "2", "--validation", validation, footage=footage, to=to)
    assert "street rain" in output
    card = load_model(str(to))
    assert (card.name, card.family, card.version) == ("mine", "fast", "0.1.0")
    assert "Adapted from dcd-test 1.2.3" in card.training["note"]
    assert card.training["config"] == "adapt"
    with Image.open(to / SHEET) as sheet:
        assert sheet.size == (3 * 480, 2 * 480), "rainy, before and after of two clips"
    assert not (tmp_path / "mine.run" / SHEET).exists()


def test_without_validation_data_the_demo_judges(folder: Path, footage: Path, tmp_path: Path) -> None:
    output = adapt("--model", folder, "--steps", "1", footage=footage, to=tmp_path / "mine")
    assert "demo rain-free" in output


def test_a_model_that_does_worse_is_refused(
    folder: Path, footage: Path, validation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.run.adapt.TOLERATED_DB", -50.0)  # nothing rises so far
    words = ["adapt", "--model", str(folder), "--footage", str(footage), "--to", str(tmp_path / "mine")]
    with pytest.raises(Harmed, match=r"street rain \[.*\]: \d+\.\d+ -> .*fewer --steps"):
        CliRunner().invoke(
            cli, [*words, "--steps", "1", "--validation", str(validation)], catch_exceptions=False
        )
    assert not (tmp_path / "mine").exists()
    assert (tmp_path / "mine.run" / SHEET).is_file()


def test_harm_is_what_somebody_could_see() -> None:
    before = {"a rain": 30.0, "b rain": 30.0, "a rain-free": 70.0, "b rain-free": 60.0, "c rain-free": 40.0}
    after = {"a rain": 29.95, "b rain": 29.8, "a rain-free": 51.0, "b rain-free": 49.0, "c rain-free": 39.8}
    assert set(harm_of(before, after)) == {"b rain", "b rain-free", "c rain-free"}


def test_the_network_keeps_its_sizes(tmp_path: Path) -> None:
    own = {"data": None, "steps": 5, "model": tmp_path}
    fast = adapting_config(FastNet(width=8, middle_width=16, middle_layers=2), tmp_path, **own)  # type: ignore[arg-type]
    assert (fast.network.width, fast.network.middle_width, fast.network.middle_layers) == (8, 16, 2)
    assert all(phase.int8 for phase in fast.phases)
    deep = adapting_config(DeepNet(width=8, blocks=1), tmp_path, **own)  # type: ignore[arg-type]
    assert (deep.network.family, deep.network.width, deep.network.blocks) == ("deep", 8, 1)
    assert not any(phase.int8 for phase in deep.phases)
    with pytest.raises(ConfigError, match="see single pictures"):
        adapting_config(ResidualGenerator(width=8, blocks=1), tmp_path, **own)  # type: ignore[arg-type]


def test_other_training_data_is_learned_from_where_it_is(data: Path, tmp_path: Path) -> None:
    (tmp_path / "clean_video").mkdir()
    (tmp_path / "streaks_garg").mkdir()
    config = adapting_config(FastNet(), data, data=tmp_path, steps=5, model=tmp_path)
    assert (config.data.clips, config.data.stills, config.data.layers) == (
        ("clean_video",),
        (),
        ("streaks_garg",),
    )
