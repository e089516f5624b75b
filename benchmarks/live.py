"""Measure live streams over loopback: how late they are, and what months would make of them.

A camera in its own process plays to a small RTSP server here; `streamderain run` reads it and publishes back.
Times are taken where the last packet of a frame passes the server, on its way in and on its way back.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import click
import psutil

from benchmarks.camera import CLOCK_HZ, camera
from benchmarks.footage import write_footage
from benchmarks.results_file import json_option, report
from benchmarks.rtsp_relay import Relay

CLIP_FRAMES = 200
JITTER_S = 0.006
MATCHED_FRAMES = 100
SETTLED_FRAMES = 50
"""Frames until the engine is warm and its neighbours are there."""

OVERLOAD = 6
"""How many times the rate of the other measurements that of a camera is which is far too quick."""

OVERLOAD_STEP_S = 5

LIMIT_S = 60.0
"""How long anything is waited for."""


def write_camera_clip(
    path: Path, *, width: int, height: int, rate_fps: int, frames: int = CLIP_FRAMES
) -> None:
    """Write a clip as a camera encodes: H.264 without B-frames, a keyframe each second.

    Args:
        path: Where to (.mp4).
        width: Even, px.
        height: Even, px.
        rate_fps: Frames per second.
        frames: How many.
    """
    with tempfile.TemporaryDirectory() as folder:
        footage = Path(folder) / "footage.mp4"
        write_footage(footage, width=width, height=height, frames=frames, pans=False)
        with av.open(str(footage)) as source, av.open(str(path), "w") as target:
            stream = target.add_stream("libx264", rate=rate_fps)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = {"preset": "veryfast", "tune": "zerolatency", "g": str(rate_fps), "crf": "26"}
            for number, frame in enumerate(source.decode(video=0)):
                frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, rate_fps), 0
                target.mux(stream.encode(frame))
            target.mux(stream.encode(None))


@contextmanager
def derained(relay: Relay, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command from `/camera` to `/clean`."""
    address = relay.address("/camera")
    command = [sys.executable, "-m", "streamderain", "run", address, "-o", relay.address("/clean"), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_frames(relay: Relay, path: str, count: int, *, limit_s: float = LIMIT_S) -> list[tuple[float, int]]:
    """Return the frames that passed once there are so many."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        stream = relay.streams.get(path)
        if stream is not None and len(stream.frames) >= count:
            return stream.frames
        time.sleep(0.01)
    raise click.ClickException(f"{path} gave no {count} frames in {limit_s:g} s")


def latencies_s(before: Sequence[tuple[float, int]], after: Sequence[tuple[float, int]]) -> list[float]:
    """Return how long each frame took, in order.

    Frames are told by their distances in time, which are uneven and stay as they are.

    Args:
        before: Time and RTP timestamp of the frames on their way in.
        after: The same on their way back; some may be missing.
    """
    steps_in, steps_out = _steps(before), _steps(after)
    wanted = steps_out[:MATCHED_FRAMES]
    misfits = {
        start: sum(abs(a - b) for a, b in zip(steps_in[start:], wanted, strict=False))
        for start in range(max(1, len(steps_in) - len(wanted)))
    }
    start = min(misfits, key=lambda one: misfits[one])
    came = {_since(before[start], frame): at for frame in before[start:] for at in (frame[0],)}
    gone = [(_since(after[0], frame), frame[0]) for frame in after]
    return [at - came[ticks] for ticks, at in gone if ticks in came]


def _since(first: tuple[float, int], frame: tuple[float, int]) -> int:
    return (frame[1] - first[1]) % 2**32


def _steps(frames: Sequence[tuple[float, int]]) -> list[int]:
    return [_since(one, two) for one, two in itertools.pairwise(frames)]


@click.command()
@click.option("--size", default="1280x720", show_default=True)
@click.option("--rate", default=25, show_default=True, help="Frames per second.")
@click.option("--seconds", default=30, show_default=True, help="Of each measurement.")
@click.option("--options", default="", help="More options of the command, in quotes.")
@json_option
def live(size: str, rate: int, seconds: int, options: str, path: str | None) -> None:
    """Measure how late frames are beyond the model's look-ahead, and how soon the first one comes."""
    width, height = map(int, size.split("x"))
    result: dict[str, Any] = {"benchmark": "live", "size": size, "rate_fps": rate, "options": options}
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "camera.mp4"
        write_camera_clip(clip, width=width, height=height, rate_fps=rate)
        for name, more in (
            ("look-ahead", ()),
            ("causal", ("--causal",)),
            ("identity", ("--engine", "identity")),
        ):
            ahead_s = 0.0 if name == "causal" else 1 / rate
            result[name] = _measured(clip, rate * seconds, ahead_s, (*options.split(), *more))
        write_camera_clip(clip, width=width, height=height, rate_fps=OVERLOAD * rate)
        result["overload"] = _overloaded(clip, OVERLOAD * rate, seconds, options.split())
    report(result, path)


def _measured(clip: Path, frames: int, ahead_s: float, options: Sequence[str]) -> dict[str, Any]:
    with Relay() as relay, camera(clip, relay.address("/camera"), jitter_s=JITTER_S):
        await_frames(relay, "/camera", 1)
        started = time.monotonic()
        with derained(relay, *options):
            first_at = await_frames(relay, "/clean", 1)[0][0]
            after = list(await_frames(relay, "/clean", frames, limit_s=LIMIT_S + 2 * frames))
            before = list(relay.streams["/camera"].frames)
            keyframe_at = relay.first_keyframes["/camera"]
    late_ms = [1000 * (late_s - ahead_s) for late_s in latencies_s(before, after)]
    return {
        "process_to_first_frame_s": round(first_at - started, 3),
        "keyframe_to_first_frame_s": round(first_at - keyframe_at, 3),
        "frames": len(late_ms),
        "beyond_look_ahead_ms": _percentiles(late_ms[SETTLED_FRAMES:]),
        "in_passing_of": round(frames / max(1, len(late_ms)), 3),
    }


def _overloaded(clip: Path, rate_fps: int, seconds: int, options: Sequence[str]) -> dict[str, Any]:
    """Measure a camera that is far too quick: what comes out has to stay at the present."""
    with Relay() as relay, camera(clip, relay.address("/camera")), derained(relay, *options):
        frames = await_frames(relay, "/clean", 1)
        behind_s = []
        for _ in range(max(2, seconds // OVERLOAD_STEP_S)):
            time.sleep(OVERLOAD_STEP_S)
            (first_at, _), (last_at, _) = frames[0], frames[-1]
            behind_s.append(last_at - first_at - _since(frames[0], frames[-1]) / CLOCK_HZ)
        span_s = frames[-1][0] - frames[0][0]
        camera_fps = len(relay.streams["/camera"].frames) / (
            relay.streams["/camera"].frames[-1][0] - relay.streams["/camera"].frames[0][0]
        )
    return {
        "camera_fps": round(camera_fps, 1),
        "clean_fps": round(len(frames) / span_s, 1),
        "behind_s": {"early": round(behind_s[0], 3), "late": round(behind_s[-1], 3)},
    }


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    places = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    found = {name: round(ordered[int(place * (len(ordered) - 1))], 1) for name, place in places.items()}
    return {**found, "max": round(ordered[-1], 1)}


@dataclass(frozen=True)
class Sample:
    """What a run used at one moment, its children included."""

    rss_bytes: int
    descriptors: int
    threads: int
    processes: int
    latency_s: float


@click.command()
@click.option("--minutes", default=60, show_default=True, help="Of the stream's own time.")
@click.option("--speed", default=4, show_default=True, help="How much quicker than its own time it runs.")
@click.option("--size", default="640x360", show_default=True)
@json_option
def soak(minutes: int, speed: int, size: str, path: str | None) -> None:
    """Run a stream for long, lose its source every minute, and see what grows."""
    width, height = map(int, size.split("x"))
    rate = 25 * speed
    wall_s = 60 * minutes / speed
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as folder, Relay() as relay:
        clip = Path(folder) / "camera.mp4"
        write_camera_clip(clip, width=width, height=height, rate_fps=rate)
        recording = f"{folder}/%Y%m%d-%H%M%S.ts"
        command = ("-o", recording, "--split", "60s", "--keep", "100MB")
        cameras = iter(lambda: camera(clip, relay.address("/camera"), jitter_s=JITTER_S / speed), None)
        began = time.monotonic()
        current = next(cameras)
        current.__enter__()
        await_frames(relay, "/camera", 1)
        with derained(relay, *command) as process:
            await_frames(relay, "/clean", 10)
            losses = 0
            while time.monotonic() - began < wall_s:
                time.sleep(60 / speed)
                samples.append(_sample(process.pid, relay))
                current.__exit__(None, None, None)
                current = next(cameras)
                current.__enter__()
                losses += 1
                await_frames(relay, "/clean", 10)
            process.terminate()
            told = process.communicate(timeout=LIMIT_S)[1].decode(errors="replace").splitlines()[-1:]
        current.__exit__(None, None, None)
    report(
        {
            "benchmark": "soak",
            "minutes": minutes,
            "speed": speed,
            "losses": losses,
            "said": told,
            **growth(samples),
        },
        path,
    )


def _sample(pid: int, relay: Relay) -> Sample:
    run = psutil.Process(pid)
    family = [run, *run.children(recursive=True)]
    before, after = relay.streams["/camera"].frames[-300:], relay.streams["/clean"].frames[-200:]
    late_s = latencies_s(before, after)
    return Sample(
        rss_bytes=sum(one.memory_info().rss for one in family),
        descriptors=sum(one.num_fds() for one in family),
        threads=sum(one.num_threads() for one in family),
        processes=len(family),
        latency_s=statistics.median(late_s) if late_s else float("nan"),
    )


def growth(samples: Sequence[Sample]) -> dict[str, Any]:
    """Compare the second quarter of the samples with the last one: the first warms up."""
    quarter = max(1, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    found: dict[str, Any] = {"samples": len(samples)}
    for name in ("rss_bytes", "descriptors", "threads", "processes", "latency_s"):
        first = statistics.median(getattr(sample, name) for sample in early)
        last = statistics.median(getattr(sample, name) for sample in late)
        found[name] = {"early": round(first, 4), "late": round(last, 4), "ratio": round(last / first, 4)}
    return found
