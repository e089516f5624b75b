"""The luma adapter as a torch module around a core."""

from __future__ import annotations

import torch

from streamderain.runtime.adapters.luma import LumaScale


class LumaAdapter(torch.nn.Module):
    """The adapter of `adapters/luma.py` around a core, on blocks of codes.

    Args:
        core: Reads the window and the excess (N, (frames + 1) * block * block, rows, columns), oldest frame
            first, and `validity` (N, neighbours); returns the share of the excess that is rain and a
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
        """Derain one frame.

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
