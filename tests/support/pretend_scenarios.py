"""What is tried on a pretend GPU, one function a scenario; see `tests.support.pretend_gpu`."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import psutil

from streamderain.errors import StreamderainError
from streamderain.frame import Geometry, Planes
from streamderain.models import ModelCard, load_model
from streamderain.options import EngineOptions
from streamderain.runtime import cuda, cuda_session
from streamderain.runtime.adapters.tensor_names import FLOWS, STRENGTH, VALIDITY, clean_name, frame_name
from streamderain.runtime.base import EndOfSession, Session, SessionOptions
from streamderain.runtime.cuda import open_device
from streamderain.runtime.cuda_session import open_cuda_session
from streamderain.runtime.luma_session import LumaFrame, LumaSession
from streamderain.runtime.plans import plan_maker
from streamderain.runtime.registry import open_engine
from streamderain.runtime.tensorrt import TensorRtEngine
from streamderain.runtime.window import WindowFrames
from streamderain.runtime.windowed import SynchronousSession
from tests.support import pretend_program

Videos = list[Planes]


def video(geometry: Geometry, model: ModelCard, count: int, *, seed: int = 0) -> Videos:
    """A moving texture, a little different in each component, with streaks that come and go."""
    rng = np.random.default_rng(seed)
    top = 2**geometry.bits - 1
    shapes = geometry.plane_shapes
    read = shapes if model.input == "rgb" else shapes[: geometry.luma_planes]
    frames = []
    for number in range(count):
        planes = []
        for component, (height, width) in enumerate(read):
            y, x = np.mgrid[0:height, 0:width]
            base = 0.4 + 0.2 * np.sin(0.13 * x + 0.3 * number + component) * np.cos(0.11 * y)
            streaks = 0.3 * (rng.random((1, width)) > 0.9) * (rng.random((height, 1)) > 0.3)
            codes = (np.clip(base + streaks, 0, 1) * top).astype(geometry.dtype) << geometry.shift
            planes.append(codes)
        frames.append(tuple(planes))
    return frames


def derained(session: Session, frames: Videos, *, hold_s: float = 0.0, emit: Callable[[int], bool]) -> Videos:
    """Push on one thread and pop on another; read each result only after `hold_s`."""

    failures = []

    def feed() -> None:
        try:
            for number, frame in enumerate(frames):
                session.push(frame, number, emit=emit(number))
            session.flush()
        except (StreamderainError, EndOfSession) as failure:
            failures.append(failure)
            session.abort()

    results, tokens = [], []
    feeder = threading.Thread(target=feed)
    feeder.start()
    while True:
        try:
            popped = session.pop()
        except EndOfSession:
            break
        assert popped is not None
        time.sleep(hold_s)
        tokens.append(popped[0])
        results.append(tuple(plane.copy() for plane in popped[1]))
    feeder.join()
    if failures:
        raise failures[0]
    assert tokens == [number for number in range(len(frames)) if emit(number)]
    return results


class _DirectLuma(SynchronousSession, LumaSession):
    """The reference: the same graph, one frame after the other, without a device."""

    def __init__(self, model: ModelCard, geometry: Geometry, graph: bytes) -> None:
        super().__init__(model, geometry, SessionOptions(), workers=1)
        self._graph = pretend_program.OnnxGraph(graph).session

    def _prepare(self, window: WindowFrames[LumaFrame]) -> Any:
        feed: dict[str, Any] = {
            frame_name(number, c): _bytes(plane << self.geometry.shift)
            for number, frame in enumerate(window.frames)
            for c, plane in enumerate(frame.planes)
        }
        return {**feed, FLOWS: self._stacked_flows(window)}

    @contextmanager
    def _inferred(self, prepared: Any, validity: tuple[float, ...]) -> Iterator[Any]:
        small = {VALIDITY: np.array([validity], np.float32), STRENGTH: np.ones(1, np.float32)}
        names = [clean_name(c) for c in range(self.components)]
        yield self._graph.run(names, prepared | small)

    def _copy_out(self, result: Any) -> Planes:
        return tuple(_codes(plane, self.geometry) for plane in result)


def _bytes(plane: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return plane if plane.itemsize == 1 else plane.view(np.uint8).reshape(*plane.shape, 2)


def _codes(plane: np.ndarray[Any, Any], geometry: Geometry) -> np.ndarray[Any, Any]:
    return plane if plane.ndim == 2 else plane.reshape(len(plane), -1).view(geometry.dtype)


def _break(rule: str) -> None:
    """Leave out one rule of the double buffer."""
    if hasattr(cuda.Streams, rule):
        setattr(cuda.Streams, rule, lambda *_: True)
    elif rule == "a frame's memory is used again only when nobody needs it":
        upload = cuda.DoubleBuffer.upload

        def early(buffer: cuda.DoubleBuffer, planes: Any) -> cuda.Lease:
            lease = upload(buffer, planes)
            buffer._unused.append(lease.block)
            return lease

        cuda.DoubleBuffer.upload = early  # type: ignore[method-assign, assignment]
    elif rule == "a slot is used again only when its result is done with":
        start = cuda.DoubleBuffer.start

        cuda_session.MAX_WORKERS = 1
        _with_slots(lambda slots: 1)  # without the rule, one would do

        def early_slot(buffer: cuda.DoubleBuffer, *arguments: Any) -> cuda.Slot:
            slot = start(buffer, *arguments)
            buffer._slots.append(slot)
            return slot

        cuda.DoubleBuffer.start = early_slot  # type: ignore[method-assign, assignment]
        cuda.DoubleBuffer.release = lambda *_: None  # type: ignore[method-assign]
    elif rule == "a result stays until the next one is taken":
        deliver = cuda_session._CudaSession._delivered
        _with_slots(lambda slots: slots - 1)

        def given_back(session: Any, *arguments: Any) -> Planes:
            planes = deliver(session, *arguments)
            session._buffer.release(session._shown)
            session._shown = None
            return planes

        cuda_session._CudaSession._delivered = given_back  # type: ignore[method-assign, assignment]
    else:
        raise AssertionError(f"no rule {rule!r}")


def _with_slots(number: Callable[[int], int]) -> None:
    allocate = cuda.DoubleBuffer._allocate

    def other(buffer: cuda.DoubleBuffer, inputs: Any, outputs: Any, slots: int) -> None:
        allocate(buffer, inputs, outputs, number(slots))

    cuda.DoubleBuffer._allocate = other  # type: ignore[method-assign, assignment]


def frames(
    *,
    model: str = "dcd-lite",
    geometry: dict[str, Any],
    count: int = 24,
    precision: str = "f16",
    rule: str = "",
    hold_s: float = 0.0,
    emit_every: int = 1,
    sessions: int = 1,
    device: str = "auto",
    spare: bool = True,
) -> dict[str, Any]:
    """Derain on the tensorrt engine; compare with the same graph computed directly."""
    pretend_program.install()
    card, form = load_model(model), Geometry(**geometry)
    if not spare:  # then what is used too early shows
        cuda_session._held = lambda model: -100
    if rule:
        _break(rule)

    def emit(number: int) -> bool:
        return number % emit_every == 0

    clips = [video(form, card, count, seed=seed) for seed in range(sessions)]
    found: list[Videos] = [[] for _ in clips]
    with TensorRtEngine(card, device=device, precision=precision, threads=0) as engine, ExitStack() as opened:
        running = [opened.enter_context(engine.session(form)) for _ in clips]

        def work(number: int) -> None:
            found[number] = derained(running[number], clips[number], hold_s=hold_s, emit=emit)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(sessions)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        made = [session._buffer.blocks for session in running]  # type: ignore[attr-defined]
        strips = len(next(iter(engine._programs.values())).parts)  # type: ignore[attr-defined]
        name, needed = engine.device, engine.device_bytes(form)
    at_end = pretend_program.counts()
    wrong, most = 0, 0
    for clip, results in zip(clips, found, strict=True):
        for result, truth in zip(results, _truth(card, form, precision, clip, emit), strict=True):
            differences = [np.abs(a.astype(int) - b).max() for a, b in zip(result, truth, strict=True)]
            wrong += any(differences)
            most = max(most, *map(int, differences))
    return {
        "frames": [len(results) for results in found],
        "wrong": wrong,
        "most": most,
        "blocks": made,
        "strips": strips,
        "device": name,
        "needed": needed,
        **at_end,
    }


def _truth(
    card: ModelCard, form: Geometry, precision: str, clip: Videos, emit: Callable[[int], bool]
) -> Videos:
    maker = plan_maker(card, precision=precision, capability="sm89")
    if card.input == "rgb":
        graph = pretend_program.OnnxGraph(maker._graph(form, None, 0)).session
        return [_direct_rgb(graph, frame, form) for number, frame in enumerate(clip) if emit(number)]
    rows = maker.strips(form)[0].rows
    with _DirectLuma(card, form, maker._graph(form, rows, 0)) as session:
        return derained(session, clip, emit=emit)


def _direct_rgb(graph: Any, frame: Planes, form: Geometry) -> Planes:
    feed: dict[str, Any] = {frame_name(0, c): _bytes(plane) for c, plane in enumerate(frame)}
    results = graph.run(None, {**feed, STRENGTH: np.ones(1, np.float32)})
    return tuple(_codes(plane, form) for plane in results)


def torch_frames(
    *, model: str, geometry: dict[str, Any], count: int = 12, precision: str = "f32"
) -> dict[str, Any]:
    """Derain by torch in the double buffer; compare with its session for processors."""
    import torch  # slow, and only here

    from streamderain.runtime.torch import TorchEngine
    from streamderain.runtime.torch_cuda import TorchProgram

    class HostTorch(TorchProgram):
        """Torch on the pretend driver: its memory is the host's."""

        def context(self, scratch: int) -> Any:
            return pretend_program.Launcher(self.compute)

        def memory(self, address: int, shape: tuple[int, ...], kind: str) -> torch.Tensor:
            return torch.from_numpy(pretend_program.array_at(address, shape, np.dtype(kind)))

    form = Geometry(**geometry)
    engine = open_engine(EngineOptions(model=model, engine="torch", device="cpu", precision=precision))
    assert isinstance(engine, TorchEngine)
    card = engine.model
    clip = video(form, card, count)
    options = SessionOptions()
    program = HostTorch(
        engine._adapter(form, options),
        model=card,
        geometry=form,
        device=torch.device("cpu"),
        half=engine._half,
    )
    with open_cuda_session(card, form, options, device=open_device("cuda"), program=program) as session:
        found = derained(session, clip, emit=lambda number: True)
    with engine.session(form) as session:
        truth = derained(session, clip, emit=lambda number: True)
    most = max(
        int(np.abs(a.astype(int) - b).max())
        for one, other in zip(found, truth, strict=True)
        for a, b in zip(one, other, strict=True)
    )
    return {"frames": len(found), "most": most, **pretend_program.counts()}


