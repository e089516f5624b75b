"""Work through one file in pieces that are kept: it goes on after whatever ends it, and uses several jobs."""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from time import perf_counter, sleep

from streamderain.addresses import redact_address
from streamderain.errors import ConfigError, EngineError, MediaError, StreamderainError
from streamderain.events import Complete, Observer, Progress, StageSpeed, Started, TargetResult
from streamderain.jobs.job import SPEED_WINDOW_S, TELL_EVERY_S, PieceOrder
from streamderain.jobs.joining import join
from streamderain.jobs.manifest import Finished, Manifest, identity
from streamderain.jobs.pool import TICK_S, Jobs, LocalPool, News, Order, Pool
from streamderain.jobs.segments import part
from streamderain.media.reading.file import FileSource
from streamderain.media.reading.piece import Piece
from streamderain.media.reading.scan import length_s, scan
from streamderain.media.reading.sources import SourceSpec, open_source
from streamderain.media.track import CannotBeCut
from streamderain.media.writing.outputs import open_outputs
from streamderain.media.writing.piece_file import BrokenPiece
from streamderain.media.writing.target import parse_target
from streamderain.models import ModelCard
from streamderain.options import RunOptions
from streamderain.pipeline.cuts import lead_of
from streamderain.runtime.base import Engine

LENGTH_S = 20.0
"""Length of a piece, unless another was asked for."""

LONG_S = 600.0
"""Files that are longer are always worked on in pieces: too much would be lost with them."""

CRASHES_AT_MOST = 3
"""A piece that ends its process so often is given up."""

CORES_A_JOB = 4
"""A job keeps about so many cores busy: decoder, engine and encoder together."""

_BROKEN_AT_MOST = 3
_ON_PROCESSOR = ("cpu", "none")
"""How engines name a device that is no GPU."""


class PieceFailed(EngineError):
    """The process that derains a piece crashed on it again and again."""


def is_wanted(spec: SourceSpec, targets: Sequence[str], options: RunOptions) -> bool:
    """Return whether a file is to be worked on in pieces where that can be done: if asked for, or long."""
    if is_asked_for(options):
        return True
    if why_not(spec, targets, options):
        return False
    read = options.read
    left_s = length_s(str(spec.paths[0]), read) - read.start_s
    return min(left_s, read.duration_s or left_s) > LONG_S


def is_asked_for(options: RunOptions) -> bool:
    """Return whether the user asked for pieces, and is told where a file cannot be cut."""
    work = options.work
    return work.jobs > 1 or work.segment_length_s is not None or work.cluster is not None


def why_not(spec: SourceSpec, targets: Sequence[str], options: RunOptions) -> str:
    """Return why a file has to be worked on in one go, as the end of a sentence; empty where it need not."""
    if spec.kind != "video" or spec.address or str(spec.paths[0]) == "-":
        return "only video files can be cut"
    for target in targets:
        if parse_target(target, options.encode).kind != "container":
            return f"{redact_address(target)} is no video file, and only those are joined from pieces"
    encode = options.encode
    if encode.split_s is not None:
        return "--split begins files of its own"
    if encode.max_bitrate is not None or {"b", "bit_rate", "maxrate"} & set(encode.extra):
        return "an encoder that has to keep a bit rate looks at the whole file"
    return ""


