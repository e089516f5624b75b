"""Check and write report files, so that none is lost and none replaces a user's file."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from streamderain.addresses import STANDARD_INPUT, is_address
from streamderain.cli.text import printable
from streamderain.errors import ConfigError, MediaError
from streamderain.media.reading.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from streamderain.media.writing.sink import PartialFile
from streamderain.system.files import is_text

STANDARD_OUTPUT = "-"

_MEDIA_SUFFIXES = frozenset(
    {*VIDEO_SUFFIXES, *IMAGE_SUFFIXES}
    | {
        ".wav",
        ".mp3",
        ".m4a",
        ".aac",
        ".ac3",
        ".flac",
        ".opus",
        ".mka",
        ".srt",
        ".vtt",
        ".ass",
        ".ssa",
        ".sup",
    }
)


def check_reports(
    reports: Mapping[str, str | None],
    *,
    sources: Sequence[str] = (),
    targets: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Refuse reports that would cost the user a file, or that would be lost.

    Args:
        reports: Path of each report by the option that names it: `"--json"`, `"--html"`,
            `"--markdown"`, or `"-o"` for a page. `-` is standard output, None nowhere.
        sources: What is read, as the user wrote it.
        targets: What else is written, as the user wrote it.
        overwrite: Whether an earlier report may be replaced.

    Raises:
        ConfigError: A report lies on a source, a target, another report or anything that is no report of its
            kind; it exists and may not be replaced; or its folder does not exist.
    """
    taken = {
        os.path.realpath(target): f"the target {target}" for target in targets if target != STANDARD_OUTPUT
    }
    for source in sources:
        if source != STANDARD_INPUT and not is_address(source):
            taken[os.path.realpath(source)] = f"the source {source}"
    to_output = [option for option, path in reports.items() if path == STANDARD_OUTPUT]
    to_output += ["-o"] if STANDARD_OUTPUT in targets else []
    if len(to_output) > 1:
        names = " and ".join(to_output)
        raise ConfigError(f"{names} cannot all go to standard output; name a file: {to_output[0]}=PATH")
    for option, path in reports.items():
        if path in (None, STANDARD_OUTPUT):
            continue
        place = os.path.realpath(path)
        if place in taken:
            raise ConfigError(f"{option}={path} is {taken[place]} itself; name another file")
        _check_place(Path(path), option, overwrite=overwrite)
        taken[place] = f"the report of {option}"


def write_report(text: str, path: str | None, *, overwrite: bool) -> None:
    """Write a report that `check_reports` passed; it appears whole or not at all.

    Raises:
        ConfigError: It cannot be written.
    """
    if path is None:
        return
    if path == STANDARD_OUTPUT:
        sys.stdout.write(printable(text))
        return
    try:
        if _is_special(Path(path)):
            Path(path).write_text(printable(text), encoding="utf-8")
            return
        file = PartialFile(Path(os.path.realpath(path)), overwrite=overwrite)
        try:
            file.write(printable(text).encode())
            file.keep()
        except BaseException:
            file.discard()
            raise
    except (OSError, MediaError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"the work is done, but its report cannot be written to {path}: {reason}; "
            "check the folder and its free space, or name another"
        ) from error


def _check_place(path: Path, option: str, *, overwrite: bool) -> None:
    shown = f"{option}={path}"
    if path.is_dir():
        raise ConfigError(f"{shown} is a folder; name a file in it")
    if path.suffix.lower() in _MEDIA_SUFFIXES:
        raise ConfigError(
            f"{shown} is named like a media file; a report needs another name, such as report.json"
        )
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"the folder of {shown} does not exist; make it first (mkdir -p)")
    if not path.exists() or _is_special(path):
        return
    if not overwrite:
        raise ConfigError(f"{shown} exists already; name another file, or add --overwrite")
    if not is_text(path):
        raise ConfigError(
            f"{shown} exists and is no text, so that no report replaces it, not even with --overwrite; "
            "name another file"
        )


def _is_special(path: Path) -> bool:
    """Return whether a path is a device or a pipe, such as /dev/null, which nothing can be lost from."""
    return path.exists() and not path.is_file() and not path.is_dir()
