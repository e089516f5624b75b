"""The OpenVINO engine, for ordinary computers.

The adapter around the core (scaling, range, matrix, residual, rounding) is part of the compiled graph, so
frames go in and come out as integer codes. Several frames are computed at a time, each on few threads:
threads that never wait for each other within a frame share the cores well with a decoder and an encoder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from streamderain import motion
from streamderain.errors import DeviceMemoryError, EngineUnavailable, PlanBuildError
from streamderain.frame import Geometry, Plane, Planes
from streamderain.models import ModelCard
from streamderain.runtime.adapters.luma import rain_prior
from streamderain.runtime.adapters.luma_openvino import (
    EXCESS,
    PRIOR,
    REST,
    STRENGTH,
    VALIDITY,
    WINDOW,
    adapted_core,
    current_name,
)
from streamderain.runtime.adapters.rgb_openvino import adapted_rgb_core, component_name
from streamderain.runtime.base import Engine, Session, SessionOptions
from streamderain.runtime.blocks import block_means, extended, from_blocks, to_blocks
from streamderain.runtime.luma_session import LumaFrame, LumaSession
from streamderain.runtime.openvino_library import ov
from streamderain.runtime.whole_frames import require_memory
from streamderain.runtime.window import WindowFrames
from streamderain.runtime.windowed import SynchronousSession

_Prepared = tuple[Planes, list[Plane]]

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
        self.model = model
        self.precision = model.default_precision.get(self.name, "f32") if precision == "auto" else precision
        self.threads = threads or len(os.sched_getaffinity(0))
        # Large networks keep all threads busy with one frame, and another would take as much memory again.
        self.streams = 1 if model.input == "rgb" else min(self.threads, MAX_STREAMS)
        self._core = ov.Core()
        self._device = "CPU" if device in ("auto", "cpu") else device
        self._compiled: dict[tuple[Geometry, int], Any] = {}
        self._require_device()
        self.device = f"{self._device} ({self._core.get_property(self._device, 'FULL_DEVICE_NAME')})"
        self._path = model.file("f32" if self.precision == "bf16" else self.precision)

    def session(self, geometry: Geometry, options: SessionOptions | None = None) -> Session:
        """See `Engine.session`. The compiled graph of the last geometries is kept."""
        options = options or SessionOptions()
        if self.model.input == "rgb" and self._device == "CPU":
            require_memory(self.model, geometry, max_size=options.max_size, device=self._device)
        key = (geometry, options.max_size)
        if key not in self._compiled:
            while len(self._compiled) >= 2:
                self._compiled.pop(next(iter(self._compiled)))
            self._compiled[key] = self._compile(geometry, options.max_size)
        compiled = self._compiled[key]
        if self.model.input == "rgb":
            return _OpenVinoRgbSession(self.model, geometry, options, compiled=compiled)
        return _OpenVinoSession(self.model, geometry, options, compiled=compiled, requests=self.streams)

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

    def _compile(self, geometry: Geometry, max_size: int) -> Any:
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
            core = self._core.read_model(self._path)
            if self.model.input == "rgb":
                graph = adapted_rgb_core(core, model=self.model, geometry=geometry, max_size=max_size)
            else:
                graph = adapted_core(core, model=self.model, geometry=geometry)
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


class _OpenVinoSession(SynchronousSession, LumaSession):
    """Aligns and compares planes, and runs their blocks through a compiled graph."""

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
            request.get_tensor(STRENGTH).data[:] = self.strength
            self._requests.put(request)

    def _prepare(self, window: WindowFrames[LumaFrame]) -> _Prepared:
        """Return the current frame's components, and the luma of the aligned window, oldest first."""
        return window.frames[self.model.before].planes, self._aligned(window)

    @contextmanager
    def _inferred(self, prepared: _Prepared, validity: tuple[float, ...]) -> Iterator[list[Plane]]:
        request = self._requests.get()
        try:
            self._fill(request, *prepared)
            request.get_tensor(VALIDITY).data[:] = validity
            request.infer()
            yield [request.get_output_tensor(c).data[0] for c in range(self.components)]
        finally:
            self._requests.put(request)

    def _fill(self, request: Any, components: Planes, lumas: list[Plane]) -> None:
        """Write what the graph reads of a frame into a request's memory; use `lumas` up."""
        before = self.model.before
        frames = [extended(luma, self.model.multiple) for luma in lumas]
        lumas.clear()  # their memory is free before the graph asks for its own
        excess, rest, deficit = motion.differences(frames[before], frames[:before] + frames[before + 1 :])
        window = self._blocks(request, WINDOW, frames[before], excess, rest, deficit)
        rain = block_means(self._blocks(request, EXCESS, excess))
        misfit = block_means(window[..., -(self.model.block**2) :])
        rain_prior(self._scale.scale * rain, self._scale.scale * misfit, request.get_tensor(PRIOR).data[0])
        self._blocks(request, REST, rest)
        for number, component in enumerate(components):
            self._blocks(request, current_name(number), extended(component, self.model.multiple))

    def _blocks(self, request: Any, name: str, *planes: Plane) -> Plane:
        """Write planes into one of a request's inputs, and return it."""
        target: Plane = request.get_tensor(name).data[0]
        to_blocks(planes, target, block=self.model.block)
        return target

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


class _OpenVinoRgbSession(SynchronousSession):
    """Runs whole planes through a compiled graph, one frame at a time."""

    def __init__(
        self, model: ModelCard, geometry: Geometry, options: SessionOptions, *, compiled: Any
    ) -> None:
        super().__init__(model, geometry, options, workers=1)
        self._request = compiled.create_infer_request()
        self._request.get_tensor(STRENGTH).data[:] = self.strength

    @contextmanager
    def _inferred(self, prepared: Planes, validity: tuple[float, ...]) -> Iterator[list[Plane]]:
        for number, plane in enumerate(prepared):
            self._request.get_tensor(component_name(number)).data[0, 0] = plane
        self._request.infer()
        yield [self._request.get_output_tensor(c).data[0, 0] for c in range(self.components)]

    def _copy_out(self, result: list[Plane]) -> Planes:
        return self._shifted(plane.copy() for plane in result)