class SegmentedJob:
    """Works through one file in pieces.

    Args:
        spec: What is read.
        targets: What is written: files.
        options: All options of the run.
        engine: Open; tells what computes. Each worker opens one of its own.
        number: Which file of the run this is, from 1.
        files: How many files the run has.
        notes: What the user should know of the run as a whole.

    Raises:
        CannotBeCut: From `run`: it has to be worked through in one go.
    """

    def __init__(
        self,
        spec: SourceSpec,
        targets: Sequence[str],
        *,
        options: RunOptions,
        engine: Engine,
        number: int = 1,
        files: int = 1,
        notes: Sequence[str] = (),
    ) -> None:
        self._spec, self._targets, self._options = spec, list(targets), options
        self._engine, self._model = engine, engine.model
        self._number, self._files, self._notes = number, files, list(notes)
        self._began = perf_counter()
        self._ending: Sequence[str] = ()

    def run(self, tell: Observer, stop: threading.Event) -> Complete | None:
        """Derain the file, or what is left of it; see `streamderain.jobs.job.Job.run`."""
        self._began = perf_counter()
        why = why_not(self._spec, self._targets, self._options)
        if why:
            raise CannotBeCut(why)
        with self._opened() as source:
            first = Path(parse_target(self._targets[0], self._options.encode).path)
            with Manifest(first) as manifest:
                try:
                    return self._run(source, manifest, tell, stop)
                except CannotBeCut:
                    manifest.remove()
                    raise

    @contextmanager
    def _opened(self) -> Iterator[FileSource]:
        source = open_source(self._spec, self._options.read, lead_of(self._model))
        assert isinstance(source, FileSource)
        try:
            yield source
        finally:
            source.close()

    def _run(
        self, source: FileSource, manifest: Manifest, tell: Observer, stop: threading.Event
    ) -> Complete | None:
        wanted = identity(self._spec.paths[0], [Path(t) for t in self._targets], self._options, self._model)
        resumed = manifest.resume(wanted, restart=self._options.work.restart)
        try:
            groups, warnings = self._tried(source)
            if not resumed:
                pieces = self._parted(source, stop)
                if pieces is None:
                    manifest.remove()
                    return None
                manifest.begin(pieces, groups=groups)
        except BaseException:
            if not resumed:
                manifest.remove()
            raise
        left = len(list(manifest.open_pieces))
        device = self._engine.device
        jobs = jobs_for(self._options, device=device, model=self._model, pieces=left)
        parting = _parting(manifest, jobs, self._options.work.cluster)
        tell(self._started(source, manifest, [*self._notes, *source.warnings, *warnings], parting))
        with closing(self._pool(manifest, jobs)) as pool:
            work = _Work(manifest, self._spec, self._options, pool)
            return self._worked(manifest, work, tell, stop, warnings)

    def _pool(self, manifest: Manifest, jobs: Jobs) -> Pool:
        address = self._options.work.cluster
        if address is None:
            return LocalPool(self._spec, self._targets, self._options, jobs)
        try:
            from streamderain.jobs.cluster import ClusterPool
        except ImportError as error:
            raise ConfigError(
                "--cluster needs Ray, which is not installed: pip install 'streamderain[cluster]'"
            ) from error
        return ClusterPool(
            address,
            self._spec,
            self._targets,
            self._options,
            model=self._model,
            folder=manifest.folder.absolute(),
        )

    def _worked(
        self, manifest: Manifest, work: _Work, tell: Observer, stop: threading.Event, warnings: list[str]
    ) -> Complete:
        """Make what is missing, join, and tell what was done."""
        try:
            results = self._made(manifest, work, tell, stop)
        except KeyboardInterrupt:
            if not stop.is_set():
                raise  # of a Python program that minds its signals in its own way
            results = None
        whole = results is not None
        if results is None:
            folder = str(manifest.folder)
            results = tuple(TargetResult(target, "", "pieces", folder) for target in self._targets)
        complete = self._complete(manifest, work, results, warnings, interrupted=not whole)
        if whole:
            manifest.remove()
        tell(complete)
        return complete

    def _made(
        self, manifest: Manifest, work: _Work, tell: Observer, stop: threading.Event
    ) -> tuple[TargetResult, ...] | None:
        """Make the pieces that are missing, and join all; return None where that was stopped."""
        for _ in range(_BROKEN_AT_MOST):
            while work.step():
                if stop.is_set():
                    return None
                if (progress := work.progress(self._began)) is not None:
                    tell(progress)
            try:
                return self._joined(manifest, stop)
            except BrokenPiece as error:
                if error.number is None:
                    raise
                manifest.forget(error.number)
        raise MediaError(
            f"pieces in {manifest.folder} are broken each time they are read; look after that disk, or "
            "choose a target on another one"
        )

    def _tried(self, source: FileSource) -> tuple[int, list[str]]:
        """Open the targets for a moment; return how many encodes they need, and what is to be said."""
        outputs, warnings = open_outputs(source, self._targets, self._options.encode, read=self._options.read)
        for output in outputs:
            for outlet in output.outlets:
                outlet.abort()
            for encoder in output.encoders:
                encoder.close()
        return len(outputs), warnings

    def _parted(self, source: FileSource, stop: threading.Event) -> list[Piece] | None:
        streams = scan(source.path, source.tracks, self._options.read, stop)
        if streams is None:
            return None
        piece_s = Fraction(str(self._options.work.segment_length_s or LENGTH_S))
        return part(streams, source.time_range, length_s=piece_s, lead=lead_of(self._model))

    def _joined(self, manifest: Manifest, stop: threading.Event) -> tuple[TargetResult, ...] | None:
        with self._opened() as source, ExitStack() as cleanup:
            outputs, _ = open_outputs(source, self._targets, self._options.encode, read=self._options.read)
            for output in outputs:
                for encoder in output.encoders:
                    cleanup.callback(encoder.close)
            paths = [manifest.path(piece) for piece in manifest.pieces]
            results = join(source, outputs, paths, lambda: not stop.is_set())
            self._ending = source.damage.texts()
            return results

    def _started(self, source: FileSource, manifest: Manifest, warnings: list[str], parting: str) -> Started:
        geometry = source.streams[0].geometry
        return Started(
            source=self._spec.name,
            path=self._spec.place,
            number=self._number,
            files=self._files,
            targets=tuple(self._targets),
            width=geometry.width,
            height=geometry.height,
            streams=len(source.streams),
            frames=sum(sum(piece.frames) for piece in manifest.pieces),
            engine=self._engine.name,
            engine_reason=self._engine.reason,
            device=self._engine.device,
            precision=self._engine.precision,
            model=self._model.name,
            model_sha256=self._model.sha256,
            warnings=tuple(warnings),
            parting=parting,
        )

    def _complete(
        self,
        manifest: Manifest,
        work: _Work,
        results: tuple[TargetResult, ...],
        warnings: Sequence[str],
        *,
        interrupted: bool = False,
    ) -> Complete:
        rows = [manifest.finished[number] for number in sorted(manifest.finished)]
        frames = sum(row.frames for row in rows)
        elapsed_s = perf_counter() - self._began
        said = [
            *self._notes,
            *warnings,
            *work.pool.notes(),
            *(warning for row in rows for warning in row.warnings),
        ]
        return Complete(
            source=self._spec.name,
            path=self._spec.place,
            targets=tuple(self._targets),
            results=results,
            frames_in=frames,
            frames_out=frames,
            skipped=sum(row.skipped for row in rows),
            damage=(*(text for row in rows for text in row.damage), *self._ending),
            elapsed_s=round(elapsed_s, 3),
            first_frame_s=work.first_frame_s,
            fps=round(work.frames_made / elapsed_s, 2),
            stages=work.stages(),
            limited_by=work.limited_by(),
            interrupted=interrupted,
            warnings=tuple(dict.fromkeys(said)),
            passed=sum(row.passed for row in rows),
        )


