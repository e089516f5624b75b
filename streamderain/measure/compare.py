"""Compare versions of a clip: as a video, or as a page with a divider to drag."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from streamderain.errors import ConfigError
from streamderain.measure.metrics import pool
from streamderain.measure.quality import (
    METRIC_NAMES,
    METRICS,
    Matched,
    Picture,
    Rgb,
    finite,
    pictures,
    require_same_size,
    size_of,
    values,
)
from streamderain.measure.tables import Rows, Table
from streamderain.media.arrays import ClipWriter
from streamderain.media.reading.sources import SourceSpec, find_sources, open_source
from streamderain.options import ReadOptions

Layout = Literal["side", "wipe", "stack"]
"""Beside each other; one picture with a divider that wanders; above each other (what pages read)."""

SWEEP_S = 4.0
"""The wandering divider crosses the picture in this time."""

_DIVIDER_PX = 4
_PAGE_LONGEST_PX = 1920
"""Pages show larger pictures smaller: three 4K pictures in one video are more than browsers decode."""

_STILL_FPS = Fraction(25)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was compared.

    Attributes:
        names: Of A, B and the reference, where there is one.
        reference: Whether the last of them is the reference.
        rate_fps: Of the written video.
        times_s: Of every frame in A.
        metrics: By name of the clip, `METRICS` of every frame: against the reference, or of B against A.
        unmatched: Frames of A without a partner.
        shrunk: How many times smaller the written pictures are.
    """

    names: tuple[str, ...]
    reference: bool
    rate_fps: Fraction
    shrunk: int = 1
    times_s: list[float] = field(default_factory=list)
    metrics: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    unmatched: int = 0


