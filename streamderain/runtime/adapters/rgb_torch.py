"""The RGB adapter as a torch module around a core."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from streamderain.runtime.adapters.rgb import Matrix, Resampling, RgbScale


class RgbAdapter(torch.nn.Module):
    """The adapter of `adapters/rgb.py` around a core, on whole planes of codes.

    Args:
        core: R, G, B in 0..1, (1, 3, H, W), to what must be added to them.
        scale: How codes map onto R, G and B.
        resamplings: How each component comes to the core and back.
        size: Width and height that the core reads, px.
        half: What the core computes in, such as `torch.bfloat16`; None for float32. The adapter always
            computes in that.
    """

    def __init__(
        self,
        core: torch.nn.Module,
        *,
        scale: RgbScale,
        resamplings: Sequence[Resampling],
        size: tuple[int, int],
        half: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.core = core
        self.scale = scale
        self.size = size
        self.half_precision = half
        self.ways = [
            tuple(map(_tensor, way))
            for one in resamplings
            for way in ((one.rows, one.columns), (one.rows_back, one.columns_back))
        ]

    def forward(self, components: Sequence[Tensor], strength: float | Tensor) -> list[Tensor]:
        """Derain one frame.

        Args:
            components: (height, width) float32 codes each.
            strength: Share of the change that is made, 0..1.

        Returns:
            Of the same shapes, float32, rounded codes.
        """
        scale = self.scale
        there, back = self.ways[::2], self.ways[1::2]
        units = torch.stack(
            [
                _product(codes * factor + offset, *way)
                for codes, factor, offset, way in zip(
                    components, scale.scales, scale.offsets, there, strict=True
                )
            ]
        )
        picture = _mixed(units, scale.to_rgb).clamp(0.0, 1.0)
        changes = _mixed(self._change(picture), scale.from_rgb)
        return [
            (codes + strength / factor * _product(change, *way)).clamp(0, scale.top).round()
            for codes, factor, change, way in zip(components, scale.scales, changes, back, strict=True)
        ]

    def _change(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[1:]
        beyond = (0, self.size[0] - width, 0, self.size[1] - height)
        extended = functional.pad(picture[None], beyond, mode="replicate")
        half = self.half_precision
        with torch.autocast(picture.device.type, half, enabled=half is not None):
            made: Tensor = self.core(extended)
        change = made[0, :, :height, :width].float()
        return (picture + change).clamp(0.0, 1.0) - picture


def _tensor(matrix: Matrix | None) -> Tensor | None:
    return None if matrix is None else torch.from_numpy(matrix)


def _product(plane: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    plane = plane if rows is None else rows.to(plane.device) @ plane
    return plane if columns is None else plane @ columns.to(plane.device)


def _mixed(planes: Tensor, weights: Sequence[Sequence[float]]) -> Tensor:
    """Return weighted sums of planes: (sums, planes) times (planes, H, W)."""
    return torch.stack([(planes * planes.new_tensor(row)[:, None, None]).sum(0) for row in weights])
