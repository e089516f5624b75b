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

from streamderain.errors import DecodeError, InferenceError, OutputFull, StageFailed
from streamderain.frame import Frame, Geometry, Planes, StreamInfo
from streamderain.models import ModelCard, load_model
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

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeEncoder:
    fail_at: int | None = None
    error: Exception = field(default_factory=lambda: ValueError("odd"))
    delay_s: float = 0.0

    def encode(self, frame: Frame, planes: Planes | None) -> Sequence[Any]:
        if frame.index == self.fail_at:
            raise self.error
        time.sleep(self.delay_s)
        assert planes is not None
        assert planes[0][0, 0] == frame.index % 256
        return [(frame.stream, frame.index)]

    def flush(self) -> Sequence[Any]:
        return ["flushed"]


@dataclass
class FakeOutlet:
    muxed: list[Any] = field(default_factory=list)
    copied: list[Any] = field(default_factory=list)
    ended: str = ""

    def mux(self, packets: Sequence[Any]) -> None:
        self.muxed += packets

    def copy(self, packet: Any) -> None:
        self.copied.append(packet)

    def finish(self) -> None:
        self.ended = "finished"

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
def test_the_first_error_stops_everything_and_removes_the_output(
    model: ModelCard, source: FakeSource, encoder: FakeEncoder, fault: dict[str, Any], error: type[Exception]
) -> None:
    pipeline, outlet = build(source, model, encoder, **fault)
    with pytest.raises(error):
        pipeline.run()
    assert outlet.ended == "aborted"
    assert source.closed
    assert source.read < 100


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
    assert outlet.ended == "finished"
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
    assert outlet.ended == "finished"
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
    assert outlet.ended == "aborted"


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
