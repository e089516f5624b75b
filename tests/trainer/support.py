"""Small scenes, clips and a configuration that trains in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from tests.support.pictures import smooth

TINY: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "steps": 8,
    "batch": 4,
    "rate": 2e-3,
    "warmup_steps": 4,
    "save_every": 4,
    "validate_every": 4,
    "threads": 1,
    "workers": 0,
    "ema": 0.9,
    "network": {"width": 8, "middle_width": 8, "middle_layers": 1},
    "data": {
        "clips": ["clips"],
        "stills": ["stills"],
        "pairs": ["pairs"],
        "layers": ["layers"],
        "crop_px": 32,
        "coded_segments": 1,
        "coded_frames": 6,
        "drawn_layers": 2,
        "turned_layers": 2,
    },
    "phases": [
        {"until": 0.5, "losses": {"squared": 1.0}, "residual_slope": 0.3},
        {"until": 1.0, "losses": {"psnr": 3e-4, "charbonnier": 0.05}, "residual_slope": 0.1},
    ],
}

TINY_RGB: dict[str, Any] = {
    **TINY,
    "name": "tiny-rgb",
    "network": {"family": "residual-generator", "width": 8, "blocks": 2},
    "data": {**TINY["data"], "clips": [], "share_still": 0.4, "share_pair": 0.3, "share_flat": 0.1},
    "phases": [{"until": 1.0, "losses": {"psnr": 3e-4, "squared": 3.0}}],
}
ALL_TERMS = {
    "adversarial": 0.5,
    "contrastive": 1.0,
    "identity": 0.5,
    "cycle": 1.0,
    "colour": 0.1,
    "frequency": 0.1,
}
TINY_GAN: dict[str, Any] = {
    "name": "tiny-gan",
    "method": "translation",
    "seed": 5,
    "steps": 6,
    "batch": 2,
    "rate": 1e-3,
    "schedule": "linear",
    "warmup_steps": 0,
    "betas": [0.5, 0.999],
    "ema": 0.9,
    "save_every": 2,
    "sample_every": 3,
    "threads": 1,
    "workers": 0,
    "network": {"family": "generator", "width": 8, "blocks": 2},
    "translation": {
        "feature_layers": [4, 8, 10],
        "patches": 16,
        "head_width": 8,
        "discriminator_width": 4,
    },
    "unpaired": {
        "rainy": ["rainy"],
        "rained": ["clean"],
        "clean": ["clean"],
        "layers": ["layers"],
        "crop_px": 32,
        "turned_layers": 1,
        "drawn_layers": 1,
    },
    "phases": [{"until": 1.0, "losses": ALL_TERMS}],
}
TINY_LITE: dict[str, Any] = {
    **TINY_GAN,
    "name": "tiny-lite",
    "network": {"family": "fast", "width": 8, "middle_width": 8, "middle_layers": 2},
    "translation": {
        **TINY_GAN["translation"],
        "feature_layers": [0, 1, 3],
        "initial_std": 0.0,
        "contrasts": 2,
    },
    "phases": [{"until": 1.0, "losses": {"adversarial": 1.0, "contrastive": 0.2, "identity": 5.0}}],
}


def scene(height: int, width: int, *, seed: int = 0, shift: int = 0) -> NDArray[np.uint8]:
    """A smooth texture with hard edges, panned by `shift` px: (height, width), 30..200."""
    texture = smooth(height, width + 64, seed=seed)
    texture[height // 2 :, 20:40] *= 0.4
    return (30 + 170 * texture[:, shift : shift + width]).astype(np.uint8)


def write_clip(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write luma frames as nearly lossless H.264 with gray chroma."""
    _, height, width = frames.shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        chroma = np.full((height // 2, width), 128, np.uint8)
        for luma in frames:
            picture = av.VideoFrame.from_ndarray(np.concatenate([luma, chroma]), format="yuv420p")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
