"""Losses against slow versions, and their gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from streamderain.measure import metrics
from trainer.losses import LOSSES
from trainer.losses.charbonnier import EPSILON, charbonnier
from trainer.losses.psnr import FLOOR, psnr
from trainer.losses.squared import squared


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(3, 1, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2))  # type: ignore[return-value]


def test_squared(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    output, target = pair
    values = [(a - b) ** 2 for a, b in zip(output.flatten().tolist(), target.flatten().tolist(), strict=True)]
    assert float(squared(output, target)) == pytest.approx(sum(values) / len(values))


def test_charbonnier(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    output, target = pair
    flat = zip(output.flatten().tolist(), target.flatten().tolist(), strict=True)
    values = [math.sqrt((a - b) ** 2 + EPSILON**2) for a, b in flat]
    assert float(charbonnier(output, target)) == pytest.approx(sum(values) / len(values))


def test_psnr_is_the_mean_of_the_pictures_psnr(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    output, target = pair
    slow = [metrics.psnr(a.numpy(), b.numpy(), peak=1.0) for a, b in zip(output, target, strict=True)]
    floored = [10 * math.log10(10 ** (-decibels / 10) + FLOOR) for decibels in slow]
    assert float(psnr(output, target)) == pytest.approx(np.mean(floored), abs=1e-9)


def test_psnr_of_equal_pictures_is_the_floor() -> None:
    same = torch.rand(2, 1, 4, 4, requires_grad=True)
    loss = psnr(same, same.detach())
    assert float(loss.detach()) == pytest.approx(10 * math.log10(FLOOR), abs=1e-4)
    loss.backward()
    assert same.grad is not None
    assert torch.isfinite(same.grad).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients(name: str, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    output, target = pair
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, target), output.requires_grad_())
