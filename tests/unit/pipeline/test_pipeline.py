"""The pipeline with fakes on every side: order, overlap, errors, interruption."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from streamderain.errors import DecodeError, InferenceError, MediaError, OutputFull, StageFailed
from streamderain.frame import Frame, Geometry, Planes, StreamInfo
from streamderain.models import ModelCard, load_model
from streamderain.pipeline import outlets
from streamderain.pipeline import pipeline as pipeline_module
from streamderain.pipeline.outlets import OutletThread
from streamderain.pipeline.pipeline import Pipeline
from streamderain.runtime.identity import IdentityEngine

GEOMETRY = Geometry(32, 16)


@dataclass
class FakeSource:
    count: int = 10
    lanes: int = 1
    fail_at: int | None = None
    error: Exception = field(default_factory=lambda: DecodeError("broken"))
    delay_s: float = 0.0
    closed: bool = False
    read: int = 0
    is_live: bool = False
    is_complete: bool = False
    was_stopped: bool = False

    @property
    def streams(self) -> Sequence[StreamInfo]:
        return [
            StreamInfo(n, "raw", "yuv420p", GEOMETRY, Fraction(1, 25), Fraction(25), self.count, None)
            for n in range(self.lanes)
        ]

    def frames(self, copy: Callable[[Any], None]) -> Iterator[Frame]:
        for number in range(self.count):
            if number == self.fail_at:
                raise self.error
            time.sleep(self.delay_s)
            copy(f"sound {number}")
            for lane in range(self.lanes):
                luma = np.full((16, 32), number % 256, np.uint8)
                self.read += 1
                yield Frame(None, (luma,), lane, number, number, Fraction(1, 25), emit=number > 0 or lane > 0)

    def refresh(self) -> bool:
        return False

    def end(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeEncoder:
    fail_at: int | None = None
    error: Exception = field(default_factory=lambda: ValueError("odd"))
    delay_s: float = 0.0
    trace: Any = None
    closed: bool = False

    def encode(self, frame: Frame, planes: Planes | None) -> Sequence[Any]:
        if frame.index == self.fail_at:
            raise self.error
        time.sleep(self.delay_s)
        assert planes is not None
        assert planes[0][0, 0] == frame.index % 256
        return [(frame.stream, frame.index)]

    def flush(self) -> Sequence[Any]:
        return ["flushed"]

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeOutlet:
    name: str = "out.mkv"
    path: str = "/out.mkv"
    may_pause: bool = False
    drops: bool = False
    stale_after_s: float | None = None
    worked: bool = True
    lost: int = 0
    partial: str | None = "/out.partial.mkv"
    muxed: list[Any] = field(default_factory=list)
    copied: list[Any] = field(default_factory=list)
    ended: str = ""
    fail_at: int | None = None
    stuck_at: int | None = None
    delay_s: float = 0.0
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def written_bytes(self) -> int:
        return len(self.muxed)

    def duplicate(self, packet: Any) -> Any:
        return packet

    def mux(self, packets: Sequence[Any]) -> None:
        if len(self.muxed) == self.fail_at:
            raise OutputFull("no room")
        if len(self.muxed) == self.stuck_at:
            self.released.wait(60)
        time.sleep(self.delay_s)
        self.muxed += packets

    def copy(self, packet: Any) -> None:
        self.copied.append(packet)

    def finish(self) -> None:
        self.ended = "finished"

    def leave(self) -> str | None:
        self.ended = self.ended or "left"
        return self.partial

    def abort(self) -> None:
        self.ended = self.ended or "aborted"


@dataclass
class FakeOutput:
    encoders: Sequence[FakeEncoder]
    outlets: Sequence[FakeOutlet]


@pytest.fixture(scope="module")
def model() -> ModelCard:
    return load_model("dcd-lite")


def build(
    source: FakeSource, model: ModelCard, encoder: FakeEncoder | None = None, **fault: Any
) -> tuple[Pipeline, FakeOutlet]:
    engine = IdentityEngine(model, **fault)
    outlet = FakeOutlet()
    sessions = [engine.session(stream.geometry) for stream in source.streams]
    output = FakeOutput([encoder or FakeEncoder() for _ in sessions], [outlet])
    return Pipeline(source, sessions, [output]), outlet


def test_all_frames_and_packets_arrive_and_the_lead_in_does_not(model: ModelCard) -> None:
    source = FakeSource(count=30, lanes=2)
    pipeline, outlet = build(source, model)
    pipeline.run()
    assert [packet for packet in outlet.muxed if packet[0] == 0] == [(0, n) for n in range(1, 30)]
    assert [packet for packet in outlet.muxed if packet[0] == 1] == [(1, n) for n in range(30)]
    assert outlet.muxed.count("flushed") == 2
    assert outlet.copied == [f"sound {n}" for n in range(30)]
    assert outlet.ended == "finished"
    assert source.closed
    assert pipeline.counters.frames_in == pipeline.counters.frames_out == 59


@pytest.mark.parametrize(
    ("source", "encoder", "fault", "error"),
    [
        (FakeSource(fail_at=4), FakeEncoder(), {}, DecodeError),
        (FakeSource(fail_at=4, error=ValueError("odd")), FakeEncoder(), {}, StageFailed),
        (FakeSource(), FakeEncoder(), {"fail_at": 3}, InferenceError),
        (FakeSource(), FakeEncoder(fail_at=3), {}, StageFailed),
        (FakeSource(), FakeEncoder(fail_at=3, error=OutputFull("full")), {}, OutputFull),
        (FakeSource(count=1000), FakeEncoder(fail_at=3, delay_s=0.01), {"delay_s": 0.01}, StageFailed),
    ],
)
def test_the_first_error_stops_everything_and_what_was_written_is_left(
    model: ModelCard, source: FakeSource, encoder: FakeEncoder, fault: dict[str, Any], error: type[Exception]
) -> None:
    pipeline, outlet = build(source, model, encoder, **fault)
    with pytest.raises(error):
        pipeline.run()
    assert outlet.ended == "left"
    assert [result.state for result in pipeline.results] == ["partial"]
    assert source.closed
    assert source.read < 100


def test_what_was_read_before_the_source_failed_is_written(model: ModelCard) -> None:
    pipeline, outlet = build(FakeSource(fail_at=4), model)
    with pytest.raises(DecodeError):
        pipeline.run()
    assert outlet.muxed == [(0, 1), (0, 2), (0, 3), "flushed"]
    assert not pipeline.is_cut


def test_an_untyped_error_names_stage_frame_and_pts(model: ModelCard) -> None:
    pipeline, _ = build(FakeSource(), model, FakeEncoder(fail_at=3))
    with pytest.raises(StageFailed, match=r"write stage failed at frame 3 \(pts 3\).*report") as caught:
        pipeline.run()
    assert caught.value.exit_code == 6
    assert isinstance(caught.value.__cause__, ValueError)


def test_stop_finishes_what_was_read(model: ModelCard) -> None:
    source = FakeSource(count=10_000, delay_s=0.001)
    pipeline, outlet = build(source, model)
    threading.Timer(0.3, pipeline.stop).start()
    pipeline.run()
    assert outlet.ended == "left"
    assert pipeline.is_cut
    assert outlet.muxed[-1] == "flushed"
    assert 0 < len(outlet.muxed) - 1 == pipeline.counters.frames_out < 10_000


def test_a_silent_source_does_not_hold_up_a_stop(model: ModelCard) -> None:
    silence = threading.Event()

    class Silent(FakeSource):
        def frames(self, copy: Callable[[Any], None]) -> Iterator[Frame]:
            yield from super().frames(copy)
            silence.wait(30)
            copy("too late")
            yield from super().frames(copy)

    source = Silent(count=5)
    pipeline, outlet = build(source, model)
    threading.Timer(0.3, pipeline.stop).start()
    pipeline.run()
    assert outlet.ended == "left"
    assert [packet for packet in outlet.muxed if packet != "flushed"] == [(0, n) for n in range(1, 5)]
    silence.set()
    for thread in threading.enumerate():
        if thread.name == "reader":
            thread.join(5)
    assert "too late" not in outlet.copied


def test_an_error_in_the_callers_tick_stops_the_run(model: ModelCard) -> None:
    def tick() -> None:
        raise KeyboardInterrupt

    pipeline, outlet = build(FakeSource(count=10_000, delay_s=0.001), model)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(tick)
    assert outlet.ended == "left"


def test_a_live_source_that_is_stopped_is_whole(model: ModelCard) -> None:
    pipeline, outlet = build(FakeSource(count=10_000, delay_s=0.001, is_live=True), model)
    threading.Timer(0.2, pipeline.stop).start()
    pipeline.run()
    assert outlet.ended == "finished"
    assert not pipeline.is_cut


def test_a_stop_after_the_last_frame_was_read_cuts_nothing(model: ModelCard) -> None:
    source = FakeSource(count=10)
    pipeline, outlet = build(source, model, FakeEncoder(delay_s=0.05))

    def tick() -> None:
        if source.read == source.count:
            pipeline.stop()

    pipeline.run(tick)
    assert outlet.ended == "finished"
    assert not pipeline.is_cut


def outlets_of(*outlets: FakeOutlet, model: ModelCard, shared: bool, count: int = 200) -> Pipeline:
    """A pipeline into several targets, fed by one encoder or by one each."""
    source = FakeSource(count=count)
    sessions = [IdentityEngine(model).session(GEOMETRY)]
    groups = [list(outlets)] if shared else [[outlet] for outlet in outlets]
    return Pipeline(source, sessions, [FakeOutput([FakeEncoder()], group) for group in groups])


@dataclass
class Sized:
    """A packet with a size, as real ones have."""

    packet: Any
    size: int


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queues of a few packets, and little patience with those who do not take them."""
    monkeypatch.setattr("streamderain.pipeline.outlets.QUEUE_BYTES", 3000)
    monkeypatch.setattr("streamderain.pipeline.outlets.PATIENCE_S", 0.6)
    monkeypatch.setattr("streamderain.pipeline.outlets._STEP_S", 0.1)

    def encode(self: FakeEncoder, frame: Frame, planes: Planes | None) -> Sequence[Any]:
        return [Sized((frame.stream, frame.index), 1000)]

    monkeypatch.setattr(FakeEncoder, "encode", encode)


