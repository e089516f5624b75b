"""A session on a lent machine, at toy size on the CPU: small data in, small weights out, stopped at will."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from streamderain.errors import ConfigError, OpenError
from streamderain.measure.rain import RainParameters, RainSequence
from streamderain.nets.generator import Generator
from tests.trainer.support import TINY, TINY_GAN, scene
from trainer.checkpoint import read_checkpoint
from trainer.cli import cli
from trainer.config import dump_toml, parse_config
from trainer.data.layouts import find_pairs
from trainer.data.packing import pack, unpack
from trainer.export.model_folder import load_trained
from trainer.networks.load import RAIN_AVERAGE, load_network
from trainer.run import timed
from trainer.run.loop import one_device, train
from trainer.run.timed import KEPT, SessionPlan, run_session

pytestmark = pytest.mark.slow

CONFIG = parse_config({**TINY_GAN, "workers": 0, "save_every": 1000}, where="test")
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training folders, and two sets of pairs that share their clean side."""
    root = tmp_path_factory.mktemp("source")
    for name in ("rainy", "clean", "layers"):
        (root / name).mkdir()
    for index in range(4):
        clean = scene(60, 70, seed=index)
        Image.fromarray(clean).convert("RGB").save(root / "clean" / f"{index}.png")
        rainy = RainSequence(RainParameters(), index, 70, 60).apply_to_codes(clean, 0, full_range=True)
        Image.fromarray(rainy).convert("RGB").save(root / "rainy" / f"{index}.jpg")
        Image.fromarray(scene(64, 64, seed=40 + index)).save(root / "layers" / f"{index}-4.png")
    for number, name in enumerate(("light", "heavy")):
        for side in ("input", "target"):
            (root / name / side).mkdir(parents=True)
        for index in range(2):
            clean = scene(50, 64, seed=90 + index)
            rain = RainSequence(RainParameters(peak=0.2 + 0.3 * number), index, 64, 50)
            rainy = rain.apply_to_codes(clean, 0, full_range=True)
            Image.fromarray(clean).convert("RGB").save(root / name / "target" / f"{index}.png")
            Image.fromarray(rainy).convert("RGB").save(root / name / "input" / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def packed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("packed") / "packed.zip"
    pack(source, [source / "light", source / "heavy"], target, CONFIG.unpaired, max_bytes=10**7)
    return target


def plan_of(packed: Path, folder: Path, **changes: object) -> SessionPlan:
    plan = SessionPlan(
        packed, folder / "out", folder / "scratch", minutes=5.0, evaluation_minutes=0.1, steps=3
    )
    return dataclasses.replace(plan, **changes)  # type: ignore[arg-type]


def test_what_is_judged_travels_without_loss_and_once(source: Path, packed: Path, tmp_path: Path) -> None:
    data, validation = unpack(packed, tmp_path)
    for name in ("light", "heavy"):
        before, after = find_pairs(source / name), find_pairs(validation / name)
        assert len(after) == 2
        for one, other in zip(before, after, strict=True):
            for sent, came in zip(one.read_rgb(), other.read_rgb(), strict=True):
                np.testing.assert_array_equal(sent, came)
    with zipfile.ZipFile(packed) as file:
        assert sum("/target/" in name for name in file.namelist()) == 2  # four, of which two are copies
    assert {path.name for path in data.iterdir()} == {"rainy", "clean", "layers"}
    assert len(list((data / "clean").iterdir())) == 4


def test_quality_falls_until_it_fits(source: Path, tmp_path: Path) -> None:
    sets, target = [source / "light"], tmp_path / "p.zip"
    best = pack(source, sets, target, CONFIG.unpaired, max_bytes=10**7)
    size = target.stat().st_size
    assert best == 95
    assert pack(source, sets, target, CONFIG.unpaired, max_bytes=size - 1) < 95
    assert target.stat().st_size < size
    with pytest.raises(ConfigError, match="name fewer folders"):
        pack(source, sets, tmp_path / "q.zip", CONFIG.unpaired, max_bytes=1000)
    assert [path.name for path in tmp_path.iterdir()] == ["p.zip"]


def test_a_damaged_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.zip").write_bytes(b"PK nothing")
    with pytest.raises(OpenError, match="trainer pack"):
        unpack(tmp_path / "p.zip", tmp_path / "out")


def test_a_session_leaves_what_travels_back(packed: Path, tmp_path: Path) -> None:
    shown = run_session(plan_of(packed, tmp_path), CONFIG, one_device(CONFIG))
    assert "light" in shown
    assert "heavy" in shown
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir() if not p.name.startswith("kept-")} == {
        KEPT,
        "scores.json",
        "samples.png",
        "metrics.csv",
    }
    rows = json.loads((out / "scores.json").read_text())["rows"]
    assert {row["metric"] for row in rows} == {"psnr_y_db", "ssim_y", "psnr_rgb_db", "ssim_rgb"}
    for which in ("average", RAIN_AVERAGE):
        assert isinstance(load_network(out / KEPT, which=which), Generator)


def test_a_session_begins_where_another_ended(packed: Path, tmp_path: Path) -> None:
    run_session(plan_of(packed, tmp_path / "one"), CONFIG, one_device(CONFIG))
    kept = tmp_path / "one" / "out" / KEPT
    still = dataclasses.replace(CONFIG, rate=1e-12, ema=0.0)
    run_session(plan_of(packed, tmp_path / "two", start=kept), still, one_device(still))
    before, after = (
        load_network(path / "out" / KEPT).state_dict() for path in (tmp_path / "one", tmp_path / "two")
    )
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-3, rtol=1e-3)
    about = read_checkpoint(tmp_path / "two" / "out" / KEPT)[1]
    assert [part["steps"] for part in about["earlier"]] == [3]


