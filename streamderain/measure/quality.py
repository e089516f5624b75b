"""Score a derained clip frame by frame: against a reference, or on known rain."""

from __future__ import annotations

import heapq
import math
import os
import statistics
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamderain.errors import ConfigError
from streamderain.frame import Frame, Geometry, Planes
from streamderain.measure.flow import estimate_flow
from streamderain.measure.metrics import matlab_luma, psnr, ssim, warping_error
from streamderain.measure.rain import RainSequence, known_rain
from streamderain.media.arrays import rgb_array
from streamderain.media.reading.sources import SourceSpec, open_source
from streamderain.options import EngineOptions, ReadOptions
from streamderain.pipeline.cuts import lead_of
from streamderain.pipeline.inline import InlineSession
from streamderain.runtime.registry import open_engine

Rgb = NDArray[np.uint8]
T = TypeVar("T")

METRICS = ("psnr_y_db", "psnr_rgb_db", "ssim_y", "ssim_rgb")
"""On the Y of MATLAB's rgb2ycbcr and on RGB; see `measure.metrics`."""

METRIC_NAMES = {
    "psnr_y_db": "PSNR Y, dB",
    "psnr_rgb_db": "PSNR RGB, dB",
    "ssim_y": "SSIM Y",
    "ssim_rgb": "SSIM RGB",
}

_WORST = 3
_TOP_DB = 100.0
_SUSPICIOUS_DB = 1.0
"""Rain changes every frame alike: by so much no neighbour comes nearer by chance."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded frame as (height, width, 3) uint8 RGB with its presentation time."""

    time_s: float
    rgb: Rgb


@dataclass(frozen=True, slots=True)
class Triple:
    """One frame three times, (height, width, 3) uint8 RGB each.

    Attributes:
        index: Number among the frames that are judged, from 0.
        time_s: Presentation time in the source.
        before: What is derained.
        after: The result.
        reference: What it should be.
    """

    index: int
    time_s: float
    before: Rgb
    after: Rgb
    reference: Rgb


@dataclass(frozen=True, slots=True)
class FrameQuality:
    """How near one frame is to its reference.

    Attributes:
        index: See `Triple`.
        time_s: See `Triple`.
        after: The result's value by metric (`METRICS`).
        before: The same of the untouched frame.
        flicker: Warping error towards the next frame in luma codes, of `after`, `before` and
            `reference`; empty for the last frame.
        shifted: Y-PSNR of the untouched frame against the reference's next one (`late`), and of the next
            untouched one against this one's reference (`early`); empty for the last frame.
    """

    index: int
    time_s: float
    after: dict[str, float]
    before: dict[str, float]
    flicker: dict[str, float]
    shifted: dict[str, float]


@dataclass(frozen=True, slots=True)
class Quality:
    """A clip, judged.

    Attributes:
        frames: Every frame, in order.
        worst: The frames whose result has the least Y-PSNR, worst first.
        unmatched: Frames without a partner in the reference.
    """

    frames: list[FrameQuality]
    worst: list[Triple] = field(default_factory=list)
    unmatched: int = 0

    @property
    def suspicion(self) -> str:
        """What looks like a mistake: a reference that runs a frame late or early; mostly empty."""
        frames = [frame for frame in self.frames if frame.shifted]
        if not frames:
            return ""
        there = statistics.fmean(min(frame.before["psnr_y_db"], _TOP_DB) for frame in frames)
        for side in ("late", "early"):
            shifted = statistics.fmean(min(frame.shifted[side], _TOP_DB) for frame in frames)
            if shifted > there + _SUSPICIOUS_DB:
                return (
                    f"the reference seems to be a frame {side}: moved by one, the untouched source has "
                    f"{shifted:.1f} dB to it instead of {there:.1f}; cut both clips at the same frame"
                )
        return ""


