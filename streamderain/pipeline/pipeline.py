"""Run reader, engine, encoders and targets concurrently.

One reader thread decodes and pushes; each video stream has a session and a writer thread that pops and
encodes; each target has a thread that writes. All waiting happens inside the sessions, whose slots bound the
frames in flight, and before the targets' queues. Shutdown goes one way: the reader stops, sessions are
flushed, writers drain, encoders are flushed, targets are ended. A source that fails in the middle ends like
one that was stopped. On any other error every session is aborted, which wakes all threads. Whatever was
written stays, under its partial name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from streamderain.errors import StageFailed, StreamderainError
from streamderain.events import StageSpeed, TargetResult
from streamderain.frame import Frame, Planes
from streamderain.pacing import Pacing
from streamderain.pipeline.cuts import CutDetector
from streamderain.pipeline.outlets import OutletThread
from streamderain.pipeline.protocols import FrameSource, Output, Packet, Tap
from streamderain.runtime.base import EndOfSession, Session
from streamderain.trace import Trace

TICK_S = 0.1
"""How often the caller's `tick` runs."""

STOP_GRACE_S = 1.0
"""A stopped reader that is still waiting for its source after this long (a silent pipe) is left behind."""

SILENCE_S = 2.0
"""A source that gave all that is wanted and then stays silent (a camera that hangs) is not waited for any
longer."""

HOPELESS_S = 5.0
"""A live source whose frames are all too late for so long is opened anew: a backlog lies on the way."""

END_GRACE_S = 10.0
"""After a failure or a second interrupt, targets that still do not end are left as they lie on the disk."""


@dataclass(slots=True)
class StageClock:
    """Time one stage worked and waited. Written by one thread."""

    busy_s: float = 0.0
    waiting_s: float = 0.0


@dataclass(slots=True)
class Counters:
    """What the pipeline counts; each field is written by one thread and read by any."""

    started: float = field(default_factory=perf_counter)
    frames_in: int = 0
    dropped: int = 0
    lag_s: float = 0.0
    latency_s: float = 0.0
    read: StageClock = field(default_factory=StageClock)
    written: list[int] = field(default_factory=list)
    writers: list[StageClock] = field(default_factory=list)
    first_frame_s: float | None = None

    @property
    def frames_out(self) -> int:
        """Frames encoded so far, over all streams."""
        return sum(self.written)


