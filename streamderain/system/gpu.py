"""Query NVIDIA GPUs through their driver; none where there is no driver."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pynvml

RTX_CAPABILITIES = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
"""Compute capabilities that TensorRT for RTX 1.7 names."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Attributes:
        name: Product name.
        memory_gib: All its memory.
        driver: Version of the driver.
        capability: Its compute capability.
    """

    name: str
    memory_gib: float
    driver: str
    capability: tuple[int, int]

    @property
    def suits_rtx(self) -> bool:
        """Whether TensorRT for RTX supports it; TensorRT itself also supports all others."""
        return self.capability in RTX_CAPABILITIES


@dataclass(frozen=True, slots=True)
class GpuUse:
    """What one GPU is doing.

    Attributes:
        memory_bytes: In use, by all processes.
        busy_percent: Share of the last sampling period in which it computed.
    """

    memory_bytes: int
    busy_percent: int


def has_driver() -> bool:
    """Return whether CUDA's driver is installed here; nothing is started."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def gpus() -> list[Gpu]:
    """Return the GPUs; empty where there is no driver."""
    with _driver() as count:
        return [
            Gpu(
                name=pynvml.nvmlDeviceGetName(handle),
                memory_gib=round(pynvml.nvmlDeviceGetMemoryInfo(handle).total / 2**30, 1),
                driver=pynvml.nvmlSystemGetDriverVersion(),
                capability=tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
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