class Matched(Iterable[tuple[T, Picture]]):
    """Two walks over pictures, paired by the time since the beginning of each.

    Args:
        first: Decides which pictures there are; with their times.
        second: Pictures that none of the first matches are passed over.
        names: What the two are called, for messages.

    Attributes:
        unmatched: Pictures of the first without a partner so far.

    Raises:
        ConfigError: While iterating: no two pictures belong together.
    """

    def __init__(
        self, first: Iterable[tuple[float, T]], second: Iterable[Picture], *, names: tuple[str, str]
    ) -> None:
        self.unmatched = 0
        self._first, self._second, self._names = first, iter(second), names
        self._second_begin_s: float | None = None
        self._candidates: deque[Picture] = deque()

    def __iter__(self) -> Iterator[tuple[T, Picture]]:
        begin_s, last_s, slack_s, matched = None, 0.0, 0.5, 0
        for absolute_s, item in self._first:
            begin_s = absolute_s if begin_s is None else begin_s
            time_s = absolute_s - begin_s
            slack_s = (time_s - last_s) / 2 if time_s > last_s else slack_s
            last_s = time_s
            nearest = self._nearest(time_s)
            if nearest is None or self._off_s(nearest, time_s) > slack_s:
                self.unmatched += 1
                continue
            self._candidates.popleft()
            matched += 1
            yield item, nearest
        if not matched:
            raise ConfigError(
                f"no frame of {self._names[1]} has the time of a frame of {self._names[0]}; "
                "give two versions of the same clip"
            )

    def _nearest(self, time_s: float) -> Picture | None:
        """Return the picture of the second walk that is nearest in time; those before it are let go."""
        while True:
            while len(self._candidates) < 2 and (more := next(self._second, None)) is not None:
                if self._second_begin_s is None:
                    self._second_begin_s = more.time_s
                self._candidates.append(more)
            offs = [self._off_s(candidate, time_s) for candidate in self._candidates]
            if len(offs) < 2 or offs[0] < offs[1]:
                return self._candidates[0] if offs else None
            self._candidates.popleft()

    def _off_s(self, picture: Picture, time_s: float) -> float:
        return abs(picture.time_s - (self._second_begin_s or 0.0) - time_s)


def pictures(spec: SourceSpec, read: ReadOptions, *, upright: bool = False) -> Iterator[Picture]:
    """Yield the frames of a clip's first video stream.

    Args:
        spec: The clip.
        read: Which part of it.
        upright: Turn them by quarters as players do (phone video); False leaves them as coded.

    Raises:
        StreamderainError: It cannot be read.
    """
    with open_source(spec, read) as source:
        for frame in source.frames(lambda packet: None):
            if frame.stream == 0 and frame.emit:
                quarters = round(frame.picture.rotation / 90) if upright else 0
                yield Picture(frame.time_s, np.rot90(rgb_array(frame.picture), quarters))


def against_reference(
    source: SourceSpec, reference: SourceSpec, *, read: ReadOptions, engine: EngineOptions
) -> Iterator[Triple | int]:
    """Derain a rainy clip whose clean original is known.

    Args:
        source: The rainy clip.
        reference: The clean one; frames belong together where the times since the beginnings agree.
        read: Which part of both.
        engine: What derains.

    Yields:
        Every pair of frames; at last the number of frames without a partner.

    Raises:
        ConfigError: The two differ in size, or no frames belong together.
        StreamderainError: One of them cannot be read or derained.
    """
    derained = (
        (frame.time_s, (frame, before, after)) for frame, _, before, after in _walk(source, read, engine)
    )
    pairs = Matched(derained, pictures(reference, read), names=(source.name, reference.name))
    for index, ((frame, before, after), clean) in enumerate(pairs):
        require_same_size(size_of(before), size_of(clean.rgb), names=(source.name, reference.name))
        yield Triple(index, frame.time_s, before, after, clean.rgb)
    yield pairs.unmatched


def on_known_rain(source: SourceSpec, *, read: ReadOptions, engine: EngineOptions) -> Iterator[Triple | int]:
    """Draw rain on a dry clip and derain that; see `against_reference`.

    Args:
        source: The dry clip, which is the reference.
        read: Which part of it.
        engine: What derains.
    """
    for index, (frame, dry, before, after) in enumerate(_walk(source, read, engine, rain=True)):
        yield Triple(index, frame.time_s, before, after, dry)
    yield 0


def require_same_size(one: tuple[int, int], other: tuple[int, int], *, names: tuple[str, str]) -> None:
    """Refuse pictures that cannot be laid over each other.

    Args:
        one: Width and height, px.
        other: Likewise.
        names: What the two are called.

    Raises:
        ConfigError: They differ in size.
    """
    if one != other:
        sizes = [f"{width}x{height}" for width, height in (one, other)]
        raise ConfigError(
            f"{names[1]} is {sizes[1]} and {names[0]} is {sizes[0]}; frames are compared pixel by pixel, "
            "so scale one of them to the size of the other"
        )


def size_of(picture: Rgb) -> tuple[int, int]:
    """Return width and height, px."""
    return picture.shape[1], picture.shape[0]


def values(picture: Rgb, reference: Rgb) -> dict[str, float]:
    """Return all of `METRICS` of a picture, (height, width, 3) uint8 RGB."""
    luma, wanted = matlab_luma(picture), matlab_luma(reference)
    return {
        "psnr_y_db": psnr(luma, wanted),
        "psnr_rgb_db": psnr(picture, reference),
        "ssim_y": ssim(luma, wanted),
        "ssim_rgb": ssim(picture, reference),
    }


