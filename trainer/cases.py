"""What a network is judged on: windows of known pairs, made the same way every time.

A validation folder holds any of ``clean_video/`` (rain is rendered on it with the layers in
``streaks_garg/``), and folders with ``input/`` and ``target/`` pictures. A folder that holds ``input/`` and
``target/`` itself is one data set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamderain.errors import OpenError
from streamderain.measure.metrics import matlab_luma
from streamderain.measure.rain import RainParameters, RainSequence
from trainer import pictures

Codes = NDArray[np.uint8]
_TREE = """\
DATASET/
  input/          rainy pictures
  target/         the same without rain, of the same names
VALIDATION/
  clean_video/    rain-free clips; rain is drawn on them
  streaks_garg/   gray streak layers for that rain (optional)
  NAME/input/, NAME/target/   any number of data sets of pictures"""
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
        rainy_rgb: (height, width, 3) uint8, for stills: RGB scores are wanted too.
        target_rgb: Likewise.
    """

    dataset: str
    name: str
    window: Codes
    validity: tuple[bool, bool]
    target: Codes
    rainy_rgb: Codes | None = None
    target_rgb: Codes | None = None


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


def all_cases(folder: Path, plan: VideoPlan, *, stills: int | None = None) -> Iterator[Case]:
    """Every case of a validation folder.

    Args:
        folder: See the module's docstring.
        plan: How clips are made.
        stills: Most pictures per data set of stills.

    Raises:
        OpenError: The folder holds none of the layouts.
    """
    if (folder / "input").is_dir():
        yield from still_cases(folder, limit=stills)
        return
    found = False
    if (folder / "clean_video").is_dir():
        found = True
        yield from video_cases(folder / "clean_video", _layers(folder / "streaks_garg"), plan)
    for sub in sorted(path for path in folder.iterdir() if (path / "input").is_dir()):
        found = True
        yield from still_cases(sub, limit=stills)
    if not found:
        raise OpenError(f"{folder} holds nothing to judge on; expected one of:\n{_TREE}")


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


def still_cases(folder: Path, *, limit: int | None = None) -> Iterator[Case]:
    """The pictures of ``input/`` with their namesakes in ``target/``, as windows without neighbours.

    Raises:
        OpenError: A picture has no target, cannot be read, or differs from it in size.
    """
    for path, target_path in pictures.list_pairs(folder)[:limit]:
        rainy, target = pictures.read_rgb(path), pictures.read_rgb(target_path)
        if rainy.shape != target.shape:
            raise OpenError(f"{path} is {rainy.shape}, its target {target.shape}; replace one of them")
        luma, clean = (np.rint(matlab_luma(rgb)).astype(np.uint8) for rgb in (rainy, target))
        window = np.stack([luma] * 3)
        yield Case(folder.name, path.name, window, (False, False), clean, rainy, target)


def _windows(dataset: str, rainy: Codes, clean: Codes, every: int) -> Iterator[Case]:
    for t in range(every // 2, len(rainy), every):
        has = (t > 0 and not _cut(rainy, t), t + 1 < len(rainy) and not _cut(rainy, t + 1))
        window = np.stack([rainy[t - 1 if has[0] else t], rainy[t], rainy[t + 1 if has[1] else t]])
        yield Case(dataset, f"frame {t}", window, has, clean[t])


def _cut(frames: Codes, t: int) -> bool:
    """Whether the scene changes between frames t-1 and t; when deployed the pipeline finds that."""
    change = np.abs(frames[t, ::4, ::4].astype(np.int16) - frames[t - 1, ::4, ::4])
    return bool(change.mean() > _CUT)


def _layers(folder: Path) -> list[Codes]:
    """The layers of one direction (the number after the dash), so that a clip's rain falls one way."""
    if not folder.is_dir():
        return []
    paths = pictures.list_files(folder, pictures.PICTURE_SUFFIXES)
    direction = paths[0].stem.rpartition("-")[2]
    return [pictures.read_gray(path) for path in paths if path.stem.rpartition("-")[2] == direction]
