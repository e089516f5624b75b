"""Fit a trained model to somebody's own rainy footage, and refuse what it does worse than before."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamderain.errors import ConfigError, StreamderainError
from streamderain.nets.deep import DeepNet
from streamderain.nets.fast import FastNet
from streamderain.nets.network import Network
from trainer.config import NetworkConfig, TrainConfig, load_config
from trainer.data import clips, pictures
from trainer.evaluation.cases import Case
from trainer.evaluation.validate import Validator, network_clean

Codes = NDArray[np.uint8]

TOLERATED_DB = 0.1
"""How much a score may fall: a tenth of a decibel is seen by nobody."""

UNSEEN_DB = 50.0
"""Rain-free rows may fall as far as here: such a change of a picture is no more seen."""

_LEARNED_FROM = ("clean_video", "clean_bsds", "clean_imagenet", "streaks_garg")
_SHEET_CLIPS = 6
_SHEET_PX = 480


class Harmed(StreamderainError):
    """What came out is worse than what went in."""


def adapting_config(
    network: Network, footage: Path, *, data: Path | None, steps: int, model: Path
) -> TrainConfig:
    """Return the configuration that fits a network to footage.

    Args:
        network: The model's.
        footage: Folder of rainy video files.
        data: Folder of training data as `train` takes it: what of it is there is learned from too.
        steps: How many.
        model: The model folder, which the result is held to.

    Raises:
        ConfigError: The model is not one of luma.
    """
    base = load_config("adapt", overrides={"steps": steps, "teacher": str(model)})
    present = {name for name in _LEARNED_FROM if data is not None and (data / name).is_dir()}
    own = dataclasses.replace(
        base.data,
        real=(str(footage),),
        clips=tuple(present & {"clean_video"}),
        stills=tuple(sorted(present & {"clean_bsds", "clean_imagenet"})),
        layers=tuple(present & {"streaks_garg"}),
    )
    is_fast = isinstance(network, FastNet)
    phases = tuple(dataclasses.replace(phase, int8=is_fast) for phase in base.phases)
    return dataclasses.replace(base, network=_sizes(network), data=own, phases=phases)


def _sizes(network: Network) -> NetworkConfig:
    if isinstance(network, FastNet):
        return NetworkConfig(
            family=network.family,
            width=network.head.out_channels,
            middle_width=network.down.out_channels,
            middle_layers=len(network.middle),
        )
    if isinstance(network, DeepNet):
        return NetworkConfig(family=network.family, width=network.width, blocks=network.blocks)
    raise ConfigError(
        f"models of the family {network.family} see single pictures, and learn nothing from what frames "
        "have in common; adapt a model of luma, such as dcd-lite"
    )


def demo_validator() -> Validator:
    """Judge on the clip that comes with the package, rain drawn on it: for those who have no other data."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "clean_video"
        folder.mkdir()
        with resources.as_file(resources.files("streamderain") / "assets" / "demo.mp4") as clip:
            shutil.copy(clip, folder)
        return Validator(Path(name))


def harm_of(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Return the rows that fell further than they may, with their scores before and after, dB."""
    fallen = {}
    for row, value in before.items():
        least = value - TOLERATED_DB
        if "rain-free" in row:
            least = min(least, UNSEEN_DB)
        if after[row] < least:
            fallen[row] = (value, after[row])
    return fallen


def draw_sheet(footage: Path, before: Network, after: Network, path: Path) -> None:
    """Draw the middle of each clip of a folder: rainy | before | after, a square at full size.

    Args:
        footage: Folder of rainy video files.
        before: The network as it was.
        after: The same, adapted.
        path: Where the picture goes.
    """
    strips = []
    for clip in pictures.list_files(footage, pictures.CLIP_SUFFIXES)[:_SHEET_CLIPS]:
        frames = clips.read_clip(clip, limit=90)
        middle = len(frames) // 2
        around = [frames[n] if 0 <= n < len(frames) else None for n in (middle - 1, middle + 1)]
        case = Case(clip.name, "middle", (around[0], frames[middle], around[1]), frames[middle])
        shown = [frames[middle], *(network_clean(network)(case) for network in (before, after))]
        strips.append(np.concatenate([_square(picture) for picture in shown], axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(strips)).save(path)


def _square(picture: Codes) -> Codes:
    rows, columns = (slice(max(0, (size - _SHEET_PX) // 2), None) for size in picture.shape)
    inner = picture[rows, columns][:_SHEET_PX, :_SHEET_PX]
    return np.pad(inner, [(0, _SHEET_PX - size) for size in inner.shape])
