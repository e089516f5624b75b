"""Measure how cost grows with frame size, clip length and number of streams, and memory over a long time."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import click
import numpy as np
import psutil

from benchmarks.results_file import json_option, report
from streamderain.measure.bench import take_turns
from streamderain.measure.scene import RATE_FPS, write_scene
from streamderain.measure.summary import result_json
from streamderain.measure.tables import spread
from streamderain.measure.trial import Setup
from streamderain.options import RunOptions

SIZES = {
    "240p": (426, 240),
    "360p": (640, 360),
    "480p": (854, 480),
    "720p": (1280, 720),
    "1080p": (1920, 1080),
}
LENGTHS = (60, 240, 960)
STREAMS = (1, 2, 3, 4)

_PIECE_FRAMES = 60
_SAMPLE_S = 0.25


@click.command()
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(["frame-size", "clip-length", "streams", "soak"]),
    default=("frame-size", "clip-length", "streams"),
    show_default=True,
)
@click.option("--repeats", default=3, show_default=True)
@click.option("--minutes", default=60.0, show_default=True, help="How long the soak watches one run.")
@json_option
def scaling(parts: tuple[str, ...], repeats: int, minutes: float, path: str | None) -> None:
    """Measure cost against frame size, clip length and number of streams, and memory over an hour."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        piece = place / "piece.mp4"
        write_scene(piece, width=640, height=360, frames=_PIECE_FRAMES)
        work: dict[str, Callable[[], Any]] = {
            "frame-size": lambda: _sizes(place, repeats),
            "clip-length": lambda: _lengths(piece, repeats),
            "streams": lambda: _streams(piece, repeats),
            "soak": lambda: _soak(piece, minutes * 60),
        }
        report({"benchmark": "scaling", "repeats": repeats, **{part: work[part]() for part in parts}}, path)


def _sizes(place: Path, repeats: int) -> list[dict[str, Any]]:
    setups = []
    for name, (width, height) in SIZES.items():
        clip = place / f"{name}.mp4"
        write_scene(clip, width=width, height=height, frames=_PIECE_FRAMES)
        setups.append(Setup("defaults", name, str(clip), RunOptions()))
    rows = []
    for setup, result in zip(setups, take_turns(setups, repeats=repeats), strict=True):
        megapixels = SIZES[setup.clip][0] * SIZES[setup.clip][1] / 1e6
        per_mpx = result.of(lambda repeat, m=megapixels: repeat.cpu_ms / m)  # type: ignore[misc]
        rows.append({"size": setup.clip, "cpu_ms_per_mpx": asdict(per_mpx), **result_json(result)})
        click.echo(f"{setup.clip}: {per_mpx.median:.1f} ms of processor a megapixel", err=True)
    return rows