def finite(figures: dict[str, float]) -> dict[str, float | None]:
    """Return figures that JSON can say: the infinite PSNR of equal frames becomes None."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def judge(triples: Iterable[Triple | int]) -> Iterator[int | Quality]:
    """Judge frames on all cores.

    Args:
        triples: From `against_reference` or `on_known_rain`.

    Yields:
        The number of frames judged so far, then the result.
    """
    cores = len(os.sched_getaffinity(0))
    judged: list[FrameQuality] = []
    worst: list[tuple[float, int, Triple]] = []
    unmatched = 0
    running: deque[tuple[Triple, Future[FrameQuality]]] = deque()

    def collect() -> int:
        triple, future = running.popleft()
        judged.append(future.result())
        heapq.heappush(worst, (-judged[-1].after["psnr_y_db"], triple.index, triple))
        if len(worst) > _WORST:
            heapq.heappop(worst)
        return len(judged)

    with ThreadPoolExecutor(cores) as pool:
        for triple, following in _with_next(triples):
            if isinstance(triple, int):
                unmatched = triple
                continue
            running.append((triple, pool.submit(_judged, triple, following)))
            if len(running) > cores:
                yield collect()
        while running:
            yield collect()
    yield Quality(judged, [triple for _, _, triple in sorted(worst, reverse=True)], unmatched)


def _with_next(triples: Iterable[Triple | int]) -> Iterator[tuple[Triple | int, Triple | None]]:
    previous: Triple | None = None
    for item in triples:
        if previous is not None:
            yield previous, item if isinstance(item, Triple) else None
        if isinstance(item, int):
            previous = None
            yield item, None
        else:
            previous = item


def _judged(triple: Triple, following: Triple | None) -> FrameQuality:
    return FrameQuality(
        index=triple.index,
        time_s=triple.time_s,
        after=values(triple.after, triple.reference),
        before=values(triple.before, triple.reference),
        flicker={} if following is None else _flicker(triple, following),
        shifted={} if following is None else _shifted(triple, following),
    )


def _shifted(current: Triple, following: Triple) -> dict[str, float]:
    return {
        "late": psnr(matlab_luma(current.before), matlab_luma(following.reference)),
        "early": psnr(matlab_luma(following.before), matlab_luma(current.reference)),
    }


def _flicker(current: Triple, following: Triple) -> dict[str, float]:
    """Return the warping errors with the reference's motion, where that motion explains the reference."""

    def codes(picture: Rgb) -> NDArray[np.uint8]:
        return np.rint(matlab_luma(picture)).astype(np.uint8)

    flow, visible = estimate_flow(codes(current.reference), codes(following.reference))
    names = ("after", "before", "reference")
    pairs = ((codes(getattr(current, name)), codes(getattr(following, name))) for name in names)
    return {
        name: warping_error(one, next_one, flow, visible=visible)
        for name, (one, next_one) in zip(names, pairs, strict=True)
    }


def _walk(
    spec: SourceSpec, read: ReadOptions, options: EngineOptions, *, rain: bool = False
) -> Iterator[tuple[Frame, Rgb, Rgb, Rgb]]:
    """Yield every frame of the first video stream, as it is, as it is derained, and derained."""
    with ExitStack() as cleanup:
        engine = cleanup.enter_context(open_engine(options))
        source = cleanup.enter_context(open_source(spec, read, lead_of(engine.model)))
        geometry = source.streams[0].geometry
        session = cleanup.enter_context(InlineSession(engine, geometry, options))
        sky = known_rain(geometry.width, geometry.height) if rain else None
        for frame in source.frames(lambda packet: None):
            if frame.stream != 0:
                continue
            wet = None if sky is None else _rained(frame.planes, sky, frame.index, geometry)
            pushed = session.push(wet or frame.planes, (frame, wet), cut=frame.cut, emit=frame.emit)
            yield from (_pictures(sent, wet, planes) for (sent, wet), planes in pushed)
        yield from (_pictures(sent, wet, planes) for (sent, wet), planes in session.drain())


def _pictures(frame: Frame, wet: Planes | None, derained: Planes) -> tuple[Frame, Rgb, Rgb, Rgb]:
    """Return the frame's pictures; it is written to only here, when its token has left the session."""
    dry = rgb_array(frame.picture)
    before = dry if wet is None else rgb_array(frame.picture, wet)
    return frame, dry, before, rgb_array(frame.picture, derained)


def _rained(planes: Planes, sky: RainSequence, index: int, geometry: Geometry) -> Planes:
    """Return the planes with rain, which changes luma, or R, G and B."""
    count = geometry.luma_planes
    codes = [(plane >> geometry.shift).astype(geometry.dtype) for plane in planes[:count]]
    picture: Any = np.stack(codes, axis=-1) if geometry.is_rgb else codes[0]
    wet = sky.apply_to_codes(picture, index, bits=geometry.bits, full_range=geometry.range == "full")
    components = [wet[..., c] for c in range(3)] if geometry.is_rgb else [wet]
    rained = ((component << geometry.shift).astype(geometry.dtype) for component in components)
    return (*rained, *planes[count:])