def test_what_is_kept_is_half_the_size_and_in_small_files(packed: Path, tmp_path: Path) -> None:
    session_bytes = 200_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timed, "SHARD_BYTES", session_bytes)
        run_session(plan_of(packed, tmp_path), CONFIG, one_device(CONFIG))
    shards = list((tmp_path / "out").glob("kept-*.safetensors"))
    assert len(shards) > 1
    assert all(path.stat().st_size <= session_bytes for path in shards)
    tensors, _ = read_checkpoint(tmp_path / "out" / KEPT)
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    assert {name.split(".")[0] for name in tensors} == {
        *("average", "rain_average", "heads", "rain_heads", "clean_discriminator", "rain_discriminator")
    }


def test_the_papers_networks_fit_what_a_session_may_carry() -> None:
    """Eight files of 16 MiB in all, four of them the index, scores, samples and metrics."""
    from trainer.config import load_config
    from trainer.methods.registry import new_method

    config = load_config("paper")
    state = new_method(config, one_device(config)).state
    count = sum(p.numel() for name in timed._KEPT_MODULES for p in state.modules[name].parameters())
    assert 2 * count < 4 * (timed.SHARD_BYTES - (1 << 20))


def test_no_run_resumes_from_weights_alone(packed: Path, tmp_path: Path) -> None:
    run_session(plan_of(packed, tmp_path), CONFIG, one_device(CONFIG))
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    last.parent.mkdir(parents=True)
    for path in (tmp_path / "out").glob("kept*"):
        (last.parent / ("last.safetensors" if path.name == KEPT else path.name)).write_bytes(
            path.read_bytes()
        )
    maker = timed.open_maker(CONFIG, tmp_path / "scratch/data/train", tmp_path / "scratch/cache")
    with pytest.raises(ConfigError, match="begin a new run with them"):
        train(dataclasses.replace(CONFIG, steps=3), maker, tmp_path / "run", resume=True)


def test_a_session_ends_in_time(packed: Path, tmp_path: Path) -> None:
    """The number of steps follows from the speed; the clock has the last word."""
    began = time.monotonic()
    plan = plan_of(packed, tmp_path, minutes=0.2, evaluation_minutes=0.1, steps=None)
    run_session(plan, CONFIG, one_device(CONFIG))
    about = read_checkpoint(tmp_path / "out" / KEPT)[1]
    assert 0 < about["step"] <= about["config"]["steps"]
    endless = plan_of(packed, tmp_path / "b", minutes=0.12, evaluation_minutes=0.1, steps=10**6)
    run_session(endless, CONFIG, one_device(CONFIG))
    assert time.monotonic() - began < 120
    with pytest.raises(ConfigError, match="more minutes"):
        run_session(
            plan_of(packed, tmp_path / "c", minutes=0.1, evaluation_minutes=0.1, steps=None),
            CONFIG,
            one_device(CONFIG),
        )


def test_a_killed_session_leaves_the_last_minutes_networks(packed: Path, tmp_path: Path) -> None:
    toml = tmp_path / "gan.toml"
    toml.write_text(dump_toml(CONFIG.as_dict()))
    program = f"""
import sys
sys.modules["av"] = sys.modules["openvino"] = sys.modules["onnx"] = None
from trainer.run import timed
timed._KEEP_EVERY_S = 0.2
from trainer.cli import main
sys.argv = ["trainer", "session", "--config", {str(toml)!r}, "--packed", {str(packed)!r}, "--minutes", "10",
    "--steps", "100000", "--out", {str(tmp_path / "out")!r}, "--scratch", {str(tmp_path / "scratch")!r},
    "--accelerator", "cpu"]
main()
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE)
    try:
        kept = tmp_path / "out" / KEPT
        deadline = time.monotonic() + 120
        while not kept.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
    finally:
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
    assert kept.exists(), errors.decode()
    assert isinstance(load_network(kept), Generator)


def test_the_commands_pack_and_train(source: Path, tmp_path: Path) -> None:
    toml, packed = tmp_path / "gan.toml", tmp_path / "p.zip"
    toml.write_text(dump_toml(CONFIG.as_dict()))
    runner = CliRunner()
    order = ["pack", "--config", str(toml), "--data", str(source), "--to", str(packed)]
    done = runner.invoke(cli, [*order, "--validation", str(source / "light")], catch_exceptions=False)
    assert "quality 95" in done.output
    order = ["session", "--config", str(toml), "--packed", str(packed), "--minutes", "5", "--steps", "2"]
    places = ["--out", str(tmp_path / "out"), "--scratch", str(tmp_path / "s"), "--accelerator", "cpu"]
    done = runner.invoke(cli, [*order, *places], catch_exceptions=False)
    assert "light" in done.output


def test_the_generators_weights_are_taken_from_what_was_kept(packed: Path, tmp_path: Path) -> None:
    run_session(plan_of(packed, tmp_path), CONFIG, one_device(CONFIG))
    kept, folder = tmp_path / "out" / KEPT, tmp_path / "weights"
    order = ["weights", "--run", str(kept), "--to", str(folder)]
    done = CliRunner().invoke(cli, order, catch_exceptions=False)
    assert "weights.safetensors: " in done.output
    taken, before = (load_network(path).state_dict() for path in (folder, kept))
    for name, value in before.items():
        assert torch.equal(taken[name], value), name
    with pytest.raises(ConfigError, match="python -m trainer weights"):
        load_trained(kept)


def test_only_unpaired_configurations_make_a_session(packed: Path, tmp_path: Path) -> None:
    config = parse_config(TINY, where="test")
    with pytest.raises(ConfigError, match="try paper"):
        run_session(plan_of(packed, tmp_path), config, one_device(config))
