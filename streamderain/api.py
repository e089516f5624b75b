"""The Python API: run a whole source, walk over its derained frames, or derain arrays.

Everything here takes the same options as the command line and raises the errors of
`errors`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter
from typing import Any, Literal

from streamderain.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_PARTIAL,
    ConfigError,
    OutputFull,
    StreamderainError,
)
from streamderain.events import Complete, Event, Failed, Observer, Progress, Skipped
from streamderain.jobs import segmented
from streamderain.jobs.job import Job
from streamderain.jobs.ledger import Ledger, Row, done_in
from streamderain.jobs.plan import Plan, Planned, choose_model, plan_run
from streamderain.jobs.segmented import SegmentedJob
from streamderain.media.reading.sources import SourceSpec, find_sources
from streamderain.media.track import CannotBeCut
from streamderain.media.writing.target import is_folder
from streamderain.options import RunOptions, parse_shard
from streamderain.pipeline.protocols import Tap
from streamderain.runtime.base import Engine
from streamderain.runtime.registry import open_engine
from streamderain.system.process import AtOnce

FileResult = Complete | Failed | Skipped


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did.

    Attributes:
        files: One `Complete`, `Failed` or `Skipped` per file, in the order they were
            worked on.
        engine: Name of the engine.
        device: What it ran on.
        precision: Precision it ran at.
        model: Name of the model.
        model_sha256: Checksum of its weights.
        not_reached: Full paths of the files that the run did not come to.
    """

    files: tuple[FileResult, ...]
    engine: str
    device: str
    precision: str
    model: str
    model_sha256: str
    not_reached: tuple[str, ...] = ()

    @property
    def interrupted(self) -> bool:
        """Whether the run was stopped before all files were done."""
        return any(file.interrupted for file in self._done) or bool(self.not_reached and not self._failed)

    @property
    def exit_code(self) -> int:
        """0, the first failure's code, 130 after an interrupt, or 7 where a source was damaged."""
        codes = [file.exit_code for file in self._failed]
        codes += [result.exit_code for file in self._done for result in file.results if result.exit_code]
        if codes:
            return codes[0]
        if self.interrupted:
            return EXIT_INTERRUPTED
        return EXIT_PARTIAL if any(file.damage for file in self._done) else EXIT_OK

    @property
    def _done(self) -> list[Complete]:
        return [file for file in self.files if isinstance(file, Complete)]

    @property
    def _failed(self) -> list[Failed]:
        return [file for file in self.files if isinstance(file, Failed)]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-able values: totals first, then every file."""
        done = self._done
        frames_out = sum(file.frames_out for file in done)
        elapsed_s = sum(file.elapsed_s for file in done)
        head = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[1:]}
        return {
            "exit_code": self.exit_code,
            "interrupted": self.interrupted,
            "frames_in": sum(file.frames_in for file in done),
            "frames_out": frames_out,
            "skipped": sum(file.skipped for file in done),
            "dropped": sum(file.dropped for file in done),
            "passed": sum(file.passed for file in done),
            "elapsed_s": round(elapsed_s, 3),
            "fps": round(frames_out / elapsed_s, 2) if elapsed_s else 0.0,
            **head,
            "warnings": [warning for file in done for warning in file.warnings],
            "files": [
                {"result": type(file).__name__.lower(), **dataclasses.asdict(file)} for file in self.files
            ],
        }


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
    archive = _archive_of(sources, names, options)
    specs = find_sources(
        sources[0] if len(sources) == 1 else sources, options.read, beside=list(map(Path, names))
    )
    if options.work.shard is not None:
        first, count = parse_shard(options.work.shard)
        specs = specs[first::count]
        if not specs:
            return RunReport((), "", "", "", "", "")
    is_done = done_in(archive) if archive is not None else lambda name: False
    plan = plan_run(sources, specs, names, options, is_done=is_done)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(plan.remove_empty_folders)
        ledger = None
        if archive is not None:
            ledger = cleanup.enter_context(Ledger(archive))
            ledger.note_plan({planned.spec.name: planned.spec.size_bytes for planned in plan.files})
            if options.work.jobs > 1:
                return _run_at_once(sources, names, options, tell, stop)
        chosen, why = choose_model(plan, options.engine)
        options = replace(options, engine=chosen)
        engine = cleanup.enter_context(open_engine(chosen))
        engine.reason = "; ".join(filter(None, (engine.reason, why)))
        return _Running(plan, options, engine, tell, stop, tap, ledger).run()


def _archive_of(sources: Sequence[str], targets: Sequence[str], options: RunOptions) -> Path | None:
    """Return the target folder of an archive, where the ledger of several processes lies; None without."""
    if not options.read.recursive:
        return None
    if len(sources) != 1 or not Path(sources[0]).is_dir():
        raise ConfigError("--recursive is for one folder; name the folder that holds all others")
    if len(targets) != 1 or not is_folder(targets[0]):
        raise ConfigError("--recursive needs one target, a folder, such as clean/")
    return None if options.work.shard is not None else Path(targets[0])


def _run_at_once(
    sources: list[str], targets: list[str], options: RunOptions, tell: Observer, stop: threading.Event
) -> RunReport:
    """Work on an archive with several processes, each on a file of its own: the ledger keeps them apart."""
    jobs = options.work.jobs
    threads = options.engine.threads or max(1, len(os.sched_getaffinity(0)) // jobs)
    alone = replace(
        options, work=replace(options.work, jobs=1), engine=replace(options.engine, threads=threads)
    )
    reports: list[RunReport] = []
    with AtOnce(_events_of_run, (sources, targets, alone), count=jobs, doing="derained an archive") as all_of:
        for event in all_of.values(stop):
            if isinstance(event, RunReport):
                reports.append(event)
            # Files are worked on side by side: what each of them tells of its frames would only confuse.
            elif not isinstance(event, Progress | Skipped):
                tell(event)
    if not reports:
        return RunReport((), "", "", "", "", "", not_reached=tuple(sources))
    return _merged(reports)


def _events_of_run(
    sources: list[str], targets: list[str], options: RunOptions
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


def _merged(reports: Sequence[RunReport]) -> RunReport:
    """Return one report of processes that shared an archive."""
    files: dict[str, FileResult] = {}
    for report in reports:
        for file in report.files:
            if not isinstance(file, Skipped) or file.path not in files:
                files[file.path] = file
    not_reached = set.intersection(*(set(report.not_reached) for report in reports)) - set(files)
    return replace(reports[0], files=tuple(files.values()), not_reached=tuple(sorted(not_reached)))


def _row_of(result: FileResult | None, spec: SourceSpec) -> Row | None:
    """Return what the ledger keeps of a file; None where it is not finished."""
    size = spec.size_bytes
    if isinstance(result, Failed):
        return Row(spec.name, "failed", error=result.message, exit_code=result.exit_code, bytes=size)
    if not isinstance(result, Complete) or result.interrupted:
        return None
    worst = next((target for target in result.results if target.exit_code), None)
    state: Literal["done", "failed"] = "done" if worst is None else "failed"
    error, code = ("", 0) if worst is None else (worst.error, worst.exit_code)
    frames, took_s = result.frames_out, result.elapsed_s
    return Row(spec.name, state, "", error, code, bytes=size, frames=frames, elapsed_s=took_s)


def _text(path: str | Path) -> str:
    if not isinstance(path, str | Path):
        raise ConfigError(f"a source or target must be a path, as str or Path, not {type(path).__name__}")
    return str(path)


class _Running:
    """Works through a plan."""

    def __init__(
        self,
        plan: Plan,
        options: RunOptions,
        engine: Engine,
        tell: Observer,
        stop: threading.Event,
        tap: Tap | None,
        ledger: Ledger | None,
    ) -> None:
        self._ledger = ledger
        self._plan, self._options, self._engine = plan, options, engine
        self._tell, self._stop, self._tap = tell, stop, tap
        self._files: list[FileResult] = []
        self._sizes = [planned.spec.size_bytes if planned.targets else 0 for planned in plan.files]
        self._began = perf_counter()

    def run(self) -> RunReport:
        for position, planned in enumerate(self._plan.files):
            if not planned.targets:
                spec, count = planned.spec, len(self._plan.files)
                self._add(Skipped(spec.name, spec.place, position + 1, count, planned.there))
                continue
            if self._stop.is_set() or not self._taken_up(position, planned):
                break
        return self._report()

    def _taken_up(self, position: int, planned: Planned) -> bool:
        """Derain one file, unless another process has it; return whether to go on."""
        if self._ledger is None:
            return self._derained(position, planned)
        spec = planned.spec
        claim = self._ledger.claim(spec.name, retry_failed=self._options.work.retry_failed)
        if claim is None:
            row = self._ledger.row(spec.name)
            why = {
                "done": "another process has done it",
                "running": f"{row.owner} works on it",
                "failed": f"it failed before, --retry-failed takes it up again: {row.error}",
            }.get(row.state, "another process has just taken it up")
            self._add(Skipped(spec.name, spec.place, position + 1, len(self._plan.files), (), why))
            return True
        try:
            return self._derained(position, planned)
        finally:
            ended = _row_of(self._files[-1] if len(self._files) > position else None, spec)
            if ended is None:
                self._ledger.release(claim)
            else:
                self._ledger.settle(claim, ended)

    def _derained(self, position: int, planned: Planned) -> bool:
        """Derain one file; return whether the next one follows."""
        try:
            complete = self._worked_through(position, planned)
        except StreamderainError as error:
            spec = planned.spec
            failed = Failed(
                spec.name,
                spec.place,
                position + 1,
                len(self._plan.files),
                type(error).__name__,
                str(error),
                error.exit_code,
                error.kept,
            )
            if len(self._plan.files) == 1 or isinstance(error, OutputFull):
                self._files.append(failed)
                error.report = self._report()
                raise
            self._add(failed)
            return True
        if complete is not None:
            self._files.append(complete)
        return complete is not None and not complete.interrupted

    def _worked_through(self, position: int, planned: Planned) -> Complete | None:
        """Derain one file: in pieces where that was asked for or is worth it, else in one go."""
        notes = list(self._plan.notes if position == 0 else ())
        number, files = position + 1, len(self._plan.files)

        def tell(event: Event) -> None:
            self._tell(self._with_files(position, event))

        spec, targets, options = planned.spec, planned.targets, self._options
        if self._tap is None and segmented.is_wanted(spec, targets, options):
            parted = SegmentedJob(
                spec, targets, options=options, engine=self._engine, number=number, files=files, notes=notes
            )
            try:
                return parted.run(tell, self._stop)
            except CannotBeCut as reason:
                if spec.kind != "still":  # nobody expects pieces of a picture
                    notes.append(f"{spec.name} is derained in one go, not in pieces: {reason}")
        whole = Job(
            spec,
            targets,
            options=options,
            engine=self._engine,
            number=number,
            files=files,
            notes=notes,
            tap=self._tap,
        )
        return whole.run(tell, self._stop)

    def _add(self, result: Failed | Skipped) -> None:
        self._files.append(result)
        self._tell(result)

    def _report(self) -> RunReport:
        model = self._engine.model
        return RunReport(
            tuple(self._files),
            self._engine.name,
            self._engine.device,
            self._engine.precision,
            model.name,
            model.sha256,
            not_reached=tuple(planned.spec.place for planned in self._plan.files[len(self._files) :]),
        )

    def _with_files(self, position: int, event: Event) -> Event:
        """Add the time left for all files to a file's progress, as if all their bytes took equally long."""
        if not isinstance(event, Progress) or len(self._plan.files) == 1 or not event.frames:
            return event
        share = min(event.frames_out / event.frames, 1.0)
        done = sum(self._sizes[:position]) + share * self._sizes[position]
        if not done:
            return event
        spent_s = perf_counter() - self._began
        left_s = spent_s * (sum(self._sizes) - done) / done
        return dataclasses.replace(event, files_eta_s=round(left_s, 1))
