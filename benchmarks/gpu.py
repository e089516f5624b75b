"""Measure the engines for NVIDIA GPUs: TensorRT, or torch where that is not installed.

Nothing here needs PyAV or OpenVINO: it runs where only torch is.
"""

from __future__ import annotations

import itertools
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
from streamderain.frame import Geometry, Planes
from streamderain.measure.scene import rainy_scene
from streamderain.measure.tables import spread
from streamderain.models import load_model
from streamderain.options import EngineOptions
from streamderain.runtime.base import EndOfSession, Engine, SessionOptions
from streamderain.runtime.registry import ENGINES, open_engine
from streamderain.system.usage import Usage
from streamderain.trace import Trace

SIZES = {"480p": (854, 480), "720p": (1280, 720), "1080p": (1920, 1080), "2160p": (3840, 2160)}

_SCENE_FRAMES = 8

_WHOLE_SIZES = ("720p", "1080p")


@click.command()
@click.option("--size", "sizes", multiple=True, type=click.Choice(list(SIZES)), default=tuple(SIZES))
@click.option("--frames", default=200, show_default=True, help="Frames a measurement.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--model", "models", multiple=True, default=("dcd-lite", "dcd-gan"), show_default=True)
@click.option("--slots", "slots", multiple=True, type=int, default=(2, 4), show_default=True)
@click.option("--device", default="cuda", show_default=True, help="cuda, cuda:N; cpu proves the script.")
@json_option
def gpu(
    sizes: tuple[str, ...],
    frames: int,
    repeats: int,
    models: tuple[str, ...],
    slots: tuple[int, ...],
    device: str,
    path: str | None,
) -> None:
    """Measure sessions on a GPU: frames/s, time of a frame, memory, and agreement with f32 on the processor.

    TensorRT where it is installed, else torch. Models that look at whole frames are given fewer of them, of
    720p and 1080p.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise EngineUnavailable(
            "torch finds no CUDA device here; run this where there is one, or --device cpu"
        )
    name = "tensorrt" if device != "cpu" and ENGINES["tensorrt"].installed else "torch"
    precisions = ("f32", "bf16") if device == "cpu" else ("f32", "f16")
    rows = []
    for model, size in itertools.product(models, sizes):
        width, height = SIZES[size]
        whole = not load_model(model).tileable
        if whole and size not in _WHOLE_SIZES:
            continue
        scene = list(islice(rainy_scene(width=width, height=height, frames=_SCENE_FRAMES), _SCENE_FRAMES))
        geometry = Geometry(width, height)
        planes = _planes(scene, geometry, whole=whole)
        # On the processor a whole frame takes seconds: one is enough to compare with.
        compared = planes[:1] if whole else planes
        truth = _derained(model, geometry, compared)
        for precision in precisions:
            options = EngineOptions(model=model, engine=name, device=device, precision=precision)
            with open_engine(options) as engine:
                off = _off_by(_session(engine, geometry, compared, len(compared), 2)[0], truth)
                for depth in slots:
                    count = max(1, frames // 10) if whole else frames
                    _session(engine, geometry, planes, min(count, _SCENE_FRAMES), depth)  # warm-up
                    measured = [_timed(engine, geometry, planes, count, depth) for _ in range(repeats)]
                    rows.append(
                        {
                            "model": model,
                            "size": size,
                            "engine": name,
                            "device": engine.device,
                            "precision": precision,
                            "slots": depth,
                            "fps": asdict(spread([one["fps"] for one in measured])),
                            "network_ms": asdict(spread([one["network_ms"] for one in measured])),
                            "device_bytes": engine.device_bytes(geometry),
                            "gpu": measured[-1]["gpu"],
                            "codes_off_f32": off,
                        }
                    )
                    click.echo(f"{model} {size} {precision} {depth} slots: {rows[-1]['fps']}", err=True)
    report({"benchmark": "gpu", "frames": frames, "repeats": repeats, "rows": rows}, path)


def _planes(scene: list[NDArray[np.uint8]], geometry: Geometry, *, whole: bool) -> list[Planes]:
    """Return luma alone, or with gray chroma for models of whole frames in colour."""
    gray = tuple(np.full(shape, 128, np.uint8) for shape in geometry.plane_shapes[1:])
    return [(luma, *gray) if whole else (luma,) for luma in scene]


def _timed(
    engine: Engine, geometry: Geometry, scene: list[Planes], frames: int, depth: int
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
    scene: list[Planes],
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
                session.push(scene[index % len(scene)], None)
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


def _derained(model: str, geometry: Geometry, scene: list[Planes]) -> list[NDArray[np.uint8]]:
    options = EngineOptions(model=model, engine="torch", device="cpu", precision="f32")
    with open_engine(options) as engine:
        return _session(engine, geometry, scene, len(scene), 2)[0]


def _off_by(found: list[NDArray[np.uint8]], truth: list[NDArray[np.uint8]]) -> dict[str, float]:
    differences = np.abs(np.stack(found).astype(int) - np.stack(truth).astype(int))
    return {"mean": float(differences.mean()), "most": int(differences.max())}
