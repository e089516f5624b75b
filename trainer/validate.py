"""Validation while training: few cases, kept in memory, and a sheet of pictures to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from streamderain.nets.fast import MULTIPLE, FastNet
from streamderain.nets.generator import MULTIPLE as GENERATOR_MULTIPLE
from streamderain.nets.generator import Generator
from trainer.cases import Case, VideoPlan, all_cases
from trainer.pictures import luma_codes
from trainer.scores import Clean, score

Codes = NDArray[np.uint8]
_SHEET_ROWS = 6
_SHEET_PX = 320
_LEAST_PX = 16
"""Least width and height of the generator, px."""


def network_clean(network: nn.Module) -> Clean:
    """A network of either family as a function on cases, on the device where it lies.

    Raises:
        TypeError: A network of another family.
    """
    if isinstance(network, FastNet):
        return torch_clean(network)
    if isinstance(network, Generator):
        return generator_clean(network)
    raise TypeError(f"{type(network).__name__} is neither the fast network nor the generator")


def torch_clean(network: FastNet) -> Clean:
    """The fast network on the luma window, padding included; hard ReLU and clip, as deployed."""
    device = next(network.parameters()).device

    @torch.no_grad()
    def clean(case: Case) -> Codes:
        _, height, width = case.window.shape
        planes = torch.from_numpy(case.window.astype(np.float32) / 255.0)[None].to(device)
        padding = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        planes = functional.pad(planes, padding, mode="replicate")
        validity = torch.tensor([case.validity], dtype=torch.float32, device=device)
        output = network.clean_planes(planes, validity)
        return _codes(output[0, 0, :height, :width] * 255.0)

    return clean


def generator_clean(generator: Generator) -> Clean:
    """The paper's generator on RGB: padded by reflection, -1..1, the result clipped and rounded."""
    device = next(generator.parameters()).device

    @torch.no_grad()
    def clean(case: Case) -> Codes:
        height, width, _ = case.rgb.shape
        # numpy reflects again and again where a picture is smaller than its padding; torch refuses.
        beyond = [(0, max(-size % GENERATOR_MULTIPLE, _LEAST_PX - size)) for size in (height, width)]
        padded = np.pad(case.rgb, (*beyond, (0, 0)), mode="reflect").astype(np.float32)
        picture = torch.from_numpy(padded / 127.5 - 1.0).permute(2, 0, 1)[None].to(device)
        output = generator(picture)[0, :, :height, :width].permute(1, 2, 0)
        return _codes((output + 1.0) * 127.5)

    return clean


def _codes(values: Tensor) -> Codes:
    """Values in 0..255 as uint8 codes, clipped and rounded."""
    codes: Codes = values.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return codes


class Validator:
    """Scores a network on a small part of a validation folder.

    Args:
        folder: See `trainer.cases`.
    """

    def __init__(self, folder: Path) -> None:
        self._cases: list[Case] = list(all_cases(folder, VideoPlan(frames=24, every=6), stills=8))

    def __call__(self, network: nn.Module, sheet: Path) -> dict[str, float]:
        """Mean Y-PSNR of each data set; the sheet shows rainy | output | clean."""
        clean = network_clean(network)
        rows = score(self._cases, clean, with_ssim=False)
        self._draw(clean, sheet)
        values: dict[str, float] = {}
        for row in rows:
            if row.metric == "psnr_y_db":
                nothing = "equal" if row.do_nothing is None else f"{row.do_nothing:.2f}"
                values[f"{row.dataset} [nothing {nothing}]"] = row.value
        return values

    def _draw(self, clean: Clean, sheet: Path) -> None:
        by_dataset = {case.dataset: case for case in self._cases}
        strips = []
        for case in list(by_dataset.values())[:_SHEET_ROWS]:
            crop = (slice(0, _SHEET_PX), slice(0, _SHEET_PX))
            output = clean(case)
            output = luma_codes(output) if output.ndim == 3 else output
            pictures = (case.window[1], output, case.target)
            strips.append(np.concatenate([_fit(picture[crop]) for picture in pictures], axis=1))
        sheet.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(strips, axis=0)).save(sheet)


def _fit(picture: Codes) -> Codes:
    """Pad to the sheet's cell, so that small pictures line up."""
    missing = [(0, _SHEET_PX - picture.shape[0]), (0, _SHEET_PX - picture.shape[1])]
    return np.pad(picture, missing)
