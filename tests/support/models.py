"""Model folders made on the spot."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tests.support.requirements import require


def small_generator(folder: Path) -> Path:
    """Export a small generator with fresh weights, as the trainer exports a trained one; return its folder.

    It changes every picture a little.
    """
    for package in ("torch", "safetensors", "onnxscript"):
        require(importlib.util.find_spec(package), f"{package} (pip install -e .[train])")
    import torch

    from streamderain.nets.generator import ResidualGenerator
    from trainer.config import parse_config
    from trainer.export.model_folder import Trained, export_model

    torch.manual_seed(0)
    values = {
        "name": "small",
        "network": {"family": ResidualGenerator.family, "width": 8, "blocks": 2},
        "data": {"clips": []},
        "phases": [{"until": 1.0, "losses": {"squared": 1.0}}],
    }
    network = ResidualGenerator(width=8, blocks=2).eval()
    part = {"config": "small", "steps": 1, "seconds": 1, "batch": 1}
    trained = Trained(network, parse_config(values, where="test"), (part,))  # type: ignore[arg-type]
    export_model(trained, folder, name="small-generator", version="1")
    return folder
