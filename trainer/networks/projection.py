"""Projection heads: where patches are compared (Chen et al. 2020, SimCLR; Park et al. 2020, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional


class ProjectionHeads(nn.Module):
    """One small perceptron per feature layer: Linear, ReLU, Linear, then length 1.

    All are made here. The authors' code makes them at the first pass, after the optimiser has been given its
    parameters and without a place in the checkpoint.

    Args:
        channels: Channels of each feature layer.
        width: Channels of the projection.
    """

    def __init__(self, channels: Sequence[int], *, width: int = 256) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(c, width), nn.ReLU(), nn.Linear(width, width)) for c in channels
        )

    def forward(self, features: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor]:
        """Project the features at some places.

        Args:
            features: (N, C, h, w) of each layer.
            places: (P,) int64 of each layer: y * w + x, the same for all pictures of the batch.

        Returns:
            (N, P, width) float32 of each layer, of length 1 along the last axis.

        Raises:
            ValueError: There are not as many layers as heads.
        """
        if not len(features) == len(places) == len(self.heads):
            raise ValueError(
                f"{len(self.heads)} heads want as many layers, not {len(features)} with {len(places)} places"
            )
        projected = []
        for head, feature, place in zip(self.heads, features, places, strict=True):
            rows, columns = place // feature.shape[3], place % feature.shape[3]
            patches = feature[:, :, rows, columns].transpose(1, 2)
            projected.append(functional.normalize(head(patches).float(), dim=-1, eps=1e-7))
        return projected


def draw_places(
    sizes: Sequence[tuple[int, int]], *, patches: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Return places to compare, all different, the same number in every layer that has so many.

    Args:
        sizes: (h, w) of each layer.
        patches: Places per layer; all there are where a layer has fewer.
        rng: Decides.

    Returns:
        (P,) int64 of each layer: y * w + x.
    """
    return [rng.choice(h * w, size=min(patches, h * w), replace=False).astype(np.int64) for h, w in sizes]
