"""Match the result pictures of another method with a data set's cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from streamderain.errors import OpenError
from trainer.data.layouts import find_sets
from trainer.data.pairing import PairedPicture, list_pictures
from trainer.data.pictures import Codes, read_rgb
from trainer.evaluation.cases import Case
from trainer.evaluation.scores import Clean


def results_clean(folder: Path, dataset: Path, *, split: str | None = None, suffix: str = "") -> Clean:
    """Match the results of another method with a data set, by name.

    A result is named like the rainy picture, else like the clean one, whatever the ending. Where a data set
    has several parts with the same names, the results lie in folders named after the parts.

    Args:
        folder: The results.
        dataset: In a layout that `trainer.data.layouts` knows.
        split: "train", "test" or "val", where the data set has them.
        suffix: What the method appends to names, before the ending.

    Raises:
        OpenError: A picture has no result, or two.
    """
    pairs = [pair for found in find_sets(dataset, split=split) for pair in found.pairs]
    made = _by_name(folder, suffix)
    matched = {(pair.dataset, pair.name): _match(pair, made) for pair in pairs}
    lost = [pair for pair in pairs if not matched[pair.dataset, pair.name]]
    if lost:
        names = ", ".join(f"{pair.dataset}/{pair.name}" for pair in lost[:5])
        raise OpenError(
            f"{folder} holds no result for {len(lost)} of {len(pairs)} pictures, such as {names}; add them, "
            "or say with --suffix what their names end in"
        )
    unclear = next((files for files in matched.values() if len(files) > 1), None)
    if unclear:
        raise OpenError(
            f"{unclear[0]} and {unclear[1]} are results of one picture; keep one, or sort results into "
            "folders named after the parts of the data set"
        )
    results = {key: files[0] for key, files in matched.items()}
    _require_own(results)

    def clean(case: Case) -> Codes:
        if (case.dataset, case.name) not in results:
            raise OpenError(
                f"{case.dataset}/{case.name} is rendered and has no results; name the data set alone"
            )
        return _read(results[case.dataset, case.name], case)

    return clean


def _require_own(results: Mapping[tuple[str, str], Path]) -> None:
    """Raise where one result would serve several pictures: frames of another clip, or clean names of many."""
    owners: dict[Path, tuple[str, str]] = {}
    for key, path in results.items():
        if path in owners:
            one, other = "/".join(owners[path]), "/".join(key)
            raise OpenError(
                f"{path} would be the result of {one} and of {other}; name results like the rainy ones, in "
                "folders named after the parts of the data set"
            )
        owners[path] = key


def _by_name(folder: Path, suffix: str) -> dict[str, list[Path]]:
    """Return results by their stem without the suffix, in lower case."""
    if not folder.is_dir():
        raise OpenError(f"no folder {folder}; name the folder of the results with --dir")
    found: dict[str, list[Path]] = {}
    for path in list_pictures(folder):
        if path.stem.endswith(suffix):
            found.setdefault(path.stem.removesuffix(suffix).lower(), []).append(path)
    return found


def _match(pair: PairedPicture, made: dict[str, list[Path]]) -> list[Path]:
    """Return results by the rainy picture's name, else the clean one's; of several, the fitting ones."""
    for stem in (pair.rainy.stem, pair.clean.stem):
        files = made.get(stem.lower(), [])
        if len(files) > 1:
            wanted = {*PurePosixPath(pair.dataset).parts, *PurePosixPath(pair.name).parts[:-1]}
            best = max(_shared(file, wanted) for file in files)
            files = [file for file in files if _shared(file, wanted) == best]
        if files:
            return files
    return []


def _shared(file: Path, wanted: Iterable[str]) -> int:
    """Return how many of the folders above a file are wanted ones."""
    return len(set(wanted) & set(file.parent.parts))


def _read(path: Path, case: Case) -> Codes:
    rgb = read_rgb(path)
    if rgb.shape != case.rgb.shape:
        height, width, _ = case.rgb.shape
        raise OpenError(
            f"{path} is {rgb.shape[1]}x{rgb.shape[0]} px, but {case.dataset}/{case.name} {width}x{height}; "
            "results must keep the size of the rainy picture"
        )
    return rgb
