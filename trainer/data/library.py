"""Decode a data folder once into a library of memory-mapped pictures, clips and streak layers.

Luma for the networks of luma, R, G and B (of pictures alone) for those of RGB.

Decoding costs more than a training step, so it happens once: the library is one flat file of uint8 samples
and an index. It lies outside the repository and can be thrown away. Its key is the configuration's [data]
table, the seed and the names and sizes of the source files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamderain.errors import OpenError
from streamderain.measure.rain import RainParameters, RainSequence
from streamderain.system.files import written_whole
from trainer.config import DataConfig
from trainer.data import pictures
from trainer.data.layouts import find_pairs
from trainer.data.pairing import PairedPicture
from trainer.data.rain_mix import remix
from trainer.data.real_rain import moving_streaks

Codes = NDArray[np.uint8]
_LAYER_SIZE = (384, 512)
_REAL_FRAMES = 600
"""Most frames that are read of a rainy video."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One array of the library.

    Attributes:
        kind: "clip", "coded" (a rainy clip after H.264), "still", "rainy", "target" (a pair), "layer", "real"
            (a rainy clip without a clean version), "moving layer" (its streaks); of unpaired domains "domain
            rainy", "domain rained" or "domain clean".
        name: Source file.
        offset: First sample in the flat file.
        shape: (frames, height, width); of the domains, and of pictures in RGB, (channels, height, width).
        partner: Index of the clean entry, for coded clips and rainy stills; else -1.
        start: First frame in the partner that corresponds to frame 0 here.
    """

    kind: str
    name: str
    offset: int
    shape: tuple[int, int, int]
    partner: int = -1
    start: int = 0


class Library:
    """Read-only access to a library folder.

    Args:
        folder: Made by `open_library`.
    """

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        self.entries = [Entry(**{**item, "shape": tuple(item["shape"])}) for item in index]
        self._samples = np.memmap(folder / "samples.u8", np.uint8, "r")

    def array(self, entry: Entry) -> Codes:
        """Return the entry's samples, (frames, height, width) uint8, mapped, read-only."""
        count = int(np.prod(entry.shape))
        return self._samples[entry.offset : entry.offset + count].reshape(entry.shape)

    def counts(self) -> dict[str, int]:
        """Return how many entries of each kind there are."""
        return dict(Counter(entry.kind for entry in self.entries))

    def of_kind(self, kind: str) -> list[Entry]:
        """Return all entries of a kind, in the order they were made."""
        return [entry for entry in self.entries if entry.kind == kind]

    def arrays(self, kind: str) -> list[Codes]:
        """Return the first plane of every entry of a kind, (height, width) uint8, mapped, read-only."""
        return [self.array(entry)[0] for entry in self.of_kind(kind)]


def open_library(data: Path, cache: Path, config: DataConfig, *, seed: int, channels: int = 1) -> Library:
    """Open the library of a data folder, making it first where there is none.

    Args:
        data: Folder that holds the configuration's folders.
        cache: Folder for libraries; each has its own folder there.
        config: The configuration's [data] table.
        seed: Seed of everything that is drawn into the library.
        channels: Of its pictures: 1 for luma, 3 for RGB.

    Raises:
        OpenError: A folder is missing or empty.
    """
    pairs = _require_folders(data, config)
    folder = cache / _key(data, config, pairs, seed, channels)
    if not (folder / "index.json").is_file():
        _log.info("making the library %s (once)", folder)
        with LibraryWriter(folder) as writer:
            _Maker(data, writer, config, seed, channels).make(pairs)
    return Library(folder)


