"""The luma adapter as a torch module around a core, warping included."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from streamderain.nets.luma import Answer, core_window, rain_prior, residual_planes
from streamderain.runtime.adapters.luma import LumaScale


class LumaAdapter(torch.nn.Module):
    """The adapter of `adapters/luma.py` around a core, on whole planes of codes.

    Args:
        core: See `streamderain.nets.luma.LumaNetwork.forward`.
        scale: How codes map onto the core's scale.
        current: Place of the current frame in the window.
        multiple: Planes are extended to a multiple of this many pixels.
        cell: Edge of a cell of the flow, px.
    """

    def __init__(
        self, core: torch.nn.Module, *, scale: LumaScale, current: int, multiple: int, cell: int
    ) -> None:
        super().__init__()
        self.core = core
        self.scale = scale
        self.current = current
        self.multiple = multiple
        self.cell = cell

    def forward(
        self, codes: Tensor, flows: Tensor | None, validity: Tensor, strength: float | Tensor
    ) -> Tensor:
        """Derain one frame.

        Args:
            codes: (window, components, height, width) float32 codes, oldest frame first.
            flows: (neighbours, 2, rows, columns) float32, x then y, px: neighbour(p + flow(p)) ~ current(p);
                None where neighbours stay where they are.
            validity: (1, neighbours) float32, 0 or 1.
            strength: Share of the rain that is taken away, 0..1.

        Returns:
            (components, height, width) float32, rounded codes.
        """
        height, width = codes.shape[2:]
        weights = codes.new_tensor(self.scale.weights).view(1, -1, 1, 1)
        luma = (codes * weights).sum(1)
        if flows is not None:
            with torch.autocast(codes.device.type, enabled=False):
                luma = self._aligned(luma, flows, whole=codes.shape[1] == 1)
        missing = (0, -width % self.multiple, 0, -height % self.multiple)
        padded = functional.pad(luma[:, None], missing, mode="replicate")[:, 0]
        window = core_window((padded * self.scale.scale + self.scale.offset)[None])
        answer = self.core(window, rain_prior(window), validity)
        floats = Answer(*(part.float() for part in answer))
        residual = residual_planes(window, floats)[0, 0, :height, :width]
        taken = residual.clamp(min=0) * (self.scale.gain * strength)
        return (codes[self.current] - taken).clamp(0, self.scale.top).round()

    def _aligned(self, luma: Tensor, flows: Tensor, *, whole: bool) -> Tensor:
        """Warp the neighbours onto the current frame, bilinear, borders clamped; `whole` rounds to codes."""
        height, width = luma.shape[1:]
        extended = (flows.shape[2] * self.cell, flows.shape[3] * self.cell)
        vectors = functional.interpolate(flows, extended, mode="nearest")
        y, x = torch.meshgrid(
            torch.arange(height, device=luma.device, dtype=torch.float32),
            torch.arange(width, device=luma.device, dtype=torch.float32),
            indexing="ij",
        )
        at_x, at_y = x + vectors[:, 0, :height, :width], y + vectors[:, 1, :height, :width]
        # Centres of samples, as -1..1 over the plane's edges.
        grid = torch.stack([(2 * at_x + 1) / width - 1, (2 * at_y + 1) / height - 1], dim=-1)
        others = [index for index in range(len(luma)) if index != self.current]
        moved = functional.grid_sample(
            luma[others, None], grid, mode="bilinear", padding_mode="border", align_corners=False
        )[:, 0]
        moved = moved.round() if whole else moved
        return torch.cat([moved[: self.current], luma[self.current][None], moved[self.current :]])
