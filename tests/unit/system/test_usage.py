"""What work costs, and GPUs as their driver describes them."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pynvml
import pytest

from streamderain.system import gpu, machine
from streamderain.system.usage import Usage


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A driver with one GPU; the calls that open and close it."""
    calls: list[str] = []
    fakes = {
        "nvmlInit": lambda: calls.append("init"),
        "nvmlShutdown": lambda: calls.append("shutdown"),
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: "Fake 1000",
        "nvmlSystemGetDriverVersion": lambda: "600.1",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=8 * 2**30, used=3 * 2**30),
        "nvmlDeviceGetCudaComputeCapability": lambda handle: [8, 9],
        "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=40),
    }
    for name, fake in fakes.items():
        assert hasattr(pynvml, name)
        monkeypatch.setattr(pynvml, name, fake)
    return calls


def test_memory_and_time_are_counted() -> None:
    with Usage() as usage:
        held = np.ones(40_000_000, np.uint8)
        time.sleep(0.1)
    assert usage.wall_s >= 0.1
    assert 0 < usage.cpu_s < usage.wall_s + 5
    assert usage.peak_memory_bytes > held.nbytes


def test_without_a_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert gpu.gpus() == []
    assert gpu.gpu_use() == []
    with Usage() as usage:
        pass
    assert usage.gpu == []


def test_gpus_are_described(driver: list[str]) -> None:
    assert gpu.gpus() == [gpu.Gpu("Fake 1000", 8.0, "600.1", (8, 9))]
    assert driver == ["init", "shutdown"]
    assert machine.machine()["gpus"] == [
        {"name": "Fake 1000", "memory_gib": 8.0, "driver": "600.1", "capability": (8, 9)}
    ]


def test_use_of_gpus_is_sampled(driver: list[str]) -> None:
    with Usage() as usage:
        time.sleep(0.05)
    assert usage.gpu == [gpu.GpuUse(3 * 2**30, 40)]


def test_the_machine_is_described() -> None:
    about = machine.machine()
    assert about["processor"]
    assert about["cores"] >= 1
    assert about["streamderain"]
    assert machine.version("no-such-package") is None
