"""The Python API: run a whole source.

Everything here takes the same options as the command line and raises the errors of
`errors`.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from streamderain.errors import ConfigError
from streamderain.events import Observer
from streamderain.jobs import segmented
from streamderain.jobs.archive import archive_of, run_at_once
from streamderain.jobs.files import FilesJob
from streamderain.jobs.ledger import Ledger, is_done_in
from streamderain.jobs.plan import choose_model, plan_run
from streamderain.jobs.report import FileResult, RunReport
from streamderain.media.reading.sources import SourceSpec, find_sources
from streamderain.options import RunOptions, parse_shard
from streamderain.pipeline.protocols import Tap
from streamderain.runtime.registry import open_engine

__all__ = ["FileResult", "RunReport", "run"]


def run(
    source: str | Path | Sequence[str | Path],
    *targets: str | Path,
    options: RunOptions | None = None,
    observer: Observer | None = None,
    stop: threading.Event | None = None,
    tap: Tap | None = None,
) -> RunReport:
    """Take the rain out of a source and write the result to every target.

    Args:
        source: A file, a folder of videos or images, a glob, `"-"` for standard input, or several of these.
        targets: Files, or a folder where the source is one; `"-"` writes Matroska to standard output.
        options: All choices; the defaults suit most.
        observer: Receives events on the calling thread while the run goes on.
        stop: Set it, from any thread or a signal handler, to end early: what is not whole then is kept,
            playable, as `NAME.partial.EXT`. A live source has no end of its own: what was read of it is
            whole.
        tap: Looks at the frames of the first video stream before and after.

    Returns:
        What was done, file by file. In a folder, a file that fails is reported and the others go on.

    Raises:
        StreamderainError: The run could not start, its only file failed, or the disk is full. Its `report`
            tells what was done, its `kept` where partial results lie.
    """
    options = RunOptions() if options is None else options
    if not isinstance(options, RunOptions):
        raise ConfigError(f"options must be RunOptions, not {type(options).__name__}")
    stop = stop or threading.Event()
    if not isinstance(source, str | Path | Sequence):
        raise ConfigError(f"a source must be a path or several, not {type(source).__name__}")
    sources = [_text(source)] if isinstance(source, str | Path) else [_text(one) for one in source]
    if not sources or "" in sources:
        raise ConfigError("a source is empty; was it an empty variable of the shell?")
    names = [_text(target) for target in targets]
    tell = observer or (lambda event: None)
    archive = archive_of(sources, names, options)
    specs = find_sources(
        sources[0] if len(sources) == 1 else sources, options.read, beside=list(map(Path, names))
    )
    if options.work.shard is not None:
        first, count = parse_shard(options.work.shard)
        specs = specs[first::count]
        if not specs:
            return RunReport((), "", "", "", "", "")
    plan = plan_run(
        sources, specs, names, options, is_done=functools.partial(_is_done, options=options, archive=archive)
    )
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(plan.remove_empty_folders)
        ledger = None
        if archive is not None:
            ledger = cleanup.enter_context(Ledger(archive))
            ledger.note_plan({planned.spec.name: planned.spec.size_bytes for planned in plan.files})
            if options.work.jobs > 1:
                return run_at_once(run, sources, names, options, tell, stop)
        chosen, why = choose_model(plan, options.engine)
        options = replace(options, engine=chosen)
        engine = cleanup.enter_context(open_engine(chosen))
        engine.reason = "; ".join(filter(None, (engine.reason, why)))
        return FilesJob(plan, options, engine, tell, stop, tap, ledger).run()


def _is_done(spec: SourceSpec, targets: Sequence[str], *, options: RunOptions, archive: Path | None) -> bool:
    """Return whether earlier runs are known to have made a file's targets whole."""
    if segmented.is_whole(spec, targets, options):
        return True
    overwrite = options.encode.overwrite
    return archive is not None and is_done_in(archive, spec.name, targets[0], overwrite=overwrite)


def _text(path: str | Path) -> str:
    if not isinstance(path, str | Path):
        raise ConfigError(f"a source or target must be a path, as str or Path, not {type(path).__name__}")
    return str(path)
