"""Find regressions of speed: ratios within one run, and counts, beside the committed baseline.

Every piece of ours is timed in turn with the bare library that does the essential part of it on the same
data; what is kept is the ratio of their processor times. A slower or busier machine slows both. Where Python
is the cost, calls are counted instead, which no weather changes.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import click
import cv2
import numpy as np
import openvino as ov
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.results_file import FOLDER
from streamderain import motion
from streamderain.frame import Frame, Geometry
from streamderain.jobs.job import Job
from streamderain.measure.metrics import ssim
from streamderain.measure.rain import known_rain
from streamderain.measure.scene import rainy_scene, write_scene
from streamderain.measure.tables import Spread, spread
from streamderain.media.reading.file import FileSource
from streamderain.media.reading.sources import find_sources
from streamderain.media.writing.outputs import open_outputs
from streamderain.models import FlowCells, load_model
from streamderain.nets.families import load_core
from streamderain.options import EncodeOptions, EngineOptions, ReadOptions, RunOptions
from streamderain.pipeline.inline import InlineSession
from streamderain.runtime.blocks import from_blocks, padded, to_blocks
from streamderain.runtime.registry import open_engine
from streamderain.system.machine import machine, processor

BASELINE = FOLDER / "guard.json"

SLACK = 0.12
"""A ratio may rise by this share before it counts as slower."""

STRANGER_SLACK = 0.35
"""The same on a processor without a baseline: caches and vector units move ratios."""

SECOND_LOOKS = 3
"""What seems slower is measured so often again; the best of all counts."""

_WIDTH, _HEIGHT, _FRAMES = 640, 360, 60
_SMALL_WIDTH, _SMALL_HEIGHT = 320, 180
"""Arrays of this size come from malloc's heap. What larger ones cost depends on what was freed before."""

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure beside its baseline.

    Attributes:
        name: What was measured.
        baseline: The committed figure.
        found: The figure now.
        limit: What it may be.
    """

    name: str
    baseline: float
    found: float
    limit: float

    @property
    def slower(self) -> bool:
        """Whether it is over the limit."""
        return self.found > self.limit


@click.command()
@click.option("--update", is_flag=True, help="Make what is measured now the baseline of this processor.")
@click.option("--repeats", default=9, show_default=True, help="Pairs of measurements.")
def guard(update: bool, repeats: int) -> None:
    """Compare ratios and counts with the committed baseline; fail and name what became slower."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as cleanup:
        pairs = _pairs(Path(folder), cleanup)
        counts = {name: calls_per_frame(work) for name, work in _counted(Path(folder)).items()}
        counts["GMAC of the network, 720p"] = _network_gmac()
        ratios = {name: paired_ratio(*pair, repeats=repeats) for name, pair in pairs.items()}
        if update:
            _save(ratios, counts)
            return
        known = json.loads(BASELINE.read_text())
        mine = processor() in known
        base = known[processor()] if mine else next(iter(known.values()))
        slack = SLACK if mine else STRANGER_SLACK
        for _ in range(SECOND_LOOKS):
            seeming = [f.name for f in judge(base, ratios, counts, slack=slack) if f.slower]
            for name in set(seeming) & set(pairs):
                again = paired_ratio(*pairs[name], repeats=repeats)
                ratios[name] = min(ratios[name], again, key=lambda one: one.median)
    findings = judge(base, ratios, counts, slack=slack)
    if not mine:
        click.echo(f"no baseline for {processor()}: compared with another's, with {slack:.0%} of slack")
    show(findings)
    slower = [finding for finding in findings if finding.slower]
    if slower:
        click.echo(f"slower: {', '.join(finding.name for finding in slower)}")
        sys.exit(1)
    click.echo("nothing became slower")


def paired_ratio(ours: Work, bare: Work, *, repeats: int) -> Spread:
    """Return the processor time of one piece of work over another's, taking turns.

    Args:
        ours: What is guarded.
        bare: The essential part of it.
        repeats: Pairs.
    """
    ours()
    bare()
    return spread([_cpu_s(ours) / _cpu_s(bare) for _ in range(repeats)])


def calls_per_frame(work: Work) -> float:
    """Return the Python and C function calls of some work on `_FRAMES` frames, for each of them."""
    profile = cProfile.Profile()
    profile.runcall(work)
    calls: int = pstats.Stats(profile).total_calls  # type: ignore[attr-defined]
    return round(calls / _FRAMES, 1)


