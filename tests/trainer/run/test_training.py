"""The loop: it learns, resumes exactly, and stops safely."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from streamderain.errors import EXIT_INTERRUPTED, ConfigError, ModelError, OpenError, OutputFull
from streamderain.nets.fast import FastNet
from trainer import checkpoint
from trainer.checkpoint import (
    TrainState,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
    save_tensors,
    tensors_under,
)
from trainer.config import NetworkConfig, TrainConfig, dump_toml
from trainer.data.paired import Batch, BatchMaker
from trainer.export.model_folder import load_trained
from trainer.methods import supervised
from trainer.methods.optimise import learning_rate
from trainer.methods.supervised import Supervised
from trainer.run.loop import TrainingDiverged, one_device, train

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "checkpoints" / "last.safetensors")[0]


def new_state(config: TrainConfig) -> TrainState:
    return Supervised(config, one_device(config)).state


def metrics(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_resumed_run_equals_an_uninterrupted_one(
    config: TrainConfig, maker: BatchMaker, tmp_path: Path
) -> None:
    train(config, maker, tmp_path / "whole")
    train(config, maker, tmp_path / "parts", stop_after=3)
    torch.manual_seed(999)  # whatever happened in between
    train(config, maker, tmp_path / "parts", resume=True)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name


def test_a_tiny_run_beats_doing_nothing(maker: BatchMaker, config: TrainConfig, tmp_path: Path) -> None:
    longer = dataclasses.replace(
        config,
        steps=150,
        rate=4e-3,
        validate_every=1000,
        phases=(dataclasses.replace(config.phases[0], until=1.0),),
    )
    average = train(longer, maker, tmp_path).modules["average"]
    assert isinstance(average, FastNet)
    before = after = 0.0
    for step in range(1000, 1012):
        batch = maker.batch(step)
        window, validity, target = (torch.from_numpy(a) for a in (batch.window, batch.validity, batch.target))
        with torch.no_grad():
            cleaned = average.clean_planes(window, validity)
        before += float((window[:, 1:2] - target).square().mean())
        after += float((cleaned - target).square().mean())
    assert 10 * math.log10(before / after) > 0.3


def test_steps_leave_numbers_and_pictures(config: TrainConfig, maker: BatchMaker, tmp_path: Path) -> None:
    seen = []

    def validate(network: FastNet, sheet: Path) -> dict[str, float]:
        seen.append(sheet.name)
        return {"score": 1.5}

    train(config, maker, tmp_path, validate=validate)
    rows = metrics(tmp_path / "metrics.csv")
    assert seen == ["validation-step-0000004.png", "validation-step-0000008.png"]
    assert [(row["step"], row["value"]) for row in rows if row["name"] == "score"] == [
        ("4", "1.5"),
        ("8", "1.5"),
    ]
    assert (tmp_path / "config.toml").read_text().startswith('name = "tiny"')


def test_stopping_saves_after_the_step(
    config: TrainConfig, maker: BatchMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, stop = itertools.count(1), threading.Event()

    whole_step = Supervised.step

    def stopped(self: Supervised, parts: Sequence[Batch]) -> dict[str, float]:
        if next(steps) == 3:
            stop.set()  # as a signal would, in the middle of a step
        return whole_step(self, parts)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Supervised, "step", stopped)
        train(config, maker, tmp_path / "parts", stop=stop)
    assert read_checkpoint(tmp_path / "parts" / "checkpoints" / "last.safetensors")[1]["step"] == 3
    train(config, maker, tmp_path / "parts", resume=True)
    train(config, maker, tmp_path / "whole")
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_ctrl_c_saves_and_the_run_resumes(config: TrainConfig, data: Path, tmp_path: Path) -> None:
    """The real command and the real signal."""
    (tmp_path / "tiny.toml").write_text(
        dump_toml({**config.as_dict(), "steps": 100_000, "save_every": 50_000})
    )
    command = [sys.executable, "-m", "trainer", "train", "--config", str(tmp_path / "tiny.toml")]
    command += ["--data", str(data), "--run", str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert any("step 50:" in line for line in process.stderr), "it never came to step 50"
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(timeout=60) == EXIT_INTERRUPTED
    finally:
        process.kill()
        process.communicate()
    step = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.safetensors")[1]["step"]
    assert step >= 50
    assert f"interrupted at step {step}; resume with --resume" in said


def test_a_loss_that_is_no_number_stops_the_run_and_spares_the_weights(
    config: TrainConfig, maker: BatchMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = BatchMaker.batch

    def spoiled(self: BatchMaker, step: int, *, part: int = 0, parts: int = 1) -> Batch:
        batch = whole(self, step, part=part, parts=parts)
        return dataclasses.replace(batch, target=batch.target * np.nan) if step == 5 else batch

    monkeypatch.setattr(BatchMaker, "batch", spoiled)
    with pytest.raises(TrainingDiverged, match=r"last good checkpoint is .*last\.safetensors"):
        train(config, maker, tmp_path)
    tensors, about = read_checkpoint(tmp_path / "checkpoints" / "last.safetensors")
    assert about["step"] == 4
    assert all(torch.isfinite(value).all() for value in tensors.values())


@pytest.mark.parametrize("step", [None, 2])
def test_diverging_tells_whether_there_is_a_checkpoint(
    config: TrainConfig, maker: BatchMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int | None
) -> None:
    """A gradient can be no number while the loss still is one: the weights must not be touched."""

    def overflowing(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return ((output - output.detach()) ** 2).sqrt().mean()  # 0, but its gradient is 0 / 0

    if step is not None:
        train(config, maker, tmp_path, stop_after=step)
    monkeypatch.setitem(supervised.LOSSES, "squared", overflowing)
    expected = (
        "no checkpoint was written yet" if step is None else r"last good checkpoint is .*last\.safetensors"
    )
    with pytest.raises(TrainingDiverged, match=f"norm is nan.*{expected}"):
        train(config, maker, tmp_path, resume=step is not None)
    if step is not None:
        assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


_WRITER = """
import sys
from pathlib import Path
from trainer.checkpoint import save_checkpoint
from trainer.config import load_config
from trainer.run.loop import one_device
from trainer.methods.supervised import Supervised

