"""Live sources through every interruption, on peers of our own."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from streamderain.errors import ConfigError, MediaError, NotServed, OpenError, Unreachable
from streamderain.events import Incidents
from streamderain.frame import Frame
from streamderain.jobs.job import Job
from streamderain.media import network
from streamderain.media.reading import live
from streamderain.media.reading.live import LiveSource
from streamderain.media.reading.sources import find_sources, open_source
from streamderain.models import load_model
from streamderain.options import EngineOptions, ReadOptions, RunOptions
from streamderain.runtime import recovering
from streamderain.runtime.identity import IdentityEngine
from tests.support.command import streamderain
from tests.support.live import (
    answers,
    drips,
    free_port,
    peer,
    plays,
    sends_garbage,
    sends_no_picture,
    stalls,
    then,
    transport_stream,
)
from tests.support.media import decoded


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return transport_stream(tmp_path_factory.mktemp("live") / "a", frames=50)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "LIVE_TIMEOUTS_S", (2.0, 0.5))
    monkeypatch.setattr(live, "PATIENCE_S", 1.5)
    monkeypatch.setattr(live, "FIRST_TRIES_S", 1.0)


@dataclass
class Watched:
    """What came of a source, and the packets that are copied."""

    source: LiveSource
    incidents: Incidents
    frames: list[Frame] = field(default_factory=list)
    sound: list[float] = field(default_factory=list)

    def read(self, count: int, *, limit_s: float = 20.0) -> None:
        stop = threading.Timer(limit_s, self.source._stop.set)
        stop.start()
        try:
            for frame in self.source.frames(lambda p: self.sound.append(float(p.dts * p.time_base))):
                self.frames.append(frame)
                if len(self.frames) == count:
                    return
        finally:
            stop.cancel()

    @property
    def times(self) -> list[float]:
        return [frame.time_s for frame in self.frames]


def watched(address: str, **options: object) -> Watched:
    incidents = Incidents()
    read = ReadOptions(**options)  # type: ignore[arg-type]
    return Watched(LiveSource(address, read, incidents=incidents), incidents)


def gap(times: list[float]) -> tuple[int, float]:
    """Return where the widest step is, and how wide."""
    steps = [b - a for a, b in itertools.pairwise(times)]
    widest = max(steps)
    return steps.index(widest) + 1, widest


def test_a_source_that_hangs_up_is_sought_again(stream: bytes) -> None:
    with peer(plays(stream, seconds=2), plays(stream, seconds=2)) as server:
        watching = watched(server.address())
        watching.read(80)
        watching.source.close()
    assert server.connections == 2
    assert len(watching.frames) == 80
    assert [frame.index for frame in watching.frames] == list(range(80))
    assert watching.times == sorted(set(watching.times))
    where, step = gap(watching.times)
    assert 0.04 < step < 3
    assert [number for number, frame in enumerate(watching.frames) if frame.cut] == [where]
    assert watching.source.damage.texts()
    assert "the connection was lost and sought again" in watching.source.warnings[-1]
    # Sound goes on beside the picture.
    assert watching.sound == sorted(watching.sound)
    assert watching.sound[-1] == pytest.approx(watching.times[-1], abs=0.7)


@pytest.mark.parametrize("fault", [stalls, sends_no_picture, sends_garbage], ids=lambda f: f.__name__)
def test_a_source_that_brings_nothing_is_left_for_the_next_connection(stream: bytes, fault: object) -> None:
    broken = then(plays(stream, seconds=2), fault)  # type: ignore[arg-type]
    with peer(broken, fault, plays(stream, seconds=2)) as server:  # type: ignore[arg-type]
        watching = watched(server.address())
        watching.read(70)
        watching.source.close()
    assert len(watching.frames) == 70
    assert watching.times == sorted(set(watching.times))
    assert gap(watching.times)[1] > 0.3


def test_a_gap_takes_as_long_as_it_took(stream: bytes) -> None:
    with peer(plays(stream, seconds=2)) as server:
        watching = watched(server.address())
        watching.read(40)
        port = server.port
    began = time.monotonic()

    def back() -> Iterator[None]:
        time.sleep(1.5)
        with peer(plays(stream, seconds=2), port=port):
            yield
            time.sleep(6)

    returning = threading.Thread(target=lambda: [None for _ in back()])
    returning.start()
    watching.read(90, limit_s=15)
    watching.source.close()
    returning.join()
    _, step = gap(watching.times)
    assert 1.0 < step < time.monotonic() - began
    told = watching.source.damage.texts()
    assert any("the connection was lost, and about " in one for one in told)


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ("401 Unauthorized", "refuses the user name and password"),
        ("403 Forbidden", "is forbidden to this user"),
        ("404 Not Found", "the server knows no such stream"),
    ],
)
def test_what_is_refused_for_good_ends_at_once(status: str, says: str) -> None:
    with peer(answers(status)) as server:
        address = server.address("rtsp", "/front").replace("//", "//admin:secret@")
        began = time.monotonic()
        with pytest.raises(OpenError, match=says) as raised:
            LiveSource(address, ReadOptions())
        assert time.monotonic() - began < 5
    assert not isinstance(raised.value, Unreachable) or isinstance(raised.value, NotServed)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("scheme", "fault"),
    [("tcp", stalls), ("tcp", sends_garbage), ("tcp", sends_no_picture), ("rtsp", drips), ("rtsp", stalls)],
)
def test_what_never_worked_ends_soon(scheme: str, fault: object) -> None:
    with peer(fault) as server, pytest.raises(MediaError):  # type: ignore[arg-type]
        LiveSource(server.address(scheme), ReadOptions())
    assert server.connections >= 1


def test_nobody_there_is_an_error_unless_waited_for(stream: bytes) -> None:
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with pytest.raises(Unreachable, match=rf"tcp://127\.0\.0\.1:{port} cannot be opened: .*network"):
        LiveSource(address, ReadOptions())
    opened: list[Watched] = []
    waiting = threading.Thread(target=lambda: opened.append(watched(address, wait=True)))
    waiting.start()
    time.sleep(2)
    assert waiting.is_alive()
    with peer(plays(stream, seconds=2), port=port):
        waiting.join(10)
        (watching,) = opened
        watching.read(10)
        watching.source.close()
    assert len(watching.frames) == 10


def test_a_lost_source_is_given_up_after_the_time_that_was_said(stream: bytes) -> None:
    with peer(plays(stream, seconds=1)) as server:
        watching = watched(server.address(), give_up_after_s=1.0)
        watching.read(20)
    with pytest.raises(Unreachable):
        watching.read(1000)
    watching.source.close()


def test_other_streams_than_before_are_taken_up(stream: bytes, tmp_path: Path) -> None:
    larger = transport_stream(tmp_path / "b", frames=50, width=96, height=64)
    with peer(plays(stream, seconds=1), plays(larger, seconds=2)) as server:
        watching = watched(server.address())
        watching.read(1000)
        before = list(watching.frames)
        assert watching.source.goes_on
        assert watching.source.take_up()
        watching.read(len(before) + 20)
        watching.source.close()
    assert {frame.planes[0].shape for frame in before} == {(48, 64)}
    after = watching.frames[len(before) :]
    assert {frame.planes[0].shape for frame in after} == {(64, 96)}
    assert len(after) == 20
    assert watching.times == sorted(set(watching.times))
    told = [incident.message for incident in watching.incidents.drain()]
    assert any("was 64x48 h264 yuv420p" in one and "is 96x64 h264" in one for one in told), told


def test_the_command_goes_on_in_another_file_where_the_size_changes(stream: bytes, tmp_path: Path) -> None:
    larger = transport_stream(tmp_path / "b", frames=50, width=96, height=64)
    target = tmp_path / "clean.mkv"
    with peer(plays(stream, seconds=2), plays(larger, seconds=2)) as server:
        done = streamderain("run", server.address(), "-o", target, "-t", "4", "--json")
    assert done.code == 7, done.err
    assert "brings other streams" in done.err
    first, second = decoded(target), decoded(tmp_path / "clean-2.mkv")
    assert (first[0].width, second[0].width) == (64, 96)
    assert done.summary["frames_out"] == len(first) + len(second)
    assert [Path(result["path"]).name for result in done.summary["files"][0]["results"]] == [
        "clean.mkv",
        "clean-2.mkv",
    ]
    assert not list(tmp_path.glob("*.partial*"))


def test_a_stop_ends_a_source_that_says_nothing(stream: bytes) -> None:
    with peer(then(plays(stream, seconds=1), stalls), stalls) as server:
        watching = watched(server.address())
        threading.Timer(2.0, watching.source._stop.set).start()
        began = time.monotonic()
        watching.read(1000)
        assert time.monotonic() - began < 5
        assert watching.source.was_stopped
        watching.source.close()
        watching.source.close()
    assert watching.frames


def test_a_length_ends_it(stream: bytes) -> None:
    with peer(plays(stream, seconds=1)) as server:
        watching = watched(server.address(), duration_s=0.4)
        watching.read(1000)
        watching.source.close()
    assert len(watching.frames) == 10


def test_a_begin_makes_no_sense() -> None:
    with pytest.raises(ConfigError, match="is live: it has no begin"):
        LiveSource("rtsp://127.0.0.1:9/a", ReadOptions(start_s=3))


def test_what_is_live_by_itself(stream: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def pretended(kind: str, *, is_open_playlist: bool = False) -> object:
        opened.append(kind)
        return SimpleNamespace(is_open_playlist=is_open_playlist, be_patient=lambda _: None)

    sources = "streamderain.media.reading.sources"
    monkeypatch.setattr(f"{sources}.LiveSource", lambda *_, **__: pretended("live"))
    monkeypatch.setattr(
        f"{sources}.FileSource",
        lambda address, *_, **__: pretended("file", is_open_playlist=address.endswith("live.m3u8")),
    )
    for address, options in (
        ("rtsp://h/a", ReadOptions()),
        ("http://h/a.mp4", ReadOptions()),
        ("http://h/a.ts", ReadOptions(live=True)),
        ("udp://h:1", ReadOptions(live=False)),
        ("https://h/done.m3u8", ReadOptions()),
        ("https://h/live.m3u8", ReadOptions()),
        ("https://h/live.m3u8", ReadOptions(live=False)),
    ):
        open_source(find_sources(address, options)[0], options)
    assert opened == ["live", "file", "live", "file", "file", "file", "live", "file"]


def test_the_command_records_through_an_interruption(stream: bytes, tmp_path: Path) -> None:
    target = tmp_path / "clean.mkv"
    with peer(plays(stream, seconds=2)) as server:
        done = streamderain("run", server.address(), "-o", target, "-t", "4", "--preset", "ultrafast")
    assert done.code == 7, done.err
    assert "the connection was lost" in done.err
    frames = decoded(target)
    assert 40 <= len(frames) <= 100
    times = [float(frame.pts * frame.time_base) for frame in frames]
    assert times == sorted(set(times))
    assert times[-1] - times[0] == pytest.approx(4, abs=1)


@pytest.mark.parametrize("closed", [False, True], ids=["fail open", "fail closed"])
def test_an_engine_that_fails_ends_nothing(
    stream: bytes, tmp_path: Path, closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovering, "HEALTHY_S", 0.2)
    monkeypatch.setattr(recovering, "_RETRY_S", 0.2)
    target = tmp_path / "clean.mkv"
    read, engine_options = ReadOptions(duration_s=1.6, max_latency_s=5), EngineOptions(fail_closed=closed)
    options = RunOptions(read=read, engine=engine_options)
    with (
        peer(plays(stream, seconds=2)) as server,
        IdentityEngine(load_model("dcd-lite"), fail_at=8) as engine,
    ):
        (spec,) = find_sources(server.address(), read)
        job = Job(spec, [str(target)], options=options, engine=engine)
        done = job.run(lambda event: None, threading.Event())
    assert done is not None
    assert any("the engine failed" in warning for warning in done.warnings)
    frames = decoded(target)
    assert len(frames) == done.frames_out
    if closed:
        assert done.passed == 0
        assert 8 <= done.frames_out < 40
        assert any("were held back" in warning for warning in done.warnings)
    else:
        assert done.frames_out == 40
        assert 0 < done.passed < 40


def test_a_source_that_hangs_up_again_and_again_is_not_hammered(stream: bytes) -> None:
    with peer(plays(stream, seconds=0.2)) as server:
        watching = watched(server.address())
        watching.read(10_000, limit_s=4)
        watching.source.close()
    assert 2 <= server.connections <= 8
    assert watching.times == sorted(set(watching.times))


def test_a_transport_stream_by_udp(stream: bytes) -> None:
    port, over = free_port(), threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            size = 7 * 188
            while not over.is_set():
                for start in range(0, len(stream), size):
                    sending.sendto(stream[start : start + size], ("127.0.0.1", port))
                    if over.wait(2 * size / len(stream)):
                        return

    camera = threading.Thread(target=send)
    camera.start()
    try:
        watching = watched(f"udp://127.0.0.1:{port}")
        watching.read(70)
        watching.source.close()
    finally:
        over.set()
        camera.join()
    assert len(watching.frames) == 70
    assert watching.times == sorted(set(watching.times))
