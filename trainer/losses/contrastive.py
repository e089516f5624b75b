"""The patch contrastive loss (InfoNCE)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def patch_nce(query: Tensor, key: Tensor, *, temperature: float = 0.07) -> Tensor:
    """Return InfoNCE between patches of two pictures (DCD-GAN section 3.2; Park et al. 2020, eq. 3 and 4).

    -log(exp(q_p k_p / t) / sum_j exp(q_p k_j / t)), the mean over places p and pictures. The positive is the
    key at the query's place, the negatives are the other places of the same picture. Keys get no gradient.

    Args:
        query: (N, P, C), features of length 1, float; P places of N pictures.
        key: Same shape, the same places of the counterparts.
        temperature: t; the smaller, the more the hardest negatives count.

    Returns:
        Scalar, float32.
    """
    logits = torch.bmm(query.float(), key.detach().float().transpose(1, 2)) / temperature
    places = torch.arange(query.shape[1], device=query.device).expand(len(query), -1)
    return functional.cross_entropy(logits.flatten(0, 1), places.flatten())
