"""A site of cameras, as its users meet it: streams, pictures, metrics, faults and reloads."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from benchmarks.camera import camera
from benchmarks.live import write_camera_clip
from benchmarks.rtsp_relay import Relay
from streamderain.serve.connection import UNREAD_S
from streamderain.serve.metrics import SiteMetrics
from streamderain.serve.server import CONNECTIONS_AT_MOST
from streamderain.serve.supervisor import Status
from tests.support.live import free_port
from tests.support.media import decoded
from tests.support.requirements import require
from tests.support.runs import wait_until

CAMERAS = ("front", "back")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("camera") / "camera.mp4"
    write_camera_clip(path, width=96, height=64, rate_fps=10, frames=50)
    return path


@dataclass
class Served:
    """A running site."""

    process: subprocess.Popen[bytes]
    config: Path
    log: Path
    port: int
    relay: Relay
    token: str = ""

    def get(self, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """Ask for a path; returns status, body and headers."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), dict(error.headers)

    def state(self, name: str) -> dict[str, Any]:
        """What is told of a camera."""
        found: dict[str, Any] = json.loads(self.get("/state")[1])[name]
        return found

    def await_state(self, name: str, state: str, *, limit_s: float = 20) -> None:
        wait_until(lambda: self.state(name)["state"] == state, what=f"{name} {state}", limit_s=limit_s)

    def children(self) -> dict[str, int]:
        """Process numbers of the cameras, by name."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            title = child.cmdline()[0].split()
            if title[:2] == ["streamderain", "camera"]:
                found[title[2]] = child.pid
        return found


def written(config: Path, relay: Relay, port: int, more: str = "", **options: str) -> None:
    lines = [f"listen: 127.0.0.1:{port}", "engine: identity", "preset: ultrafast", more, "cameras:"]
    for name in dict.fromkeys((*CAMERAS, *options)):
        lines.append(f"  {name}: {{source: '{relay.address(f'/{name}')}' {options.get(name, '')}}}")
    config.write_text("\n".join(lines))


@contextmanager
def served(folder: Path, relay: Relay, more: str = "", *, port: int = 0, **options: str) -> Iterator[Served]:
    config, log, port = folder / "cameras.yaml", folder / "log", port or free_port()
    written(config, relay, port, more, **options)
    with log.open("wb") as file:
        command = [sys.executable, "-m", "streamderain", "serve", str(config)]
        process = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
    site = Served(process, config, log, port, relay)
    try:
        wait_until(lambda: _answers(site), what="the site", limit_s=20)
        yield site
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        assert process.wait(20) == 0, log.read_text()
        assert not psutil.wait_procs(children, timeout=5)[1]
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.kill()
        process.wait()


def _answers(site: Served) -> bool:
    try:
        return site.get("/healthz")[0] == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def relay(clip: Path) -> Iterator[Relay]:
    with ExitStack() as stack:
        relay = stack.enter_context(Relay())
        for name in CAMERAS:
            stack.enter_context(camera(clip, relay.address(f"/{name}")))
        wait_until(lambda: len(relay.streams) == len(CAMERAS), what="the cameras", limit_s=20)
        yield relay


def test_streams_pictures_and_metrics(relay: Relay, tmp_path: Path) -> None:
    recording = tmp_path / "%Y%m%d-%H%M%S.ts"
    with served(tmp_path, relay, back=f", targets: ['{recording}'], split: 1s") as site:
        for name in CAMERAS:
            site.await_state(name, "running")
        assert site.get("/readyz")[0] == 200
        pulled = tmp_path / "pulled.ts"
        with urllib.request.urlopen(f"http://127.0.0.1:{site.port}/cameras/front.ts", timeout=15) as stream:
            assert stream.headers["content-type"] == "video/mp2t"
            until = time.monotonic() + 4
            with pulled.open("wb") as file:
                while time.monotonic() < until:
                    file.write(stream.read(188))
        assert len(decoded(pulled)) > 15
        number = -1
        for _ in range(2):
            status, before, headers = site.get(f"/cameras/front.jpg?side=before&after={number}")
            assert (status, before[:3]) == (200, b"\xff\xd8\xff")
            assert int(headers["x-number"]) > number
            number = int(headers["x-number"])
        assert site.get("/cameras/front.jpg")[1][:3] == b"\xff\xd8\xff"
        metrics = site.get("/metrics")[1].decode()
        for line in (
            'streamderain_up{camera="front"} 1.0',
            'streamderain_dropped_frames_total{camera="back",reason="late"}',
            'streamderain_reconnects_total{camera="back",side="source"} 0.0',
            'streamderain_latency_seconds_bucket{camera="front",le="0.1"}',
        ):
            assert line in metrics, line
        come = re.search(r'streamderain_input_fps\{camera="front"\} (\S+)', metrics)
        assert come is not None
        assert 7 < float(come[1]) < 13
        told = site.state("front")
        assert told["size"] == [96, 64]
        assert 8 < told["fps"] < 12
        assert site.get("/cameras/none.ts")[0] == 404
        assert site.get("/cameras/none.jpg")[0] == 404
        assert site.get("/page.py")[0] == 404
        assert site.get("/../cameras.yaml")[0] == 404
        headers = site.get("/")[2]
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
    assert list(tmp_path.glob("*.ts"))
    assert not list(tmp_path.glob("*.partial*"))


def test_a_camera_process_that_is_killed_comes_back_and_the_other_does_not_notice(
    relay: Relay, tmp_path: Path
) -> None:
    with served(tmp_path, relay) as site:
        for name in CAMERAS:
            site.await_state(name, "running")
        pids = site.children()
        os.kill(pids["front"], signal.SIGKILL)
        wait_until(
            lambda: sum(site.state(name)["restarts"] for name in CAMERAS) == 1, what="a restart", limit_s=5
        )
        for name in CAMERAS:
            site.await_state(name, "running")
        assert len(set(site.children().values()) & set(pids.values())) == 1


def test_a_changed_file_is_taken_over_and_a_wrong_one_is_not(relay: Relay, tmp_path: Path) -> None:
    with served(tmp_path, relay) as site:
        for name in CAMERAS:
            site.await_state(name, "running")
        before = set(site.children().values())
        written(site.config, relay, site.port, back=", crf: 30")
        site.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "changed cameras: back" in site.log.read_text(), what="the reload", limit_s=15)
        for name in CAMERAS:
            site.await_state(name, "running")
        after = set(site.children().values())
        assert len(before & after) == 1
        site.config.write_text("cameras: {front: {sauce: x}}")
        site.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "was not taken over" in site.log.read_text(), what="the refusal", limit_s=10)
        assert set(site.children().values()) == after


def test_a_token_is_wanted_of_everybody_and_never_shown(relay: Relay, tmp_path: Path) -> None:
    token = "a-token-long-enough"
    with served(tmp_path, relay, more=f"token: {token}") as site:
        assert site.get("/healthz")[0] == 200
        for path in ("/", "/state", "/metrics", "/readyz", "/cameras/front.ts", "/cameras/front.jpg"):
            assert site.get(path)[0] == 401, path
            assert site.get(f"{path}?token=wrong")[0] == 401, path
        assert site.get("/state", Authorization=f"Bearer {token}")[0] == 200
        assert site.get(f"/metrics?token={token}")[0] == 200
        assert site.get("/state", Cookie=f"streamderain={token}")[0] == 200
        # A browser gets a cookie and an address without the token.
        asked = urllib.request.Request(f"http://127.0.0.1:{site.port}/?token={token}", method="HEAD")
        opener = urllib.request.build_opener(_Stay)
        with opener.open(asked, timeout=5) as answer:
            assert (answer.status, answer.headers["location"]) == (303, "/")
            cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
    assert token not in site.log.read_text()


class _Stay(urllib.request.HTTPRedirectHandler):
    def http_error_303(self, request: Any, answer: Any, *_: Any) -> Any:
        return answer


def test_children_end_with_a_supervisor_that_is_killed(relay: Relay, tmp_path: Path) -> None:
    config, port = tmp_path / "cameras.yaml", free_port()
    written(config, relay, port)
    process = subprocess.Popen(
        [sys.executable, "-m", "streamderain", "serve", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    wait_until(lambda: len(psutil.Process(process.pid).children()) == 2, what="the cameras", limit_s=20)
    time.sleep(1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not psutil.wait_procs(children, timeout=10)[1]


def test_a_file_is_checked(relay: Relay, tmp_path: Path) -> None:
    config = tmp_path / "cameras.yaml"
    written(config, relay, 8080, front=", targets: ['rtsp://u:gate-code@h/x']")
    command = [sys.executable, "-m", "streamderain", "serve", "--check", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "front: rtsp://127.0.0.1" in done.stdout
    assert "gate-code" not in done.stdout
    config.write_text("cameras: {front: {source: x, targets: [a.xyz]}}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "names no format" in done.stderr


def test_one_who_never_reads_costs_nothing(relay: Relay, tmp_path: Path) -> None:
    with served(tmp_path, relay) as site, ExitStack() as stack:
        site.await_state("front", "running")
        run = psutil.Process(site.process.pid)
        idle = []
        for _ in range(40):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", site.port)))
            connection.sendall(b"GET /cameras/front.ts HTTP/1.1\r\nHost: localhost\r\n\r\n")
            idle.append(connection)
        before = run.memory_info().rss
        time.sleep(5)
        assert run.memory_info().rss - before < 64 << 20
        assert 8 < site.state("front")["fps"] < 12
        answers = [connection.recv(15) for connection in idle]
        assert answers.count(b"HTTP/1.1 200 OK") == 32  # the others are told that there are too many
        assert answers.count(b"HTTP/1.1 503 Se") == 8


def test_nobody_can_hold_on_to_all_connections(relay: Relay, tmp_path: Path) -> None:
    """Neither by requests that never come to their end, nor by answers that are never read."""
    request = b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n"
    with served(tmp_path, relay) as site, ExitStack() as stack:
        run = psutil.Process(site.process.pid)
        settled = run.num_fds()

        def connected() -> socket.socket:
            # It offers to take little, so that little waits for it in the kernel.
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", site.port))
            return connection

        for number in range(CONNECTIONS_AT_MOST):
            connection = connected()
            if number % 2:
                connection.sendall(request)  # never ended
            else:
                connection.sendall((request + b"\r\n") * 200)  # ended, and no answer is read
        assert site.get("/healthz")[0] == 503
        wait_until(lambda: site.get("/healthz")[0] == 200, what="room", limit_s=UNREAD_S + 10)
        wait_until(lambda: run.num_fds() <= settled + 1, what="all hung up", limit_s=10)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", b"405"),
        (b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n", b"400"),
        (b"GET /cameras/..%2f..%2fcameras.yaml.ts HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"421"),
        (b"GET / HTTP/1.1\r\nHost: localhost:8080\r\n\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", b"200"),
        (b"\x16\x03\x01 no HTTP \r\n\r\n", b"400"),
    ],
    ids=["post", "long path", "long header", "path trick", "another name", "localhost", "v6", "garbage"],
)
def test_requests_that_cannot_be(relay: Relay, tmp_path: Path, request_: bytes, status: bytes) -> None:
    with served(tmp_path, relay) as site, socket.create_connection(("127.0.0.1", site.port)) as connection:
        connection.settimeout(10)
        with contextlib.suppress(OSError):  # it may hang up before it has read all of it
            connection.sendall(request_)
        assert connection.recv(100).split()[1] == status
        assert site.get("/healthz")[0] == 200


def test_no_secret_of_a_camera_shows_anywhere(clip: Path, tmp_path: Path) -> None:
    secret = "tr0ub4dor-and-3"
    with ExitStack() as stack:
        relay = stack.enter_context(Relay(user="admin", password=secret))
        source = relay.address("/front", user="admin", password=secret)
        stack.enter_context(camera(clip, source))
        config, log, port = tmp_path / "cameras.yaml", tmp_path / "log", free_port()
        target = relay.address("/clean", user="admin", password=secret)
        config.write_text(
            f"listen: 127.0.0.1:{port}\nengine: identity\ncameras:\n"
            f"  front: {{source: '{source}', targets: ['{target}']}}\n"
            "  gone: {source: 'rtsp://admin:${PASSWORD}@127.0.0.1:1/x'}\n"
        )
        config.chmod(0o644)
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "streamderain", "serve", str(config)],
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PASSWORD": secret},
            )
        stack.callback(process.kill)
        site = Served(process, config, log, port, relay)
        wait_until(lambda: _answers(site), what="the site", limit_s=20)
        site.await_state("front", "running")
        wait_until(lambda: site.state("gone")["incidents"], what="an incident", limit_s=20)
        told = b"".join(site.get(path)[1] for path in ("/state", "/metrics", "/", "/readyz"))
        assert secret.encode() not in told
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 3
        assert all(secret not in " ".join(child.cmdline()) for child in family)
        process.terminate()
        assert process.wait(20) == 0
        assert secret not in log.read_text()
        assert "can be read by others" in log.read_text()


def test_what_people_have_reads_the_stream(relay: Relay, tmp_path: Path) -> None:
    with served(tmp_path, relay) as site:
        site.await_state("front", "running")
        address = f"http://127.0.0.1:{site.port}/cameras/front.ts"
        require(shutil.which("ffmpeg"), "ffmpeg")
        got = tmp_path / "got.mkv"
        ffmpeg = ["ffmpeg", "-v", "error", "-i", address, "-t", "2", "-c", "copy", str(got)]
        assert not succeeded(ffmpeg).stderr, "it begins at a keyframe: nothing is undecodable"
        assert len(decoded(got)) >= 19
        # Frigate's command for detection, with the arguments that docs/serve.md gives it.
        documented = (Path(__file__).parents[2] / "docs" / "serve.md").read_text()
        arguments = re.search(r"input_args: (-.+)", documented)
        assert arguments is not None
        raw = tmp_path / "detect.raw"
        ffmpeg = ["ffmpeg", "-v", "error", *arguments[1].split(), "-i", address, "-r", "5", "-t", "5"]
        scale = ["-vf", "fps=5,scale=64:36", "-f", "rawvideo", "-pix_fmt", "yuv420p", str(raw)]
        succeeded([*ffmpeg, *scale])
        assert raw.stat().st_size >= 15 * 64 * 36 * 3 // 2  # of 25; what it read to find the codec is gone
        program = (
            "import sys, cv2\n"
            "capture = cv2.VideoCapture(sys.argv[1])\n"
            "shapes = {capture.read()[1].shape for _ in range(10)}\n"
            "assert shapes == {(64, 96, 3)}, shapes\n"
        )
        succeeded([sys.executable, "-c", program, address])


def test_gstreamer_pulls_the_stream(relay: Relay, tmp_path: Path) -> None:
    require(shutil.which("gst-launch-1.0"), "gst-launch-1.0")
    with served(tmp_path, relay) as site:
        site.await_state("front", "running")
        source = ["souphttpsrc", f"location=http://127.0.0.1:{site.port}/cameras/front.ts", "is-live=true"]
        elements = ("tsdemux", "h264parse", "avdec_h264", "videoconvert", "pngenc", "multifilesink")
        chain = [word for element in elements for word in ("!", element)]
        launch = ["gst-launch-1.0", "-q", *source, *chain, f"location={tmp_path}/%03d.png"]
        with subprocess.Popen(launch, stdin=subprocess.DEVNULL) as process:
            wait_until(lambda: len(list(tmp_path.glob("*.png"))) >= 20, what="pictures", limit_s=20)
            process.terminate()


def test_vlc_pulls_the_stream(relay: Relay, tmp_path: Path) -> None:
    require(shutil.which("cvlc"), "cvlc")
    with served(tmp_path, relay) as site, tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        got = Path(folder) / "got.ts"
        site.await_state("front", "running")
        write = f"#std{{access=file,mux=ts,dst={got}}}"
        address = f"http://127.0.0.1:{site.port}/cameras/front.ts"
        # It refuses to run as root.
        user = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
        vlc = [*user, "env", f"HOME={folder}", "cvlc", "-I", "dummy", "--run-time=4", "--sout", write]
        succeeded([*vlc, address, "vlc://quit"])
        assert len(decoded(got)) >= 20


def succeeded(command: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done


def test_the_files_of_the_documents_are_right() -> None:
    folder = Path(__file__).parents[2] / "docs" / "serve"
    dashboard = json.loads((folder / "grafana.json").read_text())
    expressions = " ".join(panel["targets"][0]["expr"] for panel in dashboard["panels"])
    metrics = SiteMetrics(lambda: {"front": Status()})
    metrics.observe_latency("front", 0.05)
    known = metrics.text().decode()
    for name in set(re.findall(r"streamderain_\w+", expressions)):
        assert name in known, name
    service = (folder / "streamderain.service").read_text()
    assert "Type=notify" in service
    assert "Delegate=cpu" in service
    assert yaml.safe_load((folder / "compose.yaml").read_text())["services"]["streamderain"]


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    require(shutil.which("systemd-analyze"), "systemd-analyze")
    unit = Path(__file__).parents[2] / "docs" / "serve" / "streamderain.service"
    here = tmp_path / unit.name
    here.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", unit.read_text()))
    done = succeeded(["systemd-analyze", "verify", "--man=no", str(here)])
    assert not done.stderr, "unknown or wrong lines are warned of"


def test_systemd_is_told(relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(place))
        listening.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(place))
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        with served(tmp_path, relay):
            told = [listening.recv(100) for _ in range(3)]
        assert told == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        while (last := listening.recv(100)) == b"WATCHDOG=1":
            pass
        assert last == b"STOPPING=1"
