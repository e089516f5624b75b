"""Work through one file, from opening its source to its report."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from streamderain.addresses import redact_address
from streamderain.errors import EncodeError, EngineError, StageFailed, StreamderainError, UnsupportedFormat
from streamderain.events import Complete, Incident, Incidents, Observer, Progress, Started
from streamderain.frame import Geometry
from streamderain.media.reading.piece import Piece
from streamderain.media.reading.sources import SourceSpec, open_source
from streamderain.media.track import MediaSource
from streamderain.media.writing.outputs import MediaOutput, TargetHistory, open_outputs
from streamderain.options import RunOptions
from streamderain.pipeline.cuts import lead_of
from streamderain.pipeline.pipeline import Counters, Pipeline
from streamderain.pipeline.protocols import Tap
from streamderain.runtime.base import Engine, Session, SessionOptions
from streamderain.runtime.recovering import RecoveringSession
from streamderain.trace import Trace

SPEED_WINDOW_S = 3.0
"""The reported frames per second look this far back."""

OPEN_TICK_S = 0.1
"""How often one who waits for a source to open looks whether the run was stopped."""

FAILED_PAUSE_S = 1.0
"""A live run whose encoder, say, failed goes on after this pause."""

DROPS_TOLD_EVERY_S = 10.0
"""How often it is told that frames are being dropped."""

READER_GRACE_S = 15.0
"""How long a connection may hold its reader after the run that it was for has failed."""

RESULTS_AT_MOST = 100
"""Results and warnings of earlier parts of a live run that are told at its end, the latest ones."""

TELL_EVERY_S = 0.2
"""How often progress is told."""


@dataclass(frozen=True, slots=True)
class PieceOrder:
    """Asks for one piece of a file.

    Attributes:
        piece: What is derained.
        path: Where its packets are kept; see `streamderain.media.writing.outputs.packet_path`.
    """

    piece: Piece
    path: Path


class Job:
    """Works through one file.

    Args:
        spec: What is read.
        targets: What is written.
        options: How to read and encode, and how strongly to derain.
        engine: Open; sessions are made on it.
        slots: Frames in flight in each session beyond the look-ahead; 0 lets the engine choose.
        trace: Receives how long every frame takes in each step.
        number: Which file of the run this is, from 1.
        files: How many files the run has.
        notes: What the user should know of the run as a whole.
        tap: Looks at frames before and after.
        piece: Only this piece of the file is derained, and its packets are kept.
    """

    def __init__(
        self,
        spec: SourceSpec,
        targets: list[str],
        *,
        options: RunOptions,
        engine: Engine,
        slots: int = 0,
        trace: Trace | None = None,
        number: int = 1,
        files: int = 1,
        notes: Sequence[str] = (),
        tap: Tap | None = None,
        piece: PieceOrder | None = None,
    ) -> None:
        self._spec = spec
        self._targets = tuple(targets)
        self._options = options
        self._engine = engine
        self._slots = slots
        self._tap = tap
        self._piece = piece
        self._trace = trace
        self._number, self._files, self._notes = number, files, notes
        self._recovering: list[RecoveringSession] = []
        self._incidents, self._history = Incidents(), TargetHistory()
        self._earlier = _Earlier()
        self._drops_told, self._drops_told_at = 0, 0.0
        self._recent: deque[tuple[float, int]] = deque()

    def run(self, tell: Observer, stop: threading.Event) -> Complete | None:
        """Derain the file.

        Args:
            tell: Receives Started, Progress and Complete.
            stop: Finish early once it is set.

        Returns:
            What was done; None where it was stopped before the source was open.

        Raises:
            StreamderainError: It could not be done. Its `kept` names what was done until then.
        """
        started = perf_counter()
        source = self._opened(tell, stop)
        if source is None:
            return None
        # A live source ends when this does; others end with their pipeline, if that ends at all.
        with source if source.is_live else nullcontext():
            self._run_part(source, tell, stop, started)
            while self._goes_on(source, stop):
                self._run_part(source, tell, stop, perf_counter())
        complete = self._earlier.complete
        assert complete is not None, "a run that did nothing raises"
        tell(complete)
        return complete

    def _goes_on(self, source: MediaSource, stop: threading.Event) -> bool:
        """Return whether another part follows: a live source changed, or a stage failed on the way."""
        if self._earlier.has_failed:
            return not stop.wait(FAILED_PAUSE_S)
        return source.goes_on and not stop.is_set() and source.take_up()

    def _run_part(self, source: MediaSource, tell: Observer, stop: threading.Event, started: float) -> None:
        """Work as long as the source has the same streams."""
        self._earlier.has_failed = False
        self._drops_told = 0
        with ExitStack() as cleanup:
            if not source.is_live:
                cleanup.callback(source.close)
            try:
                pipeline, outputs, warnings = self._prepare(source, cleanup, tell)
            except StreamderainError as error:
                if self._ends(error, source):
                    raise
                self._note_failure(error)
                return
            pipeline.counters.started = started
            total = _expected_frames(source)
            tell(self._started(source, total, warnings))
            cleanup.pop_all()  # the pipeline ends and closes everything, however it ends
            interrupted = False
            try:
                pipeline.run(self._ticker(pipeline, total, tell, stop))
            except KeyboardInterrupt:
                if not stop.is_set():
                    raise  # of a Python program that minds its signals in its own way
                # The second one: what is written is kept, what is in flight is not waited for.
                interrupted = True
            except StreamderainError as error:
                error.kept = tuple(result.kept for result in pipeline.results if result.kept)
                worked = pipeline.counters.frames_out > 0
                if self._ends(error, source, worked=worked) or not pipeline.has_let_go(READER_GRACE_S):
                    raise
                self._note_failure(error)
            finally:
                self._history.note(outputs)
                self._tell_incidents(tell)
            interrupted = interrupted or pipeline.is_cut or (source.is_live and stop.is_set())
            self._earlier.add(self._complete(source, pipeline, warnings, interrupted=interrupted))

    def _ends(self, error: StreamderainError, source: MediaSource, *, worked: bool = False) -> bool:
        """Return whether an error ends the run: those of stages do not, once a live run has worked."""
        of_a_stage = isinstance(error, EncodeError | EngineError | StageFailed | UnsupportedFormat)
        worked = worked or self._earlier.complete is not None
        return not (source.is_live and worked and of_a_stage and not source.is_given_up)

    def _note_failure(self, error: StreamderainError) -> None:
        self._earlier.has_failed = True
        self._incidents.tell(Incident("engine lost", self._engine.name, f"{error}. It is tried again"))

    def _note_drops(self, counters: Counters) -> None:
        """Note now and then that frames of a live source come too late."""
        new, now = counters.dropped - self._drops_told, perf_counter()
        if new and now - self._drops_told_at > DROPS_TOLD_EVERY_S:
            self._drops_told, self._drops_told_at = counters.dropped, now
            told = f"{new} frames came too late and were dropped, the last one by {counters.lag_s:.1f} s"
            self._incidents.tell(Incident("frames dropped", self._spec.name, told))

    def _tell_incidents(self, tell: Observer) -> None:
        for incident in self._incidents.drain():
            tell(incident)

    @property
    def _shown_targets(self) -> tuple[str, ...]:
        return tuple(map(redact_address, self._targets))

    def _opened(self, tell: Observer, stop: threading.Event) -> MediaSource | None:
        """Open the source on a thread that can be left behind: a pipe or an address may never answer."""
        opening: Future[MediaSource] = Future()

        def work() -> None:
            source, problem = None, None
            try:
                lead = lead_of(self._engine.model)
                source = open_source(
                    self._spec,
                    self._options.read,
                    lead,
                    stop,
                    incidents=self._incidents,
                    piece=None if self._piece is None else self._piece.piece,
                )
            except BaseException as error:
                problem = error
            wanted = opening.set_running_or_notify_cancel()
            if source is None:
                if wanted:
                    opening.set_exception(problem)
            elif wanted:
                opening.set_result(source)
            else:
                source.close()

        threading.Thread(target=work, name="opener", daemon=True).start()
        while not opening.done():
            wait([opening], timeout=OPEN_TICK_S)
            self._tell_incidents(tell)
            if stop.is_set() and opening.cancel():
                return None
        if stop.is_set() and opening.exception() is not None:
            return None  # a pipe that was stopped brought too little to be opened
        return opening.result()

    def _prepare(
        self, source: MediaSource, cleanup: ExitStack, tell: Observer
    ) -> tuple[Pipeline, list[MediaOutput], list[str]]:
        """Open sessions and outputs, which are closed again should anything fail."""
        options = SessionOptions.of(self._options.engine, depth=self._slots, trace=self._trace, tell=tell)
        sessions: list[Session] = []
        for stream in source.streams:
            sessions.append(self._session(stream.geometry, options, live=source.is_live))
            cleanup.callback(sessions[-1].close)
        self._recovering = [session for session in sessions if isinstance(session, RecoveringSession)]
        outputs, warnings = open_outputs(
            source,
            self._targets,
            self._options.encode,
            read=self._options.read,
            incidents=self._incidents,
            history=self._history,
            trace=self._trace,
            piece=None if self._piece is None else self._piece.path,
        )
        for output in outputs:
            for encoder in output.encoders:
                cleanup.callback(encoder.close)
            for outlet in output.outlets:
                cleanup.callback(outlet.abort)
        pipeline = Pipeline(
            source,
            sessions,
            outputs,
            trace=self._trace,
            max_latency_s=self._options.read.max_latency_s,
            closes_source=not source.is_live,
            tap=self._tap,
        )
        return pipeline, outputs, [*self._notes, *source.warnings, *warnings]

    def _session(self, geometry: Geometry, options: SessionOptions, *, live: bool) -> Session:
        """Open a session; a live source's outlives failures of the engine."""
        engine = self._engine
        if not live:
            return engine.session(geometry, options)
        luma = engine.model.input == "luma"
        return RecoveringSession(
            lambda: engine.session(geometry, options),
            components=geometry.luma_planes if luma else len(geometry.plane_shapes),
            passes=not self._options.engine.fail_closed,
            name=engine.name,
            incidents=self._incidents,
        )

    def _ticker(
        self, pipeline: Pipeline, total: int | None, tell: Observer, stop: threading.Event
    ) -> Callable[[], None]:
        last_told = 0.0

        def tick() -> None:
            nonlocal last_told
            if stop.is_set():
                pipeline.stop()
            self._note_drops(pipeline.counters)
            self._tell_incidents(tell)
            now = perf_counter()
            if now - last_told >= TELL_EVERY_S:
                last_told = now
                tell(self._progress(pipeline, total, now))

        return tick

    def _complete(
        self, source: MediaSource, pipeline: Pipeline, warnings: list[str], *, interrupted: bool
    ) -> Complete:
        counters = pipeline.counters
        elapsed_s = perf_counter() - counters.started
        notes = [_failures(session) for session in self._recovering if session.failures]
        if counters.dropped:
            latency_s = self._options.read.max_latency_s
            notes.append(
                f"{counters.dropped} frames came over {latency_s:g} s late and were dropped: the machine "
                "or the network is too slow. Take a smaller stream, or give --max-latency"
            )
        return Complete(
            source=source.name,
            path=self._spec.place,
            targets=self._shown_targets,
            results=pipeline.results,
            frames_in=counters.frames_in,
            frames_out=counters.frames_out,
            skipped=source.damage.skipped_frames,
            damage=tuple(source.damage.texts()),
            elapsed_s=round(elapsed_s, 3),
            first_frame_s=counters.first_frame_s and round(counters.first_frame_s, 3),
            fps=round(counters.frames_out / elapsed_s, 2),
            stages=pipeline.stages(),
            limited_by=pipeline.limited_by(),
            interrupted=interrupted,
            warnings=tuple(dict.fromkeys([*warnings, *source.warnings, *notes])),
            dropped=counters.dropped,
            passed=sum(session.passed for session in self._recovering),
        )

    def _started(self, source: MediaSource, frames: int | None, warnings: list[str]) -> Started:
        geometry = source.streams[0].geometry
        return Started(
            source=self._spec.name,
            path=self._spec.place,
            number=self._number,
            files=self._files,
            targets=self._shown_targets,
            width=geometry.width,
            height=geometry.height,
            streams=len(source.streams),
            frames=frames,
            engine=self._engine.name,
            engine_reason=self._engine.reason,
            device=self._engine.device,
            precision=self._engine.precision,
            model=self._engine.model.name,
            model_sha256=self._engine.model.sha256,
            warnings=tuple(warnings),
        )

    def _progress(self, pipeline: Pipeline, total: int | None, now: float) -> Progress:
        counters = pipeline.counters
        out = counters.frames_out
        self._recent.append((now, out))
        while len(self._recent) > 2 and now - self._recent[0][0] > SPEED_WINDOW_S:
            self._recent.popleft()
        since, before = self._recent[0]
        span_s = now - since
        fps = (out - before) / span_s if span_s > 0 else 0.0
        left = None if total is None else max(0, total - out)
        return Progress(
            frames_in=counters.frames_in,
            frames_out=out,
            frames=total,
            elapsed_s=round(now - counters.started, 3),
            fps=round(fps, 2),
            eta_s=round(left / fps, 1) if left is not None and fps > 0 else None,
            files_eta_s=None,
            limited_by=pipeline.limited_by(),
            dropped=counters.dropped,
            passed=sum(session.passed for session in self._recovering),
            lag_s=round(counters.lag_s, 3),
            latency_s=round(counters.latency_s, 4),
        )


