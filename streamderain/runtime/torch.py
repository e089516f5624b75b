"""The torch engine, on CPU and CUDA: the reference that all others are held to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamderain.errors import EngineUnavailable
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
from streamderain.system.installing import install_command

Codes = NDArray[np.float32]


class TorchEngine(Engine):
    """Runs a model's weights in torch.

    Args:
        model: The model; its card names the weights.
        device: `"auto"` (CUDA where there is one, else the CPU), `"cpu"`, `"cuda"` or `"cuda:N"`.
        precision: `"auto"` (`"f16"` on CUDA, else `"f32"`), `"f32"`, `"bf16"`, or on CUDA `"f16"`; the
            adapter stays in f32.
        threads: Processor threads to use on a CPU; 0 leaves torch's own choice.

    Raises:
        EngineUnavailable: No such device, or it lacks the precision.
    """

    name = "torch"

    def __init__(self, model: ModelCard, *, device: str, precision: str, threads: int) -> None:
        self.model = model
        self._device = _torch_device(device)
        cuda = self._device.type == "cuda"
        self.precision = ("f16" if cuda else "f32") if precision == "auto" else precision
        known = ("f32", "bf16", "f16") if cuda else ("f32", "bf16")
        if self.precision not in known:
            raise EngineUnavailable(
                f"the torch engine has no precision {self.precision} on {self._device}; use --precision "
                f"{' or '.join(known)}, or --engine openvino for int8"
            )
        self.device = _describe(self._device)
        if threads and self._device.type == "cpu":
            torch.set_num_threads(min(threads, len(os.sched_getaffinity(0))))
        core = load_core(model.family, model.paths("weights")).to(self._device).eval()
        self._core = core.to(memory_format=torch.channels_last) if cuda else core

    def session(self, geometry: Geometry, options: SessionOptions | None = None) -> Session:
        """See `Engine.session`."""
        options = options or SessionOptions()
        adapter = self._adapter(geometry, options)
        if self._device.type == "cuda":
            return self._cuda_session(adapter, geometry, options)
        if isinstance(adapter, LumaAdapter):
            return _TorchSession(self.model, geometry, options, adapter=adapter, half=self._half)
        require_memory(self.model, geometry, max_size=options.max_size, device=self.device)
        return _TorchRgbSession(self.model, geometry, options, adapter=adapter)

    @property
    def _half(self) -> torch.dtype | None:
        return {"f32": None, "bf16": torch.bfloat16, "f16": torch.float16}[self.precision]

    def _adapter(self, geometry: Geometry, options: SessionOptions) -> LumaAdapter | RgbAdapter:
        if self.model.input == "luma":
            return LumaAdapter(
                self._core,
                scale=luma_scale(geometry),
                current=self.model.before,
                multiple=self.model.multiple,
                cell=self.model.flow.edge_px(geometry.width, geometry.height),
            )
        return RgbAdapter(
            RgbCore(self._core),
            scale=rgb_scale(geometry),
            resamplings=resamplings(geometry, options.max_size),
            size=padded_size(self.model, geometry, options.max_size),
            half=self._half,
        )

    def _cuda_session(
        self, adapter: LumaAdapter | RgbAdapter, geometry: Geometry, options: SessionOptions
    ) -> Session:
        try:
            from streamderain.runtime.cuda import open_device
            from streamderain.runtime.cuda_session import open_cuda_session
            from streamderain.runtime.torch_cuda import TorchProgram
        except ImportError as error:
            raise EngineUnavailable(
                f"torch on CUDA needs cuda-core ({error}): {install_command('cuda-core')}"
            ) from error
        program = TorchProgram(
            adapter, model=self.model, geometry=geometry, device=self._device, half=self._half
        )
        device = open_device(str(self._device))
        return open_cuda_session(self.model, geometry, options, device=device, program=program)

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
        half: torch.dtype | None,
    ) -> None:
        super().__init__(model, geometry, options, workers=1)
        self._adapter = adapter
        self._half = half

    def _prepare(self, window: WindowFrames[LumaFrame]) -> tuple[Codes, Codes | None]:
        codes = np.stack([np.stack(frame.planes) for frame in window.frames]).astype(np.float32)
        return codes, self._stacked_flows(window) if self._aligns else None

    @contextmanager
    def _inferred(
        self, prepared: tuple[Codes, Codes | None], validity: tuple[float, ...]
    ) -> Iterator[list[Plane]]:
        codes, flows = prepared
        result = self._derain(
            torch.from_numpy(codes),
            None if flows is None else torch.from_numpy(flows),
            torch.tensor([validity]),
        )
        yield list(result.astype(self.geometry.dtype))

    @torch.inference_mode()
    def _derain(self, codes: torch.Tensor, flows: torch.Tensor | None, validity: torch.Tensor) -> Any:
        with torch.autocast("cpu", self._half, enabled=self._half is not None):
            return self._adapter(codes, flows, validity, self.strength).float().numpy()

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
    ) -> None:
        super().__init__(model, geometry, options, workers=1)
        self._adapter = adapter

    @contextmanager
    def _inferred(self, prepared: Planes, validity: tuple[float, ...]) -> Iterator[list[Plane]]:
        with torch.inference_mode():
            sent = [torch.from_numpy(plane.astype(np.float32)) for plane in prepared]
            clean = [plane.numpy() for plane in self._adapter(sent, self.strength)]
        yield [plane.astype(self.geometry.dtype) for plane in clean]

    def _copy_out(self, result: list[Plane]) -> Planes:
        return self._shifted(result)


def _torch_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise EngineUnavailable(f"torch knows no device {device!r}; use cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise EngineUnavailable("torch finds no CUDA device here; leave --device out to use the CPU")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise EngineUnavailable(
            f"torch finds no device {device}; there are {torch.cuda.device_count()}, numbered from cuda:0"
        )
    return chosen


def _describe(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
