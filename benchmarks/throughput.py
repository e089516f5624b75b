"""Measure speed of the command and its stages by size, engine, precision, slots and encoder preset."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks.footage import write_footage
from benchmarks.results_file import json_option, report
from streamderain.measure.bench import SCENES, take_turns
from streamderain.measure.scene import write_scene
from streamderain.measure.summary import result_json
from streamderain.measure.trial import Setup
from streamderain.options import EncodeOptions, EngineOptions, RunOptions

SCENE_NAMES = ("drawn", "filmed", "pan")
FOOTAGE_SIZE = "720p"


@click.command()
@click.option("--size", "sizes", multiple=True, default=("480p", "720p", "1080p"), show_default=True)
@click.option("--scene", "scenes", multiple=True, type=click.Choice(SCENE_NAMES), default=SCENE_NAMES)
@click.option("--engine", "engines", multiple=True, default=("openvino", "identity"), show_default=True)
@click.option("--precision", "precisions", multiple=True, default=("auto",), show_default=True)
@click.option("--slots", "slots", multiple=True, type=int, default=(0,), help="Frames in flight; 0: its own.")
@click.option("--preset", "presets", multiple=True, default=("ultrafast", "veryfast"), show_default=True)
@click.option("--frames", type=int, help="Frames a clip [fewer, the larger they are].")
@click.option("--repeats", default=5, show_default=True)
@json_option
def throughput(
    sizes: tuple[str, ...],
    scenes: tuple[str, ...],
    engines: tuple[str, ...],
    precisions: tuple[str, ...],
    slots: tuple[int, ...],
    presets: tuple[str, ...],
    frames: int | None,
    repeats: int,
    path: str | None,
) -> None:
    """Measure `streamderain run` on rainy H.264 clips that are made on the spot.

    The drawn scene comes in every size, filmed footage, still and under a pan, in 720p alone. The engine
    identity tells what a run costs without a network. All setups take turns, so that the spread holds what
    the machine does over the whole time.
    """
    clips = [("drawn", size) for size in sizes if "drawn" in scenes]
    clips += [(scene, FOOTAGE_SIZE) for scene in scenes if scene != "drawn"]
    choices = [
        choice
        for choice in itertools.product(clips, engines, precisions, slots, presets)
        if choice[0][0] == "drawn" or choice[-1] == presets[0]
    ]
    with tempfile.TemporaryDirectory() as folder:
        for scene, size in clips:
            width, height, count = SCENES[size]
            _write(_clip(folder, scene, size), scene, width=width, height=height, frames=frames or count)
        setups = [_setup(folder, *choice) for choice in choices]
        measured = take_turns(setups, repeats=repeats)
    rows: list[dict[str, Any]] = []
    for ((scene, _), _, _, depth, preset), result in zip(choices, measured, strict=True):
        rows.append({"scene": scene, "slots": depth, "preset": preset, **result_json(result)})
        click.echo(f"{result.clip}, {result.label}: {result.fps.median:.1f} frames/s", err=True)
    report({"benchmark": "throughput", "repeats": repeats, "rows": rows}, path)


def _clip(folder: str, scene: str, size: str) -> Path:
    return Path(folder) / f"{scene}-{size}.mp4"


def _write(path: Path, scene: str, *, width: int, height: int, frames: int) -> None:
    if scene == "drawn":
        write_scene(path, width=width, height=height, frames=frames)
    else:
        write_footage(path, width=width, height=height, frames=frames, pans=scene == "pan")


def _setup(folder: str, clip: tuple[str, str], engine: str, precision: str, slots: int, preset: str) -> Setup:
    scene, size = clip
    options = RunOptions(
        encode=EncodeOptions(preset=preset), engine=EngineOptions(engine=engine, precision=precision)
    )
    label = f"{engine} {precision}, {slots or 'own'} slots, {preset}"
    return Setup(label, f"{size}, {scene}", str(_clip(folder, scene, size)), options, slots)
