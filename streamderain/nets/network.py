"""The interface of all network families."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor, nn

_BLACK, _STUDIO = 16.0 / 255.0, 219.0 / 255.0


class Network(nn.Module, ABC):
    """A network that takes rain away, and can be trained to add it.

    Attributes:
        family: What model cards call it.
        channels: Planes of a picture: 1 (luma, studio-range code / 255) or 3 (R, G, B, full range).
        multiple: Width and height must be multiples of this, px.
        least_px: Least width and height, px.
        alignment: "flow" where neighbours are warped onto the middle frame before the network sees them.
        residual_slope: Slope of the residual below zero while training; families without one pass it over.
    """

    family: ClassVar[str]
    channels: ClassVar[int]
    multiple: ClassVar[int]
    least_px: ClassVar[int] = 1
    alignment: ClassVar[Literal["none", "flow"]] = "none"

    def __init__(self) -> None:
        super().__init__()
        self.residual_slope = 0.0

    @abstractmethod
    def clean(self, frames: Tensor, validity: Tensor) -> Tensor:
        """Take the rain out of the middle one of three frames, as deployed.

        Args:
            frames: (N, 3, channels, H, W), float in 0..1, frames t-1, t, t+1.
            validity: (N, 2), float 0 or 1, for (t-1, t+1). Where 0 the neighbour is a copy of the middle one.

        Returns:
            (N, channels, H, W) in 0..1.
        """

    @abstractmethod
    def translate(
        self, picture: Tensor, layers: Sequence[int], *, adds_rain: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Translate single pictures to the other domain, and give features beside them in the same pass.

        Args:
            picture: (N, channels, H, W) float in -1..1.
            layers: Numbers of feature layers, ascending; may be none.
            adds_rain: Whether this network was trained from clean to rainy.

        Returns:
            (N, channels, H, W) float, and (N, C, h, w) per layer.
        """

    @abstractmethod
    def features(self, picture: Tensor, layers: Sequence[int], *, adds_rain: bool = False) -> list[Tensor]:
        """Give the features of `translate` alone."""

    def clean_planes(self, window: Tensor, validity: Tensor, *, bounded: bool = True) -> Tensor:
        """Take the rain out of luma planes; a network of RGB sees them as gray of full range.

        Args:
            window: (N, 3, H, W), float, studio-range luma code / 255, frames t-1, t, t+1.
            validity: As in `clean`.
            bounded: False leaves every pixel a gradient, where the family knows a difference.

        Returns:
            (N, 1, H, W) clean luma.
        """
        gray = ((window - _BLACK) / _STUDIO)[:, :, None].expand(-1, -1, self.channels, -1, -1)
        return self.clean(gray, validity).mean(dim=1, keepdim=True) * _STUDIO + _BLACK
