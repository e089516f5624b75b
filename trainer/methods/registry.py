"""Make the training method and the batch maker that a configuration names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from streamderain.errors import ConfigError
from trainer.checkpoint import TrainState
from trainer.config import TRANSLATION, TrainConfig
from trainer.data.library import open_library, open_pseudo
from trainer.data.loader import Maker
from trainer.data.paired import BatchMaker
from trainer.data.picture_pairs import PicturePairMaker
from trainer.data.unpaired import UnpairedMaker, open_domains
from trainer.methods.supervised import Supervised
from trainer.methods.teacher import load_teacher
from trainer.methods.translation import Translation, channels_of


class Method(Protocol):
    """What is trained, and how a step of it goes."""

    state: TrainState

    def step(self, parts: Sequence[Any]) -> dict[str, float]:
        """Make one optimiser step on a batch in parts; the values to log, "loss" and "norm" among them."""
        ...

    def sheet(self, batch: Any) -> NDArray[np.uint8]:
        """Draw what the averaged networks make of a training batch, (H, W) or (H, W, 3) uint8."""
        ...


def new_method(config: TrainConfig, fabric: Fabric) -> Method:
    """Return the configuration's method, with fresh weights.

    Raises:
        OpenError: The teacher cannot be read.
        ConfigError: The configuration needs a teacher and names none, or trains for int8 on several devices.
    """
    if config.method == TRANSLATION:
        return Translation(config, fabric)
    if config.uses("distillation") and not config.teacher:
        raise ConfigError(
            f"configuration {config.name} learns from a teacher (loss distillation); name one with --teacher"
        )
    if any(phase.int8 for phase in config.phases) and fabric.world_size > 1:
        raise ConfigError(
            f"configuration {config.name} trains for int8, whose ranges are measured on one device; "
            "leave out --devices"
        )
    teacher = load_teacher(Path(config.teacher), fabric.device) if config.teacher else None
    return Supervised(config, fabric, teacher=teacher)


def open_maker(config: TrainConfig, data: Path, cache: Path) -> Maker[Any]:
    """Open what makes the configuration's batches; decode the data into the cache where that is still to do.

    Raises:
        OpenError: A folder is missing or empty.
        ConfigError: The configuration draws pseudo-pairs and names none.
    """
    if config.data.share_pseudo and not config.pseudo:
        raise ConfigError(
            f"configuration {config.name} draws pseudo-pairs; make some with `python -m trainer pseudo` and "
            "name their folder with --pseudo, or set data.share_pseudo to 0"
        )
    if config.method == TRANSLATION:
        library = open_domains(data, cache, config.unpaired, channels=channels_of(config), seed=config.seed)
        return UnpairedMaker(library, config.unpaired, batch=config.batch, seed=config.seed)
    if channels_of(config) == 3:
        library = open_library(data, cache, config.data, seed=config.seed, channels=3)
        return PicturePairMaker(library, config.data, batch=config.batch, seed=config.seed)
    library = open_library(data, cache, config.data, seed=config.seed)
    pseudo = open_pseudo(Path(config.pseudo), cache) if config.pseudo else None
    return BatchMaker(library, config.data, batch=config.batch, seed=config.seed, pseudo=pseudo)
