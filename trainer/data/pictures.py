"""Read pictures as codes, and pass luma through JPEG: Pillow only, for machines without PyAV."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamderain.errors import OpenError
from streamderain.measure.metrics import matlab_luma

Codes = NDArray[np.uint8]

PICTURE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
CLIP_SUFFIXES = {".mp4", ".mkv", ".mov", ".avi", ".webm"}
_log = logging.getLogger(__name__)


def list_files(folder: Path, suffixes: set[str]) -> list[Path]:
    """Return the files of a folder with one of the suffixes, sorted by name.

    Raises:
        OpenError: The folder is missing or holds no such file.
    """
    if not folder.is_dir():
        raise OpenError(
            f"no folder {folder}; check the data folder, or name other folders in a configuration of your own"
        )
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    if not files:
        raise OpenError(f"{folder} holds no file ending in {', '.join(sorted(suffixes))}")
    return files


def read_rgb(path: Path) -> Codes:
    """Read a picture as (height, width, 3) uint8 RGB.

    Raises:
        OpenError: The file cannot be read as a picture.
    """
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise OpenError(f"{path} cannot be read as a picture ({error}); replace or remove it") from error


def read_luma(path: Path) -> Codes:
    """Read a picture as (height, width) uint8 studio-range luma codes (MATLAB's rgb2ycbcr)."""
    return luma_codes(read_rgb(path))


def luma_codes(rgb: Codes) -> Codes:
    """(height, width, 3) uint8 RGB to (height, width) uint8 studio-range codes of MATLAB's rgb2ycbcr."""
    return np.rint(matlab_luma(rgb)).astype(np.uint8)


def read_gray(path: Path) -> Codes:
    """Read a picture as (height, width) uint8 full-range gray, for streak layers."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L"))
    except (OSError, SyntaxError, ValueError) as error:
        raise OpenError(f"{path} cannot be read as a picture ({error}); replace or remove it") from error


def readable(
    paths: Iterable[Path], read: Callable[[Path], Codes] = read_luma
) -> Iterator[tuple[Path, Codes]]:
    """Yield (path, picture) of every picture that can be read; name and count the others in the log.

    Args:
        paths: Pictures.
        read: `read_luma` or `read_rgb`.
    """
    skipped = 0
    for path in paths:
        try:
            yield path, read(path)
        except OpenError as error:
            skipped += 1
            _log.warning("skipped %s", error)
    if skipped:
        _log.warning("skipped %d unreadable pictures in all", skipped)


def readable_planes(paths: Iterable[Path], channels: int) -> Iterator[tuple[Path, Codes]]:
    """Yield (path, planes) of every picture that can be read; see `readable` and `planes_of`."""
    for path, rgb in readable(paths, read_rgb):
        yield path, planes_of(rgb, channels)


def planes_of(rgb: Codes, channels: int) -> Codes:
    """Return (1, height, width) luma codes or (3, height, width) R, G, B of a picture (height, width, 3)."""
    return luma_codes(rgb)[None] if channels == 1 else np.ascontiguousarray(rgb.transpose(2, 0, 1))


def through_jpeg(picture: Codes, *, quality: int) -> Codes:
    """Encode a picture, (height, width) luma or (height, width, 3) RGB, as JPEG and decode it again."""
    target = BytesIO()
    Image.fromarray(picture).save(target, "jpeg", quality=quality)
    return np.asarray(Image.open(target))
