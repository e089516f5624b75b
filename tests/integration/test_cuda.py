"""The double buffer on a pretend GPU: the real cuda-core, streams and events, on a driver of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.support.media import write_video
from tests.support.models import small_generator
from tests.support.pretend_gpu import PretendGpu, pretend_driver

__all__ = ["pretend_driver"]

SMALL = {"width": 136, "height": 96}
IN, COMPUTE, OUT = 0, 1, 2
RULES: list[tuple[str, str, dict[str, Any]]] = [
    ("host_writes_after_copy", f"{IN}:20000", {"emit_every": 6, "count": 36}),
    ("copy_in_after_reads", f"{COMPUTE}:4000", {}),
    ("compute_after_copies", f"{IN}:4000", {}),
    ("copy_out_after_compute", f"{COMPUTE}:4000", {}),
    ("host_reads_after_copy", f"{OUT}:4000", {}),
    ("a frame's memory is used again only when nobody needs it", f"{COMPUTE}:4000", {}),
    ("a slot is used again only when its result is done with", f"{COMPUTE}:4000", {}),
    ("a result stays until the next one is taken", f"{OUT}:1000", {"hold_s": 0.03, "model": "generator"}),
]
"""What is left out, which stream is slow by how many microseconds, and what shows it."""


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plans")


@pytest.fixture(scope="session")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_generator(tmp_path_factory.mktemp("model") / "small-generator")


@pytest.fixture
def gpu(pretend_driver: Path, home: Path) -> PretendGpu:
    return PretendGpu(pretend_driver, home)


@pytest.mark.slow
@pytest.mark.parametrize(
    "geometry",
    [
        SMALL,
        {"width": 101, "height": 75, "bits": 10, "shift": 6},
        {"width": 61, "height": 47, "chroma": "rgb", "range": "full"},
    ],
    ids=str,
)
@pytest.mark.parametrize("precision", ["f16", "f32"])
def test_every_frame_is_what_the_graph_computes(
    gpu: PretendGpu, geometry: dict[str, Any], precision: str
) -> None:
    found = gpu.scenario("frames", geometry=geometry, precision=precision)
    assert (found["frames"], found["wrong"], found["device_bytes"]) == ([24], 0, 0)
    # Each frame is uploaded once, with its small inputs, and comes back once.
    assert found["copies"] == 3 * 24
    assert found["device_peak"] <= found["needed"] < 2 * found["device_peak"]


TRIES = 4


@pytest.mark.slow
def test_whole_frames_of_colour_are_computed(gpu: PretendGpu, generator: Path) -> None:
    geometry = {"width": 101, "height": 75, "bits": 10}
    found = gpu.scenario("frames", geometry=geometry, model=str(generator), count=12)
    assert (found["frames"], found["wrong"]) == ([12], 0)


@pytest.mark.slow
@pytest.mark.parametrize("slow", [IN, COMPUTE, OUT])
def test_nothing_is_wrong_on_slow_streams(pretend_driver: Path, home: Path, slow: int) -> None:
    found = PretendGpu(pretend_driver, home, slow=f"{slow}:4000").scenario("frames", geometry=SMALL)
    assert (found["frames"], found["wrong"]) == ([24], 0)


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "slow", "arguments"), RULES, ids=[rule for rule, _, _ in RULES])
def test_every_rule_is_needed(
    pretend_driver: Path, home: Path, generator: Path, rule: str, slow: str, arguments: dict[str, Any]
) -> None:
    if arguments.get("model") == "generator":
        arguments = {**arguments, "model": str(generator)}
    gpu = PretendGpu(pretend_driver, home, slow=slow)
    arguments = {**arguments, "geometry": SMALL, "spare": False}
    # What the rule prevents is a race: on a busy machine it may end well once.
    assert any(gpu.scenario("frames", rule=rule, **arguments)["wrong"] for _ in range(TRIES))
    assert not gpu.scenario("frames", **arguments)["wrong"]


@pytest.mark.slow
def test_two_sessions_share_a_device_and_devices_have_numbers(gpu: PretendGpu) -> None:
    found = gpu.scenario("frames", geometry=SMALL, sessions=2, device="cuda:1")
    assert (found["frames"], found["wrong"]) == ([24, 24], 0)
    assert found["device"] == "cuda:1 (Pretend GPU 1)"


@pytest.mark.slow
def test_frames_that_do_not_fit_are_computed_in_strips(pretend_driver: Path, home: Path) -> None:
    gpu = PretendGpu(pretend_driver, home, memory=40_000_000)
    found = gpu.scenario("frames", geometry={"width": 1280, "height": 720}, count=4)
    assert (found["frames"], found["wrong"]) == ([4], 0)
    assert found["strips"] > 1
    assert found["device_peak"] <= 40_000_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "arguments", "kind", "says"),
    [
        ({"devices": 0}, {}, "EngineUnavailable", "no NVIDIA driver, or it sees no GPU"),
        ({"devices": 1}, {"device": "cuda:1"}, "EngineUnavailable", "no device cuda:1; this machine has 1"),
        ({"capability": 90}, {}, "EngineUnavailable", "install streamderain[tensorrt]"),
        (
            {"memory": 2_000_000},
            {},
            "DeviceMemoryError",
            "of memory on cuda:0 (Pretend GPU 0), where 2 MB are free",
        ),
        ({"memory": 2_000_000}, {"model": "generator"}, "DeviceMemoryError", "--max-size"),
        ({"lost_after": 20}, {}, "InferenceError", "lost or reset: look into the system's log"),
        ({"lost_after": 0}, {}, "InferenceError", "lost or reset"),
    ],
    ids=str,
)
def test_what_fails_says_so(
    pretend_driver: Path,
    home: Path,
    generator: Path,
    settings: dict[str, Any],
    arguments: dict[str, Any],
    kind: str,
    says: str,
) -> None:
    if arguments.get("model") == "generator":
        arguments = {"model": str(generator)}
    found = PretendGpu(pretend_driver, home, **settings).scenario("error", geometry=SMALL, **arguments)
    assert (found["error"], found["exit_code"]) == (kind, 5)
    assert says in found["message"]


@pytest.mark.slow
def test_memory_stays_flat_over_ten_thousand_frames(gpu: PretendGpu) -> None:
    found = gpu.scenario("many", count=10_000)
    assert found["wrong"] == 0
    resident, device, pinned = zip(*found["seen"], strict=True)
    assert len(set(device)) == len(set(pinned)) == 1
    assert max(resident) - resident[1] < 4 << 20


@pytest.mark.slow
@pytest.mark.parametrize("model", ["dcd-lite", "generator"])
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_torch_computes_in_the_same_double_buffer(
    gpu: PretendGpu, generator: Path, model: str, precision: str
) -> None:
    geometry = {"width": 101, "height": 75, "bits": 10, "shift": 6}
    name = str(generator) if model == "generator" else model
    found = gpu.scenario("torch_frames", model=name, geometry=geometry, precision=precision)
    assert (found["frames"], found["device_bytes"]) == (12, 0)
    # The double buffer asks for another layout in memory; some processors then add up in another order.
    assert found["most"] <= ((1 << geometry["shift"]) if model == "generator" else 0)
    assert found["copies"] == 3 * 12


def luma_of(path: Path) -> list[np.ndarray[Any, Any]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray()[: frame.height].astype(int) for frame in container.decode(video=0)]


@pytest.mark.slow
def test_a_video_is_derained_and_auto_prefers_the_gpu(gpu: PretendGpu, tmp_path: Path) -> None:
    source = write_video(tmp_path / "rain.mkv", frames=12, width=160, height=96)
    report = tmp_path / "report.json"
    lossless = ("--codec", "ffv1", "--precision", "f32")
    done = gpu.streamderain("run", source, "-o", tmp_path / "gpu.mkv", *lossless, f"--json={report}")
    assert done.returncode == 0, done.stderr
    assert "compiling dcd-lite for 160x96 on Pretend GPU 0 by tensorrt_rtx" in done.stderr
    assert "tensorrt is the first of tensorrt, torch that works on this GPU" in done.stderr
    assert json.loads(report.read_text())["device"] == "cuda:0 (Pretend GPU 0)"
    cpu = ("--engine", "torch", "--device", "cpu")
    again = gpu.streamderain("run", source, "-o", tmp_path / "cpu.mkv", *lossless, *cpu)
    assert again.returncode == 0, again.stderr
    pairs = list(zip(luma_of(tmp_path / "gpu.mkv"), luma_of(tmp_path / "cpu.mkv"), strict=True))
    assert len(pairs) == 12
    assert max(np.abs(one - other).max() for one, other in pairs) <= 1
    # The plan is there now.
    third = gpu.streamderain("run", source, "-o", tmp_path / "third.mkv", *lossless, "--engine", "tensorrt")
    assert third.returncode == 0
    assert "compiling" not in third.stderr


@pytest.mark.slow
def test_a_gpu_that_is_lost_leaves_what_was_done(pretend_driver: Path, home: Path, tmp_path: Path) -> None:
    source = write_video(tmp_path / "rain.mkv", frames=60, width=160, height=96)
    gpu = PretendGpu(pretend_driver, home, lost_after=100)
    target = tmp_path / "clean.mkv"
    done = gpu.streamderain("run", source, "-o", target, "--engine", "tensorrt", "--codec", "ffv1")
    assert done.returncode == 5
    assert "lost or reset" in done.stderr
    assert not target.exists()
    kept = tmp_path / "clean.partial.mkv"
    assert str(kept) in done.stderr
    assert 20 <= len(luma_of(kept)) < 60


@pytest.mark.slow
def test_auto_falls_back_only_by_saying_why(pretend_driver: Path, home: Path, tmp_path: Path) -> None:
    source = write_video(tmp_path / "rain.mkv", frames=3, width=64, height=48)
    gpu = PretendGpu(pretend_driver, home, devices=0)
    done = gpu.streamderain("run", source, "-o", tmp_path / "clean.mkv")
    assert done.returncode == 0, done.stderr
    assert "since the GPU cannot be used (tensorrt: no CUDA device was found" in done.stderr
    named = gpu.streamderain("run", source, "-o", tmp_path / "named.mkv", "--engine", "tensorrt")
    assert named.returncode == 5
    assert not (tmp_path / "named.mkv").exists()


@pytest.mark.slow
def test_the_tensorrt_engine_keeps_what_every_engine_promises(gpu: PretendGpu) -> None:
    done = gpu.python(
        "import sys, pytest; from tests.support import pretend_program; pretend_program.install();"
        "sys.exit(pytest.main(['-q', '-m', 'gpu', '-p', 'no:cacheprovider', 'tests/contract']))"
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(done.stdout.rpartition(" passed")[0].split()[-1]) > 50
