"""The torch engine, on CPU and CUDA: the reference that all others are held to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamderain.errors import DeviceMemoryError, EngineUnavailable
from streamderain.frame import Geometry, Plane, Planes
from streamderain.models import ModelCard
from streamderain.nets.families import load_core
from streamderain.nets.generator import RgbCore
from streamderain.runtime.adapters.luma import luma_scale
from streamderain.runtime.adapters.luma_torch import LumaAdapter
from streamderain.runtime.adapters.rgb import padded_size, resamplings, rgb_scale
from streamderain.runtime.adapters.rgb_torch import RgbAdapter
from streamderain.runtime.base import Engine, Session, SessionOptions
from streamderain.runtime.luma_session import LumaFrame, LumaSession
from streamderain.runtime.whole_frames import require_memory
from streamderain.runtime.window import WindowFrames
from streamderain.runtime.windowed import SynchronousSession

Codes = NDArray[np.float32]


class TorchEngine(Engine):
    """Runs a model's weights in torch.

    Args:
        model: The model; its card names the weights.
        device: `"auto"` (CUDA where there is one, else the CPU), `"cpu"`, `"cuda"` or `"cuda:N"`.
        precision: `"auto"`, `"f32"` or `"bf16"` (autocast, the adapter stays in f32).
        threads: Processor threads to use on a CPU; 0 leaves torch's own choice.

    Raises:
        EngineUnavailable: No such device, or it lacks the precision.
    """

    name = "torch"

    def __init__(self, model: ModelCard, *, device: str, precision: str, threads: int) -> None:
        self.model = model
        self.precision = "f32" if precision == "auto" else precision
        if self.precision not in ("f32", "bf16"):
            raise EngineUnavailable(
                f"the torch engine has no precision {self.precision}; use --precision f32 or bf16, "
                "or --engine openvino for int8"
            )
        self._device = _torch_device(device)
        self.device = _describe(self._device)
        if threads and self._device.type == "cpu":
            torch.set_num_threads(min(threads, len(os.sched_getaffinity(0))))
        self._core = load_core(model.family, model.paths("weights")).to(self._device).eval()

    def session(self, geometry: Geometry, options: SessionOptions | None = None) -> Session:
        """See `Engine.session`."""
        if self.model.input == "rgb":
            return self._rgb_session(geometry, options or SessionOptions())
        adapter = LumaAdapter(
            self._core,
            scale=luma_scale(geometry),
            current=self.model.before,
            multiple=self.model.multiple,
            cell=self.model.flow.edge_px(geometry.width, geometry.height),
        )
        return _TorchSession(
            self.model,
            geometry,
            options or SessionOptions(),
            adapter=adapter,
            device=self._device,
            precision=self.precision,
        )

    def _rgb_session(self, geometry: Geometry, options: SessionOptions) -> Session:
        if self._device.type == "cpu":
            require_memory(self.model, geometry, max_size=options.max_size, device=self.device)
        adapter = RgbAdapter(
            RgbCore(self._core),
            scale=rgb_scale(geometry),
            resamplings=resamplings(geometry, options.max_size),
            size=padded_size(self.model, geometry, options.max_size),
            bf16=self.precision == "bf16",
        )
        return _TorchRgbSession(self.model, geometry, options, adapter=adapter, device=self._device)

    def close(self) -> None:
        """See `Engine.close`."""


class _TorchSession(SynchronousSession, LumaSession):
    """Runs planes and flows through the adapter, which warps, one frame at a time."""

    def __init__(
        self,
        model: ModelCard,
        geometry: Geometry,
        options: SessionOptions,
        *,
        adapter: LumaAdapter,
        device: torch.device,
        precision: str,
    ) -> None:
        super().__init__(model, geometry, options, workers=1)
        self._adapter = adapter
        self._device = device
        self._autocast = precision == "bf16"

    def _prepare(self, window: WindowFrames[LumaFrame]) -> tuple[Codes, Codes | None]:
        codes = np.stack([np.stack(frame.planes) for frame in window.frames]).astype(np.float32)
        return codes, self._stacked_flows(window) if self._aligns else None

    @contextmanager
    def _inferred(
        self, prepared: tuple[Codes, Codes | None], validity: tuple[float, ...]
    ) -> Iterator[list[Plane]]:
        codes, flows = prepared
        try:
            result = self._derain(
                torch.from_numpy(codes),
                None if flows is None else torch.from_numpy(flows),
                torch.tensor([validity]),
            )
        except torch.OutOfMemoryError as error:
            raise _too_large(self.geometry, self._device) from error
        yield list(result.astype(self.geometry.dtype))

    @torch.inference_mode()
    def _derain(self, codes: torch.Tensor, flows: torch.Tensor | None, validity: torch.Tensor) -> Any:
        codes, validity = codes.to(self._device), validity.to(self._device)
        flows = None if flows is None else flows.to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
            clean = self._adapter(codes, flows, validity, self.strength)
        return clean.float().cpu().numpy()

    def _copy_out(self, result: list[Plane]) -> Planes:
        return self._shifted(result)


class _TorchRgbSession(SynchronousSession):
    """Runs whole planes through the adapter, one frame at a time."""

    def __init__(
        self,
        model: ModelCard,
        geometry: Geometry,
        options: SessionOptions,
        *,
        adapter: RgbAdapter,
        device: torch.device,
    ) -> None:
        super().__init__(model, geometry, options, workers=1)
        self._adapter = adapter
        self._device = device

    @contextmanager
    def _inferred(self, prepared: Planes, validity: tuple[float, ...]) -> Iterator[list[Plane]]:
        try:
            with torch.inference_mode():
                sent = [torch.from_numpy(p.astype(np.float32)).to(self._device) for p in prepared]
                clean = [plane.cpu().numpy() for plane in self._adapter(sent, self.strength)]
        except torch.OutOfMemoryError as error:
            raise _too_large(self.geometry, self._device) from error
        yield [plane.astype(self.geometry.dtype) for plane in clean]

    def _copy_out(self, result: list[Plane]) -> Planes:
        return self._shifted(result)


def _too_large(geometry: Geometry, device: torch.device) -> DeviceMemoryError:
    return DeviceMemoryError(
        f"frames of {geometry.width}x{geometry.height} do not fit into the memory of {device}; use "
        "--device cpu, scale the video down first, or (models that look at whole frames) give --max-size"
    )


def _torch_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise EngineUnavailable(f"torch knows no device {device!r}; use cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise EngineUnavailable("torch finds no CUDA device here; leave --device out to use the CPU")
    return chosen


def _describe(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
