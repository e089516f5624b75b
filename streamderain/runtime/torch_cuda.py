"""Networks of torch on a CUDA device, in the double buffer that TensorRT plans are computed in.

torch works on the streams and in the memory that it is given (`streamderain.runtime.cuda`); only what lies
between a network's layers is its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from streamderain.errors import DeviceMemoryError
from streamderain.frame import Geometry
from streamderain.models import ModelCard
from streamderain.runtime.adapters.luma_torch import LumaAdapter
from streamderain.runtime.adapters.rgb_torch import RgbAdapter
from streamderain.runtime.adapters.tensor_names import FLOWS, STRENGTH, VALIDITY, clean_name, frame_name
from streamderain.runtime.cuda_session import cuda_layouts

_WORD = 0xFFFF


class TorchProgram:
    """An adapter with its network, as a program of the double buffer; one context serves all slots.

    Args:
        adapter: On the device.
        model: Its card.
        geometry: What frames look like.
        device: Where.
        half: What convolutions compute in, `torch.float16` or `torch.bfloat16`; None for exact float32.
    """

    scratch_bytes = 0
    capturable = False

    def __init__(
        self,
        adapter: LumaAdapter | RgbAdapter,
        *,
        model: ModelCard,
        geometry: Geometry,
        device: torch.device,
        half: torch.dtype | None,
    ) -> None:
        self._adapter = adapter
        self._window = model.before + 1 + model.after
        self._geometry, self._device, self._half = geometry, device, half
        frame, inputs, _ = cuda_layouts(model, geometry)
        self._shapes = [tensor.shape for tensor in frame.tensors]
        self._inputs = {tensor.name: tensor.shape for tensor in inputs.tensors}

    def context(self, scratch: int) -> TorchProgram:
        """See `Program.context`."""
        return self

    def enqueue(self, addresses: Mapping[str, int], stream: int) -> None:
        """See `Context.enqueue`.

        Raises:
            DeviceMemoryError: The device has no memory left.
        """
        outer = torch.cuda.ExternalStream(stream, device=self._device)  # type: ignore[no-untyped-call]
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=self._half is not None)
        try:
            with torch.cuda.stream(outer), exact:
                self.compute(addresses)
        except torch.OutOfMemoryError as error:
            size = f"{self._geometry.width}x{self._geometry.height}"
            raise DeviceMemoryError(
                f"frames of {size} do not fit into the memory of {self._device}; use --device cpu, scale the "
                "video down first, or (models that look at whole frames) give --max-size"
            ) from error

    @torch.inference_mode()
    def compute(self, addresses: Mapping[str, int]) -> None:
        """Derain the frames at addresses into others."""
        frames = [
            [self._codes(addresses[frame_name(frame, c)], shape) for c, shape in enumerate(self._shapes)]
            for frame in range(self._window)
        ]
        small = {name: self.memory(addresses[name], shape, "<f4") for name, shape in self._inputs.items()}
        for number, codes in enumerate(self._derained(frames, small)):
            self._write(addresses[clean_name(number)], codes)

    def _derained(self, frames: Sequence[Sequence[Tensor]], small: Mapping[str, Tensor]) -> list[Tensor]:
        strength = small[STRENGTH]
        if isinstance(self._adapter, RgbAdapter):
            return list(self._adapter(frames[0], strength))  # knows its half itself
        codes = torch.stack([torch.stack(list(frame)) for frame in frames])
        with torch.autocast(self._device.type, self._half, enabled=self._half is not None):
            return list(self._adapter(codes, small.get(FLOWS), small[VALIDITY], strength))

    def _codes(self, address: int, shape: tuple[int, ...]) -> Tensor:
        """Return the plane at an address as float32 codes, unshifted."""
        if self._geometry.bits == 8:
            return self.memory(address, shape, "|u1").float()
        # Signed words: torch computes little with unsigned ones.
        words = self.memory(address, shape, "<i2").to(torch.int32) & _WORD
        return (words >> self._geometry.shift).float()

    def _write(self, address: int, codes: Tensor) -> None:
        whole = codes.to(torch.int32) << self._geometry.shift
        kind = "|u1" if self._geometry.bits == 8 else "<i2"
        target = self.memory(address, tuple(codes.shape), kind)
        target.copy_(whole.to(target.dtype))

    def memory(self, address: int, shape: tuple[int, ...], kind: str) -> Tensor:
        """Return the device's memory at an address as a tensor.

        Args:
            address: On the device.
            shape: Of the tensor.
            kind: Its type, as numpy writes it.
        """
        return torch.as_tensor(_Memory(address, shape, kind), device=self._device)


class _Memory:
    """Memory as other libraries understand it (the CUDA array interface, version 3)."""

    def __init__(self, address: int, shape: tuple[int, ...], kind: str) -> None:
        self.__cuda_array_interface__: dict[str, Any] = {
            "version": 3,
            "data": (address, False),
            "shape": shape,
            "typestr": kind,
        }