class _Copying:
    """A program that hands frames back, so that many go through quickly."""

    scratch_bytes = 0
    capturable = True

    def __init__(self, size_bytes: int) -> None:
        self._size = size_bytes

    def context(self, scratch: int) -> Any:
        return pretend_program.Launcher(self._compute)

    def _compute(self, addresses: Any) -> None:
        source = pretend_program.array_at(addresses[frame_name(1, 0)], (self._size,), np.uint8)
        pretend_program.array_at(addresses[clean_name(0)], (self._size,), np.uint8)[:] = source


def many(*, count: int) -> dict[str, Any]:
    """Send very many tiny frames through a session; look at its memory on the way."""
    form, card = Geometry(64, 48), load_model("dcd-lite")
    clip = video(form, card, 16)
    process = psutil.Process()
    seen: list[tuple[int, int, int]] = []
    wrong = 0
    program = _Copying(form.width * form.height)
    with open_cuda_session(
        card, form, SessionOptions(), device=open_device("cuda"), program=program
    ) as session:

        def feed() -> None:
            for number in range(count):
                session.push(clip[number % len(clip)], number)
            session.flush()

        feeder = threading.Thread(target=feed)
        feeder.start()
        for number in range(count):
            popped = session.pop()
            assert popped is not None
            wrong += bool((popped[1][0] != clip[number % len(clip)][0]).any())
            if number % (count // 10) == count // 10 - 1:
                state = pretend_program.counts()
                seen.append((process.memory_info().rss, state["device_bytes"], state["pinned_blocks"]))
        feeder.join()
    return {"wrong": wrong, "seen": seen, **pretend_program.counts()}


def error(*, model: str = "dcd-lite", geometry: dict[str, Any], device: str = "auto") -> dict[str, Any]:
    """Derain some frames; return the error that this ends with."""
    pretend_program.install()
    form = Geometry(**geometry)
    try:
        with (
            TensorRtEngine(load_model(model), device=device, precision="auto", threads=0) as engine,
            engine.session(form) as session,
        ):
            derained(session, video(form, engine.model, 8), emit=lambda number: True)
    except StreamderainError as problem:
        return {"error": type(problem).__name__, "message": str(problem), "exit_code": problem.exit_code}
    return {"error": ""}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(globals()[sys.argv[1]](**json.loads(sys.argv[2]))) + "\n")