@pytest.mark.parametrize("shared", [True, False])
def test_a_failed_target_does_not_stop_the_others(model: ModelCard, shared: bool) -> None:
    bad, good = FakeOutlet("bad.mkv", fail_at=5), FakeOutlet("good.mkv")
    pipeline = outlets_of(bad, good, model=model, shared=shared)
    pipeline.run()
    assert good.ended == "finished"
    assert len(good.muxed) == 200  # 199 frames, for the first is lead-in, and what the encoder held
    assert (bad.ended, len(bad.muxed)) == ("left", 5)
    failed, whole = pipeline.results
    assert (failed.state, failed.error, failed.exit_code) == ("failed", "no room", 3)
    assert failed.kept == bad.partial
    assert (whole.state, whole.exit_code) == ("whole", 0)


def test_when_all_targets_failed_the_run_fails(model: ModelCard) -> None:
    pipeline = outlets_of(
        FakeOutlet(fail_at=5), FakeOutlet(fail_at=9), model=model, shared=True, count=10_000
    )
    with pytest.raises(OutputFull):
        pipeline.run()
    assert [result.state for result in pipeline.results] == ["failed", "failed"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("may_pause", [True, False])
def test_a_stuck_target_is_given_up_and_the_others_go_on(
    model: ModelCard, shared: bool, may_pause: bool
) -> None:
    stuck = FakeOutlet("stuck.mkv", stuck_at=5, may_pause=may_pause)
    good = FakeOutlet("good.mkv")
    pipeline = outlets_of(stuck, good, model=model, shared=shared)
    pipeline.run()
    stuck.released.set()
    assert good.ended == "finished"
    assert len(good.muxed) == 200
    assert len(stuck.muxed) <= 6
    failed, whole = pipeline.results
    assert (failed.state, failed.exit_code, whole.state) == ("failed", 3, "whole")
    assert "took no data" in failed.error
    assert failed.kept == stuck.partial


@pytest.mark.usefixtures("impatient")
def test_a_stuck_file_is_given_up_even_alone(model: ModelCard) -> None:
    stuck = FakeOutlet(stuck_at=5)
    pipeline = outlets_of(stuck, model=model, shared=True)
    with pytest.raises(MediaError, match="took no data"):
        pipeline.run()
    stuck.released.set()


@pytest.mark.usefixtures("impatient")
def test_a_pipe_alone_may_pause_as_long_as_it_likes(model: ModelCard) -> None:
    paused = FakeOutlet(stuck_at=5, may_pause=True)
    pipeline = outlets_of(paused, model=model, shared=True)
    threading.Timer(1.5, paused.released.set).start()
    pipeline.run()
    assert paused.ended == "finished"
    assert len(paused.muxed) == 200


@pytest.mark.usefixtures("impatient")
def test_a_slow_target_slows_the_run_and_loses_nothing(model: ModelCard) -> None:
    slow, quick = FakeOutlet("slow.mkv", delay_s=0.01), FakeOutlet("quick.mkv")
    pipeline = outlets_of(slow, quick, model=model, shared=True, count=100)
    pipeline.run()
    assert len(slow.muxed) == len(quick.muxed) == 100
    assert [result.state for result in pipeline.results] == ["whole", "whole"]


@pytest.mark.usefixtures("impatient")
def test_a_second_interrupt_completes_nothing_of_which_a_part_was_dropped(model: ModelCard) -> None:
    slow = FakeOutlet(delay_s=0.05)
    source = FakeSource(count=20)
    sessions = [IdentityEngine(model).session(GEOMETRY)]
    pipeline = Pipeline(source, sessions, [FakeOutput([FakeEncoder()], [slow])])

    def tick() -> None:
        if source.closed or pipeline.counters.frames_out == 19:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run(tick)
    assert slow.ended == "left"
    assert [result.state for result in pipeline.results] == ["partial"]


def test_frames_in_flight_are_bounded_by_the_slots(model: ModelCard) -> None:
    source = FakeSource(count=60)
    seen = []

    @dataclass
    class Watching(FakeEncoder):
        def encode(self, frame: Frame, planes: Planes | None) -> Sequence[Any]:
            time.sleep(0.002)
            seen.append(source.read - frame.index)
            return super().encode(frame, planes)

    pipeline, _ = build(source, model, Watching())
    pipeline.run()
    assert max(seen) <= 6


@pytest.mark.parametrize(
    ("source_s", "engine_s", "encoder_s", "stage"),
    [(0.01, 0, 0, "read"), (0, 0.01, 0, "engine"), (0, 0, 0.01, "write")],
)
def test_the_limiting_stage_is_told(
    model: ModelCard, source_s: float, engine_s: float, encoder_s: float, stage: str
) -> None:
    source = FakeSource(count=25, delay_s=source_s)
    pipeline, _ = build(source, model, FakeEncoder(delay_s=encoder_s), delay_s=engine_s)
    pipeline.run()
    assert pipeline.limited_by() == stage
    stages = pipeline.stages()
    assert set(stages) == {"read", "engine", "write"}
    assert stages[stage].fps == min(speed.fps for speed in stages.values() if speed.fps)


@dataclass
class Camera(FakeSource):
    """Gives each frame when it is due; one that is asked for later waited in a buffer."""

    is_live: bool = True
    began: float = 0.0

    def frames(self, copy: Callable[[Any], None]) -> Iterator[Frame]:
        self.began = time.perf_counter()
        for number in range(self.count):
            time.sleep(max(0.0, self.began + number / 25 - time.perf_counter()))
            luma = np.full((16, 32), number % 256, np.uint8)
            yield Frame(None, (luma,), 0, number, number, Fraction(1, 25))


@dataclass
class Clock(FakeEncoder):
    """Notes how late each frame is when it is encoded."""

    camera: Any = None
    lags: list[float] = field(default_factory=list)

    def encode(self, frame: Frame, planes: Planes | None) -> Sequence[Any]:
        self.lags.append(time.perf_counter() - self.camera.began - frame.index / 25)
        return super().encode(frame, planes)


def test_a_machine_that_is_too_slow_stays_at_the_present(model: ModelCard) -> None:
    camera = Camera(count=150)
    clock = Clock(camera=camera)
    engine = IdentityEngine(model, delay_s=0.16)  # a quarter of the camera's rate
    outlet = FakeOutlet()
    sessions = [engine.session(GEOMETRY)]
    pipeline = Pipeline(camera, sessions, [FakeOutput([clock], [outlet])], max_latency_s=0.3)
    pipeline.run()
    assert pipeline.counters.frames_in == 150
    assert pipeline.counters.dropped + pipeline.counters.frames_out == 150
    assert 10 <= pipeline.counters.frames_out <= 60
    # The limit, what is under way (three frames of the engine), and a busy machine; waiting for every frame
    # would end 18 s behind.
    assert max(clock.lags) < 3


def test_files_wait_for_every_frame(model: ModelCard) -> None:
    camera = Camera(count=20, is_live=False)
    engine = IdentityEngine(model, delay_s=0.08)
    pipeline = Pipeline(
        camera, [engine.session(GEOMETRY)], [FakeOutput([FakeEncoder()], [FakeOutlet()])], max_latency_s=0.01
    )
    pipeline.run()
    assert (pipeline.counters.dropped, pipeline.counters.frames_out) == (0, 20)


# Targets of live sources.


@dataclass
class Coded:
    """A packet as an encoder gives it."""

    number: int
    is_keyframe: bool = False
    size: int = 1
    stream_index: int = 0


def written(target: OutletThread, outlet: FakeOutlet, packets: Sequence[Coded]) -> list[int]:
    """Give packets to a thread one by one, let it end, and return which of them were written."""
    for packet in packets:
        target.mux([packet])
    outlet.released.set()
    target.finish()
    target.join(10)
    return [packet.number for packet in outlet.muxed]


def threaded(outlet: FakeOutlet) -> OutletThread:
    target = OutletThread(outlet, is_alone=lambda: False, ended=lambda: None)
    target.start()
    return target


def test_a_live_target_drops_what_finds_no_room_up_to_the_next_keyframe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outlets, "QUEUE_BYTES", 4)
    outlet = FakeOutlet(drops=True, stuck_at=0)
    target = threaded(outlet)
    target.mux([Coded(0, is_keyframe=True)])
    wait_for(lambda: not target._queue)
    # Number 0 is being written, 1 to 3 find room, 4 does not, and 5 leans on it.
    for number in range(1, 6):
        target.mux([Coded(number)])
    target.copy(Coded(100))
    outlet.released.set()
    wait_for(lambda: len(outlet.muxed) == 4)
    assert written(target, outlet, [Coded(6), Coded(7, is_keyframe=True), Coded(8)]) == [0, 1, 2, 3, 7, 8]
    assert target.result.lost_packets == 4
    assert outlet.copied == []


