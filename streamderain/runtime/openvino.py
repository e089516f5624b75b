"""OpenVINO: the engine of ordinary computers.

The adapter around the core (scaling, range, matrix, residual, rounding) is part of the compiled graph, so
frames go in and come out as integer codes. Several frames are computed at a time, each on few threads:
threads that never wait for each other within a frame share the cores well with a decoder and an encoder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from queue import SimpleQueue
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops

from streamderain.errors import DeviceMemoryError, EngineUnavailable, ModelError, PlanBuildError
from streamderain.frame import Geometry, Plane
from streamderain.models import ModelCard
from streamderain.runtime.base import Engine, Session, SessionOptions
from streamderain.runtime.blocks import padded
from streamderain.runtime.luma import (
    LumaScale,
    LumaSession,
    component_count,
    luma_scale,
    window_names,
)
from streamderain.runtime.window import Job

MAX_STREAMS = 4
"""More frames at a time than this cost memory and latency and win nothing measurable."""


class OpenVinoEngine(Engine):
    """Runs a model's ONNX core on a device of OpenVINO.

    Args:
        model: The model; its card names the files per precision.
        device: ``"auto"`` (the CPU) or an OpenVINO device name.
        precision: ``"auto"``, ``"f32"``, ``"bf16"`` or ``"int8"``.
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
        """See :meth:`Engine.session`. The compiled graph of the last geometries is kept."""
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
        """See :meth:`Engine.close`."""
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
        count = component_count(self.geometry)
        return tuple(tuple(_input_name(name, c) for c in range(count)) for name in window_names(self.model))

    @contextmanager
    def _inferred(self, job: Job[tuple[Plane, ...]]) -> Iterator[list[Plane]]:
        request = self._requests.get()
        try:
            for names, planes in zip(self._inputs, job.frames, strict=True):
                for name, plane in zip(names, planes, strict=True):
                    request.set_tensor(name, ov.Tensor(plane[None], shared_memory=True))
            request.set_tensor("validity", ov.Tensor(np.array([job.validity], np.float32)))
            request.infer()
            yield [request.get_output_tensor(c).data[0] for c in range(component_count(self.geometry))]
        finally:
            self._requests.put(request)


def _input_name(window_name: str, component: int) -> str:
    return f"{window_name}.{component}"


def adapted_core(core: Any, *, model: ModelCard, geometry: Geometry) -> Any:
    """Builds the adapter of ``runtime/luma.py`` around a core.

    All of it works channels-last, the layout in which blocks arrive and convolutions compute: the two
    transpositions around the core then only rename axes.

    Args:
        core: The model as read from its file.
        model: Its card.
        geometry: What frames look like.

    Returns:
        A model with inputs ``<window name>.<component>`` of (1, rows, columns, block * block) codes,
        ``validity`` (1, neighbours) and ``strength`` (1,); one output of codes per component.
    """
    scale = luma_scale(geometry)
    rows = padded(geometry.height, model.multiple) // model.block
    columns = padded(geometry.width, model.multiple) // model.block
    channels = model.block**2
    names = window_names(model)
    _check_core(core, model=model, channels=(len(names) + 1) * channels)
    core.reshape({"window": [1, (len(names) + 1) * channels, rows, columns], "validity": [1, len(names) - 1]})
    dtype = geometry.dtype.type
    parameters = [
        [ops.parameter([1, rows, columns, channels], dtype, name=_input_name(name, c)) for name in names]
        for c in range(component_count(geometry))
    ]
    strength = ops.parameter([1], np.float32, name="strength")
    lumas = [_luma(frame, scale) for frame in zip(*parameters, strict=True)]
    excess = _excess(lumas, current=model.before)
    window = _units(lumas, excess, scale=scale, channels=channels)
    core.input("window").replace(_transposed(window, [0, 3, 1, 2]).output(0))
    validity = core.input("validity").get_node()
    share, correction = (
        _transposed(core.output(name).get_node().input_value(0), [0, 2, 3, 1])
        for name in ("share", "correction")
    )
    rain = ops.add(ops.multiply(share, excess), ops.multiply(correction, np.float32(scale.gain)))
    taken = ops.multiply(ops.relu(rain), strength)
    outputs = [_less(component[model.before], taken, scale.top, dtype) for component in parameters]
    flat = [*(parameter for component in parameters for parameter in component), strength]
    for parameter in flat:
        parameter.output(0).set_names({parameter.get_friendly_name()})
    return ov.Model(outputs, [*flat, validity], f"{model.name} with adapter")


def _check_core(core: Any, *, model: ModelCard, channels: int) -> None:
    inputs = {value.get_any_name(): value.get_partial_shape() for value in core.inputs}
    outputs = {value.get_any_name() for value in core.outputs}
    fits = set(inputs) == {"window", "validity"} and outputs == {"share", "correction"}
    if not fits or inputs["window"][1] != channels:
        raise ModelError(
            f"the model {model.name} {model.version} in {model.folder} was made for another version of "
            "streamderain; reinstall streamderain, or export the model again"
        )


def _transposed(value: Any, order: list[int]) -> Any:
    return ops.transpose(value, np.array(order))


def _luma(components: Sequence[Any], scale: LumaScale) -> Any:
    """Luma of one frame in codes: the integers themselves, or the weighted sum of R, G and B as f32."""
    if len(components) == 1:
        return components[0]
    weighted = [
        ops.multiply(ops.convert(component, "f32"), np.float32(weight))
        for component, weight in zip(components, scale.weights, strict=True)
    ]
    return ops.add(ops.add(weighted[0], weighted[1]), weighted[2])


def _excess(lumas: Sequence[Any], *, current: int) -> Any:
    """By how many codes the current frame is brighter than all its neighbours, as f32."""
    floats = [ops.convert(luma, "f32") for luma in lumas]
    neighbours = [value for number, value in enumerate(floats) if number != current]
    brightest = neighbours[0]
    for neighbour in neighbours[1:]:
        brightest = ops.maximum(brightest, neighbour)
    return ops.relu(ops.subtract(floats[current], brightest))


def _units(lumas: Sequence[Any], excess: Any, *, scale: LumaScale, channels: int) -> Any:
    """The core's window on the studio scale: the frames and the excess beside each other."""
    kind = lumas[0].get_element_type()
    # Eight-bit codes stay bytes until the first convolution, which then reads a quarter of the memory.
    parts = [*lumas, excess] if kind == ov.Type.f32 else [*lumas, ops.convert(excess, kind.get_type_name())]
    codes = ops.convert(ops.concat(parts, 3), "f32")
    units = ops.multiply(codes, np.float32(scale.scale))
    if not scale.offset:
        return units
    offsets = np.zeros((1, 1, 1, channels * len(parts)), np.float32)
    offsets[..., : channels * len(lumas)] = scale.offset
    return ops.add(units, offsets)


def _less(codes: Any, taken: Any, top: int, dtype: Any) -> Any:
    """Codes less what is taken away, rounded and clamped to integers again."""
    left = ops.clamp(ops.subtract(ops.convert(codes, "f32"), taken), 0.0, float(top))
    return ops.convert(ops.round(left, "half_to_even"), "u8" if dtype is np.uint8 else "u16")
