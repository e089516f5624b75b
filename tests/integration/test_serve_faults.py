"""What befalls a site: servers that go, cameras that change or die, reloads, overload; and what is left."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

import av
import psutil
import pytest

from benchmarks.camera import camera
from benchmarks.live import write_camera_clip
from benchmarks.rtsp_relay import Relay
from tests.integration.test_serve import CAMERAS, Served, served, written
from tests.support.media import decoded
from tests.support.runs import wait_until

RATE_FPS = 10


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("camera") / "camera.mp4"
    write_camera_clip(path, width=96, height=64, rate_fps=RATE_FPS, frames=50)
    return path


class Puller:
    """Pulls a stream as a recorder does, and notes when how much of it came."""

    def __init__(self, site: Served, name: str) -> None:
        self._address = f"http://127.0.0.1:{site.port}/cameras/{name}.ts"
        self.parts: list[tuple[float, bytes]] = []
        self.ended = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._pull, name="puller", daemon=True)
        self._thread.start()

    def _pull(self) -> None:
        # Hung up on in the middle, as by a site that is killed: it has ended as well, and `ended` tells.
        with suppress(HTTPException, OSError), urllib.request.urlopen(self._address, timeout=60) as stream:
            while not self._stop.is_set() and (data := stream.read1(1 << 16)):
                self.parts.append((time.monotonic(), data))
        self.ended = not self._stop.is_set()

    def longest_pause_s(self) -> float:
        """How long it once waited for more, from its first bytes on."""
        return max(later[0] - earlier[0] for earlier, later in itertools.pairwise(self.parts))

    def frames_since(self, start: float, path: Path) -> int:
        """How many frames came since a moment, from the next keyframe on."""
        path.write_bytes(b"".join(data for at, data in self.parts if at >= start))
        try:
            return len(decoded(path))
        except av.error.InvalidDataError:
            return 0  # nothing whole has come yet

    def close(self) -> None:
        self._stop.set()
        self._thread.join(15)
        assert not self._thread.is_alive()


@contextmanager
def pulling(site: Served, name: str) -> Iterator[Puller]:
    puller = Puller(site, name)
    try:
        wait_until(lambda: len(puller.parts) > 3, what="a stream", limit_s=20)
        yield puller
    finally:
        puller.close()


@contextmanager
def playing(relay: Relay, clips: dict[str, Path]) -> Iterator[ExitStack]:
    """Cameras that publish, each by its name."""
    with ExitStack() as stack:
        for name, path in clips.items():
            stack.enter_context(camera(path, relay.address(f"/{name}")))
        wait_until(lambda: len(relay.streams) >= len(clips), what="the cameras", limit_s=20)
        yield stack


def await_running(site: Served, *, limit_s: float = 30) -> None:
    for name in CAMERAS:
        site.await_state(name, "running", limit_s=limit_s)


PAUSE_S = 1.0
"""Shorter than any start of a process: one who pulls an unharmed camera waits less."""


def test_a_server_that_is_gone_for_long(clip: Path, tmp_path: Path) -> None:
    clips = dict.fromkeys(CAMERAS, clip)
    with ExitStack() as stack:
        with Relay() as first, playing(first, clips):
            site = stack.enter_context(served(tmp_path, first))
            await_running(site)
            processes = site.children()
            puller = stack.enter_context(pulling(site, "front"))
        for name in CAMERAS:
            site.await_state(name, "lost")
        assert site.get("/readyz")[0] == 503
        assert b"front" in site.get("/readyz")[1]
        time.sleep(12)
        with Relay(first.port) as second, playing(second, clips):
            back_at = time.monotonic()
            await_running(site, limit_s=15)
            time.sleep(5)
            seconds = time.monotonic() - back_at
            frames = puller.frames_since(back_at, tmp_path / "since.ts")
            assert 10 <= frames <= RATE_FPS * seconds + 5, (
                "frames come at the camera's pace, never in a burst"
            )
            assert not puller.ended, "one who pulls stays connected"
            assert site.children() == processes, "a lost source is no reason to start a process again"
            assert site.state("front")["reconnects"] >= 1
            assert site.get("/readyz")[0] == 200
            puller.close()


def test_a_camera_that_begins_after_the_site(clip: Path, tmp_path: Path) -> None:
    """Its server answers that there is no such stream: that may be otherwise at any moment."""
    with Relay() as relay, playing(relay, {"front": clip}), served(tmp_path, relay) as site:
        wait_until(lambda: site.state("back")["incidents"], what="word of it", limit_s=20)
        assert "knows no such stream" in site.state("back")["incidents"][0][1]
        with camera(clip, relay.address("/back")):
            site.await_state("back", "running", limit_s=15)


def test_a_camera_that_dies_harms_no_other(clip: Path, tmp_path: Path) -> None:
    with Relay() as relay, playing(relay, {"front": clip}), served(tmp_path, relay) as site:
        with camera(clip, relay.address("/back")) as dying:
            await_running(site)
            with pulling(site, "front") as puller:
                for _ in range(3):  # its publisher, then its process here
                    dying.send_signal(signal.SIGKILL)
                    relay.hang_up("/back")
                    site.await_state("back", "lost")
                    with camera(clip, relay.address("/back")):
                        site.await_state("back", "running")
                        restarts = site.state("back")["restarts"]
                        os.kill(site.children()["back"], signal.SIGKILL)
                        wait_until(
                            lambda before=restarts: site.state("back")["restarts"] > before,  # type: ignore[misc]
                            what="a restart",
                            limit_s=10,
                        )
                        site.await_state("back", "running")
                assert puller.longest_pause_s() < PAUSE_S
        assert site.state("front")["restarts"] == 0
        assert site.state("front")["reconnects"] == 0


def test_a_camera_that_changes_its_size(clip: Path, tmp_path: Path) -> None:
    larger = tmp_path / "larger.mp4"
    write_camera_clip(larger, width=160, height=96, rate_fps=RATE_FPS, frames=50)
    with Relay() as relay, playing(relay, {"front": clip}), served(tmp_path, relay) as site:
        with camera(clip, relay.address("/back")):
            await_running(site)
            puller = Puller(site, "back")
        relay.hang_up("/back")
        with camera(larger, relay.address("/back")), pulling(site, "front") as other:
            changed_at = time.monotonic()
            site.await_state("back", "running")
            wait_until(
                lambda: puller.frames_since(changed_at, tmp_path / "since.ts") >= RATE_FPS,
                what="frames of another size",
                limit_s=30,
            )
            sizes = {(frame.width, frame.height) for frame in decoded(tmp_path / "since.ts")}
            assert sizes == {(160, 96)}
            assert site.state("back")["size"] == [160, 96]
            assert not puller.ended, "one who pulls stays connected"
            assert other.longest_pause_s() < PAUSE_S
            puller.close()


def test_a_reload_in_the_middle_is_not_seen_by_others(clip: Path, tmp_path: Path) -> None:
    with Relay() as relay, playing(relay, dict.fromkeys(CAMERAS, clip)), served(tmp_path, relay) as site:
        await_running(site)
        processes = site.children()
        with pulling(site, "front") as puller:
            for more, changed in (
                ({"back": ", crf: 30"}, "back"),
                ({"back": ", crf: 31"}, "back"),
                ({"back": ", crf: 31", "back_too": ""}, "back_too"),
                ({"back": ", crf: 31"}, "back_too"),
            ):
                said = site.log.read_text().count(f"changed cameras: {changed}")
                written(site.config, relay, site.port, **more)
                for _ in range(2):  # twice at once: the second finds nothing to do
                    site.process.send_signal(signal.SIGHUP)
                wait_until(
                    lambda: site.log.read_text().count(f"changed cameras: {changed}") > said,  # noqa: B023
                    what="the reload",
                    limit_s=15,
                )
                await_running(site)
            assert puller.longest_pause_s() < PAUSE_S
        assert site.children()["front"] == processes["front"]
        assert set(site.children()) == set(CAMERAS)
        assert site.state("front")["restarts"] == 0


def test_one_camera_cannot_starve_another(clip: Path, tmp_path: Path) -> None:
    """One that needs all the processor there is, and more, beside one that needs little."""
    greedy = tmp_path / "greedy.mp4"
    write_camera_clip(greedy, width=640, height=352, rate_fps=240, frames=240)
    # A slow encoder: whatever the machine, 240 pictures a second are too many for it.
    slow = ", engine: openvino, preset: veryslow"
    with (
        Relay() as relay,
        playing(relay, {"front": clip, "back": greedy}),
        served(tmp_path, relay, back=slow) as site,
    ):
        await_running(site)
        time.sleep(3)
        assert site.state("back")["dropped"] > 0, "it does need more than there is"
        with pulling(site, "front") as puller:
            started = site.state("front")
            time.sleep(6)
            ended = site.state("front")
            assert puller.longest_pause_s() < PAUSE_S
        assert ended["dropped"] == started["dropped"]
        assert 0.8 * RATE_FPS < ended["fps"] < 1.2 * RATE_FPS


def test_nothing_is_left_of_what_came_and_went(clip: Path, tmp_path: Path) -> None:
    """Threads, sockets, pipes and children after many viewers, losses and reloads are as many as before."""
    recording = tmp_path / "%Y%m%d-%H%M%S.ts"
    more = f", targets: ['{recording}'], split: 1s"
    with Relay() as relay, playing(relay, {"front": clip}), served(tmp_path, relay, back=more) as site:
        run = psutil.Process(site.process.pid)

        def held() -> tuple[int, int, int]:
            return run.num_fds(), run.num_threads(), len(run.children(recursive=True))

        def upset() -> None:
            with camera(clip, relay.address("/back")):
                await_running(site)
                for _ in range(5):
                    with urllib.request.urlopen(
                        f"http://127.0.0.1:{site.port}/cameras/front.ts", timeout=15
                    ) as stream:
                        stream.read(188)
                    assert site.get("/cameras/back.jpg")[0] == 200
                written(site.config, relay, site.port, back=f"{more}, crf: {next(quality)}")
                site.process.send_signal(signal.SIGHUP)
                wait_until(lambda: site.state("back")["state"] != "running", what="the reload", limit_s=15)
                await_running(site)
            relay.hang_up("/back")
            site.await_state("back", "lost")

        quality = itertools.count(20)
        upset()
        with camera(clip, relay.address("/back")):
            await_running(site)
            settled = held()
        relay.hang_up("/back")
        site.await_state("back", "lost")
        for _ in range(3):
            upset()
        with camera(clip, relay.address("/back")):
            await_running(site)
            # A connection of a viewer who hung up is noticed with the next packet that cannot be sent.
            wait_until(lambda: held() <= settled, what=f"{settled} again, not {held()}", limit_s=15)
    assert list(tmp_path.glob("*.ts"))
    assert not list(tmp_path.glob("*.partial*"))
    assert not list(tmp_path.glob("**/*.tmp"))
