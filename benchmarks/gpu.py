"""Measure the torch engine on a CUDA GPU beside the same on the processor.

Nothing here needs PyAV or OpenVINO: it runs where only torch is.
"""

from __future__ import annotations

import threading
from dataclasses import asdict
from itertools import islice
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.results_file import json_option, report
from streamderain.errors import EngineUnavailable
from streamderain.frame import Geometry
from streamderain.measure.scene import rainy_scene
from streamderain.measure.tables import spread
from streamderain.options import EngineOptions
from streamderain.runtime.base import EndOfSession, Engine, SessionOptions
from streamderain.runtime.registry import open_engine
from streamderain.system.usage import Usage
from streamderain.trace import Trace

SIZES = {"480p": (854, 480), "720p": (1280, 720), "1080p": (1920, 1080), "2160p": (3840, 2160)}

_SCENE_FRAMES = 8


@click.command()
@click.option("--size", "sizes", multiple=True, type=click.Choice(list(SIZES)), default=tuple(SIZES))
@click.option("--frames", default=200, show_default=True, help="Frames a measurement.")
@click.option("--repeats", default=5, show_default=True)
@click.option("--model", default="dcd-lite", show_default=True)
@click.option("--slots", "slots", multiple=True, type=int, default=(2, 4), show_default=True)
@click.option("--device", default="cuda", show_default=True, help="cuda, cuda:N; cpu proves the script.")
@json_option
def gpu(
    sizes: tuple[str, ...],
    frames: int,
    repeats: int,
    model: str,
    slots: tuple[int, ...],
    device: str,
    path: str | None,
) -> None:
    """Measure the network's sessions on a GPU: frames/s, time of a frame, memory, and agreement with f32."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise EngineUnavailable(
            "torch finds no CUDA device here; run this where there is one, or --device cpu"
        )
    rows = []
    for name in sizes:
        width, height = SIZES[name]
        scene = list(islice(rainy_scene(width=width, height=height, frames=_SCENE_FRAMES), _SCENE_FRAMES))
        geometry = Geometry(width, height)
        truth = _derained(model, "cpu", "f32", geometry, scene)
        for precision in ("f32", "bf16"):
            options = EngineOptions(model=model, engine="torch", device=device, precision=precision)
            with open_engine(options) as engine:
                off = _off_by(_session(engine, geometry, scene, len(scene), 2)[0], truth)
                for depth in slots:
                    _session(engine, geometry, scene, _SCENE_FRAMES, depth)  # warm-up
                    measured = [_timed(engine, geometry, scene, frames, depth) for _ in range(repeats)]
                    rows.append(
                        {
                            "size": name,
                            "device": engine.device,
                            "precision": precision,
                            "slots": depth,
                            "fps": asdict(spread([one["fps"] for one in measured])),
                            "network_ms": asdict(spread([one["network_ms"] for one in measured])),
                            "gpu": measured[-1]["gpu"],
                            "codes_off_f32": off,
                        }
                    )
                    click.echo(f"{name} {precision} {depth} slots: {rows[-1]['fps']}", err=True)
    report({"benchmark": "gpu", "model": model, "frames": frames, "repeats": repeats, "rows": rows}, path)


def _timed(
    engine: Engine, geometry: Geometry, scene: list[NDArray[np.uint8]], frames: int, depth: int
) -> dict[str, Any]:
    with Usage() as usage:
        _, trace = _session(engine, geometry, scene, frames, depth, keep=False)
    return {
        "fps": frames / usage.wall_s,
        "network_ms": 1000 * float(np.median(trace.seconds["network"])),
        "gpu": [asdict(use) for use in usage.gpu],
    }


def _session(
    engine: Engine,
    geometry: Geometry,
    scene: list[NDArray[np.uint8]],
    frames: int,
    depth: int,
    *,
    keep: bool = True,
) -> tuple[list[NDArray[np.uint8]], Trace]:
    """Push and pop so many frames on two threads, as the pipeline does. Popped frames are on the host."""
    trace, popped = Trace(), []
    with engine.session(geometry, SessionOptions(depth=depth, trace=trace)) as session:

        def feed() -> None:
            for index in range(frames):
                session.push((scene[index % len(scene)],), None)
            session.flush()

        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            while (result := session.pop()) is not None:
                if keep:
                    popped.append(result[1][0].copy())
        except EndOfSession:
            feeder.join()
    return popped, trace


def _derained(
    model: str, device: str, precision: str, geometry: Geometry, scene: list[NDArray[np.uint8]]
) -> list[NDArray[np.uint8]]:
    options = EngineOptions(model=model, engine="torch", device=device, precision=precision)
    with open_engine(options) as engine:
        return _session(engine, geometry, scene, len(scene), 2)[0]


def _off_by(found: list[NDArray[np.uint8]], truth: list[NDArray[np.uint8]]) -> dict[str, float]:
    differences = np.abs(np.stack(found).astype(int) - np.stack(truth).astype(int))
    return {"mean": float(differences.mean()), "most": int(differences.max())}