def _key(data: Path, config: DataConfig, pairs: Sequence[PairedPicture], seed: int, channels: int) -> str:
    paths = [
        path
        for name in (*config.clips, *config.stills, *config.layers, *config.real)
        for path in pictures.list_files(data / name, pictures.PICTURE_SUFFIXES | pictures.CLIP_SUFFIXES)
    ]
    for name in config.pairs:
        own = [pair for pair in pairs if pair.rainy.is_relative_to(data / name)]
        sides = ((pair.rainy for pair in own), (pair.clean for pair in own))
        paths += [path for side in sides for path in sorted(set(side))]
    files = [
        (str(path.relative_to(data) if path.is_relative_to(data) else path), path.stat().st_size)
        for path in paths
    ]
    # The shares only decide what is drawn from the library, not what lies in it.
    made_of = [
        config.coded_segments,
        config.coded_frames,
        config.drawn_layers,
        config.turned_layers,
        seed,
        files,
        *([channels] if channels > 1 else []),
        *([{"remixed": config.remixed_layers}] if config.remixed_layers else []),
    ]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def _require_folders(data: Path, config: DataConfig) -> list[PairedPicture]:
    """Return the pairs of the configuration's folders, once it is sure that everything else is there too."""
    images, videos = pictures.PICTURE_SUFFIXES, pictures.CLIP_SUFFIXES
    wanted = [
        *((name, videos, "rain-free clips") for name in config.clips),
        *((name, videos, "rainy video") for name in config.real),
        *((name, images, "rain-free pictures") for name in config.stills),
        *((name, images, "gray streak layers") for name in config.layers),
    ]
    paired = [
        *((f"{name}/input", "rainy pictures") for name in config.pairs),
        *((f"{name}/target", "the same without rain, of the same names") for name in config.pairs),
    ]
    try:
        for name, suffixes, _ in wanted:
            pictures.list_files(data / name, suffixes)
        return [pair for name in config.pairs for pair in find_pairs(data / name)]
    except OpenError as error:
        folders = [*((name, what) for name, _, what in wanted), *paired]
        tree = "\n".join(f"  {name + '/':32} {what}" for name, what in folders)
        raise OpenError(f"{error}\nThe configuration expects this tree:\n{data}/\n{tree}") from error