config = load_config(sys.argv[2])
state = Supervised(config, one_device(config)).state
while True:
    state.step += 1
    state.seconds = state.step / 2
    save_checkpoint(Path(sys.argv[1]), state, config.as_dict())
    print(state.step, flush=True)
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.003, 0.011])
def test_a_kill_while_writing_loses_nothing_but_steps(
    config: TrainConfig, tmp_path: Path, delay_s: float
) -> None:
    path, toml = tmp_path / "last.safetensors", tmp_path / "tiny.toml"
    toml.write_text(dump_toml(config.as_dict()))
    command = [sys.executable, "-c", _WRITER, str(path), str(toml)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 3:
            pass
        time.sleep(delay_s)  # falls into another part of the next writing each time
    finally:
        process.kill()
        left, _ = process.communicate()
    written = int(left.split()[-1]) if left.split() else 3
    tensors, about = read_checkpoint(path)
    assert about["step"] in (written, written + 1)
    assert about["seconds"] == about["step"] / 2
    state = new_state(config)
    load_checkpoint(path, state, config.as_dict())
    save_checkpoint(path, state, config.as_dict())  # over the half-written file that was left behind
    assert read_checkpoint(path)[0].keys() == tensors.keys()


def test_half_a_file_never_takes_the_name(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.safetensors"
    state = new_state(config)
    save_checkpoint(path, state, config.as_dict())

    def killed(tensors: object, target: Path, metadata: object) -> None:
        Path(target).write_bytes(b"half a file")
        raise SystemExit(137)

    monkeypatch.setattr(checkpoint, "save_file", killed)
    state.step = 7
    with pytest.raises(SystemExit):
        save_checkpoint(path, state, config.as_dict())
    assert read_checkpoint(path)[1]["step"] == 0


def test_a_checkpoint_of_another_configuration_is_refused(
    config: TrainConfig, maker: BatchMaker, tmp_path: Path
) -> None:
    train(config, maker, tmp_path, stop_after=2)
    other = dataclasses.replace(config, rate=1e-4, batch=2)
    with pytest.raises(ConfigError, match="differs in batch, rate"):
        train(other, maker, tmp_path, resume=True)
    longer = dataclasses.replace(config, steps=3)
    assert train(longer, maker, tmp_path, resume=True).step == 3


def test_settings_that_came_later_do_not_keep_a_run_from_going_on(
    config: TrainConfig, tmp_path: Path
) -> None:
    path, state = tmp_path / "last.safetensors", new_state(config)
    earlier = config.as_dict()
    del earlier["data"]["share_real"], earlier["pseudo"]
    save_checkpoint(path, state, earlier)
    load_checkpoint(path, state, config.as_dict())
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, share_real=0.5))
    with pytest.raises(ConfigError, match="differs in data"):
        load_checkpoint(path, state, other.as_dict())


