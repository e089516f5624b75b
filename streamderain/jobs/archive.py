"""Work on an archive: folders within folders, by several processes at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

from streamderain.errors import ConfigError
from streamderain.events import Event, Observer, Progress, Skipped
from streamderain.jobs.report import RunReport, merged
from streamderain.media.writing.target import is_folder
from streamderain.options import RunOptions
from streamderain.system.process import AtOnce

Run = Callable[..., RunReport]
"""`streamderain.api.run`."""


def archive_of(sources: Sequence[str], targets: Sequence[str], options: RunOptions) -> Path | None:
    """Return the target folder of an archive, where the ledger of several processes lies; None without."""
    if not options.read.recursive:
        return None
    if len(sources) != 1 or not Path(sources[0]).is_dir():
        raise ConfigError("--recursive is for one folder; name the folder that holds all others")
    if len(targets) != 1 or not is_folder(targets[0]):
        raise ConfigError("--recursive needs one target, a folder, such as clean/")
    return None if options.work.shard is not None else Path(targets[0])


def run_at_once(
    run: Run,
    sources: list[str],
    targets: list[str],
    options: RunOptions,
    tell: Observer,
    stop: threading.Event,
) -> RunReport:
    """Work on an archive with several processes, each on a file of its own: the ledger keeps them apart.

    Args:
        run: What each of them calls: a function of a module.
        sources: What was asked for: one folder.
        targets: One folder.
        options: Of the run; `work.jobs` says how many processes there are.
        tell: Receives the events of all, but for the progress within files.
        stop: Ends all of them.
    """
    jobs = options.work.jobs
    threads = options.engine.threads or max(1, len(os.sched_getaffinity(0)) // jobs)
    alone = replace(
        options, work=replace(options.work, jobs=1), engine=replace(options.engine, threads=threads)
    )
    reports: list[RunReport] = []
    with AtOnce(
        _events_of_run, (run, sources, targets, alone), count=jobs, doing="derained an archive"
    ) as all_of:
        for event in all_of.values(stop):
            if isinstance(event, RunReport):
                reports.append(event)
            # Files are worked on side by side: what each of them tells of its frames would only confuse.
            elif not isinstance(event, Progress | Skipped):
                tell(event)
    if not reports:
        return RunReport((), "", "", "", "", "", not_reached=tuple(sources))
    return merged(reports)


def _events_of_run(
    run: Run, sources: list[str], targets: list[str], options: RunOptions
) -> Iterator[Event | RunReport]:
    """Yield the events of a run, then its report."""
    told: SimpleQueue[Event | RunReport | BaseException] = SimpleQueue()

    def work() -> None:
        try:
            told.put(run(sources[0], *targets, options=options, observer=told.put))
        except BaseException as error:
            told.put(error)

    threading.Thread(target=work, name="archive", daemon=True).start()
    while True:
        event = told.get()
        if isinstance(event, BaseException):
            raise event
        yield event
        if isinstance(event, RunReport):
            return
