"""One suite over every engine: what a session promises, whoever computes."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamderain.errors import (
    ConfigError,
    DeviceMemoryError,
    EngineUnavailable,
    InferenceError,
    ModelError,
)
from streamderain.frame import Geometry, Plane, Planes
from streamderain.models import ModelCard, load_model
from streamderain.options import EngineOptions
from streamderain.runtime.base import EndOfSession, Engine, Session, SessionOptions
from streamderain.runtime.registry import ENGINES, open_engine
from streamderain.system.gpu import has_driver
from tests.support.models import small_deep, small_generator
from tests.support.pictures import smooth
from tests.support.requirements import require

GEOMETRIES = [
    Geometry(64, 48),
    Geometry(70, 45),
    Geometry(1, 1),
    Geometry(64, 48, bits=10),
    Geometry(64, 48, bits=10, shift=6),
    Geometry(64, 48, bits=12, chroma="422"),
    Geometry(66, 47, chroma="411"),
    Geometry(65, 46, chroma="410"),
    Geometry(61, 47, chroma="440", matrix="bt601"),
    Geometry(64, 48, chroma="444", bits=16, range="full", matrix="bt2020"),
    Geometry(64, 48, range="full"),
    Geometry(64, 48, chroma="gray", bits=16),
    Geometry(64, 48, chroma="rgb", range="full"),
    Geometry(50, 40, chroma="rgb", bits=16, range="full"),
]


@pytest.fixture(scope="session")
def generator_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_generator(tmp_path_factory.mktemp("models") / "small-generator")


@pytest.fixture(scope="session")
def deep_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_deep(tmp_path_factory.mktemp("models") / "small-deep")


@pytest.fixture(scope="module", params=["luma", "deep", "rgb"])
def model(request: pytest.FixtureRequest) -> ModelCard:
    """One of each kind: luma with neighbours, with few layers and with many, and whole frames in RGB."""
    fixture = {"luma": "lite", "deep": "deep", "rgb": "gan"}[request.param]
    card: ModelCard = request.getfixturevalue(fixture)
    return card


@pytest.fixture(scope="module")
def lite() -> ModelCard:
    return load_model("dcd-lite")


@pytest.fixture(scope="module")
def deep(deep_folder: Path) -> ModelCard:
    return load_model(str(deep_folder))


@pytest.fixture(scope="module")
def gan(generator_folder: Path) -> ModelCard:
    return load_model(str(generator_folder))


def require_engine(name: str) -> None:
    require(ENGINES[name].installed, f"the engine {name} is not installed: {ENGINES[name].install}")
    if name == "tensorrt" and not has_driver():
        pytest.skip("needs a CUDA GPU")


ALL_ENGINES = [
    pytest.param(name, marks=pytest.mark.gpu) if name == "tensorrt" else name for name in sorted(ENGINES)
]


def options_of(model: ModelCard, engine: str, *, precision: str = "auto") -> EngineOptions:
    if engine in ENGINES:
        require_engine(engine)
    return EngineOptions(model=str(model.folder), engine=engine, precision=precision)


@pytest.fixture(scope="module", params=ALL_ENGINES)
def engine(request: pytest.FixtureRequest, model: ModelCard) -> Iterator[Engine]:
    with open_engine(options_of(model, request.param)) as opened:
        yield opened


def video(geometry: Geometry, count: int, *, seed: int = 0) -> list[Planes]:
    """Moving texture with streaks, a little different in each component."""
    rng = np.random.default_rng(seed)
    top = 2**geometry.bits - 1
    frames = []
    for number in range(count):
        planes = []
        for component, (height, width) in enumerate(geometry.plane_shapes):
            y, x = np.mgrid[0:height, 0:width]
            base = 0.4 + 0.2 * np.sin(0.2 * x + 0.3 * number + 0.1 * component) * np.cos(0.15 * y)
            streaks = 0.3 * (rng.random((1, width)) > 0.9) * (rng.random((height, 1)) > 0.3)
            codes = (np.clip(base + streaks, 0, 1) * top).astype(geometry.dtype) << geometry.shift
            planes.append(np.ascontiguousarray(codes))
        frames.append(tuple(planes))
    return frames


def components(model: ModelCard, geometry: Geometry) -> int:
    return len(geometry.plane_shapes) if model.input == "rgb" else geometry.luma_planes


def pop_all(session: Session) -> list[tuple[Any, Planes]]:
    popped = []
    while True:
        try:
            result = session.pop()
        except EndOfSession:
            return popped
        assert result is not None
        token, planes = result
        popped.append((token, tuple(plane.copy() for plane in planes)))


def derain(engine: Engine, geometry: Geometry, frames: list[Planes], **options: Any) -> list[Planes]:
    with engine.session(geometry, SessionOptions(depth=len(frames), **options)) as session:
        for number, frame in enumerate(frames):
            session.push(frame, number)
        session.flush()
        popped = pop_all(session)
    assert [token for token, _ in popped] == list(range(len(frames)))
    return [planes for _, planes in popped]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_every_token_leaves_once_in_order_with_planes_of_the_geometry(
    engine: Engine, geometry: Geometry
) -> None:
    for planes in derain(engine, geometry, video(geometry, 4)):
        assert len(planes) == components(engine.model, geometry)
        shapes = geometry.plane_shapes[: len(planes)]
        assert tuple(plane.shape for plane in planes) == shapes
        assert all(plane.dtype == geometry.dtype for plane in planes)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_strength_zero_changes_nothing_and_half_lies_between(engine: Engine, geometry: Geometry) -> None:
    frames = video(geometry, 3)
    results = [derain(engine, geometry, frames, strength=s)[1] for s in (0, 0.5, 1)]
    for before, *planes in zip(frames[1], *results, strict=False):
        none, half, full = (plane.astype(int) for plane in planes)
        assert (none == before).all()
        inside = (full > 0) & (full < (2**geometry.bits - 1) << geometry.shift)
        assert (np.abs(half - (none + full) / 2)[inside] <= 1 << geometry.shift).all()


def test_source_planes_are_copied_and_never_written(engine: Engine) -> None:
    geometry = Geometry(64, 48)
    frames = video(geometry, 3)
    kept = [tuple(plane.copy() for plane in frame) for frame in frames]
    with engine.session(geometry, SessionOptions(depth=3)) as session:
        for frame in frames:
            for plane in frame:
                plane.setflags(write=False)
            session.push(frame, None)
        for frame in frames:
            for plane in frame:
                plane.setflags(write=True)
                plane[:] = 0  # the caller may reuse its memory once push returned
        session.flush()
        reused = [planes for _, planes in pop_all(session)]
    assert_equal(reused, derain(engine, geometry, kept))


def test_strided_and_foreign_endian_planes_give_the_same_result(engine: Engine) -> None:
    geometry = Geometry(36, 20, bits=10)
    frames = video(geometry, 3)
    padded = [tuple(strided(plane) for plane in frame) for frame in frames]
    assert_equal(derain(engine, geometry, padded), derain(engine, geometry, frames))


def strided(plane: Plane) -> Plane:
    height, width = plane.shape
    wide = np.zeros((height, 2 * width + 9), ">u2")
    wide[:, 1 : 2 * width + 1 : 2] = plane
    return wide[:, 1 : 2 * width + 1 : 2]


def assert_equal(ones: list[Planes], others: list[Planes]) -> None:
    for one, other in zip(ones, others, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_cut_separates_windows(engine: Engine) -> None:
    geometry = Geometry(64, 48)
    frames = video(geometry, 6)
    with engine.session(geometry, SessionOptions(depth=6)) as session:
        for number, frame in enumerate(frames):
            session.push(frame, number, cut=number == 3)
        session.flush()
        whole = [planes for _, planes in pop_all(session)]
    assert_equal(whole, derain(engine, geometry, frames[:3]) + derain(engine, geometry, frames[3:]))


def test_a_cut_finishes_pending_frames_without_look_ahead(engine: Engine) -> None:
    geometry = Geometry(64, 48)
    first, second = video(geometry, 2)
    with engine.session(geometry, SessionOptions(depth=4)) as session:
        session.push(first, "first")
        if engine.model.after:
            assert session.pop(0.05) is None, "the look-ahead is not complete"
        session.push(second, "second", cut=True)
        result = session.pop(20)
        assert result is not None
        assert result[0] == "first"


def test_lead_in_feeds_the_window_and_is_not_returned(engine: Engine) -> None:
    geometry = Geometry(64, 48)
    frames = video(geometry, 5)
    with engine.session(geometry, SessionOptions(depth=5)) as session:
        for number, frame in enumerate(frames):
            session.push(frame, number, emit=number >= 2)
        session.flush()
        popped = pop_all(session)
    assert [token for token, _ in popped] == [2, 3, 4]
    whole = derain(engine, geometry, frames)
    assert all((planes[0] == whole[token][0]).all() for token, planes in popped)


def test_a_repeated_frame_is_a_missing_neighbour(engine: Engine) -> None:
    geometry = Geometry(64, 48)
    frame = video(geometry, 1)[0]
    alone = derain(engine, geometry, [frame])[0]
    for planes in derain(engine, geometry, [frame, frame, frame]):
        assert (planes[0] == alone[0]).all()


def test_causal_sessions_do_not_wait(engine: Engine) -> None:
    geometry = Geometry(64, 48)
    with engine.session(geometry, SessionOptions(depth=2, causal=True)) as session:
        for number, frame in enumerate(video(geometry, 3)):
            session.push(frame, number)
            result = session.pop(20)
            assert result is not None
            assert result[0] == number


def test_push_waits_while_all_slots_are_full_and_goes_on_after_a_pop(engine: Engine) -> None:
    geometry = Geometry(64, 48)
    frames = video(geometry, 12)
    with engine.session(geometry, SessionOptions(depth=2)) as session:
        pushed: list[int] = []

        def feed() -> None:
            for number, frame in enumerate(frames):
                session.push(frame, number)
                pushed.append(number)
            session.flush()

        feeder = threading.Thread(target=feed)
        feeder.start()
        feeder.join(0.5)
        assert feeder.is_alive()
        assert len(pushed) <= 2 + engine.model.after
        assert [token for token, _ in pop_all(session)] == list(range(12))
        feeder.join(10)
        assert not feeder.is_alive()


def test_abort_returns_unfinished_tokens_and_wakes_everyone(engine: Engine) -> None:
    geometry = Geometry(64, 48)
    frames = video(geometry, 3)
    with engine.session(geometry, SessionOptions(depth=3)) as session:
        for number, frame in enumerate(frames):
            session.push(frame, number)
        assert session.abort() == [0, 1, 2]
        with pytest.raises(EndOfSession):
            session.pop()
        with pytest.raises(EndOfSession):
            session.push(frames[0], 3)


def test_close_is_idempotent_and_two_sessions_do_not_disturb_each_other(engine: Engine) -> None:
    geometry = Geometry(64, 48)
    one, two = video(geometry, 3), video(geometry, 3, seed=1)
    options = SessionOptions(depth=3)
    with engine.session(geometry, options) as first, engine.session(geometry, options) as second:
        for frame_one, frame_two in zip(one, two, strict=True):
            first.push(frame_one, 1)
            second.push(frame_two, 2)
        first.flush()
        second.flush()
        results = [planes[0] for _, planes in pop_all(first)], [planes[0] for _, planes in pop_all(second)]
        first.close()
        first.close()
    for frames, result in zip((one, two), results, strict=True):
        alone = derain(engine, geometry, frames)
        assert all((a == b[0]).all() for a, b in zip(result, alone, strict=True))


def test_planes_of_another_size_are_refused(engine: Engine) -> None:
    with engine.session(Geometry(64, 48)) as session, pytest.raises(InferenceError, match="64x48"):
        session.push(video(Geometry(32, 48), 1)[0], None)


MOVING = [
    Geometry(256, 160),
    Geometry(250, 155, bits=10, shift=6),
    Geometry(256, 160, chroma="rgb", range="full"),
]


def panned(geometry: Geometry, count: int, *, speed: float, rain: bool) -> tuple[list[Planes], list[Planes]]:
    """A camera that pans over a texture: clean frames, and the same with rain."""
    wide = smooth(geometry.height, geometry.width + 300, seed=3, sigma=2.0)
    rng = np.random.default_rng(5)
    clean, rainy = [], []
    for number in range(count):
        left = 150 + round(speed * number)
        picture = 0.2 + 0.5 * wide[:, left : left + geometry.width]
        streaks = np.zeros_like(picture)
        for x, y in rng.integers((0, 0), (geometry.width - 2, geometry.height - 20), (40 * rain, 2)):
            streaks[y : y + 20, x : x + 2] = 0.2
        top = 2**geometry.bits - 1
        for planes, shown in ((clean, picture), (rainy, np.minimum(picture + streaks, 1.0))):
            codes = np.rint(shown * top).astype(geometry.dtype) << geometry.shift
            planes.append(tuple(np.ascontiguousarray(codes) for _ in range(3)))
    return clean, rainy


def distance(one: list[Planes], other: list[Planes]) -> float:
    """Mean squared difference of the first plane, ends of the clip and borders left out."""
    inner = (slice(8, -8), slice(24, -24))
    pairs = list(zip(one, other, strict=True))[1:-1]
    return float(np.mean([np.square(a[0][inner].astype(float) - b[0][inner]).mean() for a, b in pairs]))


@pytest.mark.parametrize("name", ["openvino", "torch"])
@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(256, 160),
        Geometry(250, 155, bits=10, shift=6),
        Geometry(256, 160, chroma="rgb", range="full"),
    ],
    ids=str,
)
def test_neighbours_are_aligned_where_the_camera_moves(
    lite: ModelCard, name: str, geometry: Geometry
) -> None:
    clean, rainy = panned(geometry, 5, speed=6.0, rain=True)
    with open_engine(options_of(lite, name, precision="f32")) as engine:
        aligned = derain(engine, geometry, rainy)
        as_they_are = derain(engine, geometry, rainy, alignment=False)
    assert distance(aligned, clean) < 0.7 * distance(as_they_are, clean)
    assert distance(aligned, clean) < 0.5 * distance(rainy, clean)


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_alignment_changes_nothing_on_what_stands_still(lite: ModelCard, name: str) -> None:
    geometry = Geometry(256, 160)
    _, rainy = panned(geometry, 4, speed=0.0, rain=True)
    with open_engine(options_of(lite, name, precision="f32")) as engine:
        aligned = derain(engine, geometry, rainy)
        as_they_are = derain(engine, geometry, rainy, alignment=False)
    assert distance(aligned, as_they_are) < 4.0


def test_a_warp_in_the_graph_agrees_with_one_on_the_host(lite: ModelCard) -> None:
    """torch takes the flow and warps in its graph, OpenVINO gets planes that OpenCV warped."""
    geometry = Geometry(250, 154)
    _, rainy = panned(geometry, 4, speed=7.3, rain=True)
    results = []
    for name in ("openvino", "torch"):
        with open_engine(options_of(lite, name, precision="f32")) as engine:
            results.append(derain(engine, geometry, rainy))
    differences = [np.abs(a[0].astype(int) - b[0]) for a, b in zip(*results, strict=True)]
    assert max(d.max() for d in differences) <= 2
    assert np.mean([(d > 1).mean() for d in differences]) < 1e-3


def test_opencv_computes_on_one_thread_while_a_session_aligns(lite: ModelCard) -> None:
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        with open_engine(options_of(lite, "openvino")) as engine:
            with engine.session(Geometry(64, 48)), engine.session(Geometry(64, 48)):
                assert cv2.getNumThreads() == 1
            assert cv2.getNumThreads() == 2
            with engine.session(Geometry(64, 48), SessionOptions(alignment=False)):
                assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_openvino_f32_agrees_with_torch_within_a_level_of_255(model: ModelCard, geometry: Geometry) -> None:
    frames = video(geometry, 4)
    results = []
    for name in ("openvino", "torch"):
        with open_engine(options_of(model, name, precision="f32")) as engine:
            results.append(derain(engine, geometry, frames))
    level = max(1, (2**geometry.bits - 1) // 255) << geometry.shift
    for one, two in zip(*results, strict=True):
        for a, b in zip(one, two, strict=True):
            assert np.abs(a.astype(int) - b.astype(int)).max() <= level


@pytest.mark.parametrize(
    ("model", "name", "precision", "size"),
    [
        ("luma", "openvino", "int8", (320, 240)),
        ("luma", "torch", "bf16", (320, 240)),
        ("rgb", "torch", "bf16", (64, 48)),
    ],
    indirect=["model"],
)
def test_lower_precisions_stay_close_to_f32(
    model: ModelCard, name: str, precision: str, size: tuple[int, int]
) -> None:
    """40 dB between the precisions is far above what the network gains, and far below what breaks it."""
    geometry = Geometry(*size)
    frames = video(geometry, 4)
    results = []
    for one in ("f32", precision):
        with open_engine(options_of(model, name, precision=one)) as engine:
            results.append(np.stack([planes[0] for planes in derain(engine, geometry, frames)]).astype(float))
    mse = np.mean((results[0] - results[1]) ** 2)
    assert 10 * np.log10(255**2 / max(mse, 1e-9)) >= 40


def test_flat_areas_of_every_level_stay_within_a_code(lite: ModelCard) -> None:
    """Int8 rounds what is taken: of a flat area nothing may be taken at all."""
    geometry = Geometry(64, 64)
    with open_engine(options_of(lite, "openvino", precision="int8")) as engine:
        for level in range(0, 256, 5):
            frames: list[Planes] = [(np.full((64, 64), level, np.uint8),) for _ in range(3)]
            for number, frame in enumerate(frames):
                frame[0][0, 0] = number % 2  # frames that only repeat would have no neighbours
            for (clean,) in derain(engine, geometry, frames):
                assert np.abs(clean[1:, 1:].astype(int) - level).max() <= 1, level


def test_openvino_runs_bf16_only_where_the_processor_has_it(lite: ModelCard) -> None:
    import openvino

    capable = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    options = options_of(lite, "openvino", precision="bf16")
    if "BF16" in capable:
        with open_engine(options) as engine:
            assert engine.precision == "bf16"
    else:
        with pytest.raises(EngineUnavailable, match="int8 or f32"):
            open_engine(options)


@pytest.mark.parametrize("name", ["openvino", "torch"])
@pytest.mark.parametrize(
    "geometry", [Geometry(160, 96, bits=12), Geometry(150, 91, bits=16, chroma="rgb", range="full")], ids=str
)
def test_a_smaller_working_size_is_seen_by_the_core_and_its_change_enlarged(
    gan: ModelCard, name: str, geometry: Geometry
) -> None:
    frames = video(geometry, 2)
    with open_engine(options_of(gan, name)) as engine:
        whole = derain(engine, geometry, frames)
        smaller = derain(engine, geometry, frames, max_size=64)
        assert_equal(derain(engine, geometry, frames, max_size=160), whole)
    for before, small, full in zip(frames, smaller, whole, strict=True):
        change = small[0].astype(int) - before[0]
        assert change.any()
        assert (small[0] != full[0]).any()
        # A change made at less than half the size has no fine detail: neighbours change alike.
        fine = np.abs(np.diff(change[:, 2:-2], axis=1)).mean()
        assert fine < 0.65 * np.abs(np.diff(full[0][:, 2:-2].astype(int) - before[0][:, 2:-2], axis=1)).mean()


def test_engines_agree_on_the_generator_that_is_shipped() -> None:
    geometry = Geometry(64, 48)
    frames = video(geometry, 2)
    shipped, results = load_model("dcd-gan"), []
    for name in ("openvino", "torch"):
        with open_engine(options_of(shipped, name)) as engine:
            results.append(derain(engine, geometry, frames))
    for one, two in zip(*results, strict=True):
        for a, b in zip(one, two, strict=True):
            assert np.abs(a.astype(int) - b).max() <= 1


def test_engines_agree_at_a_smaller_working_size(gan: ModelCard) -> None:
    geometry = Geometry(151, 93)
    frames = video(geometry, 2)
    results = []
    for name in ("openvino", "torch"):
        with open_engine(options_of(gan, name, precision="f32")) as engine:
            results.append(derain(engine, geometry, frames, max_size=100))
    for one, two in zip(*results, strict=True):
        for a, b in zip(one, two, strict=True):
            assert np.abs(a.astype(int) - b).max() <= 1


@pytest.mark.parametrize("name", ["openvino", "torch"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_what_the_core_leaves_alone_keeps_every_code(gan: ModelCard, name: str, geometry: Geometry) -> None:
    """A picture without any contrast is left alone: the generator's change is in units of it."""
    rng = np.random.default_rng(3)
    top = 2**geometry.bits - 1
    codes = (rng.random(3) * top).astype(geometry.dtype) << geometry.shift
    flat = tuple(np.full(shape, codes[c]) for c, shape in enumerate(geometry.plane_shapes))
    with open_engine(options_of(gan, name)) as engine:
        assert_equal(derain(engine, geometry, [flat]), [flat])


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_frames_that_do_not_fit_into_memory_are_refused_before(
    gan: ModelCard, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamderain.runtime.whole_frames.available_bytes", lambda: 400 * 2**20)
    with open_engine(options_of(gan, name)) as engine:
        with pytest.raises(DeviceMemoryError, match=r"640x480 needs about 0\.6 GiB.*--max-size 528"):
            engine.session(Geometry(640, 480))
        with engine.session(Geometry(640, 480), SessionOptions(max_size=528)):
            pass


def test_a_working_size_is_refused_where_none_is_needed(lite: ModelCard) -> None:
    require_engine("openvino")
    with pytest.raises(ConfigError, match="dcd-gan"):
        open_engine(EngineOptions(model="dcd-lite", engine="openvino", max_size=640))


def test_an_unknown_engine_is_named(lite: ModelCard) -> None:
    with pytest.raises(ConfigError, match="openvino"):
        open_engine(options_of(lite, "vulkan"))


def test_auto_says_why(lite: ModelCard) -> None:
    with open_engine(options_of(lite, "auto")) as engine:
        assert engine.name == "openvino"
        assert "auto" in engine.reason
    with open_engine(options_of(lite, "identity")) as engine:
        assert engine.reason == "asked for"


def test_a_named_engine_that_is_not_installed_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineUnavailable, match=r"pip install .torch>="):
        open_engine(EngineOptions(engine="torch"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (EngineOptions(engine="openvino", device="NPU"), "no device"),
        (EngineOptions(engine="torch", device="cuda:7"), "CUDA"),
        (EngineOptions(engine="torch", device="abacus"), "abacus"),
        (EngineOptions(engine="torch", precision="int8"), "openvino"),
    ],
)
def test_devices_and_precisions_that_are_not_there_are_refused(options: EngineOptions, words: str) -> None:
    require_engine(options.engine)
    with pytest.raises(EngineUnavailable, match=words):
        open_engine(options)


