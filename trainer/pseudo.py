"""Pseudo-pairs: a trained G_N2R makes rain on rain-free pictures, and a plain network learns from the pairs.

The way from a GAN to a network that restores (CSUD, CVPR 2025, section 3): the GAN is kept for making rain.
On stills the rained picture and its original are a pair. For clips the streaks are kept as layers, the light
that was added, and drawn frame by frame like any other layer: what a generator paints on successive frames
itself moves with the scene, or stands still with it, as rain never does.
"""

from __future__ import annotations

import hashlib
import json
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
from streamderain.nets.fast import MULTIPLE as PLANE_MULTIPLE
from streamderain.nets.fast import FastNet
from streamderain.nets.generator import MULTIPLE as RGB_MULTIPLE
from streamderain.nets.generator import Generator
from trainer import pictures
from trainer.networks import RAIN_AVERAGE, load_network
from trainer.sample_library import Library, LibraryWriter
from trainer.scores import add_luma_residual
from trainer.translators import PlaneRainer

Codes = NDArray[np.uint8]
Rain = Callable[[Codes], Codes]
"""(height, width, 3) uint8 rain-free RGB to the same with rain."""

_STUDIO_RANGE = 219.0
_log = logging.getLogger(__name__)


def load_rain(run: Path, *, device: str = "cpu") -> Rain:
    """The averaged G_N2R of a run of the method translation, as a function on RGB pictures.

    Args:
        run: Run or checkpoint.
        device: Where it computes.

    Raises:
        OpenError: The run cannot be read.
        ConfigError: It is a run of another method.
    """
    network = load_network(run, which=RAIN_AVERAGE).to(device)
    return _rgb_rain(network) if isinstance(network, Generator) else _luma_rain(network)


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
    """The light that a generator added, as a streak layer.

    Args:
        rainy: (height, width, 3) uint8 RGB.
        clean: Same shape.

    Returns:
        (height, width) uint8: the difference of lumas, where it is positive, as a share of the range.
    """
    added = pictures.luma_codes(rainy).astype(np.float32) - pictures.luma_codes(clean)
    layer: Codes = np.rint(np.clip(added / _STUDIO_RANGE, 0.0, 1.0) * 255.0).astype(np.uint8)
    return layer


def open_pseudo(folder: Path, cache: Path) -> Library:
    """Open the library of what `make_pseudo` made, making it first where there is none.

    Args:
        folder: The target of `make_pseudo`.
        cache: Folder for libraries.

    Raises:
        OpenError: A folder in it is missing or empty.
    """
    names = [path.name for path in pictures.list_files(folder / "input", pictures.PICTURE_SUFFIXES)]
    sizes = [[(folder / kind / name).stat().st_size for kind in ("input", "target")] for name in names]
    key = hashlib.sha256(json.dumps(["pseudo", names, sizes]).encode()).hexdigest()[:16]
    if not (cache / key / "index.json").is_file():
        with LibraryWriter(cache / key) as writer:
            for name in names:
                partner = writer.add("target", name, pictures.read_luma(folder / "target" / name))
                luma = pictures.read_luma(folder / "input" / name)
                writer.add("rainy", name, luma, partner=partner)
                writer.add("layer", name, pictures.read_gray(folder / "layers" / name))
    return Library(cache / key)


def _rgb_rain(network: Generator) -> Rain:
    device = next(network.parameters()).device

    @torch.no_grad()
    def rain(clean: Codes) -> Codes:
        rgb = torch.from_numpy(clean.astype(np.float32)).to(device).permute(2, 0, 1)[None] / 127.5 - 1.0
        whole = network(_padded(rgb, RGB_MULTIPLE))[0, :, : clean.shape[0], : clean.shape[1]]
        codes: Codes = (
            ((whole + 1.0) * 127.5).round().clamp(0, 255).permute(1, 2, 0).to(torch.uint8).cpu().numpy()
        )
        return codes

    return rain


def _luma_rain(network: FastNet) -> Rain:
    rainer = PlaneRainer(network.eval())
    device = next(network.parameters()).device

    @torch.no_grad()
    def rain(clean: Codes) -> Codes:
        luma = pictures.luma_codes(clean)
        plane = torch.from_numpy(luma.astype(np.float32)).to(device)[None, None] / 127.5 - 1.0
        rained, _ = rainer.translate(_padded(plane, PLANE_MULTIPLE), ())
        codes = ((rained[0, 0, : luma.shape[0], : luma.shape[1]] + 1.0) * 127.5).round().clamp(0, 255)
        # In use it only adds light, as the network that takes it away only takes it away.
        brighter = np.maximum(codes.to(torch.uint8).cpu().numpy(), luma)
        return add_luma_residual(clean, brighter, luma)

    return rain


def _padded(picture: Tensor, multiple: int) -> Tensor:
    height, width = picture.shape[2:]
    return functional.pad(picture, (0, -width % multiple, 0, -height % multiple), mode="replicate")
