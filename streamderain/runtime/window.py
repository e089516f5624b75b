"""Assemble each frame with its temporal neighbours.

A neighbour is missing at the ends of the video, across a cut or gap, and where a frame merely repeats the
one before; its place is then taken by the current frame, with a validity of 0.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WindowFrames(Generic[T]):
    """One frame to compute with its neighbours.

    Attributes:
        frames: Oldest first; the current one stands at index `before`.
        validity: 1.0 or 0.0 for each neighbour, oldest first, the current one left out.
    """

    frames: tuple[T, ...]
    validity: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    item: T
    emit: bool
    repeated: bool


class Window(Generic[T]):
    """Assembles each frame with its neighbours from a stream of frames.

    Args:
        before: Earlier neighbours of a frame.
        after: Later neighbours; a frame is ready once they were pushed.
        causal: Do not wait for later neighbours, treat them as missing.
    """

    def __init__(self, before: int, after: int, *, causal: bool = False) -> None:
        self._before = before
        self._after = after
        self._lookahead = 0 if causal else after
        self._history: deque[_Entry[T]] = deque(maxlen=before)
        self._pending: deque[_Entry[T]] = deque()
        self._last: _Entry[T] | None = None

    @property
    def last(self) -> T | None:
        """The frame pushed last, where the next one may be compared with it."""
        return None if self._last is None else self._last.item

    def push(self, item: T, *, cut: bool, emit: bool, repeated: bool) -> list[WindowFrames[T]]:
        """Add a frame and return the frames that became ready, in order."""
        ready = self.flush() if cut else []
        self._last = _Entry(item, emit, repeated)
        self._pending.append(self._last)
        while len(self._pending) > self._lookahead:
            ready += self._advance()
        return ready

    def flush(self) -> list[WindowFrames[T]]:
        """End the run of frames: return those still pending and forget their neighbours."""
        ready = []
        while self._pending:
            ready += self._advance()
        self._history.clear()
        self._last = None
        return ready

    def _advance(self) -> list[WindowFrames[T]]:
        entry = self._pending.popleft()
        ready = [self._with_neighbours(entry)] if entry.emit else []
        self._history.append(entry)
        return ready

    def _with_neighbours(self, entry: _Entry[T]) -> WindowFrames[T]:
        earlier = self._neighbours(entry, list(reversed(self._history)), self._before, backwards=True)
        later = self._neighbours(entry, list(self._pending)[: self._lookahead], self._after, backwards=False)
        earlier.reverse()
        return WindowFrames(
            frames=(*(item for item, _ in earlier), entry.item, *(item for item, _ in later)),
            validity=tuple(valid for _, valid in (*earlier, *later)),
        )

    @staticmethod
    def _neighbours(
        entry: _Entry[T], candidates: list[_Entry[T]], wanted: int, *, backwards: bool
    ) -> list[tuple[T, float]]:
        """Return `wanted` neighbours, nearest first, missing ones replaced by the frame itself."""
        found: list[tuple[T, float]] = []
        nearer = entry
        repeats = True  # nothing but repetitions of the current frame so far
        for candidate in candidates[:wanted]:
            repeats = repeats and (nearer if backwards else candidate).repeated
            found.append((entry.item, 0.0) if repeats else (candidate.item, 1.0))
            nearer = candidate
        return found + [(entry.item, 0.0)] * (wanted - len(found))
