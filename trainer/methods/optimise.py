"""Parts of an optimiser step: learning rate, weighted sum, update, exponential moving average."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainer.config import TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the learning rate of one step, after a linear warm-up.

    "cosine": half a cosine down to `last_rate` at the last step. "linear": `rate` for half the steps, then a
    straight line to `last_rate` (300 + 300 epochs in the paper's training details).

    Args:
        config: The configuration.
        step: Steps done, from 0.
    """
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    progress = min(1.0, step / max(1, config.steps))
    if config.schedule == "linear":
        left = min(1.0, 2.0 * (1.0 - progress))
    else:
        left = 0.5 * (1.0 + math.cos(math.pi * progress))
    return warmup * (config.last_rate + (config.rate - config.last_rate) * left)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give all parameters of an optimiser one learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return the sum of the losses that have a weight other than 0, each times its weight."""
    return torch.stack([weight * losses[name] for name, weight in weights.items() if weight]).sum()


def update(optimiser: torch.optim.Optimizer, clip_norm: float) -> Tensor:
    """Make one optimiser step, unless the gradient is not finite: then the weights are left alone.

    Args:
        optimiser: With gradients in place.
        clip_norm: Largest norm of the gradient; 0 switches clipping off.

    Returns:
        The norm before clipping, a scalar.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip_norm or math.inf)
    if torch.isfinite(norm):
        optimiser.step()
    return norm


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, *, decay: float, step: int) -> None:
    """Move averaged weights towards a network's: average = decay * average + (1 - decay) * network.

    Early on the average must forget the random start sooner: its memory grows with the run.

    Args:
        average: Changed in place.
        network: The same kind of network.
        decay: In 0..1.
        step: Steps done.
    """
    decay = min(decay, (1.0 + step) / (10.0 + step))
    averaged: list[Tensor] = list(average.parameters())
    current: list[Tensor] = [p.detach() for p in network.parameters()]
    torch._foreach_lerp_(averaged, current, 1.0 - decay)
