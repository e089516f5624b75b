"""Plans that TensorRT for RTX really builds, without a GPU; their graphs computed by onnxruntime."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamderain.errors import ConfigError, EngineUnavailable, PlanBuildError
from streamderain.events import Building, Event
from streamderain.frame import Geometry
from streamderain.measure import doctor
from streamderain.measure.doctor import try_plans
from streamderain.models import ModelCard, load_model
from streamderain.options import EngineOptions
from streamderain.runtime import registry
from streamderain.runtime.plan_cache import PlanCache
from streamderain.runtime.registry import open_engine
from streamderain.system.gpu import Gpu
from tests.support.command import Outcome, streamderain
from tests.support.media import write_video
from tests.support.pretend_gpu import require_rtx

GEOMETRIES = [
    Geometry(101, 75),
    Geometry(64, 48, bits=10, shift=6),
    Geometry(98, 62, bits=12, chroma="444", matrix="bt2020"),
    Geometry(67, 45, chroma="rgb", range="full"),
    Geometry(64, 48, chroma="rgb", bits=16, range="full"),
    Geometry(33, 29, chroma="gray", range="full"),
]
MODELS = ["dcd-lite", "dcd-quality", "dcd-gan"]
_LAYER = re.compile(r"LayerType: (\w+), Inputs: \[ \{ [^}]*Datatype: (\w+)")

Log = list[tuple[str, str]]


@pytest.fixture(autouse=True)
def _rtx() -> None:
    require_rtx()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plans")


def maker(
    name: str, folder: Path, *, precision: str = "f16", capability: str = "sm89", log: Log | None = None
) -> Any:
    from streamderain.runtime.plans import plan_maker

    def listen(severity: str, line: str) -> None:
        assert log is not None
        log.append((severity, line))

    return plan_maker(
        load_model(name),
        precision=precision,
        capability=capability,
        cache=PlanCache(folder),
        listener=None if log is None else listen,
    )


def complaints(log: Log) -> Log:
    return [line for line in log if line[0] not in ("INFO", "VERBOSE")]


@pytest.mark.slow
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_plans_are_built_without_a_warning(name: str, geometry: Geometry, tmp_path: Path) -> None:
    log: Log = []
    (plan,) = maker(name, tmp_path, log=log).strips(geometry)
    assert complaints(log) == []
    assert plan.stored.activation_bytes > 0
    assert hashlib.sha256(plan.data).hexdigest() == plan.stored.sha256


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["sm75", "sm80", "sm86", "sm89", "sm120", "sm121"])
@pytest.mark.parametrize(("name", "chroma"), [("dcd-lite", "420"), ("dcd-gan", "444"), ("dcd-gan", "420")])
def test_plans_are_built_for_every_card_that_can_be_named(
    name: str, chroma: Any, capability: str, folder: Path
) -> None:
    making = maker(name, folder, capability=capability)
    if capability == "sm75" and chroma == "420" and name == "dcd-gan":
        # Turing multiplies no matrices of 32-bit floats, which resampled chroma needs.
        with pytest.raises(PlanBuildError, match=r"sm75.*FP32 GEMM is not supported"):
            making.strips(Geometry(64, 48, chroma=chroma))
        return
    (plan,) = making.strips(Geometry(64, 48, chroma=chroma))
    assert plan.stored.key.capability == capability


def test_the_cards_that_can_be_named_are_those_the_machine_is_told_of() -> None:
    from streamderain.runtime.tensorrt_library import nameable_capabilities
    from streamderain.system.gpu import RTX_CAPABILITIES

    assert nameable_capabilities() == RTX_CAPABILITIES


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "kind"), [("f16", "Half"), ("f32", "Float")])
@pytest.mark.parametrize("name", MODELS)
def test_convolutions_compute_in_the_precision_that_was_asked_for(
    name: str, precision: str, kind: str, tmp_path: Path
) -> None:
    log: Log = []
    maker(name, tmp_path, precision=precision, log=log).strips(Geometry(64, 48))
    layers = [found.groups() for _, line in log for found in _LAYER.finditer(line)]
    convolutions = {datatype for layer, datatype in layers if layer in ("correlation", "conv")}
    assert convolutions == {kind}


@pytest.mark.slow
def test_f32_is_not_shortened_to_tf32(tmp_path: Path) -> None:
    from streamderain.runtime.tensorrt_library import build_plan

    making = maker("dcd-lite", tmp_path, precision="f32")
    (plan,) = making.strips(Geometry(64, 48))
    graph = making._graph(Geometry(64, 48), plan.rows, 0)
    assert build_plan(graph, capability=(8, 9), exact=True).data == plan.data
    assert build_plan(graph, capability=(8, 9), exact=False).data != plan.data
    assert plan.stored.key.flags == ("tf32 off",)


@pytest.mark.slow
def test_what_is_quantised_for_processors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanBuildError, match=r"unsigned zero points.*Use --precision f16 or f32"):
        maker("dcd-lite", tmp_path, precision="int8")
    with pytest.raises(EngineUnavailable, match="no precision bf16"):
        maker("dcd-lite", tmp_path, precision="bf16")


def test_cards_are_named_clearly(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"supports sm75, .*sm121, and not the cards of sm90"):
        maker("dcd-lite", tmp_path, capability="sm90")
    with pytest.raises(ConfigError, match=r"'ada' is no compute capability"):
        maker("dcd-lite", tmp_path, capability="ada")
    assert maker("dcd-lite", tmp_path, capability="8.9").capability == (8, 9)


@pytest.mark.slow
def test_an_operator_that_tensorrt_lacks_is_named(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    from streamderain.runtime.tensorrt_library import build_plan

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    node = helper.make_node("NoSuchOperator", ["x"], ["y"])
    graph = helper.make_graph([node], "odd", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    with pytest.raises(PlanBuildError, match=r"cannot compile this model: .*NoSuchOperator"):
        build_plan(model.SerializeToString(), capability=(8, 9), exact=True)


@pytest.mark.slow
def test_plans_come_from_the_cache_until_anything_differs(tmp_path: Path) -> None:
    told: list[Event] = []
    making, geometry = maker("dcd-lite", tmp_path), Geometry(64, 48)
    (first,) = making.strips(geometry, tell=told.append)
    assert isinstance(told[0], Building)
    assert (told[0].width, told[0].model) == (64, "dcd-lite")
    told.clear()
    (again,) = making.strips(geometry, tell=told.append)
    assert (again.data, told) == (first.data, [])
    flipped = bytearray(first.data)
    flipped[1000] ^= 1
    first.stored.path.write_bytes(flipped)
    (mended,) = making.strips(geometry, tell=told.append)
    assert told
    assert mended.data == first.data  # plans are the same from build to build
    other = maker("dcd-lite", tmp_path, precision="f32").strips(geometry)[0]
    assert other.stored.path != first.stored.path


@pytest.mark.slow
def test_doctor_tells_how_much_device_memory_models_need() -> None:
    (said,) = try_plans()
    assert re.search(
        r"builds plans for sm\d+; device memory at 1920x1080: dcd-gan \d+ MB, dcd-lite \d+ MB", said
    )


def test_the_package_that_suits_the_card_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {"NVIDIA L4": ((8, 9), "tensorrt-rtx-cu13"), "NVIDIA H100": ((9, 0), "tensorrt")}
    for name, (capability, package) in cards.items():
        card = Gpu(name, 24.0, "600.1", capability)
        monkeypatch.setattr(registry, "gpus", lambda card=card: [card])
        assert registry.ENGINES["tensorrt"].packages()[0] == package
        monkeypatch.setattr(doctor, "gpus", lambda card=card: [card])
        extra = {"tensorrt": "[tensorrt]"}.get(package, "[rtx]")
        assert doctor._driver().found.endswith(f"TensorRT by streamderain{extra}")


def planes(geometry: Geometry, card: ModelCard, *, seed: int) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    shapes = geometry.plane_shapes if card.input == "rgb" else geometry.plane_shapes[: geometry.luma_planes]
    found = []
    for component, (height, width) in enumerate(shapes):
        y, x = np.mgrid[0:height, 0:width]
        base = 0.4 + 0.2 * np.sin(0.2 * x + 0.1 * seed + component) * np.cos(0.15 * y)
        streaks = 0.3 * (rng.random((1, width)) > 0.9) * (rng.random((height, 1)) > 0.3)
        codes = (np.clip(base + streaks, 0, 1) * (2**geometry.bits - 1)).astype(geometry.dtype)
        found.append(codes << geometry.shift)
    return found


def graph_results(graphs: list[bytes], feed: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    """Compute the graphs of a frame's strips, and put the strips together."""
    import onnxruntime

    parts = [
        onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, feed)
        for graph in graphs
    ]
    return [np.concatenate(rows) for rows in zip(*parts, strict=True)]


