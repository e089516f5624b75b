"""Scoring a network on cases, always beside doing nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamderain.measure.metrics import matlab_luma, pool, psnr, ssim
from trainer.cases import Case

Codes = NDArray[np.uint8]
Clean = Callable[[Codes, tuple[bool, bool]], Codes]
"""(3, height, width) uint8 luma window and validity to (height, width) uint8 clean luma."""

_LUMA_TO_RGB = 255.0 / 219.0
"""A studio-range luma step is this many full-range RGB steps."""


@dataclass(frozen=True)
class Row:
    """One line of a table of scores; values are means over pictures, p5 and minimum over pictures too.

    Attributes:
        dataset: Name of the data set.
        metric: "psnr_y_db", "ssim_y" or "psnr_rgb_db".
        count: Pictures.
        value: The network's mean.
        do_nothing: The rainy input's mean; None where the input is the target, so that the value measures
            harm.
        p5: The network's fifth percentile.
        minimum: The network's worst picture.
    """

    dataset: str
    metric: str
    count: int
    value: float
    do_nothing: float | None
    p5: float
    minimum: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values; `do_nothing` is left out where it is None."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def score(cases: Iterable[Case], clean: Clean, *, with_ssim: bool = True) -> list[Row]:
    """Clean every case and pool its scores by data set and metric, in order of first appearance.

    Args:
        cases: What to clean.
        clean: The network.
        with_ssim: SSIM too, which takes longer than a small network.
    """
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for case in cases:
        output = clean(case.window, case.validity)
        for metric, pair in _measure(case, output, with_ssim=with_ssim).items():
            pairs.setdefault((case.dataset, metric), []).append(pair)
    return [_row(dataset, metric, values) for (dataset, metric), values in pairs.items()]


def _measure(case: Case, output: Codes, *, with_ssim: bool) -> dict[str, tuple[float, float]]:
    """Each metric of the output and of the untouched input."""
    found = {}
    rainy = case.window[1]
    if case.rainy_rgb is not None and case.target_rgb is not None:
        # What is judged is the picture a user gets: luma is that of the RGB result, clipped where RGB is.
        rgb = add_luma_residual(case.rainy_rgb, output, rainy)
        output = luma_codes(rgb)
        found["psnr_rgb_db"] = (psnr(rgb, case.target_rgb), psnr(case.rainy_rgb, case.target_rgb))
    found["psnr_y_db"] = (psnr(output, case.target), psnr(rainy, case.target))
    if with_ssim:
        found["ssim_y"] = (ssim(output, case.target), ssim(rainy, case.target))
    return found


def luma_codes(rgb: Codes) -> Codes:
    """(height, width, 3) uint8 RGB to (height, width) uint8 codes of MATLAB's luma."""
    return np.rint(matlab_luma(rgb)).astype(np.uint8)


def add_luma_residual(rgb: Codes, output: Codes, rainy: Codes) -> Codes:
    """Add the luma that was taken away to R, G and B alike.

    Args:
        rgb: (height, width, 3) uint8, full range.
        output: (height, width) uint8 clean studio-range luma.
        rainy: (height, width) uint8 rainy studio-range luma.
    """
    residual = (output.astype(np.float32) - rainy.astype(np.float32)) * np.float32(_LUMA_TO_RGB)
    return np.clip(np.rint(rgb + residual[:, :, None]), 0, 255).astype(np.uint8)


def table(rows: Iterable[Row]) -> str:
    """Rows as an aligned text table."""
    lines = [f"{'data set':40} {'metric':11} {'n':>4} {'do nothing':>10} {'value':>8} {'p5':>8} {'min':>8}"]
    for r in rows:
        nothing = "is target" if r.do_nothing is None else f"{r.do_nothing:.3f}"
        lines.append(
            f"{r.dataset:40} {r.metric:11} {r.count:4d} {nothing:>10} {r.value:8.3f} "
            f"{r.p5:8.3f} {r.minimum:8.3f}"
        )
    return "\n".join(lines)


def _row(dataset: str, metric: str, values: list[tuple[float, float]]) -> Row:
    network = pool([value for value, _ in values])
    untouched = [nothing for _, nothing in values]
    perfect = 1.0 if metric.startswith("ssim") else math.inf
    nothing = None if min(untouched) >= perfect - 1e-12 else pool(untouched).mean
    return Row(dataset, metric, network.count, network.mean, nothing, network.p5, network.minimum)
