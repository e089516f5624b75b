"""What a network is judged on: windows of known pairs, made the same way every time.

A folder is a data set, or several, in any layout that `trainer.layouts` knows. A validation folder may hold
``clean_video/`` too: rain is rendered on it with the layers in ``streaks_garg/``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamderain.errors import OpenError
from streamderain.measure.rain import RainParameters, RainSequence
from trainer import pictures
from trainer.layouts import find_sets, trees
from trainer.pairing import PairedSet

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
        window: (3, height, width) uint8 studio-range luma, t-1, t, t+1.
        validity: Whether t-1 and t+1 are there.
        target: (height, width) uint8 clean luma, of the middle frame.
        rainy_rgb: (height, width, 3) uint8, for pictures that have colour: RGB scores are wanted too.
        target_rgb: Likewise.
    """

    dataset: str
    name: str
    window: Codes
    validity: tuple[bool, bool]
    target: Codes
    rainy_rgb: Codes | None = None
    target_rgb: Codes | None = None

    @property
    def rgb(self) -> Codes:
        """(height, width, 3) uint8 for RGB networks: gray of full range where there is only luma."""
        return gray_rgb(self.window[1]) if self.rainy_rgb is None else self.rainy_rgb


@dataclass(frozen=True)
class VideoPlan:
    """How validation clips are made.

    Attributes:
        frames: Frames per clip, from its start.
        every: Every how many frames one is judged.
        crf: x264's quality after the rain, for the coded rows.
    """

    frames: int = 60
    every: int = 4
    crf: int = 23


def all_cases(
    folder: Path, plan: VideoPlan, *, stills: int | None = None, split: str | None = None
) -> Iterator[Case]:
    """Every case of a data set or validation folder.

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
    for found in sets:
        yield from set_cases(found, limit=stills)


def video_cases(folder: Path, layers: Sequence[Codes], plan: VideoPlan) -> Iterator[Case]:
    """Rain rendered on every clip of a folder: as drawn, after H.264, and the rain-free clip itself."""
    from trainer import clips  # needs PyAV, which a machine that trains from pictures may lack

    for number, path in enumerate(pictures.list_files(folder, pictures.CLIP_SUFFIXES)):
        clean = clips.read_clip(path, limit=plan.frames)
        clean = clean[:, : clean.shape[1] // 8 * 8, : clean.shape[2] // 8 * 8]
        rainy = rain_on(clean, layers, seed=1000 + number)
        name = path.stem
        yield from _windows(f"{name} rain", rainy, clean, plan.every)
        yield from _windows(f"{name} rain, H.264", clips.through_h264(rainy, crf=plan.crf), clean, plan.every)
        yield from _windows(f"{name} rain-free", clean, clean, plan.every)


def rain_on(clean: Codes, layers: Sequence[Codes], *, seed: int) -> Codes:
    """Moderate rain of mixed layers and procedural streaks on a clip: about 28 dB.

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
    """The pictures of a data set: stills as windows without neighbours, frames of clips with them.

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
        luma = pictures.luma_codes(rainy)
        after = None if ahead is None else pictures.luma_codes(ahead[0])
        window, validity = _window(luma, *((before, after) if found.moving else (None, None)))
        clean_luma = pictures.luma_codes(clean)
        yield Case(pair.dataset, pair.name, window, validity, clean_luma, rainy, clean)
        before = luma


def _window(current: Codes, before: Codes | None, after: Codes | None) -> tuple[Codes, tuple[bool, bool]]:
    """A window of three and its validity; what is missing, of another size or beyond a cut is a copy."""
    near = [frame if frame is not None and _continues(frame, current) else None for frame in (before, after)]
    first, last = (current if frame is None else frame for frame in near)
    return np.stack([first, current, last]), (near[0] is not None, near[1] is not None)


def _continues(neighbour: Codes, frame: Codes) -> bool:
    return neighbour.shape == frame.shape and not _differ(neighbour, frame)


def _windows(dataset: str, rainy: Codes, clean: Codes, every: int) -> Iterator[Case]:
    for t in range(every // 2, len(rainy), every):
        before = rainy[t - 1] if t > 0 else None
        after = rainy[t + 1] if t + 1 < len(rainy) else None
        window, validity = _window(rainy[t], before, after)
        yield Case(dataset, f"frame {t}", window, validity, clean[t])


def _differ(first: Codes, second: Codes) -> bool:
    """Whether the scene changes between two frames; when deployed the pipeline finds that."""
    change = np.abs(second[::4, ::4].astype(np.int16) - first[::4, ::4])
    return bool(change.mean() > _CUT)


def gray_rgb(luma: Codes) -> Codes:
    """Studio-range luma as gray of full range: black, 16, becomes 0, and white, 235, becomes 255.

    Args:
        luma: (height, width) uint8.

    Returns:
        (height, width, 3) uint8; its MATLAB luma is the input again, within 0.5, clipped to 16..235.
    """
    full = np.rint((luma.astype(np.float64) - 16.0) * (255.0 / 219.0)).clip(0, 255).astype(np.uint8)
    return np.repeat(full[:, :, None], 3, axis=2)


def _layers(folder: Path) -> list[Codes]:
    """The layers of one direction (the number after the dash), so that a clip's rain falls one way."""
    if not folder.is_dir():
        return []
    paths = pictures.list_files(folder, pictures.PICTURE_SUFFIXES)
    direction = paths[0].stem.rpartition("-")[2]
    return [pictures.read_gray(path) for path in paths if path.stem.rpartition("-")[2] == direction]
