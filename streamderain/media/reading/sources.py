"""Find and open sources: a file, the files of a folder or glob, numbered images, a pipe or an address."""

from __future__ import annotations

import glob
import os
import re
import threading
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from streamderain.addresses import HIDDEN, STANDARD_INPUT, display_name, is_address, redact_address
from streamderain.errors import OpenError
from streamderain.events import Incidents
from streamderain.frame import NO_LEAD, Lead
from streamderain.media.network import is_live_scheme
from streamderain.media.reading.file import FileSource
from streamderain.media.reading.images import ImageSequence, size_of
from streamderain.media.reading.live import PATIENCE_S, LiveSource
from streamderain.media.reading.piece import Piece
from streamderain.media.track import MediaSource
from streamderain.options import ReadOptions

_IMAGES = ".png .jpg .jpeg .jpe .tif .tiff .bmp .webp .jp2 .j2k .exr .dpx .tga .ppm .pgm .pbm .pnm .sgi .avif"
_VIDEOS = (
    ".mp4 .mkv .mov .avi .m4v .webm .ts .mts .m2ts .mpg .mpeg .vob .flv .wmv .asf .3gp .3g2 .ogv .ogg .mxf "
    ".y4m .h264 .264 .h265 .265 .hevc .av1 .ivf .obu .m2v .m1v .mjpeg .mjpg .gif .apng .nut .dv .rm .rmvb "
    ".f4v .mod .tod .insv .lrv .divx .amv .wtv .bik .qt"
)
IMAGE_SUFFIXES = frozenset(_IMAGES.split())
VIDEO_SUFFIXES = frozenset(_VIDEOS.split())

