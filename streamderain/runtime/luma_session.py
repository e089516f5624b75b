"""The session of luma models that engines share: copies of planes, and neighbours aligned."""

from __future__ import annotations

import itertools
import threading
from abc import ABC
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamderain import motion
from streamderain.frame import Geometry, Plane, Planes
from streamderain.models import ModelCard
from streamderain.runtime.adapters.luma import luma_of, luma_scale
from streamderain.runtime.base import SessionOptions
from streamderain.runtime.window import WindowFrames
from streamderain.runtime.windowed import StoredFrame, WindowedSession

T = TypeVar("T")


class Once(Generic[T]):
    """Calls a function once, when its result is asked for first; others who ask meanwhile wait.

    Args:
        make: The function.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make: Callable[[], T] | None = make
        self._lock = threading.Lock()

    def __call__(self) -> T:
        """Return the result."""
        with self._lock:
            if self._make is not None:
                self._made = self._make()
                self._make = None
        return self._made


@dataclass(frozen=True, slots=True)
class LumaFrame(StoredFrame):
    """A frame as a session of a luma model keeps it.

    Attributes:
        number: Of the frame in its session.
        luma: What is compared and aligned, see `luma_of`.
        coarse: What the flow looks at, see `motion.coarse`; made when it is asked for first.
    """

    number: int = field(kw_only=True)
    luma: Plane = field(kw_only=True)
    coarse: Once[motion.Codes] = field(kw_only=True)


class LumaSession(WindowedSession, ABC):
    """A session of a luma model: copies planes, and aligns the neighbours of models that ask for it.

    Engines that warp in their graph take the flows (`_stacked_flows`) instead of aligned planes (`_aligned`).
    """

    def __init__(
        self, model: ModelCard, geometry: Geometry, options: SessionOptions, *, workers: int
    ) -> None:
        super().__init__(model, geometry, options, workers=workers)
        self._scale = luma_scale(geometry)
        self._aligns = model.alignment == "flow" and options.alignment
        self._cell = model.flow.edge_px(geometry.width, geometry.height)
        self._one_thread = ExitStack()
        if self._aligns:
            self._one_thread.enter_context(motion.one_thread())
        self._warpers: SimpleQueue[motion.Warper] = SimpleQueue()
        self._copied_frames = itertools.count()
        self._flows_between = FlowsBetween(self._cell, kept=2 * (workers + model.before + model.after))

    def close(self) -> None:
        """See `Session.close`."""
        super().close()
        self._one_thread.close()

    @property
    def _stored_shift(self) -> int:
        """How far codes are still shifted left in the planes that `_stored` keeps."""
        return 0

    def _copy_in(self, planes: Planes) -> LumaFrame:
        stored = self._stored(planes)
        luma = luma_of(stored.planes, self._scale)
        shift = self.geometry.bits - 8 + self._stored_shift
        # On the worker that needs it first: the thread that pushes has the decoder to wait for.
        coarse = Once(lambda: motion.coarse(luma, cell=self._cell, shift=shift))
        number = next(self._copied_frames)
        return LumaFrame(stored.planes, stored.memory, number=number, luma=luma, coarse=coarse)

    def _flows(self, window: WindowFrames[LumaFrame]) -> list[motion.Flow | None]:
        """Return the flow to each neighbour, oldest first; None where it is not to be moved."""
        before = self.model.before
        current = window.frames[before]
        neighbours = (*window.frames[:before], *window.frames[before + 1 :])
        found = [
            self._flows_between(current, neighbour) if self._aligns and valid else None
            # The later ones first: the flow from an earlier one is just being estimated for that one's sake.
            for neighbour, valid in reversed(list(zip(neighbours, window.validity, strict=True)))
        ]
        return found[::-1]

    def _aligned(self, window: WindowFrames[LumaFrame]) -> list[Plane]:
        """Return the luma of the window, oldest first, neighbours warped onto the current frame."""
        vectors = self._flows(window)
        vectors.insert(self.model.before, None)
        return [
            frame.luma if flow is None else self._warped(frame.luma, flow)
            for frame, flow in zip(window.frames, vectors, strict=True)
        ]

    def _warped(self, luma: Plane, vectors: motion.Flow) -> Plane:
        try:
            warper = self._warpers.get_nowait()
        except Empty:
            warper = motion.Warper(self.geometry.width, self.geometry.height, cell=self._cell)
        try:
            return warper.warp(luma, vectors)
        finally:
            self._warpers.put(warper)

    def _stacked_flows(self, window: WindowFrames[LumaFrame]) -> NDArray[np.float32]:
        """Return the flow to each neighbour, (neighbours, 2, rows, columns), zeros where none is moved."""
        shape = (-(-self.geometry.height // self._cell), -(-self.geometry.width // self._cell), 2)
        stack = [np.zeros(shape, np.float32) if one is None else one for one in self._flows(window)]
        return np.ascontiguousarray(np.stack(stack).transpose(0, 3, 1, 2))


class FlowsBetween:
    """Flows between frames, each pair's estimated once: from the older to the newer, and inverted.

    Two frames are computed at a time, and both need the flow between them: the second waits for the first.

    Args:
        cell: Edge of a cell, px.
        kept: How many pairs are remembered.
    """

    def __init__(self, cell: int, *, kept: int) -> None:
        self._cell, self._kept = cell, kept
        self._lock = threading.Lock()
        self._onward: dict[tuple[int, int], Future[motion.Flow]] = {}

    def __call__(self, one: LumaFrame, other: LumaFrame) -> motion.Flow:
        """Return the flow from one frame to another."""
        if one.number < other.number:
            return self._estimated(one, other)
        return motion.inverse(self._estimated(other, one), cell=self._cell)

    def _estimated(self, older: LumaFrame, newer: LumaFrame) -> motion.Flow:
        key = (older.number, newer.number)
        with self._lock:
            known = self._onward.get(key)
            if known is None:
                mine = self._onward[key] = Future()
                while len(self._onward) > self._kept:
                    self._onward.pop(next(iter(self._onward)))
        if known is not None:
            return known.result()
        try:
            mine.set_result(motion.flow(older.coarse(), newer.coarse(), cell=self._cell))
        except BaseException as error:
            mine.set_exception(error)
        return mine.result()
