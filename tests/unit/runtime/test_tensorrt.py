"""How plans are loaded and enqueued: the calls that only a GPU answers, on stand-ins with the same names.

That these names and their types are those of the real bindings is the business of
`tests/integration/test_tensorrt_types.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from streamderain.errors import DeviceMemoryError, InferenceError, PlanBuildError
from streamderain.frame import Geometry
from streamderain.runtime.plan_cache import PlanCache
from tests.support.pretend_gpu import require_rtx
from tests.unit.runtime.test_plan_cache import KEY

GEOMETRY = Geometry(64, 48)


@dataclass
class Context:
    scratch: tuple[int, int] | None = None
    bound: dict[str, int] = field(default_factory=dict)
    streams: list[int] = field(default_factory=list)
    refuses: str = ""
    works: bool = True

    def set_device_memory(self, memory: int, size: int) -> None:
        self.scratch = (memory, size)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.bound[name] = memory
        return name != self.refuses

    def execute_async_v3(self, stream_handle: int) -> bool:
        self.streams.append(stream_handle)
        return self.works


class RuntimeCache:
    def __init__(self) -> None:
        self.content = b"compiled on the card"
        self.before: bytes | None = None

    def deserialize(self, data: bytes) -> bool:
        self.before = data
        return True

    def serialize(self) -> bytes:
        return self.content


class Settings:
    """A runtime configuration of `tensorrt`."""

    strategy: Any = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy


class RtxSettings(Settings):
    """And one of `tensorrt_rtx`, which has more."""

    cuda_graph_strategy: Any = None
    cache: RuntimeCache | None = None

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> None:
        self.cache = cache


class Plans:
    """A driver with a card: what each plan becomes, and all contexts that were made."""

    def __init__(self) -> None:
        self.settings: Settings = RtxSettings()
        self.contexts: list[Context | None] = []
        self.make_context: Callable[[], Context | None] = Context
        self.sizes = {b"one": 1000, b"two": 3000}
        self.load: Callable[[bytes], Any] = lambda data: Engine(self, self.sizes[data])


class Engine:
    def __init__(self, plans: Plans, size: int) -> None:
        self._plans = plans
        self.device_memory_size_v2 = size

    def create_runtime_config(self) -> Settings:
        return self._plans.settings

    def create_execution_context(self, settings: Settings) -> Context | None:
        assert settings is self._plans.settings
        made = self._plans.make_context()
        self._plans.contexts.append(made)
        return made


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Plans:
    require_rtx()
    from streamderain.runtime import tensorrt

    plans = Plans()

    class Runtime:
        def __init__(self, log: Any) -> None:
            assert log is tensorrt.LOG

        def deserialize_cuda_engine(self, data: bytes) -> Any:
            return plans.load(data)

    monkeypatch.setattr(tensorrt.trt, "Runtime", Runtime)
    tensorrt.LOG.problems.clear()
    return plans


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path)


def load(cache: PlanCache, *parts: tuple[bytes, int | None]) -> Any:
    from streamderain.runtime.adapters.luma_onnx import Rows
    from streamderain.runtime.plans import Plan
    from streamderain.runtime.tensorrt import load_program

    stored = cache.find(KEY)
    kept = cache.keep(KEY, b"plan", activation_bytes=1) if stored is None else stored[0]
    plans = [Plan(kept, data, None if top is None else Rows(top, top + 8, 0, 48)) for data, top in parts]
    return load_program(plans, GEOMETRY, cache)


def test_every_slot_has_a_context_and_all_share_their_memory(card: Plans, cache: PlanCache) -> None:
    from streamderain.runtime.tensorrt_library import trt

    program = load(cache, (b"one", None))
    assert program.scratch_bytes == 1000
    assert card.settings.strategy == trt.ExecutionContextAllocationStrategy.USER_MANAGED
    slots = [program.context(0x1000) for _ in range(3)]
    assert len(card.contexts) == 3
    assert all(context is not None and context.scratch == (0x1000, 1000) for context in card.contexts)
    slots[1].enqueue({"frame.0.0": 16, "clean.0": 32, "strength": 48}, 7)
    first, second, _ = card.contexts
    assert first is not None
    assert second is not None
    assert second.bound == {"frame.0.0": 16, "clean.0": 32, "strength": 48}
    assert (first.streams, second.streams) == ([], [7])


def test_strips_write_below_each_other_in_the_memory_of_the_largest(card: Plans, cache: PlanCache) -> None:
    program = load(cache, (b"one", 0), (b"two", 24))
    assert program.scratch_bytes == 3000
    program.context(0x1000).enqueue({"frame.0.0": 16, "clean.0": 256}, 7)
    assert [context and context.bound for context in card.contexts] == [
        {"frame.0.0": 16, "clean.0": 256},
        {"frame.0.0": 16, "clean.0": 256 + 24 * 64},
    ]
    assert [context and context.streams for context in card.contexts] == [[7], [7]]


def test_what_rtx_compiles_on_the_card_is_kept_and_used_again(card: Plans, cache: PlanCache) -> None:
    from streamderain.runtime.tensorrt_library import RTX

    program = load(cache, (b"one", None))
    settings = card.settings
    assert isinstance(settings, RtxSettings)
    assert settings.cuda_graph_strategy == RTX.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    assert not program.capturable  # it records its graphs by itself
    assert settings.cache is not None
    assert settings.cache.before is None
    program.context(0)
    again = load(cache, (b"one", None))
    assert settings.cache.before == b"compiled on the card"
    again.context(0)


def test_another_tensorrt_has_its_graphs_recorded_by_us(
    card: Plans, cache: PlanCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamderain.runtime import tensorrt

    monkeypatch.setattr(tensorrt.library, "BUILDS_AHEAD", False)
    card.settings = Settings()
    program = load(cache, (b"one", None))
    assert program.capturable
    program.context(0)
    assert not list(cache.folder.glob("*.runtime"))


@pytest.mark.parametrize(
    ("reason", "kind", "says"),
    [
        ("Error Code 2: OutOfMemory (Requested size was 5 bytes)", DeviceMemoryError, "does not fit into"),
        ("Magic tag does not match", PlanBuildError, r"Magic tag .* engine prune --all"),
        ("", PlanBuildError, "it gives no reason"),
    ],
)
@pytest.mark.parametrize("step", ["plan", "context"])
def test_what_the_card_refuses_has_a_reason(
    card: Plans, cache: PlanCache, step: str, reason: str, kind: type[Exception], says: str
) -> None:
    from streamderain.runtime.tensorrt_library import LOG, trt

    def refused() -> Any:
        if reason:
            LOG.log(trt.ILogger.Severity.ERROR, reason)

    if step == "plan":
        card.load = lambda data: refused()
        with pytest.raises(kind, match=says):
            load(cache, (b"one", None))
        return
    program = load(cache, (b"one", None))
    card.make_context = refused
    with pytest.raises(kind, match=says):
        program.context(0)


@pytest.mark.parametrize(
    ("context", "says"),
    [
        (Context(refuses="clean.0"), "refused the address of clean.0"),
        (Context(works=False), "could not compute a frame"),
    ],
)
def test_what_fails_at_a_frame_is_told(card: Plans, cache: PlanCache, context: Context, says: str) -> None:
    card.make_context = lambda: context
    with pytest.raises(InferenceError, match=says):
        load(cache, (b"one", None)).context(0).enqueue({"frame.0.0": 16, "clean.0": 32}, 7)
