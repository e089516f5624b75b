"""Pair the files of rainy and clean pictures by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamderain.errors import OpenError
from trainer.data.pictures import PICTURE_SUFFIXES, Codes, read_rgb
from trainer.data.side_by_side import Half, halves

NameRule = tuple[str, str]
"""Pattern of a rainy picture's stem, and what makes its clean picture's stem of it; case does not matter."""

WORDS: NameRule = (r"(?:no)?rain([-_]?\d+)(?:x\d)?", r"norain\1")
NAMES: tuple[NameRule, ...] = (
    (r"(.+)", r"\1"),
    WORDS,
    (r"(.+)x\d", r"\1"),
    (r"(.+)_\d+", r"\1"),
    (r"(.+)", r"\1gt"),
    (r"(.+)", r"\1_gt"),
    (r"(.+)_(?:rain|rainy|in|input)", r"\1_gt"),
    (r"(.+)_(?:rain|rainy|in|input)", r"\1_clean"),
    (r"(.+)_(?:rain|rainy|in|input)", r"\1"),
    (r"([^-]+)-.+", r"\1"),
)
"""Tried in turn until every rainy picture has a clean one."""


@dataclass(frozen=True)
class PairedPicture:
    """A rainy picture and the same scene without rain.

    Attributes:
        rainy: File of the rainy picture.
        clean: File of the clean one; the same file where both lie side by side in it.
        name: The rainy file below its set's rainy folder, with slashes.
        dataset: Name of the set.
        rainy_half: "left" or "right" for joined pictures, else None.
    """

    rainy: Path
    clean: Path
    name: str
    dataset: str
    rainy_half: Half | None = None

    def read_rgb(self) -> tuple[Codes, Codes]:
        """Return the rainy and the clean picture, (height, width, 3) uint8 RGB.

        Raises:
            OpenError: A file cannot be read, or the two differ in size.
        """
        if self.rainy_half is not None:
            left, right = halves(read_rgb(self.rainy), self.rainy)
            return (left, right) if self.rainy_half == "left" else (right, left)
        rainy, clean = read_rgb(self.rainy), read_rgb(self.clean)
        if rainy.shape != clean.shape:
            sizes = " and ".join(f"{picture.shape[1]}x{picture.shape[0]}" for picture in (rainy, clean))
            raise OpenError(f"{self.rainy} and {self.clean} differ in size, {sizes}; replace one of them")
        return rainy, clean


@dataclass(frozen=True)
class PairedSet:
    """One data set: one row of a table of scores.

    Attributes:
        name: Name of its folder, with those above it up to where the search began.
        pairs: Sorted by rainy file.
        moving: The pictures are the frames of one clip in their order, so that neighbours belong together.
    """

    name: str
    pairs: tuple[PairedPicture, ...]
    moving: bool = False


def list_pictures(folder: Path, *, deep: bool = True) -> list[Path]:
    """Return the pictures of a folder, sorted; those of the folders below it too, if `deep`."""
    paths = folder.rglob("*") if deep else folder.iterdir()
    return sorted(path for path in paths if path.suffix.lower() in PICTURE_SUFFIXES)


def pair_up(
    rainy: Sequence[Path], clean: Iterable[Path], roots: tuple[Path, Path], rules: Sequence[NameRule]
) -> tuple[dict[Path, Path], list[Path]]:
    """Find each rainy picture's clean one by its name and the folders above it.

    Args:
        rainy: Rainy files.
        clean: Clean files.
        roots: The folders of the rainy and of the clean pictures.
        rules: Tried in turn; the first that serves every picture is taken, else the one that serves most.

    Returns:
        Clean file of each rainy one, and the rainy files without any.
    """
    known: dict[tuple[str, str], Path] = {}
    for path in clean:
        known.setdefault(_key(path, roots[1], path.stem), path)
    best: dict[Path, Path] = {}
    for rule in rules:
        found = _matches(rainy, known, roots[0], rule)
        best = max(best, found, key=len)
        if len(best) == len(rainy):
            break
    return best, [path for path in rainy if path not in best]


def _matches(
    rainy: Sequence[Path], known: Mapping[tuple[str, str], Path], root: Path, rule: NameRule
) -> dict[Path, Path]:
    found = {}
    for path in rainy:
        stem = re.fullmatch(rule[0], path.stem, re.IGNORECASE)
        partner = known.get(_key(path, root, stem.expand(rule[1]))) if stem else None
        if partner is not None:
            found[path] = partner
    return found


def _key(path: Path, root: Path, stem: str) -> tuple[str, str]:
    return path.parent.relative_to(root).as_posix().lower(), stem.lower()
