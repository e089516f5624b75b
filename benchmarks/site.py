"""Measure `streamderain serve`: several cameras at once, and what months would make of them.

Each camera is recorded in split files and pulled by one viewer. With `--loss-every` one camera after the
other loses its source. The losses of an hour with one a minute, in a quarter of it, of cameras at twice
the usual 5 frames/s: `--cameras 4x640x360@10 --seconds 900 --loss-every 15`.
"""

from __future__ import annotations

import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import psutil

from benchmarks.camera import camera
from benchmarks.live import CLIP_FRAMES, LIMIT_S, Sample, growth, write_camera_clip
from benchmarks.results_file import json_option, report
from benchmarks.rtsp_relay import Relay

WARM_S = 15
AWAY_S = 1.0
"""How long a camera that is lost stays away."""

_KIND = re.compile(r"(\d+)x(\d+)x(\d+)@(\d+)")
_FRAMES = re.compile(r'streamderain_frames_total\{camera="([^"]+)"\} (\S+)')
_BUCKET = re.compile(r'streamderain_latency_seconds_bucket\{camera="([^"]+)",le="([^"]+)"\} (\S+)')


@click.command()
@click.option(
    "--cameras",
    default="4x640x360@5,1x1280x720@25",
    show_default=True,
    help="COUNTxWIDTHxHEIGHT@RATE, apart by commas.",
)
@click.option("--seconds", default=60, show_default=True, help="After all give frames.")
@click.option(
    "--loss-every", default=0.0, help="Seconds between losses of a source, of one camera after the other."
)
@click.option("--options", default="", help='How all are run, as in the file: "preset: ultrafast".')
@json_option
def site(cameras: str, seconds: int, loss_every: float, options: str, path: str | None) -> None:
    """Run cameras at once, and tell what each gets: frames a second, latency, drops, processor, memory."""
    wanted = _wanted(cameras)
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        relay = stack.enter_context(Relay())
        playing: dict[str, tuple[Path, ExitStack]] = {}
        for number, (width, height, rate) in enumerate(sorted(set(wanted.values()))):
            clip = folder / f"{number}.mp4"
            frames = min(CLIP_FRAMES, 20 * rate)
            write_camera_clip(clip, width=width, height=height, rate_fps=rate, frames=frames)
            for camera_name, kind in wanted.items():
                if kind == (width, height, rate):
                    playing[camera_name] = clip, stack.enter_context(ExitStack())
                    playing[camera_name][1].enter_context(camera(clip, relay.address(f"/{camera_name}")))
        sources = "".join(
            f"  {one}: {{source: '{relay.address(f'/{one}')}', targets: ['{folder}/{one}-%H%M%S.ts']}}\n"
            for one in wanted
        )
        config = folder / "cameras.yaml"
        with socket.create_server(("127.0.0.1", 0)) as free:
            served = _Served(free.getsockname()[1])
        config.write_text(
            f"listen: 127.0.0.1:{served.port}\nsplit: 60s\nkeep: 100MB\n{options}\ncameras:\n{sources}"
        )
        command = [sys.executable, "-m", "streamderain", "serve", str(config)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        served.await_ready()
        for one in wanted:
            threading.Thread(target=served.pull, args=(one,), name=f"viewer {one}", daemon=True).start()
        time.sleep(WARM_S)
        before, used = served.state(), _usage(process.pid)
        buckets, frames = served.buckets(), served.frames()
        fps: dict[str, list[float]] = {one: [] for one in wanted}
        began, losses = time.monotonic(), 0
        while (elapsed_s := time.monotonic() - began) < seconds:
            time.sleep(1)
            state = served.state()
            for one, told in state.items():
                fps[one].append(told["fps"])
            if loss_every and elapsed_s >= (losses + 1) * loss_every:
                samples.append(_sample(process.pid, state))
                losing = list(wanted)[losses % len(wanted)]
                clip, held = playing[losing]
                held.close()
                relay.hang_up(f"/{losing}")
                time.sleep(AWAY_S)
                held.enter_context(camera(clip, relay.address(f"/{losing}")))
                losses += 1
        measured_s = time.monotonic() - began
        after, used_after = served.state(), _usage(process.pid)
        buckets_after, frames_after = served.buckets(), served.frames()
    rows = []
    for one, (width, height, rate) in wanted.items():
        rows.append(
            {
                "camera": one,
                "width": width,
                "height": height,
                "rate_fps": rate,
                "fps": round(statistics.median(fps[one]), 2),
                "least_fps": round(min(fps[one]), 2),
                "frames": round(frames_after[one] - frames[one]),
                "of_the_cameras_frames": round((frames_after[one] - frames[one]) / (rate * measured_s), 3),
                "losses": after[one]["reconnects"] - before[one]["reconnects"],
                "restarts": after[one]["restarts"] - before[one]["restarts"],
                "dropped": after[one]["dropped"] - before[one]["dropped"],
                "latency_p99_below_s": _p99(buckets.get(one, {}), buckets_after.get(one, {})),
            }
        )
    cores = (used_after[0] - used[0]) / measured_s
    result: dict[str, Any] = {
        "benchmark": "site",
        "cameras": cameras,
        "seconds": seconds,
        "options": options,
        "cores_busy": round(cores, 2),
        "rss_mb": round(used_after[1] / 1e6),
    }
    if samples:
        result |= {"losses": losses, **growth(samples)}
    report({**result, "rows": rows}, path)


def _wanted(cameras: str) -> dict[str, tuple[int, int, int]]:
    found = {}
    for text in cameras.split(","):
        match = _KIND.fullmatch(text.strip())
        if match is None:
            raise click.BadParameter(f"{text!r} is not of the form 4x640x360@5")
        count, width, height, rate = map(int, match.groups())
        for number in range(count):
            found[f"c{width}-{rate}-{number}"] = (width, height, rate)
    return found


class _Served:
    """The site that is measured.

    Args:
        port: Where it listens.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str) -> str:
        """Return what is answered."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    def state(self) -> dict[str, Any]:
        """Return what the page shows, by camera."""
        found: dict[str, Any] = json.loads(self.get("/state"))
        return found

    def buckets(self) -> dict[str, dict[float, float]]:
        """Return the histogram of latency, by camera."""
        found: dict[str, dict[float, float]] = {}
        for name, limit, count in _BUCKET.findall(self.get("/metrics")):
            found.setdefault(name, {})[float(limit)] = float(count)
        return found

    def frames(self) -> dict[str, float]:
        """Return how many frames came out, by camera."""
        return {name: float(count) for name, count in _FRAMES.findall(self.get("/metrics"))}

    def pull(self, name: str) -> None:
        """Read a camera's stream as a viewer does, again and again, until the site is gone."""
        address = f"http://127.0.0.1:{self.port}/cameras/{name}.ts"
        while True:
            try:
                with urllib.request.urlopen(address, timeout=LIMIT_S) as stream:
                    while stream.read1(1 << 16):
                        pass
            except ConnectionRefusedError:
                return
            except OSError:
                time.sleep(0.5)

    def await_ready(self) -> None:
        """Wait until all cameras give frames."""
        until = time.monotonic() + LIMIT_S
        while time.monotonic() < until:
            try:
                self.get("/readyz")
                return
            except OSError:
                time.sleep(0.2)
        raise click.ClickException("not all cameras gave frames")


def _sample(pid: int, state: dict[str, Any]) -> Sample:
    run = psutil.Process(pid)
    family = [run, *run.children(recursive=True)]
    return Sample(
        rss_bytes=sum(one.memory_info().rss for one in family),
        descriptors=sum(one.num_fds() for one in family),
        threads=sum(one.num_threads() for one in family),
        processes=len(family),
        latency_s=statistics.median(told["latency_s"] for told in state.values()),
    )


def _usage(pid: int) -> tuple[float, int]:
    """Return processor seconds and memory of a process and its children."""
    run = psutil.Process(pid)
    family = [run, *run.children(recursive=True)]
    times = [one.cpu_times() for one in family]
    return sum(one.user + one.system for one in times), sum(one.memory_info().rss for one in family)


def _p99(before: dict[float, float], after: dict[float, float]) -> float | None:
    """Return the least bucket that holds 99 of 100 of what came between."""
    counts = {limit: count - before.get(limit, 0) for limit, count in sorted(after.items())}
    most = max(counts.values(), default=0)
    return next((limit for limit, count in counts.items() if most and count >= 0.99 * most), None)
