"""Validate while training: score few cases, kept in memory, and draw a sheet of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from streamderain.nets.network import Network
from trainer.data.pictures import luma_codes
from trainer.evaluation.cases import Case, VideoPlan, all_cases, rgb_of
from trainer.evaluation.scores import Clean, score

Codes = NDArray[np.uint8]
_SHEET_ROWS = 6
_SHEET_PX = 320


def network_clean(network: Network) -> Clean:
    """Give a network as a function on cases, on the device where it lies.

    A network of luma reads the luma of RGB pictures too; one of RGB sees luma as gray.
    """
    device = next(network.parameters()).device

    @torch.no_grad()
    def clean(case: Case) -> Codes:
        frames = _frames(case, network)
        _, channels, height, width = frames.shape
        validity = torch.tensor([case.validity], dtype=torch.float32, device=device)
        # As the adapters extend frames.
        beyond = [(0, max(-size % network.multiple, network.least_px - size)) for size in (height, width)]
        padded = np.pad(frames, [(0, 0), (0, 0), *beyond], mode="edge")
        planes = torch.from_numpy(padded.astype(np.float32) / 255.0).to(device)
        output = network.clean(planes[None], validity)[0, :, :height, :width]
        codes = (output * 255.0).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        return codes[0] if channels == 1 else np.ascontiguousarray(codes.transpose(1, 2, 0))

    return clean


def _frames(case: Case, network: Network) -> Codes:
    """Return the frames as a network reads them, (3, channels, height, width)."""
    if network.channels == 1:
        return (case.aligned if network.alignment == "flow" else case.window)[:, None]
    frames = [case.rainy if frame is None else frame for frame in case.frames]
    return np.stack([rgb_of(frame).transpose(2, 0, 1) for frame in frames])


class Validator:
    """Scores a network on a small part of a validation folder.

    Args:
        folder: See `trainer.evaluation.cases`.
    """

    def __init__(self, folder: Path) -> None:
        self._cases: list[Case] = list(
            all_cases(folder, VideoPlan(frames=24, every=6, strides=(1, 3)), stills=8)
        )

    def __call__(self, network: Network, sheet: Path) -> dict[str, float]:
        """Return the mean Y-PSNR of each data set; the sheet shows rainy | output | clean."""
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
