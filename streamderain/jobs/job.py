"""Work through one file, from opening its source to its report."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack
from time import perf_counter

from streamderain.errors import StreamderainError
from streamderain.events import Complete, Observer, Progress, Started
from streamderain.frame import Geometry
from streamderain.media.reading.sources import SourceSpec, open_source
from streamderain.media.track import MediaSource
from streamderain.media.writing.outputs import open_outputs
from streamderain.options import RunOptions
from streamderain.pipeline.cuts import lead_of
from streamderain.pipeline.pipeline import Pipeline
from streamderain.runtime.base import Engine, Session, SessionOptions
from streamderain.runtime.recovering import RecoveringSession
from streamderain.trace import Trace

SPEED_WINDOW_S = 3.0
"""The reported frames per second look this far back."""

OPEN_TICK_S = 0.1
"""How often one who waits for a source to open looks whether the run was stopped."""

TELL_EVERY_S = 0.2
"""How often progress is told."""


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
    ) -> None:
        self._spec = spec
        self._targets = tuple(targets)
        self._options = options
        self._engine = engine
        self._slots = slots
        self._trace = trace
        self._number, self._files, self._notes = number, files, notes
        self._recovering: list[RecoveringSession] = []
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
        with ExitStack() as cleanup:
            source = self._opened(stop)
            if source is None:
                return None
            cleanup.callback(source.close)
            pipeline, warnings = self._prepare(source, cleanup, tell)
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
                raise
            interrupted = interrupted or pipeline.is_cut or (source.is_live and stop.is_set())
            complete = self._complete(source, pipeline, warnings, interrupted=interrupted)
        tell(complete)
        return complete

    def _opened(self, stop: threading.Event) -> MediaSource | None:
        """Open the source on a thread that can be left behind: a pipe or an address may never answer."""
        opening: Future[MediaSource] = Future()

        def work() -> None:
            source, problem = None, None
            try:
                source = open_source(self._spec, self._options.read, lead_of(self._engine.model), stop)
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
            if stop.is_set() and opening.cancel():
                return None
        if stop.is_set() and opening.exception() is not None:
            return None  # a pipe that was stopped brought too little to be opened
        return opening.result()

    def _prepare(self, source: MediaSource, cleanup: ExitStack, tell: Observer) -> tuple[Pipeline, list[str]]:
        """Open sessions and outputs, which are closed again should anything fail."""
        options = SessionOptions.of(self._options.engine, depth=self._slots, trace=self._trace, tell=tell)
        sessions: list[Session] = []
        for stream in source.streams:
            sessions.append(self._session(stream.geometry, options, live=source.is_live))
            cleanup.callback(sessions[-1].close)
        self._recovering = [session for session in sessions if isinstance(session, RecoveringSession)]
        outputs, warnings = open_outputs(source, self._targets, self._options.encode, trace=self._trace)
        for output in outputs:
            for encoder in output.encoders:
                cleanup.callback(encoder.close)
            for outlet in output.outlets:
                cleanup.callback(outlet.abort)
        latency_s = self._options.read.max_latency_s
        return Pipeline(source, sessions, outputs, trace=self._trace, max_latency_s=latency_s), [
            *self._notes,
            *source.warnings,
            *warnings,
        ]

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
        )

    def _ticker(
        self, pipeline: Pipeline, total: int | None, tell: Observer, stop: threading.Event
    ) -> Callable[[], None]:
        last_told = 0.0

        def tick() -> None:
            nonlocal last_told
            if stop.is_set():
                pipeline.stop()
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
            targets=self._targets,
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
            targets=self._targets,
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
        )


def _failures(session: RecoveringSession) -> str:
    times = "once" if session.failures == 1 else f"{session.failures} times"
    fate = f"{session.passed} passed unprocessed" if session.passed else f"{session.lost} were held back"
    return f"the engine failed {times}, and of the frames {fate}; it said: {session.failure}"


def _expected_frames(source: MediaSource) -> int | None:
    frames = [stream.frames for stream in source.streams]
    return None if None in frames else sum(number or 0 for number in frames)
