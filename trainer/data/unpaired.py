"""Make unpaired batches: rainy pictures and rain-free ones, never two of one scene."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms import v2

from streamderain.errors import OpenError
from trainer.config import UnpairedConfig
from trainer.data import pictures
from trainer.data.crops import at_least, pick, unit
from trainer.data.drawn_rain import RainDrawer
from trainer.data.library import Entry, Library, LibraryWriter, add_layers

Codes = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
RAINY, RAINED, CLEAN = "domain rainy", "domain rained", "domain clean"
_LUMA_BLACK, _LUMA_WHITE = 16.0 / 255.0, 235.0 / 255.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UnpairedBatch:
    """Crops of both domains of one step.

    Attributes:
        rainy: (N, channels, crop, crop) float32 in -1..1: full-range RGB, or studio-range luma codes.
        clean: Same shape, other scenes.
    """

    rainy: FloatArray
    clean: FloatArray


def open_domains(data: Path, cache: Path, config: UnpairedConfig, *, channels: int, seed: int) -> Library:
    """Open the library of both domains, making it first where there is none.

    Args:
        data: Folder that holds the configuration's folders.
        cache: Folder for libraries; each has its own folder there.
        config: The configuration's [unpaired] table.
        channels: 3 for RGB, 1 for luma.
        seed: Seed of the layers that are drawn into the library.

    Raises:
        OpenError: A folder is missing or empty, or no picture of a domain can be read.
    """
    files = _domain_files(data, config)
    key = _key(data, files, config, channels, seed)
    folder = cache / key
    if not (folder / "index.json").is_file():
        _log.info("making the library %s (once)", folder)
        with LibraryWriter(folder) as writer:
            for kind in (RAINY, RAINED, CLEAN):
                _add_domain(writer, kind, files[kind], config.crop_px, channels)
            rng = np.random.default_rng([seed, 0x646F6D])
            turned, drawn = (config.turned_layers, config.drawn_layers) if files[RAINED] else (0, 0)
            add_layers(writer, rng, files["layer"], turned=turned, drawn=drawn)
    library = Library(folder)
    _require_both(library, data, config)
    return library


class UnpairedMaker:
    """Draws batches of both domains.

    Args:
        library: Made by `open_domains`.
        config: The configuration's [unpaired] table.
        batch: Crops of each domain per step.
        seed: Seed of all batches.
    """

    def __init__(self, library: Library, config: UnpairedConfig, *, batch: int, seed: int) -> None:
        self._library, self._config, self._batch, self._seed = library, config, batch, seed
        self._rainy, self._rained = library.of_kind(RAINY), library.of_kind(RAINED)
        self._clean = library.of_kind(CLEAN)
        layers = library.arrays("layer")
        black, white = (_LUMA_BLACK, _LUMA_WHITE) if self._clean[0].shape[0] == 1 else (0.0, 1.0)
        self._rain = RainDrawer(
            layers, heavy=config.heavy, faintest=config.faintest, black=black, white=white
        )
        # Cut, never resized: a squeezed picture shows rain at angles and widths that do not exist.
        self._augment = v2.Compose([v2.RandomCrop(config.crop_px), v2.RandomHorizontalFlip(0.5)])

    @property
    def counts(self) -> dict[str, int]:
        """How many pictures and layers the library holds."""
        return self._library.counts()

    def batch(self, step: int, *, part: int = 0, parts: int = 1) -> UnpairedBatch:
        """Return one part of a step's batch, the same whenever it is asked for.

        Args:
            step: Number of the step.
            part: Which part, from 0.
            parts: How many parts the batch is worked through in; they share its crops evenly.
        """
        rng = np.random.default_rng([self._seed, step, 0x75, part])
        count = self._batch // parts
        rainy = np.stack([self._rainy_crop(rng) for _ in range(count)])
        clean = np.stack([self._crop(rng, self._clean) for _ in range(count)])
        return UnpairedBatch(2.0 * rainy - 1.0, 2.0 * clean - 1.0)

    def _rainy_crop(self, rng: np.random.Generator) -> FloatArray:
        drawn = rng.random() < self._config.share_rained if self._rainy else True
        if self._rained and drawn:
            frame: FloatArray = self._rain.draw(rng, self._crop(rng, self._rained)[None])[0]
            return frame
        return self._crop(rng, self._rainy)

    def _crop(self, rng: np.random.Generator, entries: Sequence[Entry]) -> FloatArray:
        picture = np.array(self._library.array(pick(rng, entries)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            cut: torch.Tensor = self._augment(torch.from_numpy(picture))
        codes: Codes = cut.numpy()
        return unit(codes)


def _domain_files(data: Path, config: UnpairedConfig) -> dict[str, list[Path]]:
    """Return the files of each domain; those of a folder that serves both are dealt out in turn."""
    wanted = [
        *((name, "rainy pictures") for name in config.rainy),
        *((name, "rain-free pictures, for drawn rain") for name in config.rained),
        *((name, "rain-free pictures") for name in config.clean),
        *((name, "gray streak layers") for name in (config.layers if config.rained else ())),
    ]
    try:
        found = {name: pictures.list_files(data / name, pictures.PICTURE_SUFFIXES) for name, _ in wanted}
    except OpenError as error:
        tree = "\n".join(f"  {name + '/':32} {what}" for name, what in dict(wanted).items())
        raise OpenError(f"{error}\nThe configuration expects this tree:\n{data}/\n{tree}") from error

    def dealt(name: str, first: int) -> list[Path]:
        shared = name in config.rained and name in config.clean
        return found[name][first::2] if shared else found[name]

    return {
        RAINY: [path for name in config.rainy for path in found[name]],
        RAINED: [path for name in config.rained for path in dealt(name, 0)],
        CLEAN: [path for name in config.clean for path in dealt(name, 1)],
        "layer": [path for name in config.layers if name in found for path in found[name]],
    }


def _key(data: Path, files: dict[str, list[Path]], config: UnpairedConfig, channels: int, seed: int) -> str:
    named = {
        kind: [(str(path.relative_to(data)), path.stat().st_size) for path in paths]
        for kind, paths in files.items()
    }
    made_of = [named, config.crop_px, config.turned_layers, config.drawn_layers, channels, seed]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def _add_domain(writer: LibraryWriter, kind: str, paths: Sequence[Path], crop_px: int, channels: int) -> None:
    extended = 0
    for path, picture in pictures.readable_planes(paths, channels):
        whole = at_least(picture, crop_px)
        extended += whole is not picture
        writer.add(kind, path.name, whole)
    if extended:
        _log.warning(
            "%d of %d pictures (%s) are smaller than the crop of %d px and were extended by reflection",
            extended,
            len(paths),
            kind,
            crop_px,
        )


def _require_both(library: Library, data: Path, config: UnpairedConfig) -> None:
    rainy = library.of_kind(RAINY) + library.of_kind(RAINED)
    empty = [
        f"rainy ({', '.join((*config.rainy, *config.rained)) or 'no folder named'})" if not rainy else "",
        f"clean ({', '.join(config.clean) or 'no folder named'})" if not library.of_kind(CLEAN) else "",
    ]
    names = " and ".join(filter(None, empty))
    if names:
        raise OpenError(
            f"{data}: no readable picture for the domain {names}; add pictures, or name other folders in "
            "the configuration's [unpaired] table"
        )
    if library.of_kind(RAINED) and not library.of_kind("layer"):
        raise OpenError(
            f"{data}: rain is to be drawn on {', '.join(config.rained)}, but there is no streak layer; "
            "set unpaired.drawn_layers or name a folder in unpaired.layers"
        )