def judge(
    base: dict[str, Any], ratios: dict[str, Spread], counts: dict[str, float], *, slack: float
) -> list[Finding]:
    """Put figures beside their baseline; new ones have none yet and are passed over.

    Args:
        base: One processor's entry of the baseline file.
        ratios: From `paired_ratio`, by name.
        counts: From `calls_per_frame`, by name.
        slack: Share by which ratios may rise.
    """
    found = []
    for name, ratio in ratios.items():
        if name in base["ratios"]:
            known = base["ratios"][name]
            # What varied by itself when the baseline was made may vary again.
            limit = max(known["median"] * (1 + slack), known["max"])
            found.append(Finding(name, known["median"], ratio.median, limit))
    for name, count in counts.items():
        if name in base["counts"]:
            known_count = base["counts"][name]
            found.append(Finding(name, known_count, count, known_count * (1 + SLACK)))
    return found


def show(findings: Iterable[Finding]) -> None:
    """Print every figure with its baseline and limit."""
    click.echo(f"{'':34} {'baseline':>9} {'now':>9} {'limit':>9}")
    for finding in findings:
        mark = "  SLOWER" if finding.slower else ""
        click.echo(
            f"{finding.name:34} {finding.baseline:9.2f} {finding.found:9.2f} {finding.limit:9.2f}{mark}"
        )


def _save(ratios: dict[str, Spread], counts: dict[str, float]) -> None:
    known = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    known[processor()] = {
        "machine": machine(),
        "ratios": {name: asdict(ratio) for name, ratio in ratios.items()},
        "counts": counts,
    }
    BASELINE.write_text(json.dumps(known, indent=1) + "\n")
    click.echo(f"{BASELINE}: baseline of {processor()}")


def _cpu_s(work: Work) -> float:
    began = _spent_s()
    work()
    return _spent_s() - began


def _spent_s() -> float:
    """Return the processor time of this process and its ended children."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def _pairs(folder: Path, cleanup: ExitStack) -> dict[str, tuple[Work, Work]]:
    """Return what is guarded, each with its bare counterpart."""
    clip = folder / "clip.mp4"
    write_scene(clip, width=_WIDTH, height=_HEIGHT, frames=_FRAMES)
    luma = next(iter(rainy_scene(width=_SMALL_WIDTH, height=_SMALL_HEIGHT, frames=1)))
    patch = luma[:96, :64]
    plain = np.random.default_rng(0).random((32, 64))
    room = np.empty_like(plain)
    rain = known_rain(patch.shape[1], patch.shape[0])
    return {
        "decoding / PyAV": (lambda: _decode(clip), lambda: _bare_decode(clip)),
        "copies / numpy": (lambda: _blocks(luma), lambda: _bare_copies(luma)),
        "network / OpenVINO core": _network(cleanup),
        "alignment / OpenCV": _alignment(cleanup),
        "encoding / PyAV": (lambda: _encode(clip, folder), lambda: _bare_encode(clip, folder)),
        "run, no network / PyAV": (lambda: _run(clip, folder), lambda: _bare_encode(clip, folder)),
        "SSIM / numpy": (lambda: _often(lambda: ssim(patch, patch)), lambda: _bare_sums(plain, room)),
        "known rain / numpy": (
            lambda: _often(lambda: rain.apply_to_codes(patch, 0)),
            lambda: _bare_sums(plain, room),
        ),
        "import streamderain / Python": (lambda: _python("import streamderain"), lambda: _python("pass")),
        "--help / Python": (
            lambda: _python("from streamderain.cli.main import cli; cli(['--help'])"),
            lambda: _python("pass"),
        ),
    }


def _counted(folder: Path) -> dict[str, Work]:
    """Return what is counted: calls of one thread for every frame."""
    clip = folder / "clip.mp4"
    return {
        "calls a frame, decoding": lambda: _decode(clip),
        "calls a frame, session": lambda: _session(clip),
        "calls a frame, encoding": lambda: _encode(clip, folder),
    }


def _decode(clip: Path) -> None:
    source = FileSource(str(clip), ReadOptions())
    for _ in source.frames(lambda packet: None):
        pass
    source.close()


def _bare_decode(clip: Path) -> None:
    with av.open(str(clip)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for _ in container.decode(video=0):
            pass


def _blocks(luma: np.ndarray[Any, Any]) -> None:
    height, width = (size // 4 for size in luma.shape)
    blocks = np.empty((height, width, 16), luma.dtype)
    for _ in range(80):
        to_blocks([luma], blocks, block=4)
        from_blocks(blocks, block=4, width=_SMALL_WIDTH, height=_SMALL_HEIGHT)


def _bare_copies(luma: np.ndarray[Any, Any]) -> None:
    for _ in range(400):
        luma.copy().copy()


def _often(work: Work) -> None:
    for _ in range(40):
        work()


def _bare_sums(plain: np.ndarray[Any, Any], room: np.ndarray[Any, Any]) -> None:
    """Compute sums and products without new memory."""
    for _ in range(10_000):
        np.multiply(plain, plain, out=room)
        np.add(room, plain, out=room)


def _network(cleanup: ExitStack) -> tuple[Work, Work]:
    """Return the session beside the core it is built around, on one thread each."""
    model = load_model("dcd-lite")
    engine = cleanup.enter_context(open_engine(EngineOptions(engine="openvino")))
    frames = list(rainy_scene(width=_WIDTH, height=_HEIGHT, frames=12))

    def ours() -> None:
        with InlineSession(engine, Geometry(_WIDTH, _HEIGHT), EngineOptions(alignment="off")) as session:
            for frame in frames:
                list(session.push((frame,), None))
            list(session.drain())

    core = ov.Core()
    graph = core.read_model(model.file(engine.precision))
    channels = graph.input("window").get_partial_shape()[1].get_length()
    rows, columns = (padded(size, model.multiple) // model.block for size in (_HEIGHT, _WIDTH))
    squares = graph.input("prior").get_partial_shape()[1].get_length()
    graph.reshape(
        {"window": [1, channels, rows, columns], "prior": [1, squares, rows, columns], "validity": [1, 2]}
    )
    settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
    request = core.compile_model(graph, "CPU", settings).create_infer_request()
    window = np.random.default_rng(0).random((1, channels, rows, columns), np.float32)
    prior = np.zeros((1, squares, rows, columns), np.float32)
    inputs = {"window": window, "prior": prior, "validity": np.ones((1, 2), np.float32)}

    def bare() -> None:
        for _ in frames:
            request.infer(inputs)

    return ours, bare


def _alignment(cleanup: ExitStack) -> tuple[Work, Work]:
    """Return the alignment of a window beside OpenCV's searches and warps of as many planes."""
    cleanup.enter_context(motion.one_thread())
    window = np.stack(list(rainy_scene(width=_WIDTH, height=_HEIGHT, frames=3)))
    cell = FlowCells().edge_px(_WIDTH, _HEIGHT)
    small = [motion.coarse(frame, cell=cell) for frame in window]
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    search.setFinestScale(0)
    nowhere = np.zeros((_HEIGHT, _WIDTH, 2), np.float32)

    def bare() -> None:
        for other in (0, 2):
            search.calc(small[1], small[other], None)
            cv2.remap(window[other], nowhere, None, cv2.INTER_LINEAR | cv2.WARP_RELATIVE_MAP)

    return lambda: motion.align(window, cell=cell), bare