class LibraryWriter:
    """Writes a library: samples first, the index last and at once, so that half a library is never opened.

    A context manager; leaving it without an error makes the library appear.

    Args:
        folder: The library's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries: list[Entry] = []
        self._offset = 0

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = (self._folder / "samples.partial").open("wb")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is not None:
            return
        (self._folder / "samples.partial").replace(self._folder / "samples.u8")
        entries = [dataclasses.asdict(entry) for entry in self._entries]
        with written_whole(self._folder / "index.json") as index:
            index.write_text(json.dumps(entries), encoding="utf-8")

    def add(self, kind: str, name: str, samples: Codes, *, partner: int = -1, start: int = 0) -> int:
        """Append one array, (planes, height, width) or (height, width); see `Entry`. Returns its index."""
        samples = samples if samples.ndim == 3 else samples[None]
        shape = (samples.shape[0], samples.shape[1], samples.shape[2])
        self._entries.append(Entry(kind, name, self._offset, shape, partner, start))
        self._file.write(np.ascontiguousarray(samples).tobytes())
        self._offset += samples.size
        return len(self._entries) - 1


def add_layers(
    writer: LibraryWriter,
    rng: np.random.Generator,
    paths: Sequence[Path],
    *,
    turned: int,
    drawn: int,
    remixed: int = 0,
) -> list[Codes]:
    """Write streak layers: the given ones, some turned and scaled, procedural ones, and mixtures of all.

    Args:
        writer: Where to.
        rng: Decides all that is drawn.
        paths: Gray pictures.
        turned: How many to add of the second kind; none without given layers.
        drawn: How many to add of the third.
        remixed: How many to add of the last; see `trainer.data.rain_mix`.

    Returns:
        The given layers.
    """
    given = [(path.name, pictures.read_gray(path)) for path in paths]
    for name, layer in given:
        writer.add("layer", name, layer)
    made = [layer for _, layer in given]
    for index in range(turned if given else 0):
        name, layer = given[int(rng.integers(len(given)))]
        made.append(_turned(rng, layer))
        writer.add("layer", f"{name} turned {index}", made[-1])
    for index in range(drawn):
        made.append(_drawn(rng))
        writer.add("layer", f"drawn {index}", made[-1])
    for index in range(remixed if made else 0):
        writer.add("layer", f"remixed {index}", remix(rng, made[int(rng.integers(len(made)))]))
    return [layer for _, layer in given]


class _Maker:
    """Fills a library from a data folder."""

    def __init__(
        self, data: Path, writer: LibraryWriter, config: DataConfig, seed: int, channels: int
    ) -> None:
        self._data, self._config, self._channels = data, config, channels
        self._rng = np.random.default_rng([seed, 0x6C6962])
        self._add = writer.add
        self._writer = writer

    def make(self, pairs: Iterable[PairedPicture]) -> None:
        layers = self._layers()
        self._clips(layers)
        self._stills()
        self._pairs(pairs)
        self._reals()

    def _reals(self) -> None:
        if not self._config.real:
            return
        from trainer.data import clips  # needs PyAV

        for folder in self._config.real:
            for path in pictures.list_files(self._data / folder, pictures.CLIP_SUFFIXES):
                frames = clips.read_clip(path, limit=_REAL_FRAMES)
                self._add("real", path.name, frames)
                streaks = moving_streaks(frames)
                if streaks is not None:
                    self._add("moving layer", path.name, streaks)
                how = "moves" if streaks is None else "stands still: its streaks are layers too"
                _log.info("%s: %d frames, the camera %s", path.name, len(frames), how)

    def _layers(self) -> list[Codes]:
        paths = [
            path
            for folder in self._config.layers
            for path in pictures.list_files(self._data / folder, pictures.PICTURE_SUFFIXES)
        ]
        config = self._config
        return add_layers(
            self._writer,
            self._rng,
            paths,
            turned=config.turned_layers,
            drawn=config.drawn_layers,
            remixed=config.remixed_layers,
        )

    def _clips(self, layers: list[Codes]) -> None:
        if not self._config.clips:
            return
        from trainer.data import clips  # needs PyAV, which a machine that trains from pictures may lack

        for folder in self._config.clips:
            for path in pictures.list_files(self._data / folder, pictures.CLIP_SUFFIXES):
                frames = clips.read_clip(path)
                frames = frames[:, : frames.shape[1] // 8 * 8, : frames.shape[2] // 8 * 8]
                clean = self._add("clip", path.name, frames)
                _log.info("%s: %d frames", path.name, len(frames))
                for start, coded in self._coded_segments(frames, layers):
                    self._add("coded", path.name, coded, partner=clean, start=start)

    def _coded_segments(self, frames: Codes, layers: list[Codes]) -> Iterator[tuple[int, Codes]]:
        from trainer.data import clips  # needs PyAV

        length = min(self._config.coded_frames, len(frames))
        for _ in range(self._config.coded_segments):
            start = int(self._rng.integers(len(frames) - length + 1))
            segment = frames[start : start + length]
            chosen = [layers[i] for i in self._rng.integers(len(layers), size=2)]
            parameters = random_parameters(self._rng)
            seed = int(self._rng.integers(2**31))
            rain = RainSequence(parameters, seed, segment.shape[2], segment.shape[1], layers=chosen)
            rainy = np.stack([rain.apply_to_codes(frame, i) for i, frame in enumerate(segment)])
            yield start, clips.through_h264(rainy.astype(np.uint8), crf=int(self._rng.integers(17, 31)))

    def _stills(self) -> None:
        for folder in self._config.stills:
            paths = pictures.list_files(self._data / folder, pictures.PICTURE_SUFFIXES)
            for path, planes in pictures.readable_planes(paths, self._channels):
                self._add("still", path.name, planes)

    def _pairs(self, pairs: Iterable[PairedPicture]) -> None:
        for pair in pairs:
            try:
                rainy, clean = (pictures.planes_of(rgb, self._channels) for rgb in pair.read_rgb())
            except OpenError as error:
                _log.warning("skipped pair %s: %s", pair.name, error)
                continue
            partner = self._add("target", pair.clean.name, clean)
            self._add("rainy", pair.rainy.name, rainy, partner=partner)


def random_parameters(rng: np.random.Generator) -> RainParameters:
    """Rain of any look: drizzle to downpour, short to long exposure, adding or veiling; nothing is tuned."""
    length_px = float(np.exp(rng.uniform(np.log(5.0), np.log(60.0))))
    cover = float(np.exp(rng.uniform(np.log(0.01), np.log(0.25))))
    width_px = float(rng.uniform(1.0, 3.6))
    return RainParameters(
        density_per_mpx=cover * 1e6 / (length_px * width_px),
        length_px=length_px,
        length_spread=float(rng.uniform(0.2, 0.7)),
        width_px=width_px,
        peak=float(np.exp(rng.uniform(np.log(0.06), np.log(0.55)))),
        angle_deg=float(np.clip(rng.normal(0.0, 16.0), -60.0, 60.0)),
        angle_spread_deg=float(rng.uniform(0.3, 5.0)),
        angle_drift_deg=float(rng.uniform(0.0, 8.0)),
        light=float(rng.uniform(0.65, 1.0)),
        screen=float(rng.uniform(0.0, 1.0)),
        near_density_per_mpx=float(rng.choice([0.0, rng.uniform(0.0, 40.0)])),
        near_width_px=float(rng.uniform(4.0, 14.0)),
        layer_gain=float(rng.choice([0.0, rng.uniform(0.15, 0.9)])),
        layers_per_frame=1,
        noise=float(rng.choice([0.0, rng.uniform(0.0, 0.01)])),
    )


def _drawn(rng: np.random.Generator) -> Codes:
    """Return a procedural layer at full contrast: the gain is drawn again when it is used."""
    parameters = dataclasses.replace(random_parameters(rng), peak=0.5, layer_gain=0.0, noise=0.0)
    height, width = _LAYER_SIZE
    alpha = RainSequence(parameters, int(rng.integers(2**31)), width, height).opacity(0)
    codes: Codes = np.rint(255.0 * alpha).astype(np.uint8)
    return codes


def _turned(rng: np.random.Generator, layer: Codes) -> Codes:
    """Return a given layer turned by any wind's angle, scaled 0.5 to 2 and perhaps out of focus."""
    height, width = _LAYER_SIZE
    tiled = Image.fromarray(np.pad(layer, ((200, 400), (200, 400)), mode="reflect"))
    zoom = float(np.exp(rng.uniform(np.log(0.5), np.log(2.0))))
    angle = np.deg2rad(rng.uniform(-35.0, 35.0))
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    middle_x, middle_y = tiled.width / 2, tiled.height / 2
    matrix = (
        cos, -sin, middle_x - cos * width / 2 + sin * height / 2,
        sin, cos, middle_y - sin * width / 2 - cos * height / 2,
    )  # fmt: skip
    turned = tiled.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(turned)


def open_pseudo(folder: Path, cache: Path) -> Library:
    """Open the library of what `trainer.run.pseudo.make_pseudo` made, making it first where there is none.

    Args:
        folder: The target of `trainer.run.pseudo.make_pseudo`.
        cache: Folder for libraries.

    Raises:
        OpenError: A folder in it is missing or empty.
    """
    names = [path.name for path in pictures.list_files(folder / "input", pictures.PICTURE_SUFFIXES)]
    sizes = [[(folder / kind / name).stat().st_size for kind in ("input", "target")] for name in names]
    key = hashlib.sha256(json.dumps(["pseudo", names, sizes]).encode()).hexdigest()[:16]
    if not (cache / key / "index.json").is_file():
        with LibraryWriter(cache / key) as writer:
            for name in names:
                partner = writer.add("target", name, pictures.read_luma(folder / "target" / name))
                luma = pictures.read_luma(folder / "input" / name)
                writer.add("rainy", name, luma, partner=partner)
                writer.add("layer", name, pictures.read_gray(folder / "layers" / name))
    return Library(cache / key)
