"""Measure time, processor, memory and GPU usage of a piece of work."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import psutil

from streamderain.system.gpu import GpuUse, gpu_use

_MEMORY_EVERY_S = 0.02
_GPU_EVERY_S = 0.2
"""The driver averages over about this long anyway."""


@dataclass(slots=True)
class Usage:
    """Measures what happens inside a `with` block; valid after it.

    Attributes:
        wall_s: Time that passed.
        cpu_s: Processor time of all threads of this process.
        peak_memory_bytes: The most memory it had resident at one time.
        gpu: The most memory and the mean business of each GPU, all processes together.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    gpu: list[GpuUse] = field(default_factory=list)
    _samples: list[list[GpuUse]] = field(default_factory=list)
    _done: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, name="usage", daemon=True)
        self._thread.start()
        self.cpu_s, self.wall_s = time.process_time(), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wall_s, self.cpu_s = time.perf_counter() - self.wall_s, time.process_time() - self.cpu_s
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        self.gpu = [
            GpuUse(
                memory_bytes=max(use.memory_bytes for use in uses),
                busy_percent=round(sum(use.busy_percent for use in uses) / len(uses)),
            )
            for uses in zip(*self._samples, strict=True)
        ]

    def _watch(self) -> None:
        process = psutil.Process()
        asked = 0.0
        while True:
            self.peak_memory_bytes = max(self.peak_memory_bytes, process.memory_info().rss)
            if time.monotonic() - asked >= _GPU_EVERY_S:
                asked = time.monotonic()
                self._samples.append(gpu_use())
            if self._done.wait(_MEMORY_EVERY_S):
                return
