"""Measure speed of the command and its stages by size, engine, precision, slots and encoder preset."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks.results_file import json_option, report
from streamderain.measure.bench import SCENES, take_turns
from streamderain.measure.scene import write_scene
from streamderain.measure.summary import result_json
from streamderain.measure.trial import Setup
from streamderain.options import EncodeOptions, EngineOptions, RunOptions


@click.command()
@click.option("--size", "sizes", multiple=True, default=("480p", "720p", "1080p"), show_default=True)
@click.option("--engine", "engines", multiple=True, default=("openvino",), show_default=True)
@click.option("--precision", "precisions", multiple=True, default=("auto",), show_default=True)
@click.option("--slots", "slots", multiple=True, type=int, default=(0,), help="Frames in flight; 0: its own.")
@click.option("--preset", "presets", multiple=True, default=("ultrafast", "veryfast"), show_default=True)
@click.option("--frames", type=int, help="Frames a clip [fewer, the larger they are].")
@click.option("--repeats", default=5, show_default=True)
@json_option
def throughput(
    sizes: tuple[str, ...],
    engines: tuple[str, ...],
    precisions: tuple[str, ...],
    slots: tuple[int, ...],
    presets: tuple[str, ...],
    frames: int | None,
    repeats: int,
    path: str | None,
) -> None:
    """Measure `streamderain run` on rainy H.264 clips that are made on the spot.

    All setups take turns, so that the spread holds what the machine does over the whole time.
    """
    choices = list(itertools.product(sizes, engines, precisions, slots, presets))
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            width, height, count = SCENES[size]
            write_scene(_clip(folder, size), width=width, height=height, frames=frames or count)
        setups = [_setup(folder, *choice) for choice in choices]
        measured = take_turns(setups, repeats=repeats)
    rows: list[dict[str, Any]] = []
    for (_, _, _, depth, preset), result in zip(choices, measured, strict=True):
        rows.append({"slots": depth, "preset": preset, **result_json(result)})
        click.echo(f"{result.clip}, {result.label}: {result.fps.median:.1f} frames/s", err=True)
    report({"benchmark": "throughput", "repeats": repeats, "rows": rows}, path)


def _clip(folder: str, size: str) -> Path:
    return Path(folder) / f"{size}.mp4"


def _setup(folder: str, size: str, engine: str, precision: str, slots: int, preset: str) -> Setup:
    options = RunOptions(
        encode=EncodeOptions(preset=preset), engine=EngineOptions(engine=engine, precision=precision)
    )
    label = f"{engine} {precision}, {slots or 'own'} slots, {preset}"
    return Setup(label, size, str(_clip(folder, size)), options, slots)
