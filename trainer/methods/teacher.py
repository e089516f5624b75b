"""Load a teacher for output distillation: any trained network as a function on luma windows."""

from __future__ import annotations

from pathlib import Path

import torch

from trainer.methods.supervised import Teacher
from trainer.networks.load import load_network


def load_teacher(path: Path, device: torch.device) -> Teacher:
    """Load a network that a student is to imitate.

    Args:
        path: Run, checkpoint, weights or model folder; see `trainer.networks.load.load_network`.
        device: Where it computes.

    Raises:
        OpenError: Nothing readable is there.
    """
    network = load_network(path).to(device).eval().requires_grad_(False)
    return torch.no_grad()(network.clean_planes)