def _lengths(piece: Path, repeats: int) -> list[dict[str, Any]]:
    rows = []
    for frames in LENGTHS:
        clip = piece.with_name(f"{frames}.mp4")
        repeat_clip(piece, clip, times=frames // _PIECE_FRAMES)
        runs = [_run(clip) for _ in range(repeats)]
        rows.append({"frames": frames, **_pooled(runs)})
        click.echo(f"{frames} frames: {rows[-1]['ms_per_frame']['median']:.2f} ms a frame", err=True)
    return rows


def _streams(piece: Path, repeats: int) -> list[dict[str, Any]]:
    rows = []
    for streams in STREAMS:
        clip = piece.with_name(f"streams-{streams}.mp4")
        repeat_clip(piece, clip, times=4, streams=streams)
        runs = [_run(clip) for _ in range(repeats)]
        rows.append({"streams": streams, **_pooled(runs)})
        click.echo(f"{streams} streams: {rows[-1]['fps']['median']:.1f} frames/s together", err=True)
    return rows


def repeat_clip(piece: Path, target: Path, *, times: int, streams: int = 1) -> None:
    """Join a clip to itself, and to as many equal streams as wanted; nothing is encoded again.

    Args:
        piece: One video stream of 30 frames/s.
        target: What is written.
        times: How often.
        streams: Video streams side by side.
    """
    with av.open(str(piece)) as source:
        video = source.streams.video[0]
        packets = [packet for packet in source.demux(video) if packet.size]
        length = round(Fraction(len(packets), RATE_FPS) / (video.time_base or Fraction(1)))
        data = [(bytes(p), p.pts or 0, p.dts or 0, p.is_keyframe) for p in packets]
        with av.open(str(target), "w") as out:
            lanes = [out.add_stream_from_template(video) for _ in range(streams)]
            for turn in range(times):
                for content, pts, dts, key in data:
                    for lane in lanes:
                        packet: Any = av.Packet(content)
                        packet.time_base = video.time_base
                        packet.pts, packet.dts = pts + turn * length, dts + turn * length
                        packet.is_keyframe, packet.stream = key, lane
                        out.mux(packet)


def _run(clip: Path) -> dict[str, float]:
    """`streamderain run` as a user has it: its own summary, and the memory of its process."""
    target = clip.with_name("out.mp4")
    process = psutil.Popen(_command(clip, target), stdout=subprocess.PIPE)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _memory(process))
        time.sleep(0.02)
    summary = json.loads(process.stdout.read())
    target.unlink()
    assert summary["exit_code"] == 0, summary
    return {
        "fps": summary["fps"],
        "frames": summary["frames_out"],
        "elapsed_s": summary["elapsed_s"],
        "peak_mb": peak / 1e6,
    }


def _pooled(runs: list[dict[str, float]]) -> dict[str, Any]:
    per_frame = [1000 * run["elapsed_s"] / run["frames"] for run in runs]
    return {
        "fps": asdict(spread([run["fps"] for run in runs])),
        "ms_per_frame": asdict(spread(per_frame)),
        "peak_memory_mb": asdict(spread([run["peak_mb"] for run in runs])),
    }


def _soak(piece: Path, seconds: float) -> dict[str, Any]:
    """Return the memory of one run that lasts so long; the first tenth of the time does not count."""
    clip = piece.with_name("long.mp4")
    repeat_clip(piece, clip, times=10)
    times = max(2, round(seconds * _run(clip)["fps"] / _PIECE_FRAMES))
    repeat_clip(piece, clip, times=times)
    process = psutil.Popen(_command(clip, piece.with_name("out.mp4")), stdout=subprocess.PIPE)
    began, samples = time.monotonic(), []
    while process.poll() is None:
        samples.append((time.monotonic() - began, _memory(process) / 1e6))
        time.sleep(_SAMPLE_S)
    summary = json.loads(process.stdout.read())
    settled = np.array([sample for sample in samples if sample[0] > 0.1 * samples[-1][0] and sample[1] > 0])
    slope, _ = np.polyfit(settled[:, 0], settled[:, 1], 1)
    return {
        "minutes": round(samples[-1][0] / 60, 1),
        "video_minutes": round(times * _PIECE_FRAMES / RATE_FPS / 60, 1),
        "frames": summary["frames_out"],
        "size": "640x360",
        "fps": summary["fps"],
        "memory_mb": asdict(spread(list(settled[:, 1]))),
        "first_tenth_mb": round(float(settled[: len(settled) // 10 + 1, 1].mean()), 1),
        "last_tenth_mb": round(float(settled[-(len(settled) // 10 + 1) :, 1].mean()), 1),
        "growth_mb_per_hour": round(float(slope) * 3600, 2),
    }


def _command(clip: Path, target: Path) -> list[str]:
    return [sys.executable, "-m", "streamderain", "run", str(clip), "-o", str(target), "--json", "-q"]


def _memory(process: psutil.Popen) -> int:
    try:
        memory: int = process.memory_info().rss
    except psutil.Error:
        return 0
    return memory