def as_bytes(plane: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return plane if plane.itemsize == 1 else plane.view(np.uint8).reshape(*plane.shape, 2)


def torch_results(
    card: ModelCard, geometry: Geometry, window: list[list[np.ndarray[Any, Any]]], flows: Any, max_size: int
) -> list[np.ndarray[Any, Any]]:
    import torch

    from streamderain.runtime.adapters.luma_torch import LumaAdapter
    from streamderain.runtime.base import SessionOptions
    from streamderain.runtime.torch import TorchEngine

    engine = open_engine(EngineOptions(model=str(card.folder), engine="torch", device="cpu"))
    assert isinstance(engine, TorchEngine)
    adapter = engine._adapter(geometry, SessionOptions(max_size=max_size))
    codes = [[(plane >> geometry.shift).astype(np.float32) for plane in frame] for frame in window]
    with torch.inference_mode():
        if isinstance(adapter, LumaAdapter):
            stacked = torch.from_numpy(np.stack([np.stack(frame) for frame in codes]))
            clean = adapter(stacked, torch.from_numpy(flows), torch.ones(1, len(window) - 1), 1.0)
        else:
            clean = adapter([torch.from_numpy(plane) for plane in codes[0]], 1.0)
    return [plane.numpy() for plane in clean]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f16", "f32"])
@pytest.mark.parametrize("geometry", [*GEOMETRIES, Geometry(72, 300)], ids=str)
@pytest.mark.parametrize(
    ("name", "strips"), [("dcd-lite", 1), ("dcd-lite", 3), ("dcd-quality", 1), ("dcd-gan", 1)]
)
def test_graphs_compute_what_torch_computes(
    name: str, geometry: Geometry, precision: str, strips: int, tmp_path: Path
) -> None:
    card = load_model(name)
    from streamderain.runtime.adapters.luma_onnx import strips_of

    making = maker(name, tmp_path, precision=precision)
    max_size = 0 if card.tileable else 64
    rng = np.random.default_rng(3)
    window = [planes(geometry, card, seed=number) for number in range(card.before + 1 + card.after)]
    cell = card.flow.edge_px(geometry.width, geometry.height)
    cells = (-(-geometry.height // cell), -(-geometry.width // cell))
    flows = rng.normal(0, 2, (2, 2, *cells)).astype(np.float32)
    feed: dict[str, Any] = {
        f"frame.{number}.{c}": as_bytes(plane)
        for number, frame in enumerate(window)
        for c, plane in enumerate(frame)
    }
    feed["strength"] = np.ones(1, np.float32)
    rows: list[Any] = [None]
    if card.input == "luma":
        feed |= {"flows": flows, "validity": np.ones((1, 2), np.float32)}
        rows = strips_of(
            making._core, model=card, height=geometry.height, count=strips, multiple=card.multiple
        )
    graphs = [making._graph(geometry, one, max_size) for one in rows]
    found = graph_results(graphs, feed)
    truth = torch_results(card, geometry, window, flows, max_size)
    # The bound: one code in f32; in f16 one code of 8 bits, or a 1,000th of the scale of deeper ones.
    most = 1 if precision == "f32" else max(1, 2**geometry.bits // 1000)
    for plane, codes in zip(found, truth, strict=True):
        whole = plane if plane.ndim == 2 else plane.reshape(len(plane), -1).view(geometry.dtype)
        assert np.abs((whole >> geometry.shift).astype(int) - codes).max() <= most


def engine(home: Path, *arguments: str | Path) -> Outcome:
    """Run `streamderain engine` with a cache of its own."""
    return streamderain("engine", *arguments, env={**os.environ, "XDG_CACHE_HOME": str(home)}, timeout_s=240)


@pytest.mark.slow
def test_engine_builds_lists_shows_and_removes(tmp_path: Path) -> None:
    built = engine(tmp_path, "build", "dcd-lite", "--size", "64x48", "--for", "sm89")
    assert built.code == 0, built.err
    told = built.out.decode()
    assert "f16 for sm89" in told
    assert re.search(r"a session needs about [\d.]+ MB of device memory", told)
    clip = write_video(tmp_path / "clip.mkv", width=80, height=64, pix_fmt="yuv420p10le", codec="ffv1")
    log = tmp_path / "log.txt"
    options = ("--like", clip, "--for", "sm120", "--precision", "f32", f"--log={log}", "-q")
    assert engine(tmp_path, "build", *options).code == 0
    assert "LayerType" in log.read_text()
    listed = json.loads(engine(tmp_path, "list", "--json").out.decode())
    assert [(plan["size"], plan["capability"], plan["precision"], plan["planes"]) for plan in listed] == [
        ("80x64", "sm120", "f32", "luma 10-bit limited"),
        ("64x48", "sm89", "f16", "luma 8-bit limited"),
    ]
    assert all(plan["bytes"] == Path(plan["path"]).stat().st_size for plan in listed)
    table = engine(tmp_path, "list").out.decode()
    assert "64x48" in table
    assert "2 plans" in table
    name = listed[0]["name"]
    assert json.loads(engine(tmp_path, "show", name[-8:], "--json").out.decode()) == listed[0]
    assert "capability: sm120" in engine(tmp_path, "show", name).out.decode()
    assert engine(tmp_path, "show", "nothing").code == 2
    assert "removed 0 plans" in engine(tmp_path, "prune").out.decode()
    assert "removed 2 plans" in engine(tmp_path, "prune", "--all").out.decode()
    assert "no plans in" in engine(tmp_path, "list").out.decode()


@pytest.mark.slow
def test_engine_build_needs_no_torch(tmp_path: Path) -> None:
    hidden = ("torch", "torchvision", "safetensors", "openvino")
    arguments = ["streamderain", "engine", "build", "dcd-gan", "--size", "64x48", "--for", "sm89"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({hidden})); sys.argv = {arguments};"
        "from streamderain.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "dcd-gan" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--for", "sm89"), 2, "give --size WIDTHxHEIGHT, or --like VIDEO"),
        (("--size", "64by48", "--for", "sm89"), 2, "--size must be WIDTHxHEIGHT"),
        (("--size", "64x48", "--pix-fmt", "odd", "--for", "sm89"), 2, "knows no pixel format 'odd'"),
        (("--size", "64x48", "--for", "sm89", "--max-size", "64"), 2, "leave out --max-size"),
        (("--size", "64x48"), 5, "no CUDA device was found"),
        (("--size", "64x48", "--for", "sm100"), 5, "install streamderain[tensorrt]"),
        (("no-such-model", "--size", "64x48", "--for", "sm89"), 4, "no model named"),
    ],
    ids=str,
)
def test_engine_build_says_what_is_wrong(
    arguments: tuple[str, ...], code: int, says: str, tmp_path: Path
) -> None:
    done = engine(tmp_path, "build", *arguments)
    assert (done.code, says in done.err) == (code, True), done.err


@pytest.mark.slow
def test_two_processes_build_a_plan_once(tmp_path: Path) -> None:
    command = ("build", "dcd-gan", "--size", "64x48", "--for", "sm89")
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: engine(tmp_path, *command), range(2)))
    assert [one.code for one in done] == [0, 0]
    assert len({one.out for one in done}) == 1
    plans = tmp_path / "streamderain" / "plans"
    assert len(list(plans.glob("*.plan"))) == 1


def test_where_tensorrt_is_not_installed_that_is_said(
    monkeypatch: pytest.MonkeyPatch, hidden: Callable[..., None]
) -> None:
    hidden("tensorrt", "tensorrt_rtx")
    with pytest.raises(EngineUnavailable, match=r"is not installed: pip install .*tensorrt-rtx"):
        open_engine(EngineOptions(engine="tensorrt"))


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes packages look as if they were not installed."""
    import importlib.util

    find = importlib.util.find_spec

    def hide(*names: str) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in names else find(name))

    return hide
