"""Validation while training: few cases, kept in memory, and a sheet of pictures to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from streamderain.nets.fast import MULTIPLE, FastNet
from trainer.cases import Case, VideoPlan, all_cases
from trainer.scores import Clean, score

Codes = NDArray[np.uint8]
_SHEET_ROWS = 6
_SHEET_PX = 320


def torch_clean(network: FastNet) -> Clean:
    """The network as a function on uint8 windows, padding included; hard ReLU and clip, as deployed."""

    @torch.no_grad()
    def clean(window: Codes, validity: tuple[bool, bool]) -> Codes:
        _, height, width = window.shape
        planes = torch.from_numpy(window.astype(np.float32) / 255.0)[None]
        padding = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        planes = functional.pad(planes, padding, mode="replicate")
        output = network.clean_planes(planes, torch.tensor([validity], dtype=torch.float32))
        codes = (output[0, 0, :height, :width] * 255.0).round().clamp(0, 255)
        return codes.to(torch.uint8).numpy()

    return clean


class Validator:
    """Scores a network on a small part of a validation folder.

    Args:
        folder: See `trainer.cases`.
    """

    def __init__(self, folder: Path) -> None:
        self._cases: list[Case] = list(all_cases(folder, VideoPlan(frames=24, every=6), stills=8))

    def __call__(self, network: FastNet, sheet: Path) -> dict[str, float]:
        """Mean Y-PSNR of each data set; the sheet shows rainy | output | clean."""
        clean = torch_clean(network)
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
            pictures = (case.window[1], clean(case.window, case.validity), case.target)
            strips.append(np.concatenate([_fit(picture[crop]) for picture in pictures], axis=1))
        sheet.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(strips, axis=0)).save(sheet)


def _fit(picture: Codes) -> Codes:
    """Pad to the sheet's cell, so that small pictures line up."""
    missing = [(0, _SHEET_PX - picture.shape[0]), (0, _SHEET_PX - picture.shape[1])]
    return np.pad(picture, missing)
