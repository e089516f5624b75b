"""Networks of RGB: they learn from pairs, resume exactly, begin narrower, and become models."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from streamderain.models import read_card
from streamderain.nets.generator import ResidualGenerator
from streamderain.options import EngineOptions
from streamderain.runtime.registry import open_engine
from tests.trainer.support import TINY_RGB
from trainer.checkpoint import read_checkpoint
from trainer.cli import cli
from trainer.config import NetworkConfig, TrainConfig, parse_config
from trainer.data.library import Library, open_library
from trainer.data.picture_pairs import PicturePairMaker
from trainer.methods.supervised import Supervised
from trainer.networks.load import load_network
from trainer.run.loop import begin_with, one_device, train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    return parse_config(TINY_RGB, where="test")


@pytest.fixture(scope="module")
def library(data: Path, config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Library:
    return open_library(data, tmp_path_factory.mktemp("cache"), config.data, seed=1, channels=3)


@pytest.fixture(scope="module")
def maker(library: Library, config: TrainConfig) -> PicturePairMaker:
    return PicturePairMaker(library, config.data, batch=config.batch, seed=config.seed)


@pytest.fixture(scope="module")
def run(config: TrainConfig, maker: PicturePairMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(config, maker, folder)
    return folder


def test_a_resumed_run_equals_an_uninterrupted_one(
    config: TrainConfig, maker: PicturePairMaker, run: Path, tmp_path: Path
) -> None:
    train(config, maker, tmp_path, stop_after=3)
    torch.manual_seed(99)
    train(config, maker, tmp_path, resume=True)
    whole, parts = (read_checkpoint(p / "checkpoints" / "last.safetensors")[0] for p in (run, tmp_path))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_it_learns(config: TrainConfig, library: Library) -> None:
    drawn = dataclasses.replace(config.data, share_pair=0.0, share_dry=0.0, share_flat=0.0)
    config = dataclasses.replace(config, steps=100, warmup_steps=20, rate=5e-4, data=drawn)
    maker = PicturePairMaker(library, config.data, batch=config.batch, seed=config.seed)
    method = Supervised(config, one_device(config))
    judged = [maker.batch(1000 + step) for step in range(4)]

    def error() -> float:
        average = method.state.average
        pairs = [(torch.from_numpy(b.rainy), torch.from_numpy(b.target)) for b in judged]
        with torch.no_grad():
            found = [
                (average.clean(r[:, None], torch.zeros(len(r), 2)) - t).square().mean() for r, t in pairs
            ]
        return float(torch.stack(found).mean())

    nothing = float(np.mean([np.square(b.rainy - b.target).mean() for b in judged]))
    for step in range(100):
        method.step([maker.batch(step)])
        method.state.step += 1
    assert error() < 0.85 * nothing
    sheet = method.sheet(judged[0])
    assert sheet.shape == (4 * 32, 3 * 32, 3)


def test_a_run_begins_with_a_narrower_ones_weights(config: TrainConfig, run: Path) -> None:
    wider = dataclasses.replace(
        config, network=NetworkConfig(family=config.network.family, width=16, blocks=2)
    )
    state = Supervised(wider, one_device(wider)).state
    begin_with(state, run)
    picture = torch.rand(1, 1, 3, 32, 32)
    with torch.no_grad():
        narrow, wide = (n.clean(picture, torch.zeros(1, 2)) for n in (load_network(run), state.average))
    assert (narrow - wide).abs().max() < 0.5 * (narrow - picture[:, 0]).abs().max()
    assert [part["config"] for part in state.earlier] == ["tiny-rgb"]


def test_a_run_becomes_a_model(run: Path, data: Path, validation: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    typed = ["export", "--run", run, "--to", folder, "--data", data, "--validation", validation]
    done = CliRunner().invoke(cli, [*map(str, typed), "--name", "tiny-gan"])
    assert done.exit_code == 0, done.output
    card = read_card(folder)
    assert (card.name, card.family, card.input) == ("tiny-gan", "residual-generator", "rgb")
    assert (card.before, card.after, card.tileable, card.least_px) == (0, 0, False, 16)
    assert card.bytes_per_px > 0
    assert set(card.files) == {"f32", "weights"}
    assert card.training["data"] == ["stills", "pairs", "layers"]
    assert {score.dataset for score in card.scores} >= {"stills"}
    assert all(path.is_file() for path in card.paths("f32"))
    # The graph has no weights of its own, and no path of the machine that exported it.
    graph = (folder / "model.onnx").read_bytes()
    assert b".py" not in graph
    assert len(graph) < 100_000
    page = (folder / "MODEL_CARD.md").read_text()
    assert "residual-generator" in page
    assert "8 steps of 4 crops of 32 px" in page
    assert "weights come from pairs alone" in page
    # The whole of it is what the run's network computes.
    loaded = load_network(folder)
    assert isinstance(loaded, ResidualGenerator)
    for key, value in load_network(run).state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value.half().float(), rtol=0, atol=0)
    with open_engine(EngineOptions(model=str(folder), engine="openvino")) as engine:
        assert engine.precision == "f32"
