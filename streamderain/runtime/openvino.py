"""The OpenVINO engine, for ordinary computers.

The adapter around the core (scaling, range, matrix, residual, rounding) is part of the compiled graph, so
frames go in and come out as integer codes. Several frames are computed at a time, each on few threads:
threads that never wait for each other within a frame share the cores well with a decoder and an encoder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from queue import SimpleQueue
from typing import Any

import numpy as np
import openvino as ov

from streamderain.errors import DeviceMemoryError, EngineUnavailable, PlanBuildError
from streamderain.frame import Geometry, Plane, Planes
from streamderain.models import ModelCard
from streamderain.runtime.adapters.luma import window_names
from streamderain.runtime.adapters.luma_openvino import adapted_core, input_name
from streamderain.runtime.base import Engine, Session, SessionOptions
from streamderain.runtime.blocks import from_blocks, to_blocks
from streamderain.runtime.window import WindowFrames
from streamderain.runtime.windowed import LumaFrame, LumaSession

MAX_STREAMS = 4
"""More frames at a time than this cost memory and latency and win nothing measurable."""


class OpenVinoEngine(Engine):
    """Runs a model's ONNX core on a device of OpenVINO.

    Args:
        model: The model; its card names the files per precision.
        device: `"auto"` (the CPU) or an OpenVINO device name.
        precision: `"auto"`, `"f32"`, `"bf16"` or `"int8"`.
        threads: Processor threads to use; 0 for all this process may run on.

    Raises:
        EngineUnavailable: No such device, or it lacks the precision.
    """

    name = "openvino"

    def __init__(self, model: ModelCard, *, device: str, precision: str, threads: int) -> None:
        if model.input != "luma":
            raise PlanBuildError(
                f"the model {model.name} reads {model.input} and the openvino engine handles luma models; "
                "choose another with --model (streamderain models list)"
            )
        self.model = model
        self.precision = model.default_precision.get(self.name, "f32") if precision == "auto" else precision
        self.threads = threads or len(os.sched_getaffinity(0))
        self.streams = min(self.threads, MAX_STREAMS)
        self._core = ov.Core()
        self._device = "CPU" if device in ("auto", "cpu") else device
        self._compiled: dict[Geometry, Any] = {}
        self._require_device()
        self.device = f"{self._device} ({self._core.get_property(self._device, 'FULL_DEVICE_NAME')})"
        self._path = model.file("f32" if self.precision == "bf16" else self.precision)

    def session(self, geometry: Geometry, options: SessionOptions | None = None) -> Session:
        """See `Engine.session`. The compiled graph of the last geometries is kept."""
        if geometry not in self._compiled:
            while len(self._compiled) >= 2:
                self._compiled.pop(next(iter(self._compiled)))
            self._compiled[geometry] = self._compile(geometry)
        return _OpenVinoSession(
            self.model,
            geometry,
            options or SessionOptions(),
            compiled=self._compiled[geometry],
            requests=self.streams,
        )

    def close(self) -> None:
        """See `Engine.close`."""
        self._compiled.clear()

    def _require_device(self) -> None:
        known = self._core.available_devices
        if self._device.split(".")[0] not in {name.split(".")[0] for name in known}:
            raise EngineUnavailable(
                f"OpenVINO has no device {self._device!r} here; it found: {', '.join(known)}. "
                "Leave --device out to use the CPU"
            )
        capable = self._core.get_property(self._device, "OPTIMIZATION_CAPABILITIES")
        if self.precision == "bf16" and "BF16" not in capable:
            raise EngineUnavailable(
                f"the {self._device} device computes no bf16 in hardware; use --precision int8 or f32"
            )

    def _compile(self, geometry: Geometry) -> Any:
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": self.streams,
            # The cores are shared with a decoder and an encoder: let the scheduler place the threads.
            "ENABLE_CPU_PINNING": False,
        }
        if self._device != "CPU":
            settings = {"PERFORMANCE_HINT": "THROUGHPUT"}
        try:
            graph = adapted_core(self._core.read_model(self._path), model=self.model, geometry=geometry)
            return self._core.compile_model(graph, self._device, settings)
        except (RuntimeError, MemoryError) as error:
            size = f"{geometry.width}x{geometry.height}"
            if isinstance(error, MemoryError) or "alloc" in str(error):
                raise DeviceMemoryError(
                    f"frames of {size} do not fit into the memory of {self._device}: {error}; "
                    "scale the video down first, or use a device with more memory"
                ) from error
            raise PlanBuildError(
                f"the model {self.model.name} does not compile for {size} on {self._device}: {error}; "
                "try --precision f32 or another --engine"
            ) from error


class _OpenVinoSession(LumaSession):
    """Copies planes into blocks and runs them through a compiled graph."""

    def __init__(
        self,
        model: ModelCard,
        geometry: Geometry,
        options: SessionOptions,
        *,
        compiled: Any,
        requests: int,
    ) -> None:
        super().__init__(model, geometry, options, workers=requests)
        self._requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(requests):
            request = compiled.create_infer_request()
            request.set_tensor("strength", ov.Tensor(np.array([self.strength], np.float32)))
            self._requests.put(request)

    @cached_property
    def _inputs(self) -> tuple[tuple[str, ...], ...]:
        names = window_names(self.model)
        return tuple(tuple(input_name(name, c) for c in range(self.components)) for name in names)

    def _prepare(self, window: WindowFrames[LumaFrame]) -> list[tuple[Plane, ...]]:
        return self._aligned(window)

    def _blocks(self, plane: Plane) -> Plane:
        return to_blocks(plane, block=self.model.block, multiple=self.model.multiple)

    @contextmanager
    def _inferred(
        self, prepared: list[tuple[Plane, ...]], validity: tuple[float, ...]
    ) -> Iterator[list[Plane]]:
        request = self._requests.get()
        # Tensors only borrow the blocks: they have to live until the request is done.
        blocks = [[self._blocks(plane)[None] for plane in planes] for planes in prepared]
        try:
            for names, arrays in zip(self._inputs, blocks, strict=True):
                for name, array in zip(names, arrays, strict=True):
                    request.set_tensor(name, ov.Tensor(array, shared_memory=True))
            request.set_tensor("validity", ov.Tensor(np.array([validity], np.float32)))
            request.infer()
            yield [request.get_output_tensor(c).data[0] for c in range(self.components)]
        finally:
            self._requests.put(request)

    def _copy_out(self, result: list[Plane]) -> Planes:
        """Turn the derained components, (rows, columns, block * block) codes, back into planes."""
        return tuple(
            from_blocks(
                component,
                block=self.model.block,
                width=self.geometry.width,
                height=self.geometry.height,
                shift=self.geometry.shift,
            )
            for component in result
        )
