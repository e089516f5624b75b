"""The project's record: tables made of results, the guard's judgement, every benchmark at toy size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks import guard, tables
from benchmarks.__main__ import benchmarks
from benchmarks.scaling import repeat_clip
from streamderain.measure.scene import write_scene
from streamderain.measure.tables import Spread

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BASE = {
    "ratios": {
        "decoding": {"median": 1.0, "min": 0.9, "max": 1.05},
        "noise": {"median": 2, "min": 1, "max": 4},
    },
    "counts": {"calls": 100.0},
}


@pytest.mark.parametrize("name", tables.DOCUMENTS)
def test_documents_show_the_committed_results(name: str) -> None:
    document = (ROOT / name).read_text()
    assert "<!-- table: " in document
    assert tables.renewed(document) == document, "run: python -m benchmarks tables"


def test_a_changed_figure_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in tables.DOCUMENTS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    readme = tmp_path / "README.md"
    readme.write_text(readme.read_text().replace("bare Python |", "bare Python | 9", 1))
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    failed = CliRunner().invoke(benchmarks, ["tables", "--check"])
    assert failed.exit_code == 1
    assert "python -m benchmarks tables" in failed.output
    assert CliRunner().invoke(benchmarks, ["tables"]).exit_code == 0
    assert readme.read_text() == (ROOT / "README.md").read_text()
    assert CliRunner().invoke(benchmarks, ["tables", "--check"]).exit_code == 0


def slower(decoding: float, noise: float = 2.0, calls: float = 100.0) -> list[str]:
    ratios = {name: Spread(value, value, value) for name, value in (("decoding", decoding), ("noise", noise))}
    found = guard.judge(BASE, ratios, {"calls": calls}, slack=0.12)
    return [finding.name for finding in found if finding.slower]


def test_the_guard_names_what_became_slower() -> None:
    assert slower(1.0) == []
    assert slower(1.11) == []
    assert slower(1.2) == ["decoding"]
    assert slower(1.0, noise=3.9) == []
    assert slower(1.2, noise=4.5, calls=130) == ["decoding", "noise", "calls"]


def test_the_guard_passes_over_what_has_no_baseline() -> None:
    found = guard.judge(BASE, {"new": Spread(9, 9, 9)}, {"newer": 9}, slack=0.1)
    assert found == []


def test_ratios_are_of_processor_time() -> None:
    def work(times: int) -> None:
        for _ in range(times):
            sum(range(20_000))

    ratio = guard.paired_ratio(lambda: work(60), lambda: work(20), repeats=5)
    assert 1.5 < ratio.median < 6


def test_calls_are_counted_for_every_frame() -> None:
    def work() -> None:
        for _ in range(guard._FRAMES * 7):
            len(())

    assert guard.calls_per_frame(work) == pytest.approx(7, abs=0.2)


def test_the_committed_baseline_can_be_read() -> None:
    for about in json.loads(guard.BASELINE.read_text()).values():
        assert about["machine"]["cores"] >= 1
        assert guard.judge(about, {}, about["counts"], slack=0) != []


def test_a_repeated_clip(tmp_path: Path) -> None:
    write_scene(tmp_path / "piece.mp4", width=64, height=48, frames=12)
    repeat_clip(tmp_path / "piece.mp4", tmp_path / "all.mp4", times=3, streams=2)
    with av.open(str(tmp_path / "all.mp4")) as container:
        assert len(container.streams.video) == 2
        times = [float(frame.time or 0) for frame in container.decode(video=1)]
    assert times == pytest.approx([n / 30 for n in range(36)])


def measured(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    target = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks", *arguments, "--json", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(target.read_text())
    assert result["machine"]["commit"]
    return result


def test_throughput(tmp_path: Path) -> None:
    sweep = ("--engine", "identity", "--slots", "0", "--slots", "3", "--preset", "ultrafast")
    clips = ("--size", "480p", "--frames", "6", "--scene", "drawn", "--scene", "pan")
    result = measured(tmp_path, "throughput", *clips, "--repeats", "1", *sweep)
    assert [(row["clip"], row["scene"], row["slots"]) for row in result["rows"]] == [
        ("480p, drawn", "drawn", 0),
        ("480p, drawn", "drawn", 3),
        ("720p, pan", "pan", 0),
        ("720p, pan", "pan", 3),
    ]
    assert all(row["fps"]["median"] > 0 for row in result["rows"])


def test_startup(tmp_path: Path) -> None:
    result = measured(tmp_path, "startup", "--repeats", "1")
    assert result["first_frame_s"]["median"] > result["import_s"]["median"]


def test_quality_scores_models_and_peers_side_by_side(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(2):
        clean = rng.integers(60, 90, (48, 64, 3), dtype=np.uint8)
        rainy = clean.copy()
        rainy[10:30, 20 + index] = 230
        for folder, picture in (("input", rainy), ("target", clean), ("peer", clean)):
            (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
            place = tmp_path / ("peer" if folder == "peer" else f"set/{folder}")
            place.mkdir(exist_ok=True)
            Image.fromarray(picture).save(place / f"{index}.png")
    (tmp_path / "set" / "peer").rmdir()
    peer = f"perfect={tmp_path / 'peer'}"
    arguments = ("--dataset", str(tmp_path / "set"), "--model", "dcd-lite", "--results", peer)
    ours, theirs = measured(tmp_path, "quality", *arguments)["reports"]
    assert (ours["model"], ours["precision"]) == ("dcd-lite", "int8")
    assert (theirs["model"], theirs["precision"]) == ("perfect", "results")
    rows = {row["metric"]: row for row in theirs["rows"]}
    assert rows["psnr_rgb_db"]["value"] == 100.0
    assert rows["psnr_rgb_db"]["do_nothing"] < 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("quality", "--dataset", "."), "nothing to score"),
        (("quality", "--dataset", ".", "--results", "x"), "NAME="),
    ],
)
def test_misuse_is_said(arguments: tuple[str, ...], message: str) -> None:
    failed = CliRunner().invoke(benchmarks, list(arguments))
    assert failed.exit_code == 2
    assert message in failed.output


def test_a_soak(tmp_path: Path) -> None:
    soak = measured(tmp_path, "scaling", "--part", "soak", "--minutes", "0.05")["soak"]
    assert soak["frames"] > 100
    least, most = soak["memory_mb"]["min"], soak["memory_mb"]["max"]
    assert least - 0.1 < soak["first_tenth_mb"] < most + 0.1


def test_the_gpu_script_runs_where_only_torch_is(tmp_path: Path) -> None:
    target = tmp_path / "gpu.json"
    counts = ("--frames", "3", "--repeats", "1", "--slots", "2")
    arguments = ("--device", "cpu", "--size", "480p", "--model", "dcd-lite", *counts)
    missing = ("av", "openvino", "plotly", "jinja2", "rich")
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({missing}));"
        f"sys.argv = ['benchmarks', 'gpu', *{arguments}, '--json', {str(target)!r}];"
        "runpy.run_module('benchmarks', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    exact, rough = json.loads(target.read_text())["rows"]
    assert (exact["precision"], exact["codes_off_f32"]["most"]) == ("f32", 0)
    assert rough["precision"] == "bf16"
    assert rough["codes_off_f32"]["mean"] < 1


def test_the_gpu_script_says_where_there_is_no_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "gpu"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 5
    assert "no CUDA device" in done.stderr


def test_every_benchmark_has_help() -> None:
    assert isinstance(benchmarks, click.Group)
    for name in benchmarks.list_commands(click.Context(benchmarks)):
        assert CliRunner().invoke(benchmarks, [name, "--help"]).exit_code == 0
