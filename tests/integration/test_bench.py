"""`streamderain bench` from the outside, and what its figures stand on."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from skimage.metrics import peak_signal_noise_ratio

from streamderain.errors import ConfigError
from streamderain.measure import bench as bench_module
from streamderain.measure.bench import BenchOptions, Result, bench, flicker, pooled
from streamderain.measure.pages import bench_page
from streamderain.measure.rain import RainParameters, RainSequence
from streamderain.measure.summary import markdown, to_json
from streamderain.measure.trial import STAGES, percentiles
from streamderain.media.arrays import ClipWriter
from streamderain.models import load_model
from streamderain.system.machine import machine
from tests.support.browser import opened
from tests.support.command import Outcome, streamderain
from tests.support.media import rgb

WIDTH, HEIGHT, FRAMES = 128, 96, 8
FAST = ("--repeats", "2", "--engine", "identity", "--preset", "ultrafast")


def scene(index: int) -> np.ndarray:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.rint(90 + 40 * np.sin((x + 2 * index) / 17) * np.cos(y / 13)).astype(np.uint8)


def write(path: Path, *, rainy: bool = False, frames: int = FRAMES, crop: int = 0) -> Path:
    rain = RainSequence(RainParameters(), 3, WIDTH, HEIGHT)
    with ClipWriter(path, rate_fps=Fraction(25), crf=4) as clip:
        for index in range(frames):
            luma = scene(index)
            picture = rain.apply_to_codes(luma, index).astype(np.uint8) if rainy else luma
            clip.write(picture[crop:])
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    write(folder / "dry.mp4")
    write(folder / "rainy.mp4", rainy=True)
    return folder


def found(outcome: Outcome) -> dict[str, Any]:
    assert outcome.code == 0, outcome.err
    return outcome.summary


def test_the_figures_of_a_clip(clips: Path) -> None:
    summary = found(streamderain("bench", clips / "dry.mp4", *FAST, "-q", "--json"))
    (result,) = summary["results"]
    model = load_model("dcd-lite")
    assert (result["engine"], result["model_sha256"]) == ("identity", model.sha256)
    assert (result["width"], result["height"], result["frames"]) == (WIDTH, HEIGHT, FRAMES)
    assert result["fps"]["min"] <= result["fps"]["median"] <= result["fps"]["max"]
    assert result["real_time_factor"] == pytest.approx(result["fps"]["median"] / 25)
    assert result["frame_latency"]["p50_ms"]["median"] <= result["frame_latency"]["p99_ms"]["median"]
    assert result["cpu_cores"]["median"] > 0
    assert result["peak_memory_mb"] > 20
    assert tuple(result["stages"]) == STAGES
    assert result["limited_by"] == min(STAGES, key=lambda name: result["stages"][name]["fps"]["median"])
    assert summary["machine"]["processor"] == machine()["processor"]
    assert {"date", "repeats", "encode", "engine"} <= set(summary["settings"])
    assert summary["settings"]["encode"]["preset"] == "ultrafast"


def test_engines_are_compared_side_by_side(clips: Path, tmp_path: Path) -> None:
    target = tmp_path / "bench.md"
    arguments = ("--repeats", "1", "--engine", "identity,openvino", f"--markdown={target}")
    outcome = streamderain("bench", clips / "dry.mp4", *arguments)
    assert outcome.code == 0, outcome.err
    shown = outcome.out.decode()
    for label in ("dcd-lite on identity", "dcd-lite on openvino"):
        assert label in shown
        assert label in target.read_text()
    assert "## Stages alone" in target.read_text()
    assert load_model("dcd-lite").sha256 in target.read_text()


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [rgb(frame) for frame in container.decode(video=0)]


def test_quality_against_a_reference(clips: Path) -> None:
    arguments = ("--reference", clips / "dry.mp4", *FAST, "-q", "--json")
    quality = found(streamderain("bench", clips / "rainy.mp4", *arguments))["results"][0]["quality"]
    expected = [
        peak_signal_noise_ratio(clean, rainy, data_range=255)
        for rainy, clean in zip(decoded(clips / "rainy.mp4"), decoded(clips / "dry.mp4"), strict=True)
    ]
    assert [frame["after"]["psnr_rgb_db"] for frame in quality["frames"]] == pytest.approx(expected)
    rgb = quality["pooled"]["psnr_rgb_db"]
    assert rgb["after"] == rgb["before"]
    assert rgb["after"]["mean"] == pytest.approx(np.mean(expected))
    assert rgb["after"]["minimum"] == pytest.approx(min(expected))
    assert quality["unmatched"] == 0
    worst = sorted(range(FRAMES), key=lambda n: quality["frames"][n]["after"]["psnr_y_db"])[:3]
    assert quality["worst_frames"] == worst
    assert quality["flicker"]["before"] > quality["flicker"]["reference"]


def test_a_clip_is_its_own_reference(clips: Path) -> None:
    dry = clips / "dry.mp4"
    summary = found(streamderain("bench", dry, "--reference", dry, *FAST, "-q", "--json"))
    quality = summary["results"][0]["quality"]
    assert [frame["after"]["psnr_y_db"] for frame in quality["frames"]] == [None] * FRAMES
    assert quality["pooled"]["psnr_y_db"]["after"]["mean"] == 100.0
    assert quality["pooled"]["ssim_y"]["after"]["minimum"] == pytest.approx(1.0)


@pytest.fixture(scope="module")
def rained(clips: Path) -> bench_module.Bench:
    """The network on known rain; its results are looked at by several tests."""
    return bench(BenchOptions(source=str(clips / "dry.mp4"), synth_rain=True, repeats=1))


def test_known_rain_is_drawn_and_removed(rained: bench_module.Bench) -> None:
    quality = rained.results[0].quality
    assert quality is not None
    figures = pooled(quality)["psnr_y_db"]
    assert figures["before"].mean < 36
    assert figures["after"].mean > figures["before"].mean + 2
    values = flicker(quality)
    assert values["reference"] <= values["after"] < values["before"]
    assert rained.kind == "synthetic rain"


def test_json_and_markdown_hold_all(rained: bench_module.Bench) -> None:
    text = json.dumps(to_json(rained), allow_nan=False)
    assert json.loads(text)["quality_measured_on"] == "synthetic rain"
    document = markdown(rained)
    assert "## Quality, by synthetic rain" in document
    assert "| dry.mp4 | dcd-lite | PSNR Y, dB |" in document
    widths = {}
    for line in document.splitlines():
        if line.startswith("|"):
            widths.setdefault(len(re.findall(r"(?<!\\)\|", line)), line)
    assert all(count > 2 for count in widths)


@pytest.mark.browser
def test_the_page_opens_in_a_browser(rained: bench_module.Bench, tmp_path: Path) -> None:
    page = tmp_path / "bench.html"
    page.write_text(bench_page(rained))
    with opened(page) as view:
        assert view.locator(".js-plotly-plot .main-svg").count() >= 3
        pictures = view.locator(".worst img")
        assert pictures.count() == 9
        sizes = pictures.evaluate_all("all => all.map(one => [one.naturalWidth, one.naturalHeight])")
        assert sizes == [[WIDTH, HEIGHT]] * 9
        assert "Y-PSNR of every frame" in view.inner_text("body")
        assert load_model("dcd-lite").sha256 in view.inner_text("body")


def test_the_command_writes_the_page(clips: Path, tmp_path: Path) -> None:
    page = tmp_path / "bench.html"
    outcome = streamderain("bench", clips / "dry.mp4", *FAST, "-q", f"--html={page}")
    assert (outcome.code, outcome.out) == (0, b"")
    assert "<script>" in page.read_text()
    again = streamderain("bench", clips / "dry.mp4", *FAST, "-q", f"--html={page}")
    assert again.code == 2
    assert "--overwrite" in again.err


def test_a_trim_is_heeded(clips: Path) -> None:
    summary = found(
        streamderain("bench", clips / "dry.mp4", *FAST, "-ss", "0.08", "-t", "0.16", "-q", "--json")
    )
    assert summary["results"][0]["frames"] == 4


def test_numbered_images_are_measured(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    assert streamderain("run", clips / "dry.mp4", "-o", f"{folder}/", "--engine", "identity").code == 0
    summary = found(streamderain("bench", folder, *FAST[:4], "-q", "--json"))
    assert summary["results"][0]["frames"] == FRAMES


def test_the_built_in_clips(tmp_path: Path) -> None:
    summary = found(streamderain("bench", "--sizes", "480p", *FAST[2:], "--repeats", "1", "-q", "--json"))
    (result,) = summary["results"]
    assert (result["clip"], result["width"], result["height"], result["frames"]) == ("480p", 854, 480, 150)


def test_what_does_not_fit_into_memory_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Little:
        available = 10_000_000

    monkeypatch.setattr(psutil, "virtual_memory", Little)
    monkeypatch.setattr(bench_module, "machine", dict)
    monkeypatch.setitem(bench_module.SCENES, "480p", (WIDTH, HEIGHT, 4))
    monkeypatch.setitem(bench_module.SCENES, "2160p", (WIDTH * 4, HEIGHT * 4, 4))
    options = BenchOptions(scenes=("480p", "2160p"), engines=("identity",), repeats=1)
    small, large = bench(options).results
    assert isinstance(small, Result)
    assert small.repeats
    assert not large.repeats
    assert "GiB of memory" in large.left_out
    assert "left out: needs about" in markdown(bench(options))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--reference", "{dry}"), 2, "name it as SOURCE"),
        (("--synth-rain",), 2, "name it as SOURCE"),
        (("{dry}", "--reference", "{dry}", "--synth-rain"), 2, "exclude each other"),
        (("{dry}", "--repeats", "0"), 2, "at least 1 repeat"),
        (("{dry}", "--engine", "warp"), 2, "choose from auto"),
        (("{dry}", "--model", "nothing"), 4, "there is no model"),
        (("--sizes", "8k"), 2, "choose from 480p"),
        (("missing.mp4",), 3, "missing.mp4"),
        (("-",), 2, "a pipe cannot; give a file"),
        (("{folder}",), 2, "holds 2 clips"),
        (("{dry}", "--reference", "{other}"), 2, "128x64"),
        (("{dry}", "--json=no/such/folder.json"), 2, "make it first"),
        (("{dry}", "--codec", "nonsense"), 2, "no video encoder"),
    ],
)
def test_what_cannot_be_measured_is_said(
    clips: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    other = write(tmp_path / "other.mp4", crop=32)
    names = {"dry": clips / "dry.mp4", "folder": clips, "other": other}
    given = [argument.format(**names) for argument in arguments]
    extra = () if "--engine" in given else ("--engine", "identity")
    outcome = streamderain("bench", *given, *extra, cwd=tmp_path)
    assert (outcome.code, message in outcome.err) == (code, True), outcome.err


def test_percentiles() -> None:
    durations = [n / 1000 for n in range(1, 101)]
    found = percentiles(durations)
    assert found.p50_ms == pytest.approx(50.5)
    assert found.p99_ms == pytest.approx(np.percentile(durations, 99) * 1000)
    with pytest.raises(ValueError, match="no durations"):
        percentiles([])


def test_options_check_themselves() -> None:
    with pytest.raises(ConfigError, match="no built-in clip"):
        BenchOptions(scenes=("1p",))
