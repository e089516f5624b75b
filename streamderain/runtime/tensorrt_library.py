"""The TensorRT that is installed, and plans compiled by it.

`tensorrt` (10.16 and later; cards of data centres and others) and `tensorrt_rtx` (RTX cards) have one API.
Where they differ, what they have is asked for: `set_compute_capability`, `create_runtime_cache`.
"""

from __future__ import annotations

import importlib
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, SupportsInt

from streamderain.errors import DeviceMemoryError, PlanBuildError

if TYPE_CHECKING:
    import tensorrt as trt
else:
    try:
        trt = importlib.import_module("tensorrt")
    except ModuleNotFoundError:
        trt = importlib.import_module("tensorrt_rtx")

__all__ = [
    "BUILDS_AHEAD",
    "LOG",
    "PACKAGE",
    "RTX",
    "BuiltPlan",
    "Capability",
    "Progress",
    "build_plan",
    "nameable_capabilities",
    "trt",
    "version",
]

PACKAGE: str = trt.__name__
"""`tensorrt` or `tensorrt_rtx`."""

RTX: Any = trt
"""The same, for what TensorRT for RTX alone has and the types of the others do not know."""

BUILDS_AHEAD = hasattr(trt.IBuilderConfig, "set_compute_capability")
"""Whether plans can be built for cards that are not here."""

_REMEMBERED = 8
_ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+) bytes")

Capability = tuple[int, int]
"""Compute capability of a card: (8, 9) for Ada."""

Progress = Callable[[str, float], None]
"""Receives what the builder is at, and how much of that is done, 0..1."""


class _Log(trt.ILogger):  # type: ignore[misc, unused-ignore]
    """Collects what TensorRT says: reasons of failures are told nowhere else."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.problems: deque[str] = deque(maxlen=_REMEMBERED)
        self.activation_bytes = 0
        self.listener: Callable[[str, str], None] | None = None

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Receive a message. What is raised here TensorRT swallows."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.problems.append(msg.strip())
        found = _ACTIVATIONS.search(msg)
        if found is not None:
            self.activation_bytes = max(self.activation_bytes, int(found[1]))
        if self.listener is not None:
            self.listener(severity.name, msg)

    def reason(self) -> str:
        """Return the last problems, and forget them."""
        told = "; ".join(self.problems) or "it gives no reason"
        self.problems.clear()
        return told


LOG = _Log()
"""TensorRT keeps to the first logger it gets in a process."""


@dataclass(frozen=True, slots=True)
class BuiltPlan:
    """A plan and what its building told.

    Attributes:
        data: The plan.
        activation_bytes: Device memory that one computation takes for itself.
    """

    data: bytes
    activation_bytes: int


def version() -> str:
    """Return the library's version."""
    return str(trt.__version__)


def nameable_capabilities() -> tuple[Capability, ...]:
    """Return the compute capabilities that plans can be built for without a card; none of `tensorrt`."""
    if not BUILDS_AHEAD:
        return ()
    names = [name.removeprefix("SM") for name in RTX.ComputeCapability.__members__ if name.startswith("SM")]
    return tuple((int(name[:-1]), int(name[-1])) for name in names)


def build_plan(
    graph: bytes,
    *,
    capability: Capability,
    exact: bool,
    progress: Progress = lambda phase, done: None,
    listener: Callable[[str, str], None] | None = None,
) -> BuiltPlan:
    """Compile an ONNX graph of fixed shapes.

    Args:
        graph: Serialised, with its weights.
        capability: Of the card that the plan is for.
        exact: Multiply 32-bit floats as such; else their 19 most significant bits (TF32).
        progress: Told how far it is.
        listener: Receives every line of the builder's log with its severity, types of kernels included.

    Raises:
        PlanBuildError: It does not compile; says why.
        DeviceMemoryError: The builder ran out of memory.
    """
    LOG.problems.clear()
    LOG.activation_bytes = 0
    LOG.listener = listener
    try:
        return BuiltPlan(_built(graph, capability, exact=exact, progress=progress), LOG.activation_bytes)
    finally:
        LOG.listener = None


def _built(graph: bytes, capability: Capability, *, exact: bool, progress: Progress) -> bytes:
    # All of these stay in this scope: a parser whose network is gone crashes.
    builder = trt.Builder(LOG)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, LOG)
    if not parser.parse(graph):
        errors = [parser.get_error(number) for number in range(parser.num_errors)]
        said = "; ".join(f"operator {error.node_operator()}: {error.desc()}" for error in errors)
        raise PlanBuildError(
            f"{PACKAGE} {version()} cannot compile this model: {said or LOG.reason()}. Use another --engine, "
            "and please report this line"
        )
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if exact:
        config.clear_flag(trt.BuilderFlag.TF32)
    if BUILDS_AHEAD:
        _aim(config, capability)
    monitor = _Monitor(progress)  # the configuration does not keep it alive
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        said = LOG.reason()
        if "memory" in said.lower() and "out of" in said.lower():
            raise DeviceMemoryError(
                f"{PACKAGE} ran out of memory while it compiled the model: {said}; scale the video down, or "
                "close what else uses the GPU"
            )
        raise PlanBuildError(
            f"{PACKAGE} {version()} cannot compile this model for sm{capability[0]}{capability[1]}: {said}. "
            "Try --precision f16, or another --engine, such as torch"
        )
    return bytes(plan)


def _aim(config: Any, capability: Capability) -> None:
    """Have the plan built for a card."""
    name = f"SM{capability[0]}{capability[1]}"
    wanted = getattr(RTX.ComputeCapability, name, None)
    if wanted is None:
        known = ", ".join(f"sm{major}{minor}" for major, minor in nameable_capabilities())
        raise PlanBuildError(
            f"TensorRT for RTX builds no plans for cards of {name.lower()}; it knows {known}"
        )
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(wanted, 0):
        raise PlanBuildError(f"TensorRT for RTX refuses cards of {name.lower()}: {LOG.reason()}")


class _Monitor(trt.IProgressMonitor):  # type: ignore[misc, unused-ignore]
    """Tells how far the innermost phase is."""

    def __init__(self, tell: Progress) -> None:
        trt.IProgressMonitor.__init__(self)
        self._tell = tell
        self._steps: dict[str, int] = {}

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: SupportsInt) -> None:
        """See `IProgressMonitor`."""
        self._steps[phase_name] = int(num_steps)
        self._tell(phase_name, 0.0)

    def step_complete(self, phase_name: str, step: SupportsInt) -> bool:
        """See `IProgressMonitor`; True goes on."""
        self._tell(phase_name, min(1.0, (int(step) + 1) / max(1, self._steps.get(phase_name, 1))))
        return True

    def phase_finish(self, phase_name: str) -> None:
        """See `IProgressMonitor`."""
        self._tell(phase_name, 1.0)
