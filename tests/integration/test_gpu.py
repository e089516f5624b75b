"""The engines on a real GPU: `pytest -m gpu`, where there is one. No CI has one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamderain.frame import Geometry, Planes
from streamderain.models import load_model
from streamderain.options import EngineOptions
from streamderain.pipeline.inline import InlineSession
from streamderain.runtime.registry import ENGINES, open_engine
from streamderain.system.gpu import has_driver
from tests.support.media import write_video

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not has_driver(), reason="needs a CUDA GPU")]

GEOMETRIES = [
    Geometry(321, 181),
    Geometry(320, 180, bits=10, shift=6),
    Geometry(320, 180, chroma="rgb", range="full"),
]
FRAMES = 8


def derained(options: EngineOptions, geometry: Geometry) -> list[Planes]:
    rng = np.random.default_rng(1)
    results: list[Planes] = []
    with open_engine(options) as engine, InlineSession(engine, geometry, options) as session:
        shapes = geometry.plane_shapes
        for number in range(FRAMES):
            planes = []
            for height, width in shapes:
                y, x = np.mgrid[0:height, 0:width]
                base = 0.4 + 0.2 * np.sin(0.05 * x + 0.2 * number) * np.cos(0.04 * y)
                streaks = 0.3 * (rng.random((1, width)) > 0.95) * (rng.random((height, 1)) > 0.3)
                codes = (np.clip(base + streaks, 0, 1) * (2**geometry.bits - 1)).astype(geometry.dtype)
                planes.append(codes << geometry.shift)
            results += [tuple(p.copy() for p in found) for _, found in session.push(tuple(planes), number)]
        results += [tuple(p.copy() for p in found) for _, found in session.drain()]
    return results


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("precision", ["f16", "f32"])
@pytest.mark.parametrize("model", ["dcd-lite", "dcd-gan"])
@pytest.mark.parametrize("engine", ["tensorrt", "torch"])
def test_a_gpu_gives_what_the_processor_gives(
    engine: str, model: str, precision: str, geometry: Geometry
) -> None:
    if not ENGINES[engine].installed:
        pytest.skip(f"the engine {engine} is not installed: {ENGINES[engine].install}")
    found = derained(EngineOptions(model=model, engine=engine, device="cuda", precision=precision), geometry)
    truth = derained(EngineOptions(model=model, engine="torch", device="cpu", precision="f32"), geometry)
    # As for the graphs themselves (test_plans), and one more code of 8 bits for the card's own sums.
    most = (2 if precision == "f32" else max(2, 2**geometry.bits // 500)) << geometry.shift
    differences = [
        np.abs(a.astype(int) - b).max()
        for one, other in zip(found, truth, strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    assert max(differences) <= most


@pytest.mark.skipif(not ENGINES["tensorrt"].installed, reason="needs TensorRT")
def test_the_memory_that_is_foretold_is_enough() -> None:
    from streamderain.runtime.cuda import free_bytes

    geometry = Geometry(1280, 720)
    options = EngineOptions(engine="tensorrt", model=load_model("dcd-gan").name)
    with open_engine(options) as engine:
        needed = engine.device_bytes(geometry)
        assert needed is not None
        before = free_bytes()
        with engine.session(geometry):
            taken = before - free_bytes()
    # The runtime and the kernels it compiles take some of their own.
    assert taken < needed + (512 << 20)


def test_auto_uses_the_gpu(tmp_path: Path) -> None:
    source = write_video(tmp_path / "rain.mp4", frames=12, width=320, height=180)
    report: Any = tmp_path / "report.json"
    command = [sys.executable, "-m", "streamderain", "run", source, "-o", tmp_path / "clean.mp4"]
    done = subprocess.run(
        [*map(str, command), f"--json={report}"], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(report.read_text())["device"].startswith("cuda:0 (")
