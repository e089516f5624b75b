"""A teacher for output distillation: any trained network as a function on luma windows."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from streamderain.nets.fast import FastNet
from streamderain.nets.generator import Generator
from trainer.networks import load_network
from trainer.supervised import Teacher

_BLACK, _RANGE = 16.0 / 255.0, 219.0 / 255.0


def load_teacher(path: Path, device: torch.device) -> Teacher:
    """Load a network that a student is to imitate.

    Args:
        path: Run, checkpoint, weights or model folder; see `trainer.networks.load_network`.
        device: Where it computes.

    Raises:
        OpenError: Nothing readable is there.
    """
    network = load_network(path).to(device).eval().requires_grad_(False)
    if isinstance(network, FastNet):
        return torch.no_grad()(network.clean_planes)
    return _GrayTeacher(network)


class _GrayTeacher:
    """The paper's generator on the middle frame's luma, as a gray picture in full range."""

    def __init__(self, network: Generator) -> None:
        self._network = network

    @torch.no_grad()
    def __call__(self, window: Tensor, validity: Tensor) -> Tensor:
        gray = 2.0 * (window[:, 1:2] - _BLACK) / _RANGE - 1.0
        clean: Tensor = self._network(gray.expand(-1, 3, -1, -1)).mean(dim=1, keepdim=True)
        return (clean + 1.0) / 2.0 * _RANGE + _BLACK
