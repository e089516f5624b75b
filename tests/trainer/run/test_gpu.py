"""The trainer on a CUDA device: what only differs there. No CI has one; run by hand where there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer.support import TINY_GAN, TINY_LITE
from trainer.checkpoint import read_checkpoint
from trainer.config import parse_config
from trainer.data.unpaired import UnpairedBatch
from trainer.methods.translation import Translation, channels_of
from trainer.run.devices import open_fabric
from trainer.run.loop import one_device, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


class _Noise:
    """Batches of noise: a maker without files."""

    counts: dict[str, int] = {}  # noqa: RUF012

    def __init__(self, channels: int) -> None:
        self._channels = channels

    def batch(self, step: int, *, part: int = 0, parts: int = 1) -> UnpairedBatch:
        rng = np.random.default_rng([step, part])
        rainy, clean = rng.uniform(-1, 1, (2, 2, self._channels, 32, 32)).astype(np.float32)
        return UnpairedBatch(rainy, clean)


@pytest.mark.parametrize("family", [TINY_GAN, TINY_LITE], ids=["generator", "fast"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_trains_and_resumes(family: dict[str, Any], precision: str, tmp_path: Path) -> None:
    config = parse_config({**family, "precision": precision}, where="test")
    maker = _Noise(channels_of(config))
    fabric = open_fabric(config, accelerator="cuda")
    train(config, maker, tmp_path, fabric=fabric, stop_after=3)
    state = train(config, maker, tmp_path, fabric=fabric, resume=True)
    assert state.step == config.steps
    tensors, _ = read_checkpoint(tmp_path / "checkpoints" / "last.safetensors")
    assert all(bool(torch.isfinite(value).all()) for value in tensors.values())
    assert (tmp_path / "samples" / "training-step-0000003.png").is_file()


@pytest.mark.parametrize("family", [TINY_GAN, TINY_LITE], ids=["generator", "fast"])
def test_a_step_in_float32_is_that_of_the_cpu(family: dict[str, Any]) -> None:
    config = parse_config(family, where="test")
    batch = _Noise(channels_of(config)).batch(0)
    torch.backends.cudnn.allow_tf32 = False
    values = [
        Translation(config, fabric).step([batch])
        for fabric in (one_device(config), open_fabric(config, accelerator="cuda"))
    ]
    deterministic = ("identity_clean", "discriminator_clean")
    for name in deterministic:
        assert values[1][name] == pytest.approx(values[0][name], rel=1e-3), name
