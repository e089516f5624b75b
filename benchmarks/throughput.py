"""Frames per second of the whole command, beside what its stages cost alone.

If the stages overlap well, the command takes little longer than their processor time divided by the cores.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import click
import numpy as np

from benchmarks.machine import report, spread
from streamderain.measure.rain import RainParameters, RainSequence
from streamderain.media.source import open_source
from streamderain.media.targets import open_outputs
from streamderain.models import load_model
from streamderain.options import EncodeOptions, EngineOptions, ReadOptions
from streamderain.runtime.base import EndOfSession
from streamderain.runtime.registry import choose_engine, open_engine


@click.command()
@click.option("--width", default=1280, show_default=True)
@click.option("--height", default=720, show_default=True)
@click.option("--frames", default=300, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--preset", "presets", multiple=True, default=("ultrafast", "veryfast"), show_default=True)
@click.option("--json", "path", help="Also write the result here.")
def throughput(
    width: int, height: int, frames: int, repeats: int, presets: tuple[str, ...], path: str | None
) -> None:
    """Measures ``streamderain run`` on a rainy H.264 clip that is made on the spot."""
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "rainy.mp4"
        make_clip(clip, width=width, height=height, frames=frames)
        result = {preset: _measure(clip, preset, repeats=repeats) for preset in presets}
    report({"benchmark": "throughput", "width": width, "height": height, "frames": frames, **result}, path)


def make_clip(path: Path, *, width: int, height: int, frames: int) -> None:
    """Writes a clip with a moving camera, texture and rain, 30 frames/s, 4:2:0, as a dashcam would."""
    rng = np.random.default_rng(0)
    octaves = [rng.standard_normal((height // size + 2, width * 2 // size + 2)) for size in (4, 16, 64)]
    large = sum(
        np.kron(noise, np.ones((size, size)))[:height, : width * 2] * size**0.5
        for noise, size in zip(octaves, (4, 16, 64), strict=True)
    )
    scene = np.clip(110 + 6 * np.asarray(large), 16, 235).astype(np.uint8)
    rain = RainSequence(RainParameters(), 1, width, height)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "23", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30)
        for index in range(frames):
            shift = 2 * index % width
            luma = rain.apply_to_codes(scene[:, shift : shift + width], index)
            planes = np.concatenate([luma.ravel(), np.full(width * height // 2, 128, np.uint8)])
            frame = av.VideoFrame.from_ndarray(planes.reshape(-1, width), format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _measure(clip: Path, preset: str, *, repeats: int) -> dict[str, Any]:
    """Stages and the whole in turn, so that all meet the same weather on a shared machine."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ("read", "engine", "write", "run")}
    for _ in range(repeats):
        for name, row in runs.items():
            row.append(_child(name, clip, preset))
    ratios = []
    for number in range(repeats):
        alone_s = sum(runs[name][number]["cpu_s"] for name in ("read", "engine", "write"))
        ratios.append(runs["run"][number]["wall_s"] / (alone_s / len(os.sched_getaffinity(0))))
    return {
        "fps": spread([row["fps"] for row in runs["run"]]),
        "wall_over_stage_cpu_per_core": spread(ratios),
        "peak_memory_mb": spread([row["peak_mb"] for row in runs["run"]]),
        **{
            f"{name}_cpu_ms_per_frame": spread([row["cpu_ms_per_frame"] for row in runs[name]])
            for name in ("read", "engine", "write")
        },
    }


def _child(name: str, clip: Path, preset: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "stage", name, str(clip), "--preset", preset],
        check=True,
        capture_output=True,
        cwd=Path(__file__).parent.parent,
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


@click.command(hidden=True)
@click.argument("name", type=click.Choice(["read", "engine", "write", "run"]))
@click.argument("clip", type=Path)
@click.option("--preset", required=True)
def stage(name: str, clip: Path, preset: str) -> None:
    """Runs one stage in this process and prints its cost; preparation is left out."""
    work = {"read": _read, "engine": _engine, "write": _write, "run": _run}[name]
    with tempfile.TemporaryDirectory() as folder:
        click.echo(json.dumps(work(clip, Path(folder) / "out.mp4", preset)))


def _cost(work: Callable[[], int]) -> dict[str, float]:
    cpu_s, started = time.process_time(), time.perf_counter()
    frames = work()
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
    return {
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "fps": frames / wall_s,
        "cpu_ms_per_frame": 1000 * cpu_s / frames,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _read(clip: Path, _target: Path, _preset: str) -> dict[str, float]:
    source = open_source(str(clip), ReadOptions())
    cost = _cost(lambda: sum(1 for _ in source.frames(lambda packet: None)))
    source.close()
    return cost


def _engine(clip: Path, _target: Path, _preset: str) -> dict[str, float]:
    source = open_source(str(clip), ReadOptions())
    geometry = source.streams[0].geometry
    frames = [(frame.planes[0].copy(),) for frame in source.frames(lambda packet: None)]
    source.close()
    name, _ = choose_engine("auto")
    with open_engine(name, model=load_model("dcd-lite")) as engine, engine.session(geometry) as session:

        def feed() -> None:
            for planes in frames:
                session.push(planes, None)
            session.flush()

        def drain() -> int:
            feeder = threading.Thread(target=feed)
            feeder.start()
            popped = 0
            try:
                while session.pop() is not None:
                    popped += 1
            except EndOfSession:
                feeder.join()
            return popped

        return _cost(drain)


def _write(clip: Path, target: Path, preset: str) -> dict[str, float]:
    source = open_source(str(clip), ReadOptions())
    outputs, _ = open_outputs(source, [str(target)], EncodeOptions(preset=preset))
    encoder, outlet = outputs[0].encoders[0], outputs[0].outlets[0]
    frames = [(frame, (frame.planes[0].copy(),)) for frame in source.frames(outlet.copy)]

    def encode() -> int:
        for frame, planes in frames:
            outlet.mux(encoder.encode(frame, planes))
        outlet.mux(encoder.flush())
        outlet.finish()
        return len(frames)

    cost = _cost(encode)
    source.close()
    return cost


def _run(clip: Path, target: Path, preset: str) -> dict[str, float]:
    """The command's own work, from opening to the finished file; loading Python is ``startup``'s."""
    from streamderain import RunOptions, run
    from streamderain.events import Complete

    def work() -> int:
        options = RunOptions(encode=EncodeOptions(preset=preset), engine=EngineOptions())
        done = run(clip, target, options=options).files[0]
        assert isinstance(done, Complete)
        return done.frames_out

    return _cost(work)
