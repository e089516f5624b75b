"""Score a network on cases, always beside doing nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamderain.measure.metrics import pool, psnr, ssim
from trainer.data.pictures import luma_codes
from trainer.evaluation.cases import Case, gray_rgb

Codes = NDArray[np.uint8]
Clean = Callable[[Case], Codes]
"""A case to its clean picture: (height, width) uint8 studio-range luma, or (height, width, 3) uint8 RGB."""
Measure = Callable[[Codes], float]
"""A figure of one RGB picture without a clean one, such as NIQE."""

METRICS = ("psnr_rgb_db", "psnr_y_db", "ssim_y", "ssim_rgb")
"""Figures against a clean picture. Those of RGB need cases that have colour."""
_FAST = ("psnr_rgb_db", "psnr_y_db")
_CARD = ("psnr_rgb_db", "psnr_y_db", "ssim_y")
_LUMA_TO_RGB = 255.0 / 219.0
"""A studio-range luma step is this many full-range RGB steps."""


@dataclass(frozen=True)
class PictureScore:
    """The figures of one picture.

    Attributes:
        dataset: Name of the data set.
        name: Name of the picture.
        values: Figure of the network's output by metric; PSNR is infinite for equal pictures.
        do_nothing: Figure of the untouched input by metric.
    """

    dataset: str
    name: str
    values: Mapping[str, float]
    do_nothing: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; infinite PSNR counts as 100 dB, as in the pooled rows."""
        return {
            "dataset": self.dataset,
            "name": self.name,
            "values": {key: min(value, 100.0) for key, value in self.values.items()},
            "do_nothing": {key: min(value, 100.0) for key, value in self.do_nothing.items()},
        }


@dataclass(frozen=True)
class Row:
    """One line of a table of scores; values are means over pictures, p5 and minimum over pictures too.

    Attributes:
        dataset: Name of the data set.
        metric: One of `METRICS`, or the name of a figure without a clean picture.
        count: Pictures.
        value: The network's mean.
        do_nothing: The rainy input's mean; None where the input is the target, so that the value measures
            harm.
        p5: The network's fifth percentile.
        minimum: The network's least value: the worst picture, but for NIQE, where less is better.
    """

    dataset: str
    metric: str
    count: int
    value: float
    do_nothing: float | None
    p5: float
    minimum: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; `do_nothing` is left out where it is None."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def score(cases: Iterable[Case], clean: Clean, *, with_ssim: bool = True) -> list[Row]:
    """Clean every case and pool its scores by data set and metric, in order of first appearance.

    Args:
        cases: What to clean.
        clean: The network.
        with_ssim: SSIM of luma too, which takes longer than a small network.
    """
    return pool_scores(score_pictures(cases, clean, metrics=_CARD if with_ssim else _FAST))


def score_pictures(
    cases: Iterable[Case],
    clean: Clean,
    *,
    metrics: Collection[str] = METRICS,
    blind: Mapping[str, Measure] | None = None,
) -> Iterator[PictureScore]:
    """Clean every case and measure it, one after the other.

    Args:
        cases: What to clean.
        clean: The network.
        metrics: Which of `METRICS`.
        blind: Further figures by name, of the RGB output alone.
    """
    for case in cases:
        values, do_nothing = _measure(case, clean(case), metrics, blind or {})
        yield PictureScore(case.dataset, case.name, values, do_nothing)


def pool_scores(scores: Iterable[PictureScore]) -> list[Row]:
    """Return rows by data set and metric, in order of first appearance."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for picture in scores:
        for metric, value in picture.values.items():
            pair = (value, picture.do_nothing[metric])
            found.setdefault((picture.dataset, metric), []).append(pair)
    return [_row(dataset, metric, values) for (dataset, metric), values in found.items()]


def _measure(
    case: Case, output: Codes, metrics: Collection[str], blind: Mapping[str, Measure]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return each figure of the output and of the untouched input."""
    luma, rgb = _pictures(case, output)
    values: dict[str, float] = {}
    do_nothing: dict[str, float] = {}
    for metric in metrics:
        measure = psnr if metric.startswith("psnr") else ssim
        if "rgb" not in metric:
            values[metric] = measure(luma, case.target)
            do_nothing[metric] = measure(case.window[1], case.target)
        elif case.has_colour:
            values[metric] = measure(rgb, case.target_rgb)
            do_nothing[metric] = measure(case.rgb, case.target_rgb)
    for name, figure in blind.items():
        values[name], do_nothing[name] = figure(rgb), figure(case.rgb)
    return values, do_nothing


def _pictures(case: Case, output: Codes) -> tuple[Codes, Codes]:
    """Return the luma and RGB of the output."""
    if output.ndim == 3:
        return luma_codes(output), output
    if not case.has_colour:
        return output, gray_rgb(output)
    # What is judged is the picture a user gets: luma is that of the RGB result, clipped where RGB is.
    rgb = add_luma_residual(case.rgb, output, case.window[1])
    return luma_codes(rgb), rgb


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
    """Return rows as an aligned text table."""
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
