"""Work through all files of a run, one after the other."""

from __future__ import annotations

import dataclasses
import threading
from time import perf_counter
from typing import Literal

from streamderain.errors import OutputFull, StreamderainError
from streamderain.events import Complete, Event, Failed, Observer, Progress, Skipped
from streamderain.jobs import segmented
from streamderain.jobs.job import Job
from streamderain.jobs.ledger import Ledger, Row
from streamderain.jobs.plan import Plan, Planned
from streamderain.jobs.report import FileResult, RunReport
from streamderain.jobs.segmented import SegmentedJob
from streamderain.media.reading.sources import SourceSpec
from streamderain.media.track import CannotBeCut
from streamderain.options import RunOptions
from streamderain.pipeline.protocols import Tap
from streamderain.runtime.base import Engine


class FilesJob:
    """Works through the files of a plan.

    Args:
        plan: Which files, and what becomes of each.
        options: All options of the run.
        engine: Open.
        tell: Receives events.
        stop: Ends the run early; see `streamderain.api.run`.
        tap: Looks at frames before and after; None for nobody.
        ledger: Keeps several processes apart that share the target folder; None where there is but one.
    """

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
        """Derain what is to be derained.

        Raises:
            StreamderainError: The only file failed, or the disk is full; its `report` tells what was done.
        """
        for position, planned in enumerate(self._plan.files):
            if not planned.targets:
                spec, count = planned.spec, len(self._plan.files)
                if self._ledger is not None:
                    self._ledger.note_done(spec.name, planned.there[0], spec.size_bytes)
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
        claim = self._ledger.claim(
            spec.name, planned.targets[0], retry_failed=self._options.work.retry_failed
        )
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
