"""The command `streamderain compare`: show two versions of a clip as a page or a video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from streamderain.cli.outputs import check_reports, write_report
from streamderain.cli.run import run_options
from streamderain.cli.tables import print_table, telling
from streamderain.errors import ConfigError
from streamderain.measure.compare import Comparison, Layout, compare, stacked, summary, to_json
from streamderain.media.reading.sources import VIDEO_SUFFIXES
from streamderain.media.writing.sink import PartialFile
from streamderain.media.writing.target import check_targets
from streamderain.options import EncodeOptions, ReadOptions

PAGE_S = 20.0
"""So much of the clips goes into a page unless -t says more: it holds all its pictures."""


def compare_command(
    *,
    clips: tuple[str, ...],
    target: str,
    wipe: bool,
    json_path: str | None,
    overwrite: bool,
    quiet: bool,
    **arguments: Any,
) -> int:
    """Run the command and return its exit code."""
    page = Path(target).suffix.lower() in (".html", ".htm")
    _check(clips, target, page=page, wipe=wipe)
    if page:
        check_reports({"-o": target, "--json": json_path}, sources=clips, overwrite=overwrite)
    else:
        check_targets(clips, [target], EncodeOptions(overwrite=overwrite))
        check_reports({"--json": json_path}, sources=clips, targets=[target], overwrite=overwrite)
    if page and arguments["duration_s"] is None:
        arguments["duration_s"] = PAGE_S
    read = run_options(arguments).read
    with telling(quiet=quiet) as tell:

        def told(done: int) -> None:
            tell("comparing", done, 0)

        found = (
            _page(clips, target, read, told, overwrite=overwrite)
            if page
            else _video(clips, target, read, told, wipe=wipe, overwrite=overwrite)
        )
    if not quiet:
        print_table(summary(found), to_stderr=json_path == "-")
        click.echo(f"{Path(target).absolute()}", err=json_path == "-")
    write_report(json.dumps(to_json(found), indent=1) + "\n", json_path, overwrite=overwrite)
    return 0


def _check(clips: tuple[str, ...], target: str, *, page: bool, wipe: bool) -> None:
    if len(clips) not in (2, 3):
        raise ConfigError(
            f"a comparison takes two clips and maybe a reference, not {len(clips)}: "
            "streamderain compare A B [REFERENCE] -o PAGE.html"
        )
    if "-" in clips:
        raise ConfigError("a comparison reads files; a pipe cannot be read twice")
    if not page and Path(target).suffix.lower() not in VIDEO_SUFFIXES:
        raise ConfigError(f"-o {target} is neither a page nor a video; name a file.html or a file.mp4")
    if page and wipe:
        raise ConfigError("--wipe is for videos; a page has a divider that you drag")


def _page(
    clips: tuple[str, ...], target: str, read: ReadOptions, tell: Any, *, overwrite: bool
) -> Comparison:
    from streamderain.measure.pages import compare_page  # slow to import

    found, video = stacked(clips, read=read, tell=tell)
    write_report(compare_page(found, video), target, overwrite=overwrite)
    return found


def _video(
    clips: tuple[str, ...], target: str, read: ReadOptions, tell: Any, *, wipe: bool, overwrite: bool
) -> Comparison:
    """Write under a partial name first: what is there under the right one is whole."""
    layout: Layout = "wipe" if wipe else "side"
    file = PartialFile(Path(target).resolve(), overwrite=overwrite)
    try:
        found = compare(clips, file.partial, layout=layout, read=read, tell=tell)
        file.keep()
    except BaseException:
        file.discard()
        raise
    return found
