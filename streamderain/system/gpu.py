"""Query NVIDIA GPUs through their driver; none where there is no driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pynvml


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Attributes:
        name: Product name.
        memory_gib: All its memory.
        driver: Version of the driver.
    """

    name: str
    memory_gib: float
    driver: str


@dataclass(frozen=True, slots=True)
class GpuUse:
    """What one GPU is doing.

    Attributes:
        memory_bytes: In use, by all processes.
        busy_percent: Share of the last sampling period in which it computed.
    """

    memory_bytes: int
    busy_percent: int


def gpus() -> list[Gpu]:
    """Return the GPUs; empty where there is no driver."""
    with _driver() as count:
        return [
            Gpu(
                name=pynvml.nvmlDeviceGetName(handle),
                memory_gib=round(pynvml.nvmlDeviceGetMemoryInfo(handle).total / 2**30, 1),
                driver=pynvml.nvmlSystemGetDriverVersion(),
            )
            for handle in map(pynvml.nvmlDeviceGetHandleByIndex, range(count))
        ]


def gpu_use() -> list[GpuUse]:
    """Return what every GPU is doing now; empty where there is no driver."""
    with _driver() as count:
        return [
            GpuUse(
                memory_bytes=pynvml.nvmlDeviceGetMemoryInfo(handle).used,
                busy_percent=pynvml.nvmlDeviceGetUtilizationRates(handle).gpu,
            )
            for handle in map(pynvml.nvmlDeviceGetHandleByIndex, range(count))
        ]


@contextmanager
def _driver() -> Iterator[int]:
    """Hold the driver's library open; yield how many GPUs it knows."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield 0
        return
    try:
        yield pynvml.nvmlDeviceGetCount()
    finally:
        pynvml.nvmlShutdown()
