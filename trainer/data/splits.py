"""Find training and test splits of data sets: by the names of folders, and by lists in text files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from streamderain.errors import OpenError
from trainer.data.pictures import PICTURE_SUFFIXES

SPLIT_WORDS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val",
}  # fmt: skip


def split_of(name: str) -> str | None:
    """Return the split that a folder or list is named after: "train", "test", "val", or None.

    A word of the name must say so: "Dataset_Testing_Synthetic" is a test split, "Test100" is none.
    """
    words = re.split(r"[_\- ]", name.lower())
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)


def choose_split(folder: Path, there: Iterable[str], split: str | None) -> None:
    """Check the choice of a split.

    Raises:
        OpenError: The split is not there, or none was chosen and there are several.
    """
    names = sorted(set(there))
    if split in names or (split is None and len(names) <= 1):
        return
    if split is None:
        raise OpenError(
            f"{folder} holds the splits {', '.join(names)}; choose one, or name the folder below it"
        )
    held = ", ".join(names) or "no splits"
    raise OpenError(f"{folder} has no split {split!r}: it holds {held}; choose what is there")


def listed_pairs(folder: Path, split: str | None) -> list[tuple[Path, Path]]:
    """Return the rainy and clean files of a list of pairs, as SPA-Data has one: two paths in each line.

    The paths begin with a slash in SPA-Data's lists, but are relative to the list.

    Returns:
        Sorted by rainy file; nothing where there is no list of pairs.

    Raises:
        OpenError: A file of the list is missing, or a split must be chosen.
    """
    lists = {path: rows for path in sorted(folder.glob("*.txt")) if (rows := _rows(path, columns=2))}
    if lists and (split is not None or len(lists) > 1):
        splits = {path: split_of(path.stem) for path in lists}
        choose_split(folder, (found for found in splits.values() if found), split)
        lists = {path: rows for path, rows in lists.items() if split in (None, splits[path])}
    rows = [row for found in lists.values() for row in found]
    pairs = sorted((folder / rainy.lstrip("/"), folder / clean.lstrip("/")) for rainy, clean in rows)
    lost = [str(path) for pair in pairs for path in pair if not path.is_file()]
    if lost:
        raise OpenError(
            f"{folder}: {len(lost)} files of its list are missing, such as {lost[0]}; correct the list"
        )
    return pairs


def stems_of_split(folder: Path, stems: set[str], split: str | None) -> set[str]:
    """Return the stems of a split that is given as a list of names (train.txt, test.txt) beside the folders.

    Args:
        folder: Where the lists lie.
        stems: Those of all rainy pictures.
        split: Which one; None where there are no lists.

    Raises:
        OpenError: The split is not there, or must be chosen, or it names a picture that is not there.
    """
    lists = {
        found: rows
        for path in sorted(folder.glob("*.txt"))
        if (found := split_of(path.stem)) and (rows := _rows(path, columns=1))
    }
    choose_split(folder, lists, split)
    if split is None:
        return stems
    wanted = {Path(row[0]).stem for row in lists[split]}
    if wanted - stems:
        lost = ", ".join(sorted(wanted - stems)[:3])
        raise OpenError(f"{folder}: the {split} list names {lost}, which is not there; correct the list")
    return wanted


def _rows(path: Path, *, columns: int) -> list[list[str]]:
    """Return the lines of a list of pictures, split in words; none where the file is something else."""
    text = path.read_text(encoding="utf-8", errors="replace")
    rows = [line.split() for line in text.splitlines() if line.strip()]
    # Lists of names often leave the ending away; lists of pairs never do.
    fits = all(
        len(row) == columns
        and (columns == 1 or all(Path(word).suffix.lower() in PICTURE_SUFFIXES for word in row))
        for row in rows
    )
    return rows if fits else []
