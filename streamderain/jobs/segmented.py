"""Work through one file in pieces that are kept: it goes on after whatever ends it, and uses several jobs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from time import perf_counter

from streamderain.addresses import redact_address
from streamderain.errors import ConfigError, MediaError
from streamderain.events import Complete, Observer, Started, TargetResult
from streamderain.jobs.joining import join
from streamderain.jobs.manifest import Manifest, folder_of, identity
from streamderain.jobs.piece_work import PieceWork
from streamderain.jobs.pool import Jobs, LocalPool, Pool
from streamderain.jobs.segments import part
from streamderain.media.reading.file import FileSource
from streamderain.media.reading.piece import Piece
from streamderain.media.reading.scan import length_s, scan
from streamderain.media.reading.sources import SourceSpec, open_source
from streamderain.media.track import CannotBeCut
from streamderain.media.writing.outputs import open_outputs
from streamderain.media.writing.piece_file import BrokenPiece
from streamderain.media.writing.sink import remove_dead_partials
from streamderain.media.writing.target import parse_target
from streamderain.models import ModelCard, chosen_model, load_model
from streamderain.options import RunOptions
from streamderain.pipeline.cuts import lead_of
from streamderain.runtime.base import Engine

LENGTH_S = 20.0
"""Length of a piece, unless another was asked for."""

LONG_S = 600.0
"""Files that are longer are always worked on in pieces: too much would be lost with them."""

CORES_A_JOB = 4
"""A job keeps about so many cores busy: decoder, engine and encoder together."""

_BROKEN_AT_MOST = 3
_ON_PROCESSOR = ("cpu", "none")
"""How engines name a device that is no GPU."""


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


def is_whole(spec: SourceSpec, targets: Sequence[str], options: RunOptions) -> bool:
    """Return whether this run was killed when its targets were whole, and remove what it left beside them.

    Where it was killed when it had named some of several targets, these lose their names again: all pieces
    are there, and joining them makes the same files.
    """
    if options.encode.overwrite or options.work.restart:
        return False
    if not folder_of(Path(os.path.realpath(targets[0]))).is_dir() or why_not(spec, targets, options):
        return False
    paths = [Path(parse_target(target, options.encode).path) for target in targets]
    model = chosen_model(options.engine.model, {spec.kind})
    options = replace(options, engine=replace(options.engine, model=model))
    wanted = identity(spec.paths[0], [Path(target) for target in targets], options, load_model(model))
    # Refused are living runs and other options: nothing of theirs is touched.
    with suppress(ConfigError), Manifest(paths[0]) as manifest:
        named = manifest.named(paths)
        if not named:
            return False
        if not manifest.resume(wanted, restart=False):
            manifest.remove()  # it was at removing it
            return False
        if len(named) == len(paths):
            for path in paths:
                remove_dead_partials(path)
            manifest.remove()
            return True
        for path in named:
            path.unlink()
    return False


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
            work = PieceWork(manifest, self._spec, self._options, pool)
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
        self, manifest: Manifest, work: PieceWork, tell: Observer, stop: threading.Event, warnings: list[str]
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
        self, manifest: Manifest, work: PieceWork, tell: Observer, stop: threading.Event
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
            manifest.release()  # of a run that was killed when it had joined them
            try:
                results = join(source, outputs, paths, lambda: not stop.is_set(), manifest.hold)
            except BaseException:
                manifest.release()
                raise
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
        work: PieceWork,
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


def _parting(manifest: Manifest, jobs: Jobs, cluster: str | None) -> str:
    done = len(manifest.finished)
    at_once = "one after the other" if jobs.count == 1 else f"{jobs.count} at once ({jobs.why})"
    at_once = at_once if cluster is None else f"by the Ray cluster {cluster}"
    earlier = f"; {done} are finished already" if done else ""
    return f"{len(manifest.pieces)} pieces, {at_once}{earlier}"
