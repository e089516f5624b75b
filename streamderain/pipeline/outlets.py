"""Write targets on threads of their own, so that a stuck or failed one does not stop the others.

Each outlet has a queue bounded in bytes. Of files nothing is dropped: whoever brings a packet waits while the
queue is full. A target that takes no data for `PATIENCE_S` all that time is given up with an error, what it
holds is kept, and the others go on. Targets of live sources drop what finds no room, up to the next keyframe.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Literal

from streamderain.errors import MediaError, PipelineError, StreamderainError
from streamderain.events import TargetResult
from streamderain.pacing import KeyframeGate
from streamderain.pipeline.protocols import Outlet, Packet

QUEUE_BYTES = 32 << 20
"""Packets waiting for one target, at most so many bytes and one packet more."""

PATIENCE_S = 30.0
"""A target whose queue is full and that takes nothing for so long is stuck."""

_STEP_S = 0.5
"""How often one who waits looks whether the target moves. A process that slept counts as one step."""

_LAST_STEPS_S = 1.0
"""A thread whose target is ended is gone within this time, unless it hangs."""

State = Literal["writing", "whole", "partial", "failed"]


class _Waiting:
    """A packet that waits for a target.

    Args:
        action: Writes it.
        packet: The packet.
        is_video: Whether it comes from an encoder.
    """

    __slots__ = ("_is_keyframe", "_is_video", "_stream", "action", "since", "size")

    def __init__(self, action: Callable[[], None], packet: Packet, *, is_video: bool) -> None:
        self.action = action
        self.size: int = getattr(packet, "size", 0)
        self.since = monotonic()
        self._is_video = is_video
        self._is_keyframe = is_video and bool(getattr(packet, "is_keyframe", True))
        self._stream: int = getattr(packet, "stream_index", 0)

    def passes(self, gate: KeyframeGate) -> bool:
        """Return whether a gate lets the packet through."""
        if not self._is_video:
            return gate.passes_beside()
        return gate.passes(self._stream, is_keyframe=self._is_keyframe)


class OutletThread:
    """Writes one target.

    Args:
        outlet: The target.
        is_alone: Tells whether no other target is being written any more.
        ended: Called, on the outlet's thread or a waiting one, when the target fails.
    """

    def __init__(self, outlet: Outlet, *, is_alone: Callable[[], bool], ended: Callable[[], None]) -> None:
        self.outlet = outlet
        self.failure: BaseException | None = None
        self._kept: str | None = None
        self._state: State = "writing"
        self._is_alone = is_alone
        self._tell_ended = ended
        self._changed = threading.Condition()
        self._queue: deque[_Waiting] = deque()
        self._queued_bytes = 0
        self._full, self._stale = KeyframeGate(), KeyframeGate()
        self._ending: Callable[[], None] | None = None
        self._is_ending = False
        self._steps = 0
        self._thread = threading.Thread(target=self._run, name=f"outlet-{outlet.name}", daemon=True)

    @property
    def is_writing(self) -> bool:
        """Whether packets are still taken."""
        return self._state == "writing" and self._ending is None

    @property
    def is_alive(self) -> bool:
        """Whether the target still has to be waited for."""
        return self._thread.is_alive() and self._state == "writing"

    @property
    def result(self) -> TargetResult:
        """What became of the target; final once it is no longer alive."""
        error = self.failure
        code = 0 if error is None else getattr(error, "exit_code", PipelineError.exit_code)
        said = "" if error is None else _words(error)
        lost = self.dropped + self.outlet.lost
        return TargetResult(self.outlet.name, self.outlet.path, self._state, self._kept, said, code, lost)

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Packets that found no room, or waited for too long."""
        return self._full.lost + self._stale.lost

    def mux(self, packets: Sequence[Packet]) -> None:
        """Take encoded packets; wait while the queue is full, or drop what finds no room."""
        for packet in packets:
            self._put(_Waiting(lambda packet=packet: self.outlet.mux([packet]), packet, is_video=True))  # type: ignore[misc]

    def copy(self, packet: Packet) -> None:
        """Take a packet of a copied stream; wait while the queue is full, or drop what finds no room."""
        self._put(_Waiting(lambda: self.outlet.copy(packet), packet, is_video=False))

    def finish(self) -> None:
        """Ask for the target to be completed once all packets are written; see `is_alive`."""
        self._end(self._finish, drop=False)

    def leave(self, *, drop: bool = False) -> None:
        """Ask for the target to be ended as it is and kept under its partial name.

        Args:
            drop: Leave out what is waiting: the rest is wanted quickly, or cannot be written.
        """
        self._end(self._leave, drop=drop)

    def abort(self) -> None:
        """Ask for the target to be removed: it is part of a run that never worked."""
        self._end(self._abort, drop=True)

    def join(self, timeout_s: float) -> None:
        """Wait for the target to be ended, but no longer than `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: not self.is_alive, timeout_s)

    def has_let_go(self) -> bool:
        """Wait a moment for the thread to end; return whether it did: it may hang in a call."""
        if self._thread.ident is not None:
            self._thread.join(_LAST_STEPS_S)
        return not self._thread.is_alive()

    def give_up_if_stuck(self, waited_s: float) -> bool:
        """End a target that took nothing all the time; return whether it did.

        Args:
            waited_s: For how long its progress stood still.
        """
        if waited_s < PATIENCE_S or (self.outlet.may_pause and self._is_alone()):
            return False
        error = MediaError(
            f"{self.outlet.name} took no data for {PATIENCE_S:g} s, so it was given up: its disk or its "
            "reader does not answer. Check it, and run again for this target alone"
        )
        self._fail(error, kept=self.outlet.partial)
        return True

    def _put(self, waiting: _Waiting) -> None:
        waited_s, seen = 0.0, self._marks()
        with self._changed:
            if self.outlet.drops:
                if self._queued_bytes >= QUEUE_BYTES:
                    self._full.shut(lost=1)
                    return
                if not waiting.passes(self._full):
                    return
            while self.is_writing and self._queued_bytes >= QUEUE_BYTES and not self.outlet.drops:
                before = monotonic()
                self._changed.wait(_STEP_S)
                waited_s += min(monotonic() - before, _STEP_S)
                if seen != (seen := self._marks()):
                    waited_s = 0.0
                elif self.give_up_if_stuck(waited_s):
                    return
            if self.is_writing:
                self._queue.append(waiting)
                self._queued_bytes += waiting.size
                self._changed.notify_all()

    def _marks(self) -> tuple[int, int]:
        """Return what changes as long as the target moves."""
        return self._steps, self.outlet.written_bytes

    def _end(self, ending: Callable[[], None], *, drop: bool) -> None:
        with self._changed:
            if drop and not self._is_ending:
                # Nothing may be completed any more from which packets were dropped.
                self._queue.clear()
                self._ending = ending
            elif self._ending is None:
                self._ending = ending
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._ending or self._state != "writing")
                if self._state != "writing":
                    return  # given up while it was stuck, and now it moves: too late
                self._is_ending = not self._queue
                waiting = self._queue.popleft() if self._queue else None
                ending = self._ending
            try:
                if waiting is None:
                    assert ending is not None
                    ending()
                elif self._is_fresh(waiting):
                    waiting.action()
            except BaseException as error:
                self._fail(error, kept=self.outlet.leave())
                return
            with self._changed:
                self._queued_bytes -= 0 if waiting is None else waiting.size
                self._steps += 1
                self._changed.notify_all()
            if waiting is None:
                return

    def _is_fresh(self, waiting: _Waiting) -> bool:
        """Return whether a packet may still be written: what waited too long is worth nothing live."""
        limit_s = self.outlet.stale_after_s
        if limit_s is not None and monotonic() - waiting.since > limit_s:
            self._stale.shut(lost=1)
            return False
        return waiting.passes(self._stale)

    def _finish(self) -> None:
        self.outlet.finish()
        self._settle("whole")

    def _abort(self) -> None:
        self.outlet.abort()
        self._settle("failed")

    def _leave(self) -> None:
        self._kept = self.outlet.leave()
        self._settle("partial")

    def _settle(self, state: State) -> None:
        with self._changed:
            if self._state == "writing":
                self._state = state
            self._changed.notify_all()

    def _fail(self, error: BaseException, *, kept: str | None) -> None:
        with self._changed:
            if self._state != "writing":
                return
            self._state, self.failure, self._kept = "failed", error, kept
            self._queue.clear()
            self._changed.notify_all()
        self._tell_ended()


def _words(error: BaseException) -> str:
    if isinstance(error, StreamderainError):
        return str(error)
    return f"writing failed: {error!r}. This is a fault of streamderain: please report it"