def jobs_for(options: RunOptions, *, device: str, model: ModelCard, pieces: int) -> Jobs:
    """Choose how many pieces of a file are worked on at once.

    Args:
        options: What was asked for.
        device: The engine's, as it names it.
        model: What computes.
        pieces: How many there are to do.
    """
    cores = len(os.sched_getaffinity(0))
    wanted, why = options.work.jobs, "--jobs"
    if not wanted and not device.lower().startswith(_ON_PROCESSOR):
        wanted, why = 1, "one GPU"
    elif not wanted:
        wanted, why = max(1, cores // CORES_A_JOB), f"one for {CORES_A_JOB} of {cores} cores"
    count = max(1, min(wanted, pieces))
    threads = options.engine.threads
    # What looks at whole frames sums over them in another order with other threads: it keeps those that
    # it has in one go.
    if not threads and count > 1 and model.tileable:
        threads = max(1, cores // count)
    return Jobs(count, threads, why)


@dataclass
class _Work:
    """Makes the pieces that are missing."""

    manifest: Manifest
    spec: SourceSpec
    options: RunOptions
    pool: Pool
    frames_made: int = 0
    first_frame_s: float | None = None
    _under_way: dict[int, int] = field(default_factory=dict)
    _crashes: Counter[int] = field(default_factory=Counter)
    _stages: dict[str, tuple[float, float]] = field(default_factory=dict)
    _recent: deque[tuple[float, int]] = field(default_factory=deque)
    _told: float = 0.0
    _most: int = 0

    def step(self) -> bool:
        """Hand out pieces and hear what became of others; return whether anything is left to do."""
        self._hand_out()
        if not self._under_way:
            if not any(self.manifest.open_pieces):
                return False
            sleep(TICK_S)  # nobody is there to take one up: nodes of a cluster may come
        for news in self.pool.news():
            self._hear(news)
        return True

    def _hand_out(self) -> None:
        waiting = [piece for piece in self.manifest.open_pieces if piece.number not in self._under_way]
        for piece in waiting:
            passes = self._crashes[piece.number] >= CRASHES_AT_MOST
            if not self.pool.begin(Order(PieceOrder(piece, self.manifest.path(piece)), passes=passes)):
                return
            self._under_way[piece.number] = 0

    def _hear(self, news: News) -> None:
        piece = news.order.piece.piece
        if news.lost:
            self._under_way.pop(piece.number)
        elif news.crashed:
            self._note_crash(piece, news.crashed)
        elif news.error is not None:
            self._under_way.pop(piece.number)
            raise _explained(news.error, piece)
        elif news.complete is None:
            self._under_way[piece.number] = news.frames_out
        else:
            self._under_way.pop(piece.number)
            self._finish(piece, news.complete)

    def _note_crash(self, piece: Piece, how: str) -> None:
        self._under_way.pop(piece.number)
        self._crashes[piece.number] += 1
        # Once more after the last of them: then its frames pass, and no engine is asked.
        most = CRASHES_AT_MOST + self.options.work.pass_failed
        if self._crashes[piece.number] < most:
            return
        raise PieceFailed(
            f"{self.spec.name}, {_times(piece)}: the process that derains it ended by {how}, "
            f"{self._crashes[piece.number]} times. Other pieces are kept; `streamderain doctor` tries each "
            "engine, --pass-failed lets the frames of this piece through as they are"
        )

    def _finish(self, piece: Piece, complete: Complete) -> None:
        missing = sum(piece.frames) - complete.frames_out
        if missing and not complete.skipped:
            raise CannotBeCut(f"{_times(piece)} holds {complete.frames_out} frames, not {sum(piece.frames)}")
        self.frames_made += complete.frames_out
        if self.first_frame_s is None:
            self.first_frame_s = complete.first_frame_s
        for name, speed in complete.stages.items():
            busy_s, waiting_s = self._stages.get(name, (0.0, 0.0))
            self._stages[name] = (busy_s + speed.busy_s, waiting_s + speed.waiting_s)
        row = Finished(
            frames=complete.frames_out,
            bytes=0,
            skipped=complete.skipped,
            damage=complete.damage,
            warnings=_of_piece(complete, piece),
            passed=complete.passed,
        )
        self.manifest.finish(piece, row)

    def progress(self, began: float) -> Progress | None:
        """Return how far the run is, now and then."""
        now = perf_counter()
        if now - self._told < TELL_EVERY_S:
            return None
        self._told = now
        finished = sum(row.frames for row in self.manifest.finished.values())
        # A piece that crashed begins anew: what was told is not taken back.
        out = self._most = max(self._most, finished + sum(self._under_way.values()))
        total = sum(sum(piece.frames) for piece in self.manifest.pieces)
        self._recent.append((now, out))
        while len(self._recent) > 2 and now - self._recent[0][0] > SPEED_WINDOW_S:
            self._recent.popleft()
        since, before = self._recent[0]
        fps = (out - before) / (now - since) if now > since else 0.0
        return Progress(
            frames_in=out,
            frames_out=out,
            frames=total,
            elapsed_s=round(now - began, 3),
            fps=round(fps, 2),
            eta_s=round(max(0, total - out) / fps, 1) if fps > 0 else None,
            files_eta_s=None,
            limited_by=self.limited_by(),
        )

    def stages(self) -> dict[str, StageSpeed]:
        """Return how fast each stage would be by itself in one job, over the pieces of this run."""
        return {
            name: StageSpeed(
                round(busy_s, 3), round(waiting_s, 3), round(self.frames_made / busy_s, 2) if busy_s else None
            )
            for name, (busy_s, waiting_s) in self._stages.items()
        }

    def limited_by(self) -> str | None:
        """Return the stage that is busy most of the time; None before the first piece."""
        return max(self._stages, key=lambda name: self._stages[name][0], default=None)


def _parting(manifest: Manifest, jobs: Jobs, cluster: str | None) -> str:
    done = len(manifest.finished)
    at_once = "one after the other" if jobs.count == 1 else f"{jobs.count} at once ({jobs.why})"
    at_once = at_once if cluster is None else f"by the Ray cluster {cluster}"
    earlier = f"; {done} are finished already" if done else ""
    return f"{len(manifest.pieces)} pieces, {at_once}{earlier}"


def _of_piece(complete: Complete, piece: Piece) -> tuple[str, ...]:
    passed = f"{_times(piece)} was let through unprocessed: its process crashed again and again"
    return (*complete.warnings, *([passed] if complete.passed else []))


def _times(piece: Piece) -> str:
    start_s, end_s = piece.time_range.start_s, piece.time_range.end_s
    begin = "the beginning" if start_s is None else f"{float(start_s):.3f} s"
    return f"the piece from {begin} to {'the end' if end_s is None else f'{float(end_s):.3f} s'}"


def _explained(error: Exception, piece: Piece) -> Exception:
    if isinstance(error, StreamderainError):
        return type(error)(f"{error}. It happened in {_times(piece)}; finished pieces are kept")
    return error
