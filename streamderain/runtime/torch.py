"""torch: the reference engine, on CPU and CUDA. Slow on CPUs, and the one all others are held to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from streamderain.errors import DeviceMemoryError, EngineUnavailable, PlanBuildError
from streamderain.frame import Geometry, Plane
from streamderain.models import ModelCard
from streamderain.nets.families import load_core
from streamderain.runtime.base import Engine, Session, SessionOptions
from streamderain.runtime.luma import LumaScale, LumaSession, luma_scale
from streamderain.runtime.window import Job


class LumaAdapter(torch.nn.Module):
    """The adapter of ``runtime/luma.py`` around a core, on blocks of codes.

    Args:
        core: Reads the window and the excess (N, (frames + 1) * block * block, rows, columns), oldest frame
            first, and ``validity`` (N, neighbours); returns the share of the excess that is rain and a
            correction, (N, block * block, rows, columns) each; all on the studio scale 0..1.
        scale: How codes map onto that scale.
        current: Place of the current frame in the window.
    """

    def __init__(self, core: torch.nn.Module, *, scale: LumaScale, current: int) -> None:
        super().__init__()
        self.core = core
        self.scale = scale
        self.current = current

    def forward(self, codes: torch.Tensor, validity: torch.Tensor, strength: float) -> torch.Tensor:
        """Derains one frame.

        Args:
            codes: (window, components, rows, columns, block * block) float32 codes, oldest frame first.
            validity: (1, neighbours) float32, 0 or 1.
            strength: Share of the rain that is taken away, 0..1.

        Returns:
            (components, rows, columns, block * block) float32, rounded codes.
        """
        weights = codes.new_tensor(self.scale.weights).view(1, -1, 1, 1, 1)
        units = (codes * weights).sum(1) * self.scale.scale + self.scale.offset
        neighbours = [unit for number, unit in enumerate(units) if number != self.current]
        excess = (units[self.current] - torch.stack(neighbours).amax(0)).clamp(min=0)
        window = torch.cat([units, excess[None]]).permute(0, 3, 1, 2).flatten(0, 1)
        share, correction = self.core(window[None], validity)
        residual = share[0].float().permute(1, 2, 0) * excess + correction[0].float().permute(1, 2, 0)
        taken = residual.clamp(min=0) * (self.scale.gain * strength)
        result: torch.Tensor = (codes[self.current] - taken).clamp(0, self.scale.top).round()
        return result


class TorchEngine(Engine):
    """Runs a model's weights in torch.

    Args:
        model: The model; its card names the weights.
        device: ``"auto"`` (CUDA where there is one, else the CPU), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        precision: ``"auto"``, ``"f32"`` or ``"bf16"`` (autocast, the adapter stays in f32).
        threads: Processor threads to use on a CPU; 0 leaves torch's own choice.

    Raises:
        EngineUnavailable: No such device, or it lacks the precision.
    """

    name = "torch"

    def __init__(self, model: ModelCard, *, device: str, precision: str, threads: int) -> None:
        if model.input != "luma":
            raise PlanBuildError(
                f"the model {model.name} reads {model.input} and the torch engine handles luma models; "
                "choose another with --model (streamderain models list)"
            )
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
        self._core = load_core(model.family, model.file("weights")).to(self._device).eval()

    def session(self, geometry: Geometry, options: SessionOptions | None = None) -> Session:
        """See :meth:`Engine.session`."""
        adapter = LumaAdapter(self._core, scale=luma_scale(geometry), current=self.model.before)
        return _TorchSession(
            self.model,
            geometry,
            options or SessionOptions(),
            adapter=adapter,
            device=self._device,
            precision=self.precision,
        )

    def close(self) -> None:
        """See :meth:`Engine.close`."""


class _TorchSession(LumaSession):
    """Copies planes into blocks and runs them through the adapter, one frame at a time."""

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

    @contextmanager
    def _inferred(self, job: Job[tuple[Plane, ...]]) -> Iterator[list[Plane]]:
        codes = np.stack([np.stack(frame) for frame in job.frames]).astype(np.float32)
        try:
            result = self._derain(torch.from_numpy(codes), torch.tensor([job.validity]))
        except torch.OutOfMemoryError as error:
            raise DeviceMemoryError(
                f"frames of {self.geometry.width}x{self.geometry.height} do not fit into the memory of "
                f"{self._device}; scale the video down first, or use --device cpu"
            ) from error
        yield list(result.astype(self.geometry.dtype))

    @torch.inference_mode()
    def _derain(self, codes: torch.Tensor, validity: torch.Tensor) -> Any:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
            clean = self._adapter(codes.to(self._device), validity.to(self._device), self.strength)
        return clean.float().cpu().numpy()


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