def compare(
    clips: tuple[str, ...],
    target: Path,
    *,
    layout: Layout,
    read: ReadOptions,
    crf: float = 14,
    tell: Callable[[int], None] = lambda done: None,
) -> Comparison:
    """Write clips into one video and measure every frame.

    Args:
        clips: Sources of A, B and maybe the reference.
        target: The video; an existing file is replaced.
        layout: Where the pictures stand. A wipe shows A and B alone.
        read: Which part of all of them.
        crf: Quality of the video, lower is better.
        tell: Told how many frames are done.

    Raises:
        ConfigError: Sizes differ, or no frames belong together.
        StreamderainError: A clip cannot be read, or the video cannot be written.
    """
    specs = [_one(clip, read) for clip in clips]
    names = _distinct([spec.name for spec in specs])
    rate, longest_px = _format(specs[0], read)
    shrunk = -(-longest_px // _PAGE_LONGEST_PX) if layout == "stack" else 1
    found = Comparison(names, len(clips) == 3, rate, shrunk)
    writer = ClipWriter(target, rate_fps=rate, crf=crf, title=" | ".join(names))
    walk = _Walk(specs, read, names)
    cores = len(os.sched_getaffinity(0))
    running: deque[Future[dict[str, dict[str, float]]]] = deque()
    with writer, ThreadPoolExecutor(cores) as threads:
        for number, (time_s, shown) in enumerate(walk):
            writer.write(_laid_out([_smaller(one, shrunk) for one in shown], layout, number / float(rate)))
            running.append(threads.submit(_measured, names, shown))
            found.times_s.append(time_s)
            if len(running) > cores:
                _collect(found, running.popleft())
            tell(number + 1)
        while running:
            _collect(found, running.popleft())
    return replace(found, unmatched=walk.unmatched)


def summary(found: Comparison) -> Table:
    """Return the figures of a comparison, pooled."""
    rows: Rows = []
    for name, frames in found.metrics.items():
        for metric in METRICS:
            figures = pool([frame[metric] for frame in frames])
            digits = 2 if metric.startswith("psnr") else 4
            cells = (f"{value:.{digits}f}" for value in (figures.mean, figures.p5, figures.minimum))
            rows.append((name, METRIC_NAMES[metric], *cells))
    against = found.names[2] if found.reference else found.names[0]
    note = f"{len(found.times_s)} frames."
    if found.unmatched:
        note += f" {found.unmatched} frames of {found.names[0]} have no partner of their time."
    return Table(f"Against {against}", ("clip", "metric", "mean", "p5", "min"), rows, note)


def to_json(found: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON-able values; an infinite PSNR (equal frames) is null."""
    return {
        "clips": found.names,
        "against": found.names[2] if found.reference else found.names[0],
        "unmatched": found.unmatched,
        "times_s": [round(time_s, 6) for time_s in found.times_s],
        "metrics": {name: [finite(frame) for frame in frames] for name, frames in found.metrics.items()},
    }


class _Walk:
    """The clips' frames, paired by time: those of all beside each of the first that all have."""

    def __init__(self, specs: list[SourceSpec], read: ReadOptions, names: tuple[str, ...]) -> None:
        self._specs, self._read, self._names = specs, read, names
        self._matches: list[Matched[list[Picture]]] = []

    @property
    def unmatched(self) -> int:
        return sum(match.unmatched for match in self._matches)

    def __iter__(self) -> Iterator[tuple[float, list[Rgb]]]:
        first = (
            (picture.time_s, [picture]) for picture in pictures(self._specs[0], self._read, upright=True)
        )
        walk: Iterator[tuple[float, list[Picture]]] = first
        for spec, name in zip(self._specs[1:], self._names[1:], strict=True):
            own = pictures(spec, self._read, upright=True)
            match = Matched(walk, own, names=(self._names[0], name))
            self._matches.append(match)
            walk = self._joined(match, name)
        for time_s, found in walk:
            yield time_s, [picture.rgb for picture in found]

    def _joined(self, match: Matched[list[Picture]], name: str) -> Iterator[tuple[float, list[Picture]]]:
        for found, picture in match:
            require_same_size(size_of(found[0].rgb), size_of(picture.rgb), names=(self._names[0], name))
            yield found[0].time_s, [*found, picture]


def _one(clip: str, read: ReadOptions) -> SourceSpec:
    specs = find_sources(clip, read)
    if len(specs) != 1:
        raise ConfigError(f"{clip} holds {len(specs)} clips; name one of them")
    return specs[0]


def _distinct(names: list[str]) -> tuple[str, ...]:
    """Return the names, with letters before those that two clips share."""
    if len(set(names)) == len(names):
        return tuple(names)
    return tuple(f"{letter}: {name}" for letter, name in zip("ABC", names, strict=False))


def _format(spec: SourceSpec, read: ReadOptions) -> tuple[Fraction, int]:
    """Return frames per second and longest side of a clip."""
    with open_source(spec, read) as source:
        stream = source.streams[0]
        return stream.rate_fps or _STILL_FPS, max(stream.geometry.width, stream.geometry.height)


def _smaller(picture: Rgb, factor: int) -> Rgb:
    """Return means of squares of so many pixels; a rest at the edges is left out."""
    if factor == 1:
        return picture
    height, width = picture.shape[0] // factor, picture.shape[1] // factor
    squares = picture[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    small: Rgb = np.rint(squares.mean(axis=(1, 3))).astype(np.uint8)
    return small


def _laid_out(shown: list[Rgb], layout: Layout, time_s: float) -> Rgb:
    if layout == "wipe":
        return _wiped(shown[0], shown[1], time_s)
    if layout == "stack":
        # All of even height: rows of neighbours must not share their colour.
        return np.vstack([picture[: picture.shape[0] // 2 * 2] for picture in shown])
    line = np.full((shown[0].shape[0], _DIVIDER_PX, 3), 255, np.uint8)
    parts = [part for picture in shown for part in (picture, line)]
    return np.hstack(parts[:-1])


def _wiped(one: Rgb, other: Rgb, time_s: float) -> Rgb:
    """Lay A left of the divider and B right of it."""
    width = one.shape[1]
    there_and_back = abs((time_s / SWEEP_S + 0.5) % 2 - 1)
    place = round(there_and_back * width)
    picture = np.hstack([one[:, :place], other[:, place:]])
    picture[:, max(0, place - _DIVIDER_PX // 2) : place + _DIVIDER_PX // 2] = 255
    return picture


def _measured(names: tuple[str, ...], shown: list[Rgb]) -> dict[str, dict[str, float]]:
    if len(shown) == 3:
        return {name: values(picture, shown[2]) for name, picture in zip(names[:2], shown[:2], strict=True)}
    return {names[1]: values(shown[1], shown[0])}


def _collect(found: Comparison, future: Future[dict[str, dict[str, float]]]) -> None:
    for name, figures in future.result().items():
        found.metrics.setdefault(name, []).append(figures)


def stacked(
    clips: tuple[str, ...], *, read: ReadOptions, tell: Callable[[int], None] = lambda done: None
) -> tuple[Comparison, bytes]:
    """Compare clips above each other; return the video as well, as MP4.

    Raises:
        StreamderainError: See `compare`.
    """
    with tempfile.TemporaryDirectory(prefix="streamderain-compare-") as folder:
        video = Path(folder) / "stack.mp4"
        found = compare(clips, video, layout="stack", read=read, tell=tell)
        return found, video.read_bytes()