_NUMBER = re.compile(r"(\d+)")
_LAST_NUMBER = re.compile(r"^(.*?)(\d+)(\D*)$")
_GLOB = re.compile(r"[*?[]")


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One thing to derain.

    Attributes:
        kind: A video file, a numbered run of images, or a still image.
        name: File name that the result gets inside a target folder; unique among the specs of a source.
        paths: The file, or the images of a run in order; `-` for standard input.
        address: The URL, with its credentials, where the source is one.
    """

    kind: Literal["video", "sequence", "still"]
    name: str
    paths: tuple[Path, ...]
    address: str = field(default="", repr=False)

    @property
    def place(self) -> str:
        """Full path of the file, or of the folder of a run of images; an address without its secrets."""
        if self.address:
            return redact_address(self.address)
        if str(self.paths[0]) == STANDARD_INPUT:
            return display_name(STANDARD_INPUT)
        path = self.paths[0].absolute()
        return str(path.parent if self.kind == "sequence" else path)

    @property
    def size_bytes(self) -> int:
        """Size of its files; 0 where nobody knows."""
        if self.address:
            return 0
        return sum(path.stat().st_size for path in self.paths if path.is_file())


def find_sources(
    source: str | Sequence[str], options: ReadOptions, *, beside: Collection[Path] = ()
) -> list[SourceSpec]:
    """Return what a source names, in natural order (`clip2` before `clip10`).

    Several sources are files as a shell expands a pattern, which are seen as a folder of just these files, or
    any other sources one after the other.

    In a folder or glob, images that are numbered without large holes and have one size are one video;
    others, and all of them with `options.stills`, stand alone. Files of unknown kinds are passed over.

    Args:
        source: As the user wrote it.
        options: How it is read.
        beside: Folders that are not searched: results lie there.

    Raises:
        OpenError: Nothing is there, or nothing that could be video or image.
    """
    if not isinstance(source, str):
        return _several(source, options)
    if source == STANDARD_INPUT:
        return [SourceSpec("video", "stdin.mkv", (Path(source),))]
    if is_address(source):
        return [SourceSpec("video", _address_name(source), (Path(redact_address(source)),), source)]
    path = Path(source)
    if path.is_char_device() and path.name.startswith("video"):
        return [SourceSpec("video", f"{path.name}.mkv", (path,), f"v4l2://{path.absolute()}")]
    if path.is_dir() and options.recursive:
        return _tree(path, options, {folder.resolve() for folder in beside})
    if path.is_dir():
        return _specs_of(_files_in(path), options, place=f"the folder {source}", folder=path)
    if _GLOB.search(source) and not path.exists():
        found = glob.glob(source, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute patterns
        files = [path for path in map(Path, found) if path.is_file()]
        if not files:
            raise OpenError(f"no file matches {source}; check the pattern (now in {Path.cwd()})")
        return _specs_of(files, options, place=source, folder=Path(source).parent)
    return [_single(path)]


def open_source(
    spec: SourceSpec,
    options: ReadOptions,
    lead: Lead = NO_LEAD,
    stop: threading.Event | None = None,
    *,
    incidents: Incidents | None = None,
    piece: Piece | None = None,
) -> MediaSource:
    """Open what `find_sources` found.

    Args:
        spec: What is opened.
        options: What is read of it.
        lead: How many frames around a piece (`-ss`, `-t`) are read as well, marked as not to be written.
        stop: Once it is set, a pipe or a live source ends, also while it is being opened.
        incidents: Is told what a live source goes on after.
        piece: What is read of a file; see `FileSource`.

    Raises:
        OpenError: Not there, not readable, or nothing with video in it.
        DecodeError: It has video, but no picture of it can be decoded.
        UnsupportedFormat: Interlaced without `deinterlace`, encrypted, or pictures of an unknown kind.
        ConfigError: The clip begins behind the end.
    """
    if spec.kind == "sequence":
        return ImageSequence(spec.paths, name=spec.name, options=options, lead=lead)
    live = is_live_scheme(spec.address) if options.live is None else options.live
    if spec.address and live:
        return LiveSource(spec.address, options, stop, incidents=incidents)
    source = FileSource(spec.address or str(spec.paths[0]), options, lead, stop, piece=piece)
    if spec.address and options.live is None and source.is_open_playlist:
        # Only its text tells: there is no mark of its end.
        source.be_patient(PATIENCE_S)
        return LiveSource(spec.address, options, stop, incidents=incidents, opened=source)
    return source


def natural_key(path: Path) -> tuple[object, ...]:
    """Return a sort key that orders numbers by value."""
    parts = _NUMBER.split(str(path))
    return tuple((part.lower(), part) if index % 2 == 0 else int(part) for index, part in enumerate(parts))


def _several(sources: Sequence[str], options: ReadOptions) -> list[SourceSpec]:
    paths = [Path(source) for source in sources]
    if all(path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES for path in paths):
        return _specs_of(paths, options, place="the images", folder=paths[0].parent)
    return _with_unique_names([spec for source in sources for spec in find_sources(source, options)])


def _single(path: Path) -> SourceSpec:
    return SourceSpec("still" if path.suffix.lower() in IMAGE_SUFFIXES else "video", path.name, (path,))


def _address_name(source: str) -> str:
    place = redact_address(source).split("?")[0].partition("://")[2].rstrip("/")
    stem = place.rpartition("/")[2]
    if HIDDEN in stem or "/" not in place:
        return "stream.mkv"  # nothing but the host, or nothing that may be shown
    return stem if Path(stem).suffix else f"{stem}.mkv"


def _files_in(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    except PermissionError as error:
        raise OpenError(f"the folder {folder} may not be read; check its permissions") from error


def _tree(root: Path, options: ReadOptions, beside: Collection[Path]) -> list[SourceSpec]:
    """Return the files of a folder and of all folders within, named by their places in it."""
    specs = []
    for place, folders, names in os.walk(root):
        here = Path(place)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and (here / name).resolve() not in beside
        )
        files = [here / name for name in names if not name.startswith(".")]
        wanted = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES]
        if not wanted:
            continue
        inside = here.relative_to(root)
        for spec in _specs_of(wanted, options, place=place, folder=here):
            # A run of images takes its folder's place.
            is_folder = spec.kind == "sequence" and inside.name == Path(spec.name).stem
            parent = inside.parent if is_folder else inside
            specs.append(replace(spec, name=str(parent / spec.name)))
    if not specs:
        raise OpenError(f"the folder {root} and those within hold no videos and no images")
    return sorted(_with_unique_names(specs), key=lambda spec: natural_key(Path(spec.name)))


def _specs_of(files: list[Path], options: ReadOptions, *, place: str, folder: Path) -> list[SourceSpec]:
    files = sorted(files, key=natural_key)
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    if not images and not videos:
        found = f"{len(files)} files of other kinds" if files else "no files"
        raise OpenError(
            f"{place} holds no videos and no images ({found}); folders inside it are searched with "
            "--recursive"
        )
    specs = [_single(path) for path in videos]
    runs, alone = ([], images) if options.stills else _runs(images)
    specs += [SourceSpec("sequence", _run_name(run, folder, len(runs)), tuple(run)) for run in runs]
    specs += [_single(path) for path in alone]
    return _with_unique_names(specs)


def _runs(images: list[Path]) -> tuple[list[list[Path]], list[Path]]:
    """Part images into numbered runs of one size, and those that stand alone."""
    groups: dict[tuple[Path, str, str, str], list[tuple[int, Path]]] = defaultdict(list)
    alone = []
    for path in images:
        match = _LAST_NUMBER.match(path.stem)
        if match is None:
            alone.append(path)
        else:
            key = (path.parent, match[1], match[3], path.suffix.lower())
            groups[key].append((int(match[2]), path))
    runs = []
    for members in groups.values():
        members.sort(key=lambda member: member[0])
        paths = [path for _, path in members]
        if _is_run([number for number, _ in members]) and _have_one_size(paths):
            runs.append(paths)
        else:
            alone += paths
    return runs, sorted(alone, key=natural_key)


def _have_one_size(paths: list[Path]) -> bool:
    """Return whether images have one size; damaged ones, which have none, do not part a run."""
    return len({size for size in map(size_of, paths) if size is not None}) == 1


def _is_run(numbers: list[int]) -> bool:
    """Return whether numbers count up: all different, and at least half of those between are there."""
    span = numbers[-1] - numbers[0] + 1
    return len(numbers) > 1 and len(set(numbers)) == len(numbers) and 2 * len(numbers) >= span


def _run_name(run: list[Path], folder: Path, runs: int) -> str:
    match = _LAST_NUMBER.match(run[0].stem)
    prefix = match[1].strip("_-. ") if match else ""
    place = folder if folder.name and not _GLOB.search(folder.name) else run[0].parent
    return f"{(prefix if runs > 1 else '') or place.resolve().name or 'images'}.mp4"


def _with_unique_names(specs: list[SourceSpec]) -> list[SourceSpec]:
    """Give results of equal names (from different folders) the folder's name, then a number, in front."""
    taken: set[str] = set()
    unique = []
    for spec in specs:
        name, number = spec.name, 1
        if name in taken:
            name = f"{spec.paths[0].resolve().parent.name}_{spec.name}"
        while name in taken:
            number += 1
            name = f"{number}_{spec.name}"
        taken.add(name)
        unique.append(replace(spec, name=name))
    return unique
