"""The interface between the pipeline and whatever removes the rain.

An *engine* is a live runtime on a device with one model; a *session* is one stream of frames of one geometry
on it. Sessions own the temporal window, the copies and the concurrency; the pipeline only pushes and pops.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from streamderain.closable import Closable
from streamderain.events import Observer
from streamderain.frame import Geometry, Planes
from streamderain.models import ModelCard
from streamderain.options import EngineOptions
from streamderain.trace import Trace

Token = Any
"""Whatever the caller wants back with the result."""


class EndOfSession(Exception):
    """No more results will come: the session was flushed and drained, aborted, or closed."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a session works.

    Attributes:
        depth: Frames in flight beyond the model's look-ahead; 0 lets the engine choose.
        causal: True never waits for later frames: their place is a copy of the current one, marked invalid.
        strength: How much of the found rain is taken away, 0..1.
        alignment: False leaves neighbours where they are, also for models that want them warped.
        max_size: Longest side, px, at which a model that looks at whole frames sees them; 0 for their own.
        trace: Receives how long copies and the network take, in seconds of each emitted frame.
        tell: Receives `events.Building` while the model is compiled.
    """

    depth: int = 0
    causal: bool = False
    strength: float = 1.0
    alignment: bool = True
    max_size: int = 0
    trace: Trace | None = None
    tell: Observer | None = None

    @classmethod
    def of(
        cls,
        options: EngineOptions,
        *,
        depth: int = 0,
        trace: Trace | None = None,
        tell: Observer | None = None,
    ) -> SessionOptions:
        """Return what the options of an engine say of its sessions."""
        aligned = options.alignment != "off"
        return cls(
            depth=depth,
            causal=options.causal,
            strength=options.strength,
            alignment=aligned,
            max_size=options.max_size,
            trace=trace,
            tell=tell,
        )


class Session(Closable):
    """One stream of frames of one geometry. push and pop may run on different threads."""

    @abstractmethod
    def push(self, planes: Planes, token: Token, *, cut: bool = False, emit: bool = True) -> None:
        """Give a frame; wait only while all slots are full.

        Args:
            planes: The frame's colour components in the session's geometry. What is needed is copied.
            token: Comes back with the result.
            cut: The frame does not follow the one before: pending frames are finished without look-ahead.
            emit: False feeds the temporal window only; the token never comes back.

        Raises:
            EndOfSession: The session was flushed, aborted or closed.
            InferenceError: The planes do not fit the geometry.
        """

    @abstractmethod
    def pop(self, timeout_s: float | None = None) -> tuple[Token, Planes] | None:
        """Return the oldest result, or None when `timeout_s` passed without one.

        The planes are the first `components` ones: contiguous, in the geometry's dtype, valid until the
        next pop.

        Raises:
            EndOfSession: Nothing more will come.
            EngineError: The frame failed.
        """

    @abstractmethod
    def flush(self) -> None:
        """Say that no more frames will be pushed; the look-ahead drains. Idempotent."""

    @abstractmethod
    def abort(self) -> list[Token]:
        """Stop, wake every waiting call, and return the tokens not popped, oldest first."""

    @property
    @abstractmethod
    def components(self) -> int:
        """How many of a frame's first planes are read and come back: luma alone, Y, U and V, or R, G, B."""

    @property
    @abstractmethod
    def busy_s(self) -> float:
        """Seconds of work so far, as if one frame ran at a time at the engine's full throughput."""


class Engine(Closable):
    """A live runtime on a device with one model.

    Attributes:
        name: The engine's name.
        device: What it runs on, for people.
        precision: What it computes in.
        model: The model's card.
        reason: Why this engine was chosen, for people.
    """

    name: str
    device: str
    precision: str
    model: ModelCard
    reason: str = "opened directly"

    @abstractmethod
    def session(self, geometry: Geometry, options: SessionOptions | None = None) -> Session:
        """Open a session for frames of one geometry.

        Raises:
            PlanBuildError: The model does not compile for this geometry.
            DeviceMemoryError: The device has too little memory for it.
        """

    def device_bytes(self, geometry: Geometry, options: SessionOptions | None = None) -> int | None:
        """Return about how much of the device's own memory a session will need; None where that is not known.

        Raises:
            PlanBuildError: The model does not compile for this geometry.
        """
        return None

    @abstractmethod
    def close(self) -> None:
        """Release the runtime. Idempotent; sessions must be closed before."""
