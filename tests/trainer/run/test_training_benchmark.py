"""The benchmark of the training step runs, and its figures fit together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import benchmarks
from tests.trainer.support import TINY_GAN
from trainer.config import dump_toml


def test_the_training_benchmark_measures_a_step(tmp_path: Path) -> None:
    toml, result = tmp_path / "gan.toml", tmp_path / "result.json"
    toml.write_text(dump_toml(TINY_GAN))
    order = ["training", "--config", str(toml), "--steps", "2", "--repeats", "2", "--accelerator", "cpu"]
    done = CliRunner().invoke(benchmarks, [*order, "--json", str(result)], catch_exceptions=False)
    assert done.exit_code == 0
    found = json.loads(result.read_text())
    assert found["device"] == "cpu"
    assert found["gflop_per_step"] > 0
    assert found["machine"]["torch"]
    assert 0.0 <= found["data_wait_share"]["median"] < 1.0
    per_step, images = found["seconds_per_step"], found["images_per_s"]
    assert images["max"] == pytest.approx(2 / per_step["min"], rel=0.05)
    rate = found["step_tflops"]["max"] * per_step["min"] * 1000
    assert rate == pytest.approx(found["gflop_per_step"], rel=0.2, abs=0.1)
