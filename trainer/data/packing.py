"""Pack the data of one timed GPU run: training pictures re-encoded, validation pairs lossless.

Machines with a GPU are often lent bare and for minutes: what travels must be small. Training pictures become
WebP of the best quality that fits; both domains get the same, so that no critic learns to tell encoders
apart. Nothing is scaled: rain of half the width is other rain.
"""

from __future__ import annotations

import io
import json
import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from streamderain.errors import ConfigError, OpenError
from streamderain.system.files import written_whole
from trainer.config import UnpairedConfig
from trainer.data import pictures
from trainer.data.layouts import find_pairs

QUALITIES = (95, 90, 85, 80, 72, 64)
"""WebP qualities that are tried, best first."""

TRAIN, VALIDATION = "train", "validation"
_COPIES = "copies.json"
_log = logging.getLogger(__name__)


def pack(
    data: Path, validation: Sequence[Path], target: Path, config: UnpairedConfig, *, max_bytes: int
) -> int:
    """Write what an unpaired run needs into one zip file.

    Args:
        data: Folder that holds the configuration's folders.
        validation: Data sets of pairs, in any layout that `trainer.data.layouts` knows, of different names.
        target: The file; appears whole or not at all.
        config: The configuration's [unpaired] table.
        max_bytes: Most bytes of the file.

    Returns:
        The quality that the training pictures have.

    Raises:
        OpenError: A folder is missing or empty, a picture cannot be read, or a data set has no pairs.
        ConfigError: It does not fit even at the lowest quality.
    """
    judged, copies = _lossless(validation)
    layers = config.layers if config.rained else ()
    folders = dict.fromkeys((*config.rainy, *config.rained, *config.clean, *layers))
    train = [
        (f"{TRAIN}/{folder}/{path.stem}.webp", picture)
        for folder in folders
        for path, picture in pictures.readable(
            pictures.list_files(data / folder, pictures.PICTURE_SUFFIXES),
            pictures.read_gray if folder in layers else pictures.read_rgb,
        )
    ]
    size = 0
    for quality in QUALITIES:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as file:
            file.writestr(_COPIES, json.dumps(copies))
            for name, content in judged.items():
                file.writestr(name, content)
            for name, picture in train:
                file.writestr(name, _webp(picture, quality=quality))
        size = packed.getbuffer().nbytes
        _log.info("quality %d: %.1f MB", quality, size / 1e6)
        if size <= max_bytes:
            with written_whole(target) as partial:
                partial.write_bytes(packed.getvalue())
            return quality
    raise ConfigError(
        f"{len(train)} training and {len(judged)} validation pictures take {size / 1e6:.1f} MB at quality "
        f"{QUALITIES[-1]}, where {max_bytes / 1e6:.1f} MB are allowed; name fewer folders in the "
        "configuration's [unpaired] table, fewer data sets, or allow more"
    )


def unpack(packed: Path, folder: Path) -> tuple[Path, Path]:
    """Unpack what `pack` wrote.

    Args:
        packed: The file.
        folder: Where it goes.

    Returns:
        The folder of the training data and that of the validation data.

    Raises:
        OpenError: The file is missing or damaged.
    """
    try:
        with zipfile.ZipFile(packed) as file:
            file.extractall(folder)
        copies = json.loads((folder / _COPIES).read_text(encoding="utf-8"))
    except (OSError, zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise OpenError(
            f"{packed} cannot be unpacked ({error}); make it again with `python -m trainer pack`"
        ) from error
    for name, source in copies.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((folder / source).read_bytes())
    return folder / TRAIN, folder / VALIDATION


def _lossless(validation: Sequence[Path]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return files by name, and further names of equal files: two sets often share a clean side."""
    files: dict[str, bytes] = {}
    copies: dict[str, str] = {}
    names: dict[bytes, str] = {}
    for dataset in validation:
        for number, pair in enumerate(find_pairs(dataset)):
            for side, picture in zip(("input", "target"), pair.read_rgb(), strict=True):
                name = f"{VALIDATION}/{dataset.resolve().name}/{side}/{number:04d}.webp"
                content = _webp(picture)
                if content in names:
                    copies[name] = names[content]
                else:
                    names[content] = name
                    files[name] = content
    return files, copies


def _webp(picture: pictures.Codes, *, quality: int | None = None) -> bytes:
    """Return a picture as WebP, without loss where no quality is given."""
    target = io.BytesIO()
    Image.fromarray(picture).save(target, "webp", lossless=quality is None, quality=quality or 80, method=4)
    return target.getvalue()