class Pipeline:
    """One source through its sessions into its outputs.

    Args:
        source: Yields frames and copied packets.
        sessions: One per video stream, in order of position. The pipeline closes them.
        outputs: Where results go; every output has one encoder per stream.
        trace: Receives how long every frame takes in each step; best the sessions' and the encoders' own.
        max_latency_s: From which lag on frames of a live source are dropped; None drops none.
        closes_source: Whether the source ends with it.
        tap: Looks at frames before and after.
    """

    def __init__(
        self,
        source: FrameSource,
        sessions: Sequence[Session],
        outputs: Sequence[Output],
        *,
        trace: Trace | None = None,
        max_latency_s: float | None = None,
        closes_source: bool = True,
        tap: Tap | None = None,
    ) -> None:
        self.counters = Counters(
            written=[0 for _ in sessions],
            writers=[StageClock() for _ in sessions],
        )
        self._source, self._closes_source = source, closes_source
        self._reader: threading.Thread | None = None
        self._tap = tap
        self._sessions = sessions
        self._outputs = outputs
        self._trace = trace
        late_s = max_latency_s if source.is_live else None
        self._pacing = [None if late_s is None else Pacing(late_s) for _ in sessions]
        self._cuts = [CutDetector(stream.geometry) for stream in source.streams]
        self._threads = [
            [
                OutletThread(
                    outlet,
                    is_alone=lambda: sum(map(_is_writing, self._targets)) <= 1,
                    ended=self._target_ended,
                )
                for outlet in output.outlets
            ]
            for output in outputs
        ]
        self._targets = [target for output in self._threads for target in output]
        self._late_since: float | None = None
        self._stop = threading.Event()
        self._read_to_end = False
        self._asked_at: float | None = None
        self._is_cut = False
        self._ended = False
        self._failure: BaseException | None = None
        self._failure_lock = threading.Lock()

    def stop(self) -> None:
        """Ask the reader to stop; what was read is finished and written. May be called from anywhere."""
        self._stop.set()

    @property
    def results(self) -> tuple[TargetResult, ...]:
        """What became of each target; final once `run` returned or raised."""
        return tuple(target.result for target in self._targets)

    @property
    def is_cut(self) -> bool:
        """Whether the run was stopped before a source that has an end was read to it."""
        return self._is_cut

    def run(self, tick: Callable[[], None] = lambda: None) -> None:
        """Run to the end of the source, or until `stop`.

        Args:
            tick: Called on this thread a few times a second while work goes on.

        Raises:
            StreamderainError: The first error of any stage, or of the last target; see `results` for what
                is kept.
        """
        # A read that blocks for ever cannot be interrupted: only a daemon can be left behind.
        reader = threading.Thread(target=self._guard, args=(self._read,), name="reader", daemon=True)
        self._reader = reader
        writers = [
            threading.Thread(target=self._guard, args=(self._write, position), name=f"writer-{position}")
            for position in range(len(self._sessions))
        ]
        try:
            for target in self._targets:
                target.start()
            for thread in (reader, *writers):
                thread.start()
            for thread in (reader, *writers):
                self._await(thread, tick, patient=thread is not reader)
            self._end_targets(tick)
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            for thread in writers:
                if thread.ident is not None:
                    thread.join()
            if reader.ident is not None:
                reader.join(STOP_GRACE_S)
            self._end()
        if self._failure is not None:
            raise self._failure

    def has_let_go(self, timeout_s: float) -> bool:
        """Wait for a reader that was left behind; return whether the source is free for another pipeline."""
        if self._reader is not None and self._reader.ident is not None:
            self._reader.join(timeout_s)
            return not self._reader.is_alive()
        return True

    def _await(self, thread: threading.Thread, tick: Callable[[], None], *, patient: bool) -> None:
        """Tick until a thread ends; an impatient wait ends some time after the pipeline was stopped."""
        stopped_at: float | None = None
        left_behind = False
        while thread.is_alive():
            thread.join(TICK_S)
            tick()
            if patient:
                continue
            if self._stop.is_set():
                stopped_at = stopped_at or perf_counter()
            elif self._is_silent_at_end() and not self._source.end():
                self._read_to_end = left_behind = True
            if left_behind or (stopped_at and perf_counter() - stopped_at > STOP_GRACE_S):
                for session in self._sessions:
                    session.flush()
                return

    def _is_silent_at_end(self) -> bool:
        asked_at = self._asked_at
        silent = asked_at is not None and perf_counter() - asked_at > SILENCE_S
        return silent and self._source.is_complete

    def stages(self) -> dict[str, StageSpeed]:
        """Return how fast each stage would be by itself: `read`, `engine` and `write`.

        The engine counts as busy as if its frames in flight took turns; with several streams, engine and
        writer are those of the busiest stream.
        """
        counters = self.counters
        elapsed_s = perf_counter() - counters.started
        engine_s = max(session.busy_s for session in self._sessions)
        writer = max(counters.writers, key=lambda clock: clock.busy_s)
        written = max(counters.written)
        return {
            "read": _speed(counters.read, counters.frames_in),
            "engine": _speed(StageClock(engine_s, max(0.0, elapsed_s - engine_s)), written),
            "write": _speed(writer, written),
        }

    def limited_by(self) -> str | None:
        """Return the stage that is busy most of the time, or None before the first frame."""
        if not self.counters.frames_out:
            return None
        stages = self.stages()
        return max(stages, key=lambda name: stages[name].busy_s)

    def _guard(self, work: Callable[..., None], *args: int) -> None:
        try:
            work(*args)
        except EndOfSession:
            pass  # another stage failed and aborted the sessions
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException, *, worthless: bool = False) -> None:
        """Note the first error and wake everybody; what waits before the targets is given up.

        Args:
            error: What failed.
            worthless: Whether what was written until then is removed.
        """
        self._note_failure(error)
        for session in self._sessions:
            session.abort()
        for target in self._targets:
            if worthless:
                target.abort()
            else:
                target.leave(drop=True)

    def _note_failure(self, error: BaseException) -> None:
        with self._failure_lock:
            if self._failure is None:
                self._failure = error
        self._stop.set()

    def _target_ended(self) -> None:
        """Note that a target failed: the others go on, but without any there is nothing to do."""
        failures = [target.failure for target in self._targets]
        first = next((failure for failure in failures if failure is not None), None)
        if first is not None and None not in failures:
            self._fail(first)
        if self._source.is_live:
            # Somebody stands before a command that never worked; one that did has to go on by itself.
            for target in self._targets:
                if target.failure is not None and not target.outlet.worked:
                    self._fail(target.failure, worthless=True)

    def _read(self) -> None:
        clock = self.counters.read
        frames = self._source.frames(self._copy)
        try:
            self._push_all(frames, clock)
        except EndOfSession:
            raise
        except StreamderainError as error:
            self._note_failure(error)  # what was read before is finished and written
        finally:
            close = getattr(frames, "close", None)
            if close is not None:
                close()
        for session in self._sessions:
            session.flush()

    def _push_all(self, frames: Iterator[Frame], clock: StageClock) -> None:
        for frame in self._timed(frames):
            if self._stop.is_set():
                return
            if frame.emit:
                self.counters.frames_in += 1
            late = frame.emit and self._is_late(frame)
            cut = self._cuts[frame.stream].is_cut(frame.planes[0]) or frame.cut
            started = perf_counter()
            token = (frame, started)
            # One that is late still helps its neighbours.
            emit = frame.emit and not late
            self._sessions[frame.stream].push(frame.planes, token, cut=cut, emit=emit)
            clock.waiting_s += perf_counter() - started
        self._read_to_end = not self._source.was_stopped

    def _is_late(self, frame: Frame) -> bool:
        """Return whether a frame of a live source is too late to be computed."""
        pacing = self._pacing[frame.stream]
        if pacing is None:
            return False
        now = perf_counter()
        late = pacing.is_late(frame.time_s, now)
        self.counters.lag_s = pacing.last_lag_s
        if not late:
            self._late_since = None
            return False
        self.counters.dropped += 1
        self._late_since = now if self._late_since is None else self._late_since
        if now - self._late_since > HOPELESS_S and self._source.refresh():
            # What comes is older and older: only another connection begins at the present.
            self._late_since = None
            pacing.forget()
        return True

    def _timed(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Yield frames, counting the time it takes to get them; wrap untyped errors with their place."""
        index, pts = None, None
        while True:
            started = self._asked_at = perf_counter()
            try:
                frame = next(frames)
            except StopIteration:
                return
            except (StreamderainError, EndOfSession):
                raise
            except Exception as error:
                raise StageFailed("read", frame_index=index, pts=pts, reason=repr(error)) from error
            self._asked_at = None
            took_s = perf_counter() - started
            self.counters.read.busy_s += took_s
            if self._trace is not None and frame.emit:
                self._trace.add("decode", took_s)
            index, pts = frame.index, frame.pts
            yield frame

    def _copy(self, packet: Packet) -> None:
        if self._ended:
            raise EndOfSession  # a reader left behind woke up
        writing = [target for target in self._targets if target.is_writing]
        for number, target in enumerate(writing):
            target.copy(packet if number == 0 else target.outlet.duplicate(packet))

    def _write(self, position: int) -> None:
        session, clock = self._sessions[position], self.counters.writers[position]
        while True:
            started = perf_counter()
            try:
                popped = session.pop()
            except EndOfSession:
                break
            assert popped is not None, "pop without a time limit returned nothing"
            (frame, decoded), planes = popped
            ready = perf_counter()
            clock.waiting_s += ready - started
            tap = self._tap if position == 0 else None
            if tap is not None:
                tap.before(frame)
            self._encode(position, frame, planes)
            if tap is not None:
                tap.after(frame)
            done = perf_counter()
            self.counters.latency_s = done - decoded
            clock.busy_s += done - ready
            if self._trace is not None:
                self._trace.add("write", done - ready)
                self._trace.add("frame", done - decoded)
            self.counters.written[position] += 1
            if self.counters.first_frame_s is None:
                self.counters.first_frame_s = perf_counter() - self.counters.started
        started = perf_counter()
        for output, targets in zip(self._outputs, self._threads, strict=True):
            if any(map(_is_writing, targets)):
                self._mux(targets, output.encoders[position].flush())
        clock.busy_s += perf_counter() - started

    def _encode(self, position: int, frame: Frame, planes: Planes) -> None:
        try:
            for output, targets in zip(self._outputs, self._threads, strict=True):
                if any(map(_is_writing, targets)):
                    self._mux(targets, output.encoders[position].encode(frame, planes))
        except StreamderainError:
            raise
        except Exception as error:
            raise StageFailed("write", frame_index=frame.index, pts=frame.pts, reason=repr(error)) from error

    def _mux(self, targets: Sequence[OutletThread], packets: Sequence[Packet]) -> None:
        writing = [target for target in targets if target.is_writing]
        for packet in packets:
            # Copies before the first target has the packet: muxing rewrites its times.
            copies = [target.outlet.duplicate(packet) for target in writing[1:]]
            for target, one in zip(writing, [packet, *copies], strict=False):
                target.mux([one])

    def _end_targets(self, tick: Callable[[], None]) -> None:
        """Complete the targets, or leave them as they are where the source was not read to its end."""
        whole = self._failure is None and (self._read_to_end or self._source.is_live)
        self._is_cut = self._failure is None and not whole
        for target in self._targets:
            if whole:
                target.finish()
            else:
                target.leave()
        self._await_targets(tick)

    def _await_targets(self, tick: Callable[[], None]) -> None:
        for target in self._targets:
            waited_s, seen = 0.0, target.outlet.written_bytes
            while target.is_alive:
                target.join(TICK_S)
                tick()
                waited_s += TICK_S
                if seen != (seen := target.outlet.written_bytes):
                    waited_s = 0.0
                elif target.give_up_if_stuck(waited_s):
                    break

    def _end(self) -> None:
        """Close what the run used. Targets are ended by now, or left behind where they do not answer."""
        self._ended = True
        for session in self._sessions:
            session.close()
        deadline = perf_counter() + END_GRACE_S
        for target in self._targets:
            target.leave(drop=True)  # does nothing where it was ended in another way before
            target.join(max(0.0, deadline - perf_counter()))
        if not all(target.has_let_go() for target in self._targets):
            return  # it holds packets of the source and of an encoder: closing these would crash the process
        for output in self._outputs:
            for encoder in output.encoders:
                encoder.close()
        if self._closes_source:
            self._source.close()


def _is_writing(target: OutletThread) -> bool:
    return target.is_writing


def _speed(clock: StageClock, frames: int) -> StageSpeed:
    fps = frames / clock.busy_s if frames and clock.busy_s else None
    return StageSpeed(round(clock.busy_s, 3), round(clock.waiting_s, 3), fps and round(fps, 1))
