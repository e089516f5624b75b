"""Model folders made on the spot."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.requirements import require

if TYPE_CHECKING:
    from streamderain.nets.network import Network

_PHASES = [{"until": 1.0, "losses": {"squared": 1.0}}]


def small_generator(folder: Path) -> Path:
    """Export a small generator with fresh weights, as the trainer exports a trained one; return its folder.

    It changes every picture a little.
    """
    _require_trainer()
    import torch

    from streamderain.nets.generator import ResidualGenerator

    torch.manual_seed(0)
    sizes = {"family": ResidualGenerator.family, "width": 8, "blocks": 2}
    network = ResidualGenerator(width=8, blocks=2)
    return _exported(network, {"network": sizes, "data": {"clips": []}}, folder)


def small_deep(folder: Path) -> Path:
    """Export a small deep network round the shipped fast one, whose own layers add something of theirs."""
    _require_trainer()
    import torch

    from streamderain.models import load_model
    from streamderain.nets.deep import DeepNet
    from trainer.networks.load import load_network

    torch.manual_seed(0)
    network = DeepNet(width=8, blocks=1)
    network.fast.load_state_dict(load_network(load_model("dcd-lite").folder).state_dict())
    for tail in (network.correction, network.share, network.share_of_rest):
        torch.nn.init.normal_(tail.weight, std=0.01)
    return _exported(network, {"network": {"family": DeepNet.family, "width": 8, "blocks": 1}}, folder)


def _require_trainer() -> None:
    for package in ("torch", "safetensors", "onnxscript"):
        require(importlib.util.find_spec(package), f"{package} (pip install -e .[train])")


def _exported(network: Network, tables: dict[str, Any], folder: Path) -> Path:
    from trainer.config import parse_config
    from trainer.export.model_folder import Trained, export_model

    config = parse_config({"name": "small", "phases": _PHASES, **tables}, where="test")
    part = {"config": "small", "steps": 1, "seconds": 1, "batch": 1}
    trained = Trained(network.eval(), config, (part,))  # type: ignore[arg-type]
    export_model(trained, folder, name=folder.name, version="1")
    return folder
