"""Make pseudo-pairs: a trained G_N2R draws rain on rain-free pictures.

The way from a GAN to a network that restores (CSUD, CVPR 2025, section 3): the GAN is kept for making rain.
On stills the rained picture and its original are a pair. For clips the streaks are kept as layers, the light
that was added, and drawn frame by frame like any other layer: what a generator paints on successive frames
itself moves with the scene, or stands still with it, as rain never does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from streamderain.errors import OpenError
from streamderain.nets.network import Network
from trainer.data import pictures
from trainer.evaluation.scores import add_luma_residual
from trainer.networks.load import RAIN_AVERAGE, load_network
from trainer.networks.translators import rainer

Codes = NDArray[np.uint8]
Rain = Callable[[Codes], Codes]
"""(height, width, 3) uint8 rain-free RGB to the same with rain."""

_STUDIO_RANGE = 219.0
_log = logging.getLogger(__name__)


def load_rain(run: Path, *, device: str = "cpu") -> Rain:
    """Return the averaged G_N2R of a run of the method translation, as a function on RGB pictures.

    Args:
        run: Run or checkpoint.
        device: Where it computes.

    Raises:
        OpenError: The run cannot be read.
        ConfigError: It is a run of another method.
    """
    network = load_network(run, which=RAIN_AVERAGE).to(device)
    return _rgb_rain(network) if network.channels == 3 else _luma_rain(network)


def make_pseudo(
    rain: Rain, folders: Sequence[Path], target: Path, *, variants: int = 1, seed: int = 1
) -> int:
    """Make rain on every picture of some folders.

    Args:
        rain: See `load_rain`.
        folders: Folders of rain-free pictures.
        target: Gets input/, target/ and layers/, PNG files of the same names.
        variants: Rainy versions of each picture; a generator without noise makes the same one every time.
        seed: Seed of the generator's noise.

    Returns:
        Pairs made.

    Raises:
        OpenError: A folder is missing or empty, or no picture in it can be read.
    """
    torch.manual_seed(seed)
    for name in ("input", "target", "layers"):
        (target / name).mkdir(parents=True, exist_ok=True)
    made = 0
    for folder in folders:
        for path, clean in pictures.readable(
            pictures.list_files(folder, pictures.PICTURE_SUFFIXES), pictures.read_rgb
        ):
            for variant in range(variants):
                rainy = rain(clean)
                name = f"{folder.name}-{path.stem}-{variant + 1}.png"
                for kind, picture in (("input", rainy), ("target", clean), ("layers", streaks(rainy, clean))):
                    Image.fromarray(picture).save(target / kind / name)
                made += 1
    if not made:
        raise OpenError(f"no readable picture in {', '.join(map(str, folders))}; name other folders")
    return made


def streaks(rainy: Codes, clean: Codes) -> Codes:
    """Return the light that a generator added, as a streak layer.

    Args:
        rainy: (height, width, 3) uint8 RGB.
        clean: Same shape.

    Returns:
        (height, width) uint8: the difference of lumas, where it is positive, as a share of the range.
    """
    added = pictures.luma_codes(rainy).astype(np.float32) - pictures.luma_codes(clean)
    layer: Codes = np.rint(np.clip(added / _STUDIO_RANGE, 0.0, 1.0) * 255.0).astype(np.uint8)
    return layer


def _rgb_rain(network: Network) -> Rain:
    makes_rain = rainer(network.eval())
    device = next(network.parameters()).device

    @torch.no_grad()
    def rain(clean: Codes) -> Codes:
        rgb = torch.from_numpy(clean.astype(np.float32)).to(device).permute(2, 0, 1)[None] / 127.5 - 1.0
        rained, _ = makes_rain.translate(_padded(rgb, network.multiple), ())
        whole = rained[0, :, : clean.shape[0], : clean.shape[1]]
        codes: Codes = (
            ((whole + 1.0) * 127.5).round().clamp(0, 255).permute(1, 2, 0).to(torch.uint8).cpu().numpy()
        )
        return codes

    return rain


def _luma_rain(network: Network) -> Rain:
    makes_rain = rainer(network.eval())
    device = next(network.parameters()).device

    @torch.no_grad()
    def rain(clean: Codes) -> Codes:
        luma = pictures.luma_codes(clean)
        plane = torch.from_numpy(luma.astype(np.float32)).to(device)[None, None] / 127.5 - 1.0
        rained, _ = makes_rain.translate(_padded(plane, network.multiple), ())
        codes = ((rained[0, 0, : luma.shape[0], : luma.shape[1]] + 1.0) * 127.5).round().clamp(0, 255)
        # In use it only adds light, as the network that takes it away only takes it away.
        brighter = np.maximum(codes.to(torch.uint8).cpu().numpy(), luma)
        return add_luma_residual(clean, brighter, luma)

    return rain


def _padded(picture: Tensor, multiple: int) -> Tensor:
    height, width = picture.shape[2:]
    return functional.pad(picture, (0, -width % multiple, 0, -height % multiple), mode="replicate")