def _network_gmac() -> float:
    """Return billions of multiply-accumulates for a frame: a slower model shows here, and in no ratio."""
    model = load_model("dcd-lite")
    network = load_core(model.family, model.paths("weights"))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.clean(torch.zeros(1, 3, network.channels, 720, 1280), torch.ones(1, 2))
    return round(counter.get_total_flops() / 2e9, 2)


def _session(clip: Path) -> None:
    source = FileSource(str(clip), ReadOptions())
    engine = open_engine(EngineOptions(engine="identity"))
    with InlineSession(engine, source.streams[0].geometry) as session:
        for frame in source.frames(lambda packet: None):
            list(session.push(frame.planes, None))
        list(session.drain())
    source.close()


def _encode(clip: Path, folder: Path) -> None:
    source = FileSource(str(clip), ReadOptions())
    (output, *_), _ = open_outputs(source, [str(folder / "o.mp4")], EncodeOptions(overwrite=True))
    encoder, outlet = output.encoders[0], output.outlets[0]
    for frame in _decoded(source):
        outlet.mux(encoder.encode(frame, (frame.planes[0],)))
    outlet.mux(encoder.flush())
    outlet.finish()
    source.close()


def _decoded(source: Any) -> list[Frame]:
    return list(source.frames(lambda packet: None))


def _bare_encode(clip: Path, folder: Path) -> None:
    with av.open(str(clip)) as container, av.open(str(folder / "b.mp4"), "w") as out:
        container.streams.video[0].thread_type = "AUTO"
        stream = out.add_stream("libx264", rate=30, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30)
        for number, frame in enumerate(container.decode(video=0)):
            frame.pict_type, frame.pts, frame.time_base = 0, number, Fraction(1, 30)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def _run(clip: Path, folder: Path) -> None:
    options = RunOptions(encode=EncodeOptions(overwrite=True))
    spec = find_sources(str(clip), options.read)[0]
    with open_engine(EngineOptions(engine="identity")) as engine:
        job = Job(spec, [str(folder / "r.mp4")], options=options, engine=engine)
        job.run(lambda event: None, threading.Event())


def _python(code: str) -> None:
    for _ in range(5):
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