def test_the_identity_engine_fails_where_it_is_told_to(lite: ModelCard) -> None:
    from streamderain.runtime.identity import IdentityEngine

    geometry = Geometry(64, 48)
    with (
        IdentityEngine(lite, fail_at=1) as engine,
        engine.session(geometry, SessionOptions(depth=3)) as session,
    ):
        for number, frame in enumerate(video(geometry, 3)):
            session.push(frame, number)
        session.flush()
        assert session.pop() is not None
        with pytest.raises(InferenceError, match="frame 1"):
            session.pop()
        assert session.abort() == [1, 2], "the failed frame is still the caller's to pass through"


def test_a_model_of_another_version_is_refused_in_one_line(tmp_path: Path) -> None:
    import hashlib
    import shutil

    require(importlib.util.find_spec("onnx"), "onnx (pip install onnx)")
    import onnx
    from onnx import TensorProto, helper

    shape = ["n", 16, "h", "w"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["current"], ["clean"])],
        "older",
        [helper.make_tensor_value_info("current", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("clean", TensorProto.FLOAT, shape)],
    )
    older = tmp_path / "older"
    shutil.copytree(load_model("dcd-lite").folder, older)
    onnx.save(helper.make_model(graph), older / "model.onnx")
    card = (older / "card.toml").read_text()
    known = hashlib.sha256((load_model("dcd-lite").folder / "model.onnx").read_bytes()).hexdigest()
    found = hashlib.sha256((older / "model.onnx").read_bytes()).hexdigest()
    (older / "card.toml").write_text(card.replace(known, found))
    with (
        open_engine(options_of(load_model(str(older)), "openvino", precision="f32")) as engine,
        pytest.raises(ModelError, match="another version"),
    ):
        engine.session(Geometry(64, 48))
