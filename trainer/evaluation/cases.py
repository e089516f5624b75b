"""Make evaluation cases: windows of known pairs, the same way every time.

A folder is a data set, or several, in any layout that `trainer.data.layouts` knows. A validation folder may
hold `clean_video/` too: rain is rendered on it with the layers in `streaks_garg/`, and rain-free scenes that
are easily harmed are drawn beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamderain import motion
from streamderain.errors import OpenError
from streamderain.measure.rain import RainParameters, RainSequence
from streamderain.models import FlowCells
from trainer.data import pictures
from trainer.data.layouts import find_sets, trees
from trainer.data.pairing import PairedSet
from trainer.evaluation.dry_scenes import dry_scenes

Codes = NDArray[np.uint8]
_CLIPS, _LAYERS = "clean_video", "streaks_garg"
_TREE = """\
Or, with or without any of these:
  clean_video/    rain-free clips; rain is drawn on them
  streaks_garg/   gray streak layers for that rain (optional)"""
_CUT = 25.0
"""Mean change between frames that can only be a cut, luma codes."""


@dataclass(frozen=True)
class Case:
    """One picture to clean.

    Attributes:
        dataset: Name of the row it counts towards.
        name: Name of the picture or frame.
        frames: Frames t-1, t and t+1, all (height, width) uint8 studio-range luma or all (height, width, 3)
            uint8 RGB; None for a neighbour that is missing.
        clean: The frame t without rain, of the same kind.
    """

    dataset: str
    name: str
    frames: tuple[Codes | None, Codes, Codes | None]
    clean: Codes

    @property
    def has_colour(self) -> bool:
        """Whether it is a case of RGB pictures: scores of RGB are wanted too."""
        return self.clean.ndim == 3

    @property
    def rainy(self) -> Codes:
        """The frame t."""
        return self.frames[1]

    @property
    def validity(self) -> tuple[bool, bool]:
        """Whether t-1 and t+1 are there."""
        return self.frames[0] is not None, self.frames[2] is not None

    @cached_property
    def window(self) -> Codes:
        """(3, height, width) uint8 luma; a missing neighbour is a copy of the middle frame."""
        return np.stack([_luma(self.rainy if frame is None else frame) for frame in self.frames])

    @property
    def aligned(self) -> Codes:
        """The window with its neighbours warped onto the middle frame, as a session of the network does."""
        height, width = self.window.shape[1:]
        with motion.one_thread():
            return motion.align(self.window, cell=FlowCells().edge_px(width, height))

    @cached_property
    def target(self) -> Codes:
        """(height, width) uint8 luma of the clean frame."""
        return _luma(self.clean)

    @cached_property
    def rgb(self) -> Codes:
        """(height, width, 3) uint8 rainy RGB: gray of full range where there is only luma."""
        return rgb_of(self.rainy)

    @cached_property
    def target_rgb(self) -> Codes:
        """(height, width, 3) uint8 clean RGB, likewise."""
        return rgb_of(self.clean)


@dataclass(frozen=True)
class VideoPlan:
    """How validation clips are made.

    Attributes:
        frames: Frames per clip, from its start.
        every: Every how many frames one is judged.
        strides: Clips are judged as they are, and with only every so many frames: faster motion.
        crf: x264's quality after the rain, for the coded rows.
    """

    frames: int = 60
    every: int = 4
    strides: tuple[int, ...] = (1, 2, 3)
    crf: int = 23


def all_cases(
    folder: Path, plan: VideoPlan, *, stills: int | None = None, split: str | None = None
) -> Iterator[Case]:
    """Yield every case of a data set or validation folder.

    Args:
        folder: See the module's docstring.
        plan: How clips are made.
        stills: Most pictures per data set.
        split: "train", "test" or "val", where a data set has them.

    Raises:
        OpenError: The folder holds none of the layouts, or a split must be chosen.
    """
    sets = find_sets(folder, split=split, leave_out=(_CLIPS, _LAYERS), needed=False)
    has_clips = (folder / _CLIPS).is_dir()
    if not (sets or has_clips):
        raise OpenError(f"{folder} holds nothing to judge on.\n{trees(folder)}\n{_TREE}")
    if has_clips:
        yield from video_cases(folder / _CLIPS, _layers(folder / _LAYERS), plan)
        for index, (kind, frames) in enumerate(dry_scenes()):
            before, current, after = frames
            yield Case(f"{kind} rain-free", f"scene {index}", (before, current, after), current)
    for found in sets:
        yield from set_cases(found, limit=stills)


def video_cases(folder: Path, layers: Sequence[Codes], plan: VideoPlan) -> Iterator[Case]:
    """Rain rendered on every clip of a folder: as drawn, after H.264, and the rain-free clip itself."""
    from trainer.data import clips  # needs PyAV, which a machine that trains from pictures may lack

    for number, path in enumerate(pictures.list_files(folder, pictures.CLIP_SUFFIXES)):
        whole = clips.read_clip(path, limit=plan.frames * max(plan.strides))
        whole = whole[:, : whole.shape[1] // 8 * 8, : whole.shape[2] // 8 * 8]
        for stride in plan.strides:
            name = path.stem if stride == 1 else f"{path.stem}, every {stride}."
            yield from _clip_cases(name, whole[::stride][: plan.frames], layers, plan, seed=1000 + number)


def _clip_cases(
    name: str, clean: Codes, layers: Sequence[Codes], plan: VideoPlan, *, seed: int
) -> Iterator[Case]:
    from trainer.data import clips

    rainy = rain_on(clean, layers, seed=seed)
    yield from _windows(f"{name} rain", rainy, clean, plan.every)
    yield from _windows(f"{name} rain, H.264", clips.through_h264(rainy, crf=plan.crf), clean, plan.every)
    yield from _windows(f"{name} rain-free", clean, clean, plan.every)


def rain_on(clean: Codes, layers: Sequence[Codes], *, seed: int) -> Codes:
    """Return moderate rain of mixed layers and procedural streaks on a clip: about 28 dB.

    Args:
        clean: (frames, height, width) uint8 luma.
        layers: Streak layers; one direction's worth is chosen by the seed.
        seed: Any integer.
    """
    rng = np.random.default_rng(seed)
    chosen = (
        [layers[i] for i in rng.choice(len(layers), size=min(4, len(layers)), replace=False)]
        if layers
        else []
    )
    parameters = RainParameters(
        density_per_mpx=700.0, peak=0.2, angle_deg=4.0, layer_gain=0.45, screen=0.5, light=0.9
    )
    rain = RainSequence(parameters, seed, clean.shape[2], clean.shape[1], layers=chosen)
    return np.stack([rain.apply_to_codes(frame, i) for i, frame in enumerate(clean)]).astype(np.uint8)


def set_cases(found: PairedSet, *, limit: int | None = None) -> Iterator[Case]:
    """Yield the pictures of a data set: stills as windows without neighbours, frames of clips with them.

    Args:
        found: The data set.
        limit: Most pictures.

    Raises:
        OpenError: A picture cannot be read, or differs from its clean one in size.
    """
    chosen = found.pairs[:limit]
    before: Codes | None = None
    ahead = chosen[0].read_rgb() if chosen else None
    for index, pair in enumerate(chosen):
        assert ahead is not None
        rainy, clean = ahead
        ahead = chosen[index + 1].read_rgb() if index + 1 < len(chosen) else None
        after = None if ahead is None else ahead[0]
        frames = _frames(rainy, *((before, after) if found.moving else (None, None)))
        yield Case(pair.dataset, pair.name, frames, clean)
        before = rainy


def _frames(
    current: Codes, before: Codes | None, after: Codes | None
) -> tuple[Codes | None, Codes, Codes | None]:
    """Return the frame with its neighbours, but those of another size or beyond a cut."""
    near = [frame if frame is not None and _continues(frame, current) else None for frame in (before, after)]
    return near[0], current, near[1]


def _continues(neighbour: Codes, frame: Codes) -> bool:
    return neighbour.shape == frame.shape and not _differ(neighbour, frame)


def _windows(dataset: str, rainy: Codes, clean: Codes, every: int) -> Iterator[Case]:
    for t in range(every // 2, len(rainy), every):
        before = rainy[t - 1] if t > 0 else None
        after = rainy[t + 1] if t + 1 < len(rainy) else None
        yield Case(dataset, f"frame {t}", _frames(rainy[t], before, after), clean[t])


def _differ(first: Codes, second: Codes) -> bool:
    """Return whether the scene changes between two frames; when deployed the pipeline finds that."""
    change = np.abs(_luma(second[::4, ::4]).astype(np.int16) - _luma(first[::4, ::4]))
    return bool(change.mean() > _CUT)


def gray_rgb(luma: Codes) -> Codes:
    """Return studio-range luma as gray of full range: black, 16, becomes 0, and white, 235, becomes 255.

    Args:
        luma: (height, width) uint8.

    Returns:
        (height, width, 3) uint8; its MATLAB luma is the input again, within 0.5, clipped to 16..235.
    """
    full = np.rint((luma.astype(np.float64) - 16.0) * (255.0 / 219.0)).clip(0, 255).astype(np.uint8)
    return np.repeat(full[:, :, None], 3, axis=2)


def _luma(picture: Codes) -> Codes:
    return picture if picture.ndim == 2 else pictures.luma_codes(picture)


def rgb_of(picture: Codes) -> Codes:
    """Give a picture as (height, width, 3) uint8 RGB: luma becomes gray of full range."""
    return gray_rgb(picture) if picture.ndim == 2 else picture


def _layers(folder: Path) -> list[Codes]:
    """Return the layers of one direction (the number after the dash), so that a clip's rain falls one way."""
    if not folder.is_dir():
        return []
    paths = pictures.list_files(folder, pictures.PICTURE_SUFFIXES)
    direction = paths[0].stem.rpartition("-")[2]
    return [pictures.read_gray(path) for path in paths if path.stem.rpartition("-")[2] == direction]
