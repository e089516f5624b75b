"""Live runs between an RTSP server and their targets: what goes wrong on the way ends by itself."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import psutil
import pytest

from benchmarks.camera import camera
from benchmarks.live import write_camera_clip
from benchmarks.rtsp_relay import Fault, Packet, Relay
from streamderain.jobs.job import Job
from streamderain.media.reading.sources import find_sources
from streamderain.models import load_model
from streamderain.options import EncodeOptions, ReadOptions, RunOptions
from streamderain.runtime.identity import IdentityEngine
from tests.support.command import command
from tests.support.live import free_port, peer, plays, stalls, transport_stream
from tests.support.media import decoded
from tests.support.reader import frame_count, frame_times
from tests.support.requirements import require
from tests.support.runs import FAST, ended, running, wait_until

SOON_S = 3.5
"""Recovery takes at most three seconds after a short fault; the rest is for a busy machine."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("camera") / "camera.mp4"
    write_camera_clip(path, width=96, height=64, rate_fps=25, frames=50)
    return path


@dataclass
class Site:
    """A server with a camera on `/camera`, and a run that publishes to `/clean`."""

    relay: Relay
    clip: Path
    stack: ExitStack
    cameras: list[ExitStack] = field(default_factory=list)

    def plug_in(self, clip: Path | None = None) -> None:
        """Start the camera, and wait for its first frame."""
        stack = self.stack.enter_context(ExitStack())
        self.camera = stack.enter_context(camera(clip or self.clip, self.relay.address("/camera")))
        self.cameras.append(stack)
        wait_until(lambda: self.frames("/camera"), what="the camera", limit_s=20)

    def unplug(self) -> None:
        """Kill the camera."""
        self.cameras.pop().close()
        wait_until(lambda: "/camera" not in self.relay.streams, what="the camera's end", limit_s=10)

    def start(self, *more: str | Path) -> subprocess.Popen[bytes]:
        """Start the command."""
        source, target = self.relay.address("/camera"), self.relay.address("/clean")
        run = self.stack.enter_context(running("run", source, "-o", target, *FAST, *more))
        self.await_frames(5, limit_s=20)
        return run

    def frames(self, path: str = "/clean") -> int:
        """How many frames came there since its publisher is there."""
        stream = self.relay.streams.get(path)
        return 0 if stream is None else len(stream.frames)

    def await_frames(self, more: int = 5, *, limit_s: float = SOON_S, path: str = "/clean") -> None:
        """Wait until so many more frames came."""
        before = self.relay.streams.get(path)
        count = 0 if before is None else len(before.frames)

        def came() -> bool:
            now = self.relay.streams.get(path)
            if now is None:
                return False
            return len(now.frames) >= more if now is not before else len(now.frames) >= count + more

        wait_until(came, what=f"{more} frames more on {path}", limit_s=limit_s)