def test_nothing_cannot_be_resumed(config: TrainConfig, maker: BatchMaker, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave out --resume"):
        train(config, maker, tmp_path / "nowhere", resume=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_used_folder_is_not_overwritten(config: TrainConfig, maker: BatchMaker, tmp_path: Path) -> None:
    train(config, maker, tmp_path, stop_after=1)
    with pytest.raises(ConfigError, match="--resume"):
        train(config, maker, tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x10\0\0\0\0\0\0\0{}              ", b"nonsense" * 100])
def test_damaged_checkpoints_are_named(config: TrainConfig, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.safetensors"
    path.write_bytes(content)
    with pytest.raises(OpenError, match=r"last\.safetensors"):
        load_checkpoint(path, new_state(config), config.as_dict())


def test_the_rate_warms_up_and_falls(config: TrainConfig) -> None:
    config = dataclasses.replace(config, steps=1000, warmup_steps=10, rate=1.0, last_rate=0.01)
    assert learning_rate(config, 0) == pytest.approx(0.1)
    assert learning_rate(config, 10) == pytest.approx(1.0, abs=0.01)
    assert learning_rate(config, 500) == pytest.approx(0.505, abs=0.01)
    assert learning_rate(config, 1000) == pytest.approx(0.01)


def test_a_run_begins_with_anothers_weights_and_remembers_it(
    config: TrainConfig, maker: BatchMaker, tmp_path: Path
) -> None:
    train(config, maker, tmp_path / "first", stop_after=3)
    given = tensors_under(weights(tmp_path / "first"), "average.")
    slow = dataclasses.replace(config, rate=1e-12)
    state = train(slow, maker, tmp_path / "second", start=tmp_path / "first", stop_after=1)
    torch.testing.assert_close(state.modules["average"].state_dict(), given)
    train(slow, maker, tmp_path / "second", resume=True, stop_after=2)
    trained = load_trained(tmp_path / "second", earlier=[tmp_path / "first"])
    assert [part["steps"] for part in trained.parts] == [3, 3, 2]
    assert [part["config"] for part in load_trained(tmp_path / "second").parts] == ["tiny", "tiny"]


def test_a_run_begins_with_bare_weights(config: TrainConfig, maker: BatchMaker, tmp_path: Path) -> None:
    given = {key: value + 0.25 for key, value in new_state(config).modules["network"].state_dict().items()}
    save_tensors(tmp_path / "weights.safetensors", given, {})
    slow = dataclasses.replace(config, rate=1e-12, network=NetworkConfig())
    with pytest.raises(ModelError, match="do not fit"):
        train(slow, maker, tmp_path / "run", start=tmp_path / "weights.safetensors", stop_after=1)
    full = new_state(slow).modules["network"].state_dict()
    save_tensors(tmp_path / "weights.safetensors", full, {})
    other = dataclasses.replace(slow, seed=77)
    state = train(other, maker, tmp_path / "run", start=tmp_path / "weights.safetensors", stop_after=1)
    torch.testing.assert_close(state.modules["network"].state_dict(), full)


def test_a_deep_network_begins_with_the_fast_one_inside(
    config: TrainConfig, maker: BatchMaker, tmp_path: Path
) -> None:
    torch.manual_seed(99)
    given = FastNet().state_dict()
    save_tensors(tmp_path / "weights.safetensors", given, {})
    deep = dataclasses.replace(config, rate=1e-12, network=NetworkConfig(family="deep", width=8, blocks=1))
    state = train(deep, maker, tmp_path / "run", start=tmp_path / "weights.safetensors", stop_after=1)
    for module in state.modules.values():
        torch.testing.assert_close(tensors_under(module.state_dict(), "fast."), given)


def test_weights_of_another_size_are_refused(config: TrainConfig, maker: BatchMaker, tmp_path: Path) -> None:
    train(config, maker, tmp_path / "first", stop_after=1)
    wider = dataclasses.replace(config, network=dataclasses.replace(config.network, width=16))
    with pytest.raises(ConfigError, match="another network"):
        train(wider, maker, tmp_path / "second", start=tmp_path / "first")


def test_the_average_follows_slowly(config: TrainConfig, maker: BatchMaker) -> None:
    method = Supervised(config, one_device(config))
    state = method.state
    before = state.modules["average"].state_dict()["merge.weight"].clone()
    state.step = 100
    values = method.step([maker.batch(0)])
    moved = state.modules["average"].state_dict()["merge.weight"] - before
    target = state.modules["network"].state_dict()["merge.weight"] - before
    torch.testing.assert_close(moved, target * (1 - config.ema), atol=1e-7, rtol=1e-3)
    assert math.isfinite(values["loss"])


def test_parts_add_up_to_the_whole_batch(config: TrainConfig, maker: BatchMaker) -> None:
    """Two halves, one after the other, move the weights like both at once."""
    halves = [maker.batch(0, part=part, parts=2) for part in range(2)]
    names = ("window", "validity", "target")
    whole = Batch(*(np.concatenate([getattr(half, name) for half in halves]) for name in names))
    config = dataclasses.replace(config, warmup_steps=0)
    moved = []
    for parts in ([whole], halves):
        method = Supervised(config, one_device(config))
        values = method.step(parts)
        moved.append((values["loss"], method.state.modules["network"].state_dict()))
    assert moved[0][0] == pytest.approx(moved[1][0], rel=1e-5)
    torch.testing.assert_close(moved[0][1], moved[1][1], atol=2e-5, rtol=1e-3)


def test_sharded_checkpoints_are_small_files_and_resume(
    config: TrainConfig, maker: BatchMaker, tmp_path: Path
) -> None:
    limit = 80 << 10
    train(config, maker, tmp_path / "whole")
    train(config, maker, tmp_path / "parts", stop_after=3, shard_bytes=limit)
    folder = tmp_path / "parts" / "checkpoints"
    shards = sorted(folder.glob("last-*.safetensors"))
    assert len(shards) > 1
    assert all(path.stat().st_size <= limit for path in shards)
    train(config, maker, tmp_path / "parts", resume=True, shard_bytes=limit)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    assert not set(shards) & set(folder.iterdir()), "shards of an older step were left behind"
    next(folder.glob("last-*.safetensors")).unlink()
    with pytest.raises(OpenError, match="not a readable checkpoint"):
        read_checkpoint(folder / "last.safetensors")


def test_a_full_disk_names_itself_and_spares_the_checkpoint_before(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.safetensors"
    state = new_state(config)
    save_checkpoint(path, state, config.as_dict())
    state.step = 5
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(OutputFull, match=r"last\.safetensors could not be written.*make room"):
            save_checkpoint(path, state, config.as_dict())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert read_checkpoint(path)[1]["step"] == 0
    assert list(tmp_path.iterdir()) == [path]


def test_two_processes_train_like_one_in_two_parts(config: TrainConfig, data: Path, tmp_path: Path) -> None:
    """The real command on two CPU processes, against one process with the same parts."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, accumulate, devices in (("one", 2, 1), ("two", 1, 2)):
        toml = tmp_path / f"{name}.toml"
        toml.write_text(dump_toml({**config.as_dict(), "steps": 3, "accumulate": accumulate, "workers": 0}))
        command = [sys.executable, "-m", "trainer", "train", "--config", str(toml), "--data", str(data)]
        command += ["--run", str(tmp_path / name), "--accelerator", "cpu", "--devices", str(devices)]
        command += ["--cache", str(tmp_path / "cache")]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    one, two = (tensors_under(weights(tmp_path / name), "average.") for name in ("one", "two"))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-3)
