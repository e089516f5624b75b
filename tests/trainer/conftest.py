"""A data folder of the standard layout, small and made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from streamderain.measure.rain import RainParameters, RainSequence
from streamderain.nets.fast import FastNet
from tests.trainer.support import TINY, scene, write_clip
from trainer.checkpoint import Part
from trainer.config import TrainConfig, parse_config
from trainer.data.library import Library, open_library
from trainer.data.paired import BatchMaker
from trainer.export.model_folder import Trained, export_model
from trainer.methods.supervised import Supervised
from trainer.run.loop import one_device


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training data: one clip, four stills (one unreadable, one tiny), two pairs, three layers."""
    root = tmp_path_factory.mktemp("data")
    folders = ("clips", "stills", "layers", "pairs/input", "pairs/target")
    for folder in folders:
        (root / folder).mkdir(parents=True)
    write_clip(root / "clips" / "drive.mp4", np.stack([scene(80, 96, shift=2 * t) for t in range(12)]))
    for index in range(2):
        Image.fromarray(scene(100, 90, seed=index)).convert("RGB").save(root / "stills" / f"{index}.jpg")
    Image.fromarray(scene(20, 24, seed=9)).save(root / "stills" / "tiny.png")
    (root / "stills" / "broken.jpg").write_bytes(b"this is no picture")
    for index in range(3):
        alpha = RainSequence(RainParameters(peak=0.5), index, 120, 90).opacity(0)
        Image.fromarray(np.rint(255 * alpha).astype(np.uint8)).save(root / "layers" / f"{index}-4.png")
    for index in range(2):
        clean = scene(70, 60, seed=20 + index)
        rainy = RainSequence(RainParameters(), index, 60, 70).apply_to_codes(clean, 0, full_range=True)
        Image.fromarray(clean).convert("RGB").save(root / "pairs" / "target" / f"{index}.png")
        Image.fromarray(rainy).convert("RGB").save(root / "pairs" / "input" / f"{index}.jpg", quality=95)
    return root


@pytest.fixture(scope="session")
def config() -> TrainConfig:
    return parse_config(TINY, where="test")


@pytest.fixture(scope="session")
def library(data: Path, config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Library:
    return open_library(data, tmp_path_factory.mktemp("cache"), config.data, seed=config.seed)


@pytest.fixture
def maker(library: Library, config: TrainConfig) -> BatchMaker:
    return BatchMaker(library, config.data, batch=config.batch, seed=config.seed)


@pytest.fixture(scope="session")
def validation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Validation data: a clip with a cut, layers, and a data set of stills."""
    root = tmp_path_factory.mktemp("validation")
    for folder in ("clean_video", "streaks_garg", "stills/input", "stills/target"):
        (root / folder).mkdir(parents=True)
    before = [scene(48, 64, shift=t) for t in range(6)]
    after = [255 - scene(48, 64, seed=3, shift=t) for t in range(6)]
    write_clip(root / "clean_video" / "street.mp4", np.stack([*before, *after]))
    layer = ndimage.gaussian_filter1d((np.random.default_rng(0).random((60, 80)) > 0.98) * 900.0, 3, axis=0)
    Image.fromarray(np.clip(layer, 0, 255).astype(np.uint8)).save(root / "streaks_garg" / "121-4.webp")
    clean = scene(50, 61, seed=5)
    rainy = RainSequence(RainParameters(), 1, 61, 50).apply_to_codes(clean, 0, full_range=True)
    Image.fromarray(clean).convert("RGB").save(root / "stills" / "target" / "a.png")
    Image.fromarray(rainy).convert("RGB").save(root / "stills" / "input" / "a.png")
    return root


@pytest.fixture(scope="session")
def trained(library: Library) -> Trained:
    """The real network after a few steps: its residual is small where there is no rain."""
    config = parse_config(
        {
            "name": "t",
            "steps": 60,
            "rate": 2e-3,
            "warmup_steps": 10,
            "ema": 0.8,
            "batch": 8,
            "threads": 1,
            # Without compressed segments: x264 does not make the same of small pictures every time.
            "data": {"crop_px": 32, "share_coded": 0.0},
            "phases": [{"until": 1.0, "losses": {"squared": 1.0}, "residual_slope": 0.3}],
        },
        where="test",
    )
    method = Supervised(config, one_device(config))
    maker = BatchMaker(library, config.data, batch=8, seed=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)  # sums come out otherwise with others
    for step in range(60):
        method.step([maker.batch(step)])
        method.state.step += 1
    torch.set_num_threads(threads)
    average = method.state.modules["average"]
    assert isinstance(average, FastNet)
    parts = (
        Part(config="u", steps=2000, seconds=482, batch=8),
        Part(config="t", steps=45, seconds=58, batch=8),
    )
    return Trained(average.eval(), config, parts)


@pytest.fixture(scope="session")
def folder(trained: Trained, library: Library, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "dcd-test"
    maker = BatchMaker(library, trained.config.data, batch=8, seed=2)
    batches = [maker.batch(step) for step in range(6)]
    export_model(trained, path, batches, name="dcd-test", version="1.2.3", note="Once more.")
    return path
