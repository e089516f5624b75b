"""Test the file path: every container, random ends of runs, kills of runs in pieces, damaged files."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.results_file import json_option, report
from streamderain.errors import StreamderainError
from tests.support.judge import faults
from tests.support.kills import VICTIMS, Kill, in_one_go, killed_and_resumed, source_in_pieces
from tests.support.kinds import CONTAINERS, SOURCES
from tests.support.trials import ENDS, disturbed, long_clip, mutant, whole_files
from tests.support.writing import write_through

_KILLS_A_TARGET = 3


@click.command()
@click.option("--pairs/--no-pairs", default=True, help="Every kind of source into every container.")
@click.option("--ends", default=100, show_default=True, help="Runs that are ended at a random moment.")
@click.option("--kills", default=300, show_default=True, help="Runs in pieces that are killed.")
@click.option("--mutants", default=1000, show_default=True, help="Damaged files.")
@click.option("--seed", default=1, show_default=True)
@json_option
def robustness(pairs: bool, ends: int, kills: int, mutants: int, seed: int, path: str | None) -> None:
    """Try to harm the user's files, and judge what is left by FFmpeg's own commands (needs ffmpeg)."""
    found: dict[str, Any] = {"benchmark": "robustness", "seed": seed}
    with tempfile.TemporaryDirectory(prefix="streamderain-robustness-") as name:
        folder = Path(name)
        if pairs:
            found["pairs"] = _pairs(folder)
        if ends:
            found["ends"] = _ends(folder, ends, np.random.default_rng(seed))
        if kills:
            found["kills"] = _kills(folder, kills, np.random.default_rng(seed))
        if mutants:
            found["mutants"] = _mutants(folder, mutants, seed)
    report(found, path)


def _pairs(folder: Path) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    wrong: dict[str, list[str]] = {}
    for name, write in SOURCES.items():
        source = write(folder / name)
        for suffix in CONTAINERS:
            target = folder / f"out.{suffix}"
            try:
                warnings = write_through(source, target, overwrite=True)
            except StreamderainError as error:
                counts["refused"] += 1
                wrong |= {f"{name} to {suffix}": [str(error)]} if error.exit_code == 6 else {}
                continue
            counts["written"] += 1
            if bad := faults(source, target, warnings):
                wrong[f"{name} to {suffix}"] = bad
                click.echo(f"{name} to {suffix}: {bad}", err=True)
        click.echo(f"{name}: {len(CONTAINERS)} containers", err=True)
    return {**counts, "faults": wrong}


def _ends(folder: Path, count: int, random: np.random.Generator) -> dict[str, Any]:
    clip = long_clip(folder)
    wrong: dict[str, list[str]] = {}
    for number in range(count):
        trial: dict[str, Any] = {
            "end": str(random.choice(ENDS)),
            "suffix": str(random.choice(["mp4", "mov", "mkv", "ts"])),
            "after_s": float(random.uniform(0.02, 4.0)),
            "there": bool(random.integers(2)),
        }
        with tempfile.TemporaryDirectory(dir=folder) as place:
            if bad := disturbed(clip, Path(place), **trial):
                wrong[str(trial)] = bad
                click.echo(f"{trial}: {bad}", err=True)
        if number % 20 == 19:
            click.echo(f"{number + 1} of {count} runs ended", err=True)
    return {"count": count, "faults": wrong}


def _kills(folder: Path, count: int, random: np.random.Generator) -> dict[str, Any]:
    source = source_in_pieces(folder)
    wanted = in_one_go(source, folder / "whole.mkv")
    wrong: dict[str, list[str]] = {}
    for number in range(0, count, _KILLS_A_TARGET):
        points = [
            Kill(str(random.choice(VICTIMS)), float(random.uniform(0.8, 3.0)))
            for _ in range(min(_KILLS_A_TARGET, count - number))
        ]
        with tempfile.TemporaryDirectory(dir=folder) as place:
            if bad := killed_and_resumed(source, wanted, Path(place) / "clean.mkv", points):
                wrong[str(points)] = bad
                click.echo(f"{points}: {bad}", err=True)
        if number % 60 == 0:
            click.echo(f"{number} of {count} kills", err=True)
    return {"count": count, "faults": wrong}


def _mutants(folder: Path, count: int, seed: int) -> dict[str, Any]:
    files = whole_files(folder)
    codes: Counter[str] = Counter()
    wrong: dict[str, list[str]] = {}

    def tried(number: int) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            found = mutant(files[number % len(files)], Path(place), seed * 1_000_000 + number)
        codes[str(found.code)] += 1
        if found.faults:
            wrong[found.name] = list(found.faults)
            click.echo(f"{found.name}: {found.faults}", err=True)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for number, _ in enumerate(pool.map(tried, range(count))):
            if number % 100 == 99:
                click.echo(f"{number + 1} of {count} damaged files", err=True)
    return {"count": count, "exit_codes": dict(codes), "faults": wrong}
