"""The TensorRT engine, for NVIDIA GPUs.

The adapter around the core, the warp of neighbours included, is part of the plan, so frames go to the device
and come back as they are. Plans are compiled at first use and kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from streamderain.errors import DeviceMemoryError, InferenceError, PlanBuildError
from streamderain.frame import Geometry
from streamderain.models import ModelCard
from streamderain.runtime import tensorrt_library as library
from streamderain.runtime.adapters.tensor_names import clean_name
from streamderain.runtime.base import Engine, Session, SessionOptions
from streamderain.runtime.cuda import Context, Program, cuda_errors, free_bytes, open_device
from streamderain.runtime.cuda_session import open_cuda_session, session_bytes
from streamderain.runtime.plan_cache import PlanCache
from streamderain.runtime.plans import Plan, activation_bytes, plan_maker
from streamderain.runtime.tensorrt_library import LOG, RTX, trt

MAX_STRIPS = 16
"""More strips than this compute mostly what is around them."""

_WORTH = 0.9
"""More strips are tried only as long as they bring down what a computation needs to this share."""

_KEPT = 2


class TensorRtEngine(Engine):
    """Runs plans of a model on a CUDA device.

    Args:
        model: The model.
        device: `"auto"` or `"cuda"` (the first), or `"cuda:N"`.
        precision: `"auto"`, `"f16"` or `"f32"`.
        threads: Ignored: the device computes.
        cache: Where plans are kept; the user's own cache where None.

    Raises:
        EngineUnavailable: No such device, one that the installed TensorRT does not support, or a precision
            that it does not have.
    """

    name = "tensorrt"

    def __init__(
        self,
        model: ModelCard,
        *,
        device: str,
        precision: str,
        threads: int,
        cache: PlanCache | None = None,
    ) -> None:
        self.model = model
        self._device = open_device(device)
        self._maker = plan_maker(model, precision=precision, device=device, cache=cache)
        self.precision = self._maker.precision
        self.device = f"cuda:{self._device.device_id} ({self._device.name})"
        self._programs: dict[tuple[Geometry, int, int], Program] = {}

    def session(self, geometry: Geometry, options: SessionOptions | None = None) -> Session:
        """See `Engine.session`. Frames too large for the memory are computed in strips where that works."""
        options = options or SessionOptions()
        strips, scratch_bytes = 1, math.inf
        while True:
            program = self._program(geometry, options, strips)
            try:
                return open_cuda_session(self.model, geometry, options, device=self._device, program=program)
            except DeviceMemoryError as error:
                few = strips < MAX_STRIPS and program.scratch_bytes <= _WORTH * scratch_bytes
                if not (self.model.tileable and few):
                    raise self._too_large(geometry, program) from error
            strips, scratch_bytes = 2 * strips, program.scratch_bytes

    def _too_large(self, geometry: Geometry, program: Program) -> DeviceMemoryError:
        needed = program.scratch_bytes + session_bytes(self.model, geometry)
        hint = "scale the video down"
        if not self.model.tileable:
            hint = (
                f"let {self.model.name}, which looks at whole frames, work at a smaller size (--max-size), "
                "or choose a model that can look at parts of a frame"
            )
        return DeviceMemoryError(
            f"frames of {geometry.width}x{geometry.height} need about {needed / 1e6:.0f} MB of memory on "
            f"{self.device}, where {free_bytes() / 1e6:.0f} MB are free. Close what else uses it, choose "
            f"another --device, or {hint}"
        )

    def device_bytes(self, geometry: Geometry, options: SessionOptions | None = None) -> int:
        """See `Engine.device_bytes`: of whole frames, as the building of the plan tells."""
        options = options or SessionOptions()
        plans = self._maker.strips(geometry, max_size=options.max_size, tell=options.tell)
        plan_bytes = sum(len(plan.data) for plan in plans)
        return activation_bytes(plans) + plan_bytes + session_bytes(self.model, geometry)

    def close(self) -> None:
        """See `Engine.close`."""
        self._programs.clear()

    def _program(self, geometry: Geometry, options: SessionOptions, strips: int) -> Program:
        """Return the program for a geometry; the last ones are kept."""
        key = (geometry, options.max_size, strips)
        if key not in self._programs:
            while len(self._programs) >= _KEPT:
                self._programs.pop(next(iter(self._programs)))
            self._programs[key] = self._loaded(geometry, options, strips)
        return self._programs[key]

    def _loaded(self, geometry: Geometry, options: SessionOptions, strips: int) -> Program:
        plans = self._maker.strips(geometry, count=strips, max_size=options.max_size, tell=options.tell)
        self._device.set_current()
        with cuda_errors("the plan could not be loaded"):
            return load_program(plans, geometry, self._maker.cache)


def load_program(plans: Sequence[Plan], geometry: Geometry, cache: PlanCache) -> Program:
    """Load plans onto the current device.

    Raises:
        DeviceMemoryError: There is no memory for them.
        PlanBuildError: TensorRT does not take them.
    """
    return _Program([_LoadedPlan(plan, geometry, cache) for plan in plans])


class _LoadedPlan:
    """A plan on the device."""

    def __init__(self, plan: Plan, geometry: Geometry, cache: PlanCache) -> None:
        self._plan, self._cache = plan, cache
        self._runtime = trt.Runtime(LOG)  # has to live as long as what it makes
        engine = self._runtime.deserialize_cuda_engine(plan.data)
        if engine is None:
            raise _refused(f"the plan {plan.stored.path}")
        self._engine = engine
        self._settings = engine.create_runtime_config()
        self._settings.set_execution_context_allocation_strategy(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        self._runtime_cache = self._prepared_for_rtx(self._settings)
        self.scratch_bytes = int(engine.device_memory_size_v2)
        row_bytes = geometry.width * geometry.dtype.itemsize
        self.output_offset = 0 if plan.rows is None else plan.rows.top * row_bytes

    def _prepared_for_rtx(self, settings: Any) -> Any:
        """Have TensorRT for RTX record CUDA graphs by itself, and keep what it compiles on the card.

        Returns:
            What it compiled before, or None where another TensorRT is installed, which compiled everything.
        """
        if not hasattr(settings, "create_runtime_cache"):
            return None
        settings.cuda_graph_strategy = RTX.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        compiled = settings.create_runtime_cache()
        if self._plan.stored.runtime_cache.is_file():
            compiled.deserialize(self._plan.stored.runtime_cache.read_bytes())
        settings.set_runtime_cache(compiled)
        return compiled

    def context(self, scratch: int) -> trt.IExecutionContext:
        """Return a context that computes in the memory at an address."""
        context = self._engine.create_execution_context(self._settings)
        if context is None:
            raise _refused(f"a context for the plan {self._plan.stored.path}")
        context.set_device_memory(scratch, self.scratch_bytes)
        self._keep_runtime_cache()
        return context

    def _keep_runtime_cache(self) -> None:
        if self._runtime_cache is not None and not self._plan.stored.runtime_cache.is_file():
            compiled = self._runtime_cache.serialize()
            if compiled is not None:
                self._cache.keep_runtime_cache(self._plan.stored, bytes(compiled))


class _Program:
    """Plans that together compute a frame, one strip of rows after the other."""

    def __init__(self, plans: Sequence[_LoadedPlan]) -> None:
        self._plans = plans
        self.scratch_bytes = max(plan.scratch_bytes for plan in plans)
        self.capturable = not library.BUILDS_AHEAD

    def context(self, scratch: int) -> Context:
        """See `Program.context`."""
        return _Contexts([(plan.context(scratch), plan.output_offset) for plan in self._plans])


class _Contexts:
    """A context for each plan of a program."""

    def __init__(self, contexts: Sequence[tuple[trt.IExecutionContext, int]]) -> None:
        self._contexts = contexts

    def enqueue(self, addresses: Mapping[str, int], stream: int) -> None:
        """See `Context.enqueue`."""
        for context, offset in self._contexts:
            for name, address in addresses.items():
                at = address + offset if name.startswith(_CLEAN) else address
                if not context.set_tensor_address(name, at):
                    raise InferenceError(f"TensorRT refused the address of {name}: {LOG.reason()}")
            if not context.execute_async_v3(stream):
                raise InferenceError(f"TensorRT could not compute a frame: {LOG.reason()}")


_CLEAN = clean_name(0).rstrip("0")


def _refused(what: str) -> DeviceMemoryError | PlanBuildError:
    reason = LOG.reason()
    if "memory" in reason.lower():
        return DeviceMemoryError(f"{what} does not fit into the memory of the GPU: {reason}")
    return PlanBuildError(
        f"TensorRT did not take {what}: {reason}. Remove it (streamderain engine prune --all), and run again"
    )