@dataclass(slots=True)
class _Earlier:
    """What the parts of a live run did so far.

    Attributes:
        complete: All of it; None before the first part has ended.
        has_failed: Whether a stage of the last part failed.
    """

    complete: Complete | None = None
    has_failed: bool = False

    def add(self, part: Complete) -> None:
        """Add a part; what it says of the source holds for all of them."""
        before = self.complete
        if before is None:
            self.complete = part
            return
        paths = {result.path for result in part.results}
        others = [result for result in before.results if result.path not in paths]
        elapsed_s = before.elapsed_s + part.elapsed_s
        frames_out = before.frames_out + part.frames_out
        self.complete = replace(
            part,
            results=(*others[-RESULTS_AT_MOST:], *part.results),
            frames_in=before.frames_in + part.frames_in,
            frames_out=frames_out,
            elapsed_s=round(elapsed_s, 3),
            first_frame_s=before.first_frame_s,
            fps=round(frames_out / elapsed_s, 2),
            warnings=tuple(dict.fromkeys((*before.warnings, *part.warnings)))[-RESULTS_AT_MOST:],
            dropped=before.dropped + part.dropped,
            passed=before.passed + part.passed,
        )


def _failures(session: RecoveringSession) -> str:
    times = "once" if session.failures == 1 else f"{session.failures} times"
    fate = f"{session.passed} passed unprocessed" if session.passed else f"{session.lost} were held back"
    return f"the engine failed {times}, and of the frames {fate}; it said: {session.failure}"


def _expected_frames(source: MediaSource) -> int | None:
    frames = [stream.frames for stream in source.streams]
    return None if None in frames else sum(number or 0 for number in frames)
