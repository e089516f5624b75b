"""Sessions on a CUDA device: frames in pinned memory, computed by the double buffer."""

from __future__ import annotations

import os
from abc import abstractmethod
from concurrent.futures import Future
from time import perf_counter

import numpy as np
from cuda.core import Device

from streamderain.frame import Geometry, Planes
from streamderain.models import ModelCard
from streamderain.runtime.adapters.tensor_names import FLOWS, STRENGTH, VALIDITY, clean_name
from streamderain.runtime.base import Session, SessionOptions
from streamderain.runtime.cuda import Arrays, DoubleBuffer, Layout, Program, Slot, Tensor
from streamderain.runtime.luma_session import LumaFrame, LumaSession
from streamderain.runtime.window import WindowFrames
from streamderain.runtime.windowed import StoredFrame, WindowedSession

MAX_WORKERS = 16
"""Host threads that estimate flows and enqueue: a frame of 1080p takes one of them 10 ms (decision 13)."""


def open_cuda_session(
    model: ModelCard, geometry: Geometry, options: SessionOptions, *, device: Device, program: Program
) -> Session:
    """Open the session that suits a model.

    Raises:
        DeviceMemoryError: The device has too little memory.
    """
    kind = _CudaLumaSession if model.input == "luma" else _CudaRgbSession
    return kind(model, geometry, options, device=device, program=program)


def cuda_layouts(model: ModelCard, geometry: Geometry) -> tuple[Layout, Layout, Layout]:
    """Return the layouts of a frame, of the small inputs and of the result.

    Args:
        model: Its card.
        geometry: What frames look like.
    """
    shapes = geometry.plane_shapes
    read = shapes[: geometry.luma_planes] if model.input == "luma" else shapes
    dtype = geometry.dtype
    inputs = []
    if model.input == "luma":
        neighbours = model.before + model.after
        cell = model.flow.edge_px(geometry.width, geometry.height)
        if model.alignment == "flow":
            cells = (-(-geometry.height // cell), -(-geometry.width // cell))
            inputs.append(Tensor(FLOWS, (neighbours, 2, *cells), np.float32))
        inputs.append(Tensor(VALIDITY, (1, neighbours), np.float32))
    inputs.append(Tensor(STRENGTH, (1,), np.float32))
    return (
        Layout([Tensor(str(number), shape, dtype) for number, shape in enumerate(read)]),
        Layout(inputs),
        Layout([Tensor(clean_name(number), shape, dtype) for number, shape in enumerate(read)]),
    )


def session_bytes(model: ModelCard, geometry: Geometry) -> int:
    """Return about how much device memory a session takes beside its plans and what they compute in.

    Args:
        model: Its card.
        geometry: What frames look like.
    """
    frame, inputs, outputs = cuda_layouts(model, geometry)
    slots = min(len(os.sched_getaffinity(0)), MAX_WORKERS) + 2 + model.after
    frames = slots + _held(model)
    return frames * frame.size_bytes + slots * (inputs.size_bytes + outputs.size_bytes)


def _held(model: ModelCard) -> int:
    """Return how many frames a session keeps beside those whose results are under way."""
    return model.before + 1


class _CudaSession(WindowedSession):
    """Keeps frames in pinned memory; a result stays there until the next one is taken."""

    def __init__(
        self,
        model: ModelCard,
        geometry: Geometry,
        options: SessionOptions,
        *,
        device: Device,
        program: Program,
    ) -> None:
        workers = min(len(os.sched_getaffinity(0)), MAX_WORKERS)
        super().__init__(model, geometry, options, workers=workers)
        frame, inputs, outputs = cuda_layouts(model, geometry)
        self._shown: Slot | None = None
        self._computed_s = 0.0
        # Every frame in flight needs a slot, and so does the result that the caller still reads.
        slots = self._capacity + 1
        self._buffer = DoubleBuffer(
            device,
            program,
            frame=frame,
            inputs=inputs,
            outputs=outputs,
            slots=slots,
            frames=slots + _held(model),
        )

    @property
    def busy_s(self) -> float:
        """See `Session.busy_s`: of the device, or of the host's preparations where those take longer."""
        return max(self._computed_s, self._busy_s / self._workers)

    def close(self) -> None:
        """See `Session.close`."""
        super().close()
        self._buffer.close()

    def _stored(self, planes: Planes) -> StoredFrame:
        named = {str(number): plane for number, plane in enumerate(planes[: self.components])}
        lease = self._buffer.upload(named)
        return StoredFrame(tuple(lease.block.arrays[name] for name in named), lease)

    @abstractmethod
    def _fill(self, window: WindowFrames[StoredFrame], arrays: Arrays) -> None:
        """Write the small inputs of a computation."""

    def _computed(self, window: WindowFrames[StoredFrame]) -> Slot:
        blocks = [frame.memory.block for frame in window.frames]
        return self._buffer.start(blocks, lambda arrays: self._fill(window, arrays))

    def _delivered(self, result: Future[Slot], timeout_s: float | None) -> Planes:
        started = perf_counter()
        slot = result.result(timeout_s)
        left_s = None if timeout_s is None else max(0.0, timeout_s - (perf_counter() - started))
        if not self._buffer.finished(slot, left_s):
            raise TimeoutError
        self._computed_s += slot.computed_s
        if self._trace is not None:
            self._trace.add("network", slot.computed_s)
        if self._shown is not None:
            self._buffer.release(self._shown)
        self._shown = slot
        return tuple(slot.outputs.arrays.values())


class _CudaLumaSession(_CudaSession, LumaSession):
    """Estimates flows on the host; the network's graph warps."""

    @property
    def _stored_shift(self) -> int:
        return self.geometry.shift

    def _fill(self, window: WindowFrames[LumaFrame], arrays: Arrays) -> None:  # type: ignore[override]
        started = perf_counter()
        arrays[VALIDITY][:] = window.validity
        arrays[STRENGTH][:] = self.strength
        if FLOWS in arrays:
            arrays[FLOWS][:] = self._stacked_flows(window)
        if self._trace is not None:
            self._trace.add("align", perf_counter() - started)


class _CudaRgbSession(_CudaSession):
    """Has whole planes computed as they are."""

    def _fill(self, window: WindowFrames[StoredFrame], arrays: Arrays) -> None:
        arrays[STRENGTH][:] = self.strength