@pytest.fixture
def site(clip: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        relay = stack.enter_context(Relay())
        made = Site(relay, clip, stack)
        made.plug_in()
        yield made


def family(run: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(run.pid).children(recursive=True)


def stopped(run: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> tuple[int, str]:
    """End a live run; return its code and what it said. No child of it is left."""
    children = family(run)
    run.send_signal(number)
    code, said = ended(run, limit_s=30)
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    return code, said


def rising(site: Site) -> bool:
    """Whether the times of all that came are strictly rising, and their steps sane."""
    ticks = [frame[1] for frame in site.relay.streams["/clean"].frames]
    return all(0 < (b - a) % 2**32 < 90_000 * 10 for a, b in itertools.pairwise(ticks))


def steps(times: Sequence[Fraction]) -> list[float]:
    return [float(b - a) for a, b in itertools.pairwise(times)]


# The source.


def test_a_camera_that_is_unplugged_and_comes_back(site: Site, tmp_path: Path) -> None:
    recording = tmp_path / "clean.mkv"
    run = site.start("-o", recording)
    for _ in range(2):
        site.unplug()
        time.sleep(0.5)
        site.plug_in()
        site.await_frames()
    assert site.relay.announced["/clean"] == 1  # the target never noticed
    assert rising(site)
    code, said = stopped(run)
    assert code == 130
    assert said.count("is back after") == 2
    assert "2 lost" not in said
    times = frame_times(recording)
    assert times == sorted(set(times))
    assert max(steps(times)) > 0.5


def test_a_camera_that_freezes_and_goes_on(site: Site) -> None:
    run = site.start()
    site.camera.send_signal(signal.SIGSTOP)
    time.sleep(2)
    site.camera.send_signal(signal.SIGCONT)
    site.await_frames()
    assert rising(site)
    assert stopped(run)[0] == 130


def test_a_server_that_is_killed_and_started_again(clip: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        relay = stack.enter_context(Relay())
        site = Site(relay, clip, stack)
        site.plug_in()
        run = site.start("-o", tmp_path / "clean.ts")
        relay.close()
        time.sleep(1)
        site.relay = stack.enter_context(Relay(relay.port))
        site.plug_in()
        site.await_frames(limit_s=SOON_S + 1)
        code, said = stopped(run)
    assert code == 130
    assert "source lost" not in said
    assert re.search(r"rtsp://127.0.0.1:\d+/clean (takes no stream|took no data|is gone)", said), said
    assert f"{relay.address('/clean')} is back" in said


def drops(share: float) -> Fault:
    chance = random.Random(1)
    return lambda packet: () if packet.is_media and chance.random() < share else (packet,)


def duplicates(packet: Packet) -> Sequence[Packet]:
    return packet, packet


def corrupts() -> Fault:
    chance = random.Random(2)

    def fault(packet: Packet) -> Sequence[Packet]:
        data = bytearray(packet.data)
        if packet.is_media and len(data) > 200 and chance.random() < 0.3:
            for _ in range(20):
                data[chance.randrange(20, len(data))] = chance.randrange(256)
        return (Packet(packet.channel, bytes(data)),)

    return fault


def swaps() -> Fault:
    held: list[Packet] = []

    def fault(packet: Packet) -> Sequence[Packet]:
        if not packet.is_media:
            return (packet,)
        held.append(packet)
        if len(held) < 3:
            return ()
        late = held.pop(0)
        return (held.pop(0), late)

    return fault


def delays(by_s: float) -> Fault:
    """Hold all packets back, then let them come at once."""
    held: list[Packet] = []
    began = time.monotonic()

    def fault(packet: Packet) -> Sequence[Packet]:
        held.append(packet)
        if time.monotonic() - began < by_s:
            return ()
        came = list(held)
        held.clear()
        return came

    return fault


def jumps(by_s: float) -> Fault:
    def fault(packet: Packet) -> Sequence[Packet]:
        return (packet.at(packet.timestamp + round(90_000 * by_s)),) if packet.is_media else (packet,)

    return fault


@pytest.mark.parametrize(
    "fault",
    [
        lambda: drops(0.1),
        lambda: duplicates,
        corrupts,
        swaps,
        lambda: delays(1.5),
        lambda: jumps(10),
        lambda: jumps(-10),
        lambda: jumps(20_000),
    ],
    ids=["lost", "twice", "corrupt", "swapped", "delayed", "+10 s", "-10 s", "+20000 s"],
)
def test_faults_of_rtp_end_with_their_cause(site: Site, fault: Callable[[], Fault]) -> None:
    run = site.start()
    site.relay.faults["/camera"] = fault()
    time.sleep(2)
    del site.relay.faults["/camera"]
    site.await_frames(25, limit_s=SOON_S + 1)
    assert site.relay.announced["/clean"] == 1
    assert rising(site)
    assert stopped(run)[0] == 130


def test_no_picture_is_shown_that_leans_on_one_that_is_missing(site: Site, tmp_path: Path) -> None:
    """Without keyframes nothing can be decoded; what comes after is whole."""
    run = site.start("-o", tmp_path / "clean.mkv")
    open_at: list[float] = []

    def fault(packet: Packet) -> Sequence[Packet]:
        if packet.is_media and packet.begins_keyframe:
            return ()
        return (packet,)

    site.relay.faults["/camera"] = fault
    time.sleep(2.2)
    del site.relay.faults["/camera"]
    open_at.append(time.monotonic())
    site.await_frames(25, limit_s=SOON_S + 1)
    code, said = stopped(run)
    assert code == 130
    assert "could not be decoded" in said or "the connection was lost" in said or "damaged" in said


def test_a_silent_stop_of_the_media_is_noticed(site: Site) -> None:
    run = site.start()
    site.relay.faults["/camera"] = lambda packet: ()
    wait_until(lambda: site.relay.played["/camera"] > 1, what="another connection", limit_s=20)
    del site.relay.faults["/camera"]
    site.await_frames(limit_s=SOON_S + 3)
    assert stopped(run)[0] == 130


def test_a_link_that_drops(clip: Path) -> None:
    """Nothing comes from the camera's server and nothing is refused, as where a cable is pulled."""
    with ExitStack() as stack:
        away = stack.enter_context(Relay())
        here = stack.enter_context(Relay())
        stack.enter_context(camera(clip, away.address("/camera")))
        wait_until(lambda: away.streams.get("/camera"), what="the camera", limit_s=10)
        run = stack.enter_context(
            running("run", away.address("/camera"), "-o", here.address("/clean"), *FAST)
        )
        site = Site(here, clip, stack)
        wait_until(lambda: site.frames() > 5, what="frames", limit_s=15)
        away.frozen.set()
        time.sleep(5)
        away.frozen.clear()
        site.await_frames(limit_s=SOON_S)
        assert here.announced["/clean"] == 1
        assert rising(site)
        assert stopped(run)[0] == 130


def test_waiting_for_a_source_is_told() -> None:
    with running("run", f"tcp://127.0.0.1:{free_port()}", "-o", "-", "--wait", *FAST) as run:
        time.sleep(2.5)
        run.terminate()
        code, said = ended(run)
    assert code == 130
    assert "connection refused. Check the address and the network. It is tried again" in said


# The targets.


@pytest.fixture
def sink(clip: Path) -> Iterator[tuple[Site, Relay]]:
    """A site whose target is a server of its own."""
    with ExitStack() as stack:
        site = Site(stack.enter_context(Relay()), clip, stack)
        site.plug_in()
        yield site, stack.enter_context(Relay())


def test_a_stuck_target_delays_no_other(sink: tuple[Site, Relay], tmp_path: Path) -> None:
    site, other = sink
    recording = tmp_path / "clean.mkv"
    run = site.start("-o", other.address("/clean"), "-o", recording)
    wait_until(lambda: other.streams.get("/clean"), what="the other server", limit_s=10)
    other.frozen.set()
    before = site.frames()
    time.sleep(5)
    assert site.frames() - before > 100  # of 125
    other.frozen.clear()
    wait_until(
        lambda: "/clean" in other.streams and len(other.streams["/clean"].frames) > 10,
        what="the other server's frames",
        limit_s=SOON_S + 1,
    )
    assert stopped(run)[0] == 130
    assert max(steps(frame_times(recording))) < 0.6


def test_a_target_that_is_killed_comes_back_with_a_keyframe(sink: tuple[Site, Relay], clip: Path) -> None:
    site, other = sink
    run = site.start("-o", other.address("/clean"))
    wait_until(lambda: other.streams.get("/clean"), what="the other server", limit_s=10)
    other.close()
    time.sleep(1.5)
    with Relay(other.port) as again:
        wait_until(
            lambda: "/clean" in again.streams and again.streams["/clean"].frames,
            what="the server that is back",
            limit_s=SOON_S,
        )
        assert site.relay.announced["/clean"] == 1
        code, said = stopped(run)
    assert code == 130
    assert f"{other.address('/clean')} is back" in said


def test_a_publisher_that_is_killed_is_replaced(site: Site) -> None:
    run = site.start()
    (child,) = family(run)
    child.kill()
    wait_until(lambda: site.relay.announced["/clean"] == 2, what="another publisher", limit_s=SOON_S)
    site.await_frames()
    code, said = stopped(run)
    assert code == 130
    assert "is started again" in said


def test_children_end_with_a_run_that_is_killed(site: Site, tmp_path: Path) -> None:
    recording = tmp_path / "%Y%m%d-%H%M%S.mp4"
    run = site.start("-o", recording)
    site.await_frames(30)
    children = family(run)
    assert children
    run.kill()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    (partial,) = tmp_path.iterdir()
    assert ".partial" in partial.name
    assert frame_count(partial, cut=True) > 5
    # The next run gives it its name.
    wait_until(lambda: "/clean" not in site.relay.streams, what="the killed run's end", limit_s=5)
    again = site.start("-o", recording)
    assert (tmp_path / partial.name.replace(".partial", "")).exists()
    assert stopped(again)[0] == 130
    assert not list(tmp_path.glob("*.partial*"))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_wrong_password_ends_the_run_at_once_with_nothing_written(site: Site, tmp_path: Path) -> None:
    with Relay(user="keeper", password="gate-code") as guarded:
        target = guarded.address("/clean", user="keeper", password="sesame-9")
        with running(
            "run", site.relay.address("/camera"), "-o", target, "-o", tmp_path / "clean.mkv", *FAST
        ) as run:
            code, said = ended(run, limit_s=8)
        assert code == 3
        assert "refuses the user name and password" in said
        assert "sesame-9" not in said
        assert not list(tmp_path.iterdir())
        right = guarded.address("/clean", user="keeper", password="gate-code")
        with running("run", site.relay.address("/camera"), "-o", right, *FAST) as run:
            wait_until(
                lambda: "/clean" in guarded.streams and guarded.streams["/clean"].frames,
                what="frames at the guarded server",
                limit_s=10,
            )
            assert stopped(run)[0] == 130


def test_a_target_that_never_answers_ends_the_run_after_a_while(site: Site, tmp_path: Path) -> None:
    began = time.monotonic()
    with (
        peer(stalls) as silent,
        running(
            "run",
            site.relay.address("/camera"),
            "-o",
            silent.address("rtsp", "/clean"),
            "-o",
            tmp_path / "clean.mkv",
            *FAST,
        ) as run,
    ):
        code, said = ended(run, limit_s=30)
    assert code == 3
    assert 8 < time.monotonic() - began < 25
    assert "did not answer for 10 s" in said
    assert not list(tmp_path.iterdir())


def test_a_target_that_is_waited_for(site: Site) -> None:
    port = free_port()
    with running(
        "run", site.relay.address("/camera"), "-o", f"rtsp://127.0.0.1:{port}/clean", "--wait", *FAST
    ) as run:
        time.sleep(3)
        assert run.poll() is None
        with Relay(port) as late:
            wait_until(
                lambda: "/clean" in late.streams and late.streams["/clean"].frames,
                what="the late server's frames",
                limit_s=SOON_S,
            )
            assert stopped(run)[0] == 130


def test_a_full_disk_under_a_recording(site: Site, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    require(subprocess.run(mount, capture_output=True, check=False).returncode == 0, "the right to mount")
    try:
        ballast = disk / "ballast"
        run = site.start("-o", disk / "%Y%m%d-%H%M%S.ts", "--split", "2s")
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            for _ in range(1000):
                file.write(bytes(4096))
        time.sleep(2.5)
        site.await_frames()  # the other target goes on
        ballast.unlink()
        wait_until(lambda: _newest_age_s(disk) < 0.5, what="a recording that goes on", limit_s=SOON_S)
        code, said = stopped(run)
        assert code == 130
        assert "no room" in said
        assert "goes on" in said
        parts = sorted(disk.iterdir())
        assert len(parts) >= 2
        assert all(frame_count(part, cut=True) > 0 for part in parts if part.stat().st_size)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _newest_age_s(folder: Path) -> float:
    times = [path.stat().st_mtime for path in folder.glob("*.partial*") if path.stat().st_size > 1000]
    return time.time() - max(times, default=0.0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_a_recording_whole(site: Site, tmp_path: Path, number: int) -> None:
    recording = tmp_path / "clean.mp4"
    run = site.start("-o", recording, "-o", tmp_path / "part.mkv", "--split", "1s")
    site.await_frames(60)
    code, _ = stopped(run, number)
    assert code == 130
    parts = sorted(tmp_path.iterdir())
    assert not [part for part in parts if "partial" in part.name]
    for part in parts:
        packets = decoded(part)
        assert packets[0].key_frame
        assert 1 <= len(packets) <= 30
    assert len(parts) >= 4


def test_recordings_part_at_keyframes_and_the_oldest_go(site: Site, tmp_path: Path) -> None:
    run = site.start("-o", tmp_path / "%Y%m%d-%H%M%S.ts", "--split", "1s", "--keep", "3s")
    mine = tmp_path / "holiday.ts"
    mine.write_bytes(b"of the user")
    os.utime(mine, (0, 0))
    site.await_frames(25 * 7, limit_s=20)
    code, _ = stopped(run)
    assert code == 130
    assert mine.exists()
    parts = [part for part in tmp_path.iterdir() if part != mine]
    assert 3 <= len(parts) <= 5


def test_standard_output_brings_bytes_at_once_and_ends_with_its_reader(site: Site) -> None:
    arguments = ("run", site.relay.address("/camera"), "-o", "-", "--format", "mpegts", *FAST)
    with subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        head = run.stdout.read(188 * 20)
        assert head[0] == 0x47
        assert head[188] == 0x47
        run.stdout.close()
        assert run.stderr is not None
        said = run.stderr.read().decode()
        assert run.wait(20) == 3
    assert "its reader went away" in said


def test_a_reader_that_pauses_gets_the_present(site: Site, tmp_path: Path) -> None:
    arguments = ("run", site.relay.address("/camera"), "-o", "-", "--format", "mpegts", *FAST)
    arguments = (*arguments, "--max-bitrate", "8M", "--crf", "1")
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as run:
        assert run.stdout is not None
        got = tmp_path / "got.ts"
        with got.open("wb") as file:
            file.write(run.stdout.read(188 * 200))
            time.sleep(4)  # the pipe fills, and the queue behind it grows old
            until = time.monotonic() + 3
            while time.monotonic() < until:
                file.write(os.read(run.stdout.fileno(), 1 << 16))
        run.send_signal(signal.SIGTERM)
        file_rest = run.stdout.read()
        with got.open("ab") as file:
            file.write(file_rest)
        assert run.wait(20) == 130
    assert max(steps(frame_times(got))) > 0.5  # what was too old was left out


@pytest.mark.parametrize("segments", ["mpegts", "mp4"])
def test_a_playlist_shows_a_window_and_cleans_up(site: Site, tmp_path: Path, segments: str) -> None:
    playlist = tmp_path / "clean.m3u8"
    run = site.start("-o", playlist, "--format", segments, "--hls-window", "2")
    wait_until(lambda: playlist.exists() and "-00003." in playlist.read_text(), what="segments", limit_s=20)
    assert "ENDLIST" not in playlist.read_text()
    for child in family(run):
        child.kill()  # that of the playlist, and that of the server
    site.await_frames()
    wait_until(lambda: "-00005." in playlist.read_text(), what="later segments", limit_s=10)
    code, _ = stopped(run)
    assert code == 130
    assert "ENDLIST" in playlist.read_text()
    suffix = "m4s" if segments == "mp4" else "ts"
    assert len(list(tmp_path.glob(f"*.{suffix}"))) <= 5
    assert frame_count(playlist) > 50


# Secrets, and what is left behind.


def test_a_run_leaves_no_thread_descriptor_or_child(tmp_path: Path) -> None:
    stream = transport_stream(tmp_path / "a", frames=50)
    read = ReadOptions(duration_s=1.5)
    options = RunOptions(read=read, encode=EncodeOptions(preset="ultrafast"))
    here = psutil.Process()
    with Relay() as relay, IdentityEngine(load_model("dcd-lite")) as engine:

        def once(number: int) -> None:
            with peer(plays(stream, seconds=2), plays(stream, seconds=2)) as server:
                (spec,) = find_sources(server.address(), read)
                targets = [relay.address("/clean"), str(tmp_path / f"{number}.mkv")]
                assert Job(spec, targets, options=options, engine=engine).run(
                    lambda event: None, threading.Event()
                )

        def left() -> tuple[int, int, int]:
            gc.collect()  # decoders have threads of their own, which end with them
            return here.num_fds(), here.num_threads(), len(here.children())

        once(0)  # makes what is made once
        time.sleep(0.5)
        before = left()
        once(1)
        wait_until(
            lambda: all(now <= then for now, then in zip(left(), before, strict=True)),
            what=f"what there was before: {before}",
            limit_s=5,
        )


def test_no_secret_shows_anywhere(clip: Path, tmp_path: Path) -> None:
    secret = "tr0ub4dor-and-3"
    report = tmp_path / "report.json"
    with ExitStack() as stack:
        relay = stack.enter_context(Relay(user="admin", password=secret))
        source = relay.address("/camera", user="admin", password=secret)
        target = relay.address("/clean", user="admin", password=secret)
        stack.enter_context(camera(clip, source))
        wait_until(lambda: relay.streams.get("/camera"), what="the camera", limit_s=10)
        run = stack.enter_context(
            running(
                "run",
                source,
                "-o",
                target,
                "-o",
                tmp_path / "clean.mkv",
                f"--json={report}",
                *FAST,
            )
        )
        wait_until(
            lambda: "/clean" in relay.streams and relay.streams["/clean"].frames, what="frames", limit_s=15
        )
        processes = [psutil.Process(run.pid), *family(run)]
        assert len(processes) == 2
        for process in processes:
            assert secret not in " ".join(process.cmdline())
            assert secret not in str(process.environ())
        assert "rtsp://***@127.0.0.1" in " ".join(processes[0].cmdline())
        relay.hang_up("/clean")
        time.sleep(1)
        run.send_signal(signal.SIGTERM)
        _, said = run.communicate(timeout=20)
    assert secret not in said.decode()
    assert run.returncode == 130
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(secret.encode() not in path.read_bytes() for path in left)


def test_a_report_and_its_errors_hold_no_secret(tmp_path: Path) -> None:
    secret = "tr0ub4dor-and-3"
    report = tmp_path / "report.json"
    port = free_port()
    address = f"rtsp://admin:{secret}@127.0.0.1:{port}/front"
    with running("run", address, "-o", address, f"--json={report}") as run:
        code, said = ended(run, limit_s=30)
    assert code == 3
    assert secret not in said
    assert secret not in report.read_text()
    assert json.loads(report.read_text())["exit_code"] == 3


def test_a_hostile_description_grows_nothing() -> None:
    """Thousands of streams, and a server that never stops to describe them."""
    media = "".join(f"m=audio 0 RTP/AVP 0\r\na=control:streamid={n}\r\n" for n in range(5000))
    body = f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n{media}".encode()

    def hostile(connection: socket.socket, over: threading.Event) -> None:
        while request := connection.recv(1 << 16).decode(errors="replace"):
            number = next(line for line in request.splitlines() if line.lower().startswith("cseq"))
            sdp = body if request.startswith("DESCRIBE") else b""
            kind = (
                "Content-Type: application/sdp\r\n" if sdp else "Transport: RTP/AVP/TCP;interleaved=0-1\r\n"
            )
            head = f"RTSP/1.0 200 OK\r\n{number}\r\n{kind}Session: 1\r\nContent-Length: {len(sdp)}\r\n\r\n"
            connection.sendall(head.encode() + sdp)

    with peer(hostile) as server, running("run", server.address("rtsp", "/x"), "-o", "-", *FAST) as run:
        peak = 0
        until = time.monotonic() + 25
        while run.poll() is None and time.monotonic() < until:
            peak = max(peak, psutil.Process(run.pid).memory_info().rss)
            time.sleep(0.1)
        code, said = ended(run, limit_s=10)
    assert code == 3, said
    assert peak < 400 << 20
