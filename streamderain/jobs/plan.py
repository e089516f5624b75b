"""Pair the files of a source with their targets, checked before any work."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from streamderain.errors import ConfigError
from streamderain.media.reading.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, SourceSpec
from streamderain.media.writing.target import check_targets, is_folder, is_there, parse_target
from streamderain.models import AUTO, PICTURE_MODEL, VIDEO_MODEL, chosen_model
from streamderain.options import EngineOptions, ReadOptions, RunOptions

_FALLBACK_SUFFIX = ".mkv"
"""Of results whose source has an extension that no writer knows: Matroska holds nearly everything."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One file of a run.

    Attributes:
        spec: What is read.
        targets: What is still to be written; nothing where all is there.
        there: Targets that are there already and are left out.
    """

    spec: SourceSpec
    targets: list[str]
    there: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """All files of a run.

    Attributes:
        files: In the order they are worked on.
        notes: What the user should know of the run as a whole.
        made: Folders that were made for the results, the outermost first.
    """

    files: tuple[Planned, ...]
    notes: tuple[str, ...] = ()
    made: tuple[Path, ...] = ()

    def remove_empty_folders(self) -> None:
        """Remove the folders that were made and hold nothing."""
        for folder in reversed(self.made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def plan_run(
    sources: Sequence[str],
    specs: Sequence[SourceSpec],
    targets: Sequence[str],
    options: RunOptions,
    *,
    is_done: Callable[[SourceSpec, Sequence[str]], bool] = lambda spec, targets: False,
) -> Plan:
    """Pair every file of a source with its targets.

    Args:
        sources: As the user wrote them.
        specs: What they name.
        targets: As the user wrote them. A folder takes files under their own names, but the pictures of a
            numbered run as pictures.
        options: All options of the run.
        is_done: Tells of a file and its targets whether these are known to be whole.

    Raises:
        ConfigError: There is no target, one cannot be, or one would cost a file.
        OpenError: A target's folder is missing or cannot be written to.
    """
    many = _holds_several(sources, specs) or (options.read.recursive and Path(sources[0]).is_dir())
    if not targets:
        raise ConfigError("no target was given; say where the result goes with -o TARGET")
    if not all(target.strip() for target in targets):
        raise ConfigError("a target is empty; was it an empty variable of the shell?")
    if many and "-" in targets:
        raise ConfigError(f"the source holds {len(specs)} files, which cannot all go to standard output")
    folders = {target for target in targets if many or (specs[0].kind != "sequence" and is_folder(target))}
    files = []
    for spec in specs:
        wanted = [_in_folder(target, spec) if target in folders else target for target in targets]
        skips = options.encode.skip_existing
        done = is_done(spec, wanted)
        there = tuple(target for target in wanted if done or (skips and is_there(target)))
        files.append(Planned(spec, [target for target in wanted if target not in there], there))
    places = set(folders)
    if options.read.recursive:
        places |= {str(Path(target).parent) for one in files for target in one.targets if folders}
    plan = Plan(tuple(files), tuple(_idle_options(specs, options.read)), _make_folders(places, several=many))
    try:
        for planned in plan.files:
            if planned.targets:
                paths = [path for path in planned.spec.paths if str(path) != "-"]
                check_targets(paths, planned.targets, options.encode)
    except BaseException:
        plan.remove_empty_folders()
        raise
    return plan


def choose_model(plan: Plan, options: EngineOptions) -> tuple[EngineOptions, str]:
    """Choose the model that `auto` stands for by what there is to do.

    Args:
        plan: All files of the run.
        options: The model that was asked for, among others.

    Returns:
        The options with the model's name, and why it is that one, in words: nothing where it was asked for,
        or where it is what suits video and there is nothing else.
    """
    kinds = {planned.spec.kind for planned in plan.files if planned.targets}
    model = chosen_model(options.model, kinds)
    if options.model != AUTO or "still" not in kinds:
        why = ""
    elif model == PICTURE_MODEL:
        why = f"{model}: it takes more of the rain out of single pictures; {VIDEO_MODEL} is quicker"
    else:
        why = f"{model}: there is video among the pictures; {PICTURE_MODEL} takes more rain out of pictures"
    return replace(options, model=model), why


def _holds_several(sources: Sequence[str], specs: Sequence[SourceSpec]) -> bool:
    """Return whether results go into a folder: for several files, or a folder even if it holds one."""
    folder = Path(sources[0]).is_dir() and specs[0].kind != "sequence"
    return len(specs) > 1 or folder


def _in_folder(folder: str, spec: SourceSpec) -> str:
    """Return the target in a folder: named like the source, where such a file can be written."""
    target = Path(folder) / spec.name
    try:
        parse_target(str(target))
    except ConfigError:
        target = target.with_suffix(_FALLBACK_SUFFIX)
    return str(target)


def _make_folders(folders: set[str], *, several: bool) -> tuple[Path, ...]:
    made: list[Path] = []
    for folder in map(Path, sorted(folders)):
        named_like_a_file = several and folder.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES
        if not folder.is_dir() and (folder.exists() or named_like_a_file):
            raise ConfigError(
                f"the source holds several files, so the target must be a folder, not {folder}; "
                "give a folder's name, such as clean/"
            )
        missing = [place for place in (*reversed(folder.parents), folder) if not place.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"the target folder {folder} cannot be made: {error.strerror}") from error
        made += missing
    return tuple(made)


def _idle_options(specs: Sequence[SourceSpec], read: ReadOptions) -> list[str]:
    """Return options that do nothing for these sources, in words."""
    kinds = {spec.kind for spec in specs}
    idle = []
    if read.stills and "still" not in kinds:
        idle.append("--stills does nothing: the source holds no pictures")
    if read.image_rate_fps != ReadOptions().image_rate_fps and "sequence" not in kinds:
        idle.append("--image-rate does nothing: the source holds no numbered run of pictures")
    if kinds == {"still"} and read.duration_s is not None:
        idle.append("-t does nothing: pictures have no length")
    if kinds == {"still"} and read.deinterlace:
        idle.append("--deinterlace does nothing: pictures are progressive")
    return idle