def test_a_live_target_leaves_out_what_waited_too_long() -> None:
    outlet = FakeOutlet(drops=True, stale_after_s=0.2, stuck_at=0)
    target = threaded(outlet)
    for number in range(3):
        target.mux([Coded(number, is_keyframe=number != 1)])
    time.sleep(0.4)
    outlet.released.set()
    wait_for(lambda: not target._queue)
    assert written(target, outlet, [Coded(3), Coded(4, is_keyframe=True), Coded(5)]) == [0, 4, 5]


def test_a_live_run_whose_target_never_worked_ends_with_nothing_written(model: ModelCard) -> None:
    source = FakeSource(count=1000, delay_s=0.01, is_live=True)
    good, bad = FakeOutlet("good.mkv"), FakeOutlet("bad", fail_at=0, worked=False)
    engine = IdentityEngine(model)
    sessions = [engine.session(stream.geometry) for stream in source.streams]
    pipeline = Pipeline(source, sessions, [FakeOutput([FakeEncoder()], [good, bad])])
    with pytest.raises(OutputFull):
        pipeline.run()
    assert good.ended == "aborted"
    assert source.read < 500


def test_a_live_run_goes_on_without_a_target_that_worked(model: ModelCard) -> None:
    source = FakeSource(count=30, is_live=True)
    good, bad = FakeOutlet("good.mkv"), FakeOutlet("bad", fail_at=3)
    engine = IdentityEngine(model)
    sessions = [engine.session(stream.geometry) for stream in source.streams]
    Pipeline(source, sessions, [FakeOutput([FakeEncoder()], [good, bad])]).run()
    assert good.ended == "finished"
    assert len(good.muxed) == 30  # 29 frames and what the encoder held


def test_a_live_source_that_comes_ever_later_is_opened_anew(
    model: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_module, "HOPELESS_S", 0.2)

    class Slow(FakeSource):
        refreshed = 0

        def refresh(self) -> bool:
            self.refreshed += 1
            return True

    source = Slow(count=40, delay_s=0.06, is_live=True)  # of 25 frames a second
    engine = IdentityEngine(model)
    sessions = [engine.session(stream.geometry) for stream in source.streams]
    Pipeline(source, sessions, [FakeOutput([FakeEncoder()], [FakeOutlet()])], max_latency_s=0.1).run()
    assert source.refreshed >= 1


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)
