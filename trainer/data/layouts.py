"""Find the rainy and the clean pictures of a data set: the layouts of the known deraining sets.

What is known of each set is a row of `LAYOUTS`; the first row that fits a folder wins. Sets below `train`
and `test` folders, and folders that gather several sets, are found too.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamderain.errors import OpenError
from trainer.data.pairing import NAMES, WORDS, NameRule, PairedPicture, PairedSet, list_pictures, pair_up
from trainer.data.side_by_side import rainy_half
from trainer.data.splits import SPLIT_WORDS, choose_split, listed_pairs, split_of, stems_of_split

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """One way in which data sets of two files per pair lie on disk.

    Attributes:
        sets: Names of sets that are given out like this.
        tree: What a user sees of it in an error message.
        rainy: Folders of the rainy pictures, of which the first that is there counts; "." is the root itself.
            Case does not matter.
        clean: Likewise for the clean ones.
        names: How names go together; in the root itself, what these do not match is left alone.
    """

    sets: str
    tree: str
    rainy: tuple[str, ...]
    clean: tuple[str, ...]
    names: tuple[NameRule, ...] = NAMES


_GT = ("gt", "ground_truth", "ground truth", "groundtruth", "clean", "target")
LAYOUTS = (
    Layout("Rain13K, RealRain-1k, SynRain-13k", "input/1.png  target/1.png", ("input",), ("target", *_GT)),
    Layout(
        "Rain200L/H, Rain800 unpacked",
        "rain/X2/norain-1x2.png or rain/rain-1.png  norain/norain-1.png",
        ("rain/x2", "rainx2", "rain"),
        ("norain",),
    ),
    Layout("Rain100L/H", "rainy/rain-001.png  norain/norain-001.png", ("rainy",), ("norain",)),
    Layout("Rain100L/H of PReNet", "rainy/rain-001.png  norain-001.png", ("rainy",), (".",), (WORDS,)),
    Layout(
        "Rain1400 (DDN), Rain12600",
        "rainy_image/1_1.jpg  ground_truth/1.jpg",
        ("rainy_image", "rainy image"),
        _GT,
    ),
    Layout("SPA-Data, test", "rain/001.png  gt/001gt.png", ("rain", "rainy", "lq"), _GT),
    Layout(
        "SPA-Data, training",
        "real_world/001/a.png  real_world_gt/001/a.png",
        ("real_world",),
        ("real_world_gt",),
    ),
    Layout("Rain200L/H of SPDNet", "data/1.png  label/1.png", ("data",), ("label",)),
    Layout("RainTrainL/H", "rain-1.png  norain-1.png", (".",), (".",), ((r"rain([-_]?\d+)", r"norain\1"),)),
    Layout("Rain12", "001_in.png  001_GT.png", (".",), (".",), ((r"(.+)_in", r"\1_gt"),)),
)
_FRAMES = Layout("NTURain", "a1_Rain/00001.jpg  a1_GT/00001.jpg (frames in their order)", (), ())
_OTHERS = (
    Layout("SPA-Data with its list", "NAME.txt, each line: /real_world/a.png /real_world_gt/b.png", (), ()),
    Layout("Rain800, DID-MDN", "1.jpg (the rainy and the clean picture side by side)", (), ()),
)
_SEQUENCE = re.compile(r"(.+?)_rain(?:_\d+)?")
_DEPTH = 5
"""How many folders down from the root a set may begin."""


def find_pairs(folder: Path, *, split: str | None = None) -> list[PairedPicture]:
    """Return every pair of a folder, of all its sets; arguments and errors as in `find_sets`."""
    return [pair for found in find_sets(folder, split=split) for pair in found.pairs]


def find_sets(
    folder: Path, *, split: str | None = None, leave_out: Sequence[str] = (), needed: bool = True
) -> list[PairedSet]:
    """Find the data sets of a folder.

    Args:
        folder: A data set, or a folder of several.
        split: "train", "test" or "val", where the folder holds more than one of them.
        leave_out: Names of folders right below that hold something else.
        needed: Whether finding nothing is an error.

    Returns:
        Sets in the order of their folders, each with at least one pair. Folders that fit nothing are named in
        the log.

    Raises:
        OpenError: The folder is missing or of no known layout, a rainy picture has no clean one, or the
            folder holds several splits and none of them, or another, was named.
    """
    if not folder.is_dir():
        raise OpenError(f"no folder {folder}; check the path of the data set")
    found = list(_Search(folder, frozenset(leave_out)).sets(folder, (), split))
    if needed and not found:
        raise OpenError(f"{folder} is laid out like no known data set.\n{trees(folder)}")
    return found


class _Search:
    """A walk from a root down to the folders where sets begin."""

    def __init__(self, root: Path, leave_out: frozenset[str]) -> None:
        self._root, self._leave_out = root, leave_out

    def sets(self, folder: Path, parts: tuple[str, ...], split: str | None) -> Iterator[PairedSet]:
        """Yield the sets of a folder, else of those below it; `parts` lie between root and folder."""
        here = self._here(folder, parts, split)
        below, split = ([], None) if here else self._below(folder, split)
        yield from here
        if not (here or below) and folder != self._root:
            _log.warning("%s fits no layout of a data set and is left out", folder)
        for path in below if len(parts) < _DEPTH else []:
            # 'test' alone says nothing in a table; 'test_syn' does.
            inner = parts if path.name.lower() in SPLIT_WORDS else (*parts, path.name)
            yield from self.sets(path, inner, split)

    def _here(self, folder: Path, parts: tuple[str, ...], split: str | None) -> list[PairedSet]:
        name = "/".join(parts) or self._root.name
        pairs = _listed(folder, name, split) or _in_folders(folder, name, split)
        if pairs:
            return [PairedSet(name, tuple(pairs))]
        joined = _joined(folder, name)
        return [PairedSet(name, tuple(joined))] if joined else _sequences(folder, parts)

    def _below(self, folder: Path, split: str | None) -> tuple[list[Path], str | None]:
        """Return the folders to go on with, and the split that is still to be found in them."""
        below = [path for path in sorted(folder.iterdir()) if path.is_dir()]
        if folder == self._root:
            below = [path for path in below if path.name not in self._leave_out]
        splits = {path: found for path in below if (found := split_of(path.name))}
        if splits:
            choose_split(folder, splits.values(), split)
        if not splits or split is None:
            return below, split
        return [path for path in splits if splits[path] == split], None


def _listed(folder: Path, name: str, split: str | None) -> list[PairedPicture]:
    return [
        PairedPicture(rainy, clean, rainy.relative_to(folder).as_posix(), name)
        for rainy, clean in listed_pairs(folder, split)
    ]


def _in_folders(folder: Path, name: str, split: str | None) -> list[PairedPicture]:
    below = _folders(folder)
    for layout in LAYOUTS:
        roots = (_first(folder, below, layout.rainy), _first(folder, below, layout.clean))
        if roots[0] is None or roots[1] is None:
            continue
        pairs = _pairs(layout, folder, (roots[0], roots[1]), name)
        if pairs:
            wanted = stems_of_split(folder, {pair.rainy.stem for pair in pairs}, split)
            return [pair for pair in pairs if pair.rainy.stem in wanted]
    return []


def _pairs(layout: Layout, folder: Path, roots: tuple[Path, Path], name: str) -> list[PairedPicture]:
    rainy, clean = (list_pictures(root, deep=root != folder) for root in roots)
    if roots[0] == folder:
        patterns = [re.compile(pattern, re.IGNORECASE) for pattern, _ in layout.names]
        rainy = [path for path in rainy if any(pattern.fullmatch(path.stem) for pattern in patterns)]
    found, alone = pair_up(rainy, clean, roots, layout.names)
    if not rainy or not clean or (folder in roots and not found):
        return []
    if alone:
        raise OpenError(
            f"{folder}: {len(alone)} of {len(rainy)} rainy pictures have no clean one, such as "
            f"{', '.join(str(path.relative_to(folder)) for path in alone[:3])} (layout of {layout.sets}); "
            f"add or remove pictures.\n{trees(folder)}"
        )
    return [PairedPicture(path, found[path], path.relative_to(roots[0]).as_posix(), name) for path in rainy]


def _folders(folder: Path) -> dict[str, Path]:
    """Return the folders below a folder by their names in lower case."""
    return {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}


def _first(root: Path, below: dict[str, Path], names: Sequence[str]) -> Path | None:
    """Return the first of some folders that is there."""
    for name in names:
        first, _, second = name.partition("/")
        found = root if first == "." else below.get(first)
        if found is not None and second:
            found = _folders(found).get(second)
        if found is not None:
            return found
    return None


def _sequences(folder: Path, parts: tuple[str, ...]) -> list[PairedSet]:
    below = _folders(folder)
    found = []
    for name, rainy in below.items():
        match = _SEQUENCE.fullmatch(name)
        clean = below.get(f"{match[1]}_gt") if match else None
        if clean is not None:
            full = "/".join((*parts, rainy.name))
            pairs = _pairs(_FRAMES, folder, (rainy, clean), full)
            found += [PairedSet(full, tuple(pairs), moving=True)] if pairs else []
    return found


def _joined(folder: Path, name: str) -> list[PairedPicture]:
    paths = list_pictures(folder, deep=False)
    half = rainy_half(paths)
    return [] if half is None else [PairedPicture(path, path, path.name, name, half) for path in paths]


def trees(folder: Path) -> str:
    """Return the tree that was found and the trees that are known, for error messages."""
    found = []
    for path in sorted(folder.iterdir())[:8]:
        inner = sorted(p.name for p in path.iterdir())[:3] if path.is_dir() else []
        found.append(f"  {path.name}{'/' if path.is_dir() else ''}  {' '.join(inner)}".rstrip())
    known = [f"  {layout.sets:36} {layout.tree}" for layout in (*LAYOUTS, _FRAMES, *_OTHERS)]
    below = ["Expected one of these, where train/ and test/ may lie above:", *known]
    return "\n".join(["Found:", *(found or ["  nothing"]), *below])
