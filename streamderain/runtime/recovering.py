"""A session that never ends a live stream: where the engine fails, it is opened again behind the scenes.

Meanwhile frames pass as they are (fail open), those that were under way in the session that failed included;
every frame leaves once, in order. Or, where none may go out unprocessed, nothing does (fail closed).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

from streamderain.errors import EngineError
from streamderain.events import Incident, Incidents
from streamderain.frame import Planes
from streamderain.runtime.base import EndOfSession, Session, Token

HEALTHY_S = 2.0
"""So long must an engine that failed work again before its frames are taken."""

_RETRY_S, _RETRY_AT_MOST_S = 1.0, 10.0

_WAITING_AT_MOST = 8
"""Frames that pass by wait for the one who takes them, as in any session."""


class RecoveringSession(Session):
    """Passes frames by, or holds them back, while an engine's session is being opened, and after it failed.

    Args:
        open_session: Opens the session; called on a thread of its own, again after each failure.
        components: How many planes a session reads and gives.
        passes: Whether frames pass unprocessed where there is no session; else they are lost.
        name: Of the engine, for people.
        incidents: Is told when the engine failed, and when it works again.

    Attributes:
        passed: Frames that left unprocessed.
        lost: Frames that were held back.
        failures: How often the engine failed.
        failure: What it said the last time; empty before.
    """

    def __init__(
        self,
        open_session: Callable[[], Session],
        *,
        components: int,
        passes: bool = True,
        name: str = "the engine",
        incidents: Incidents | None = None,
    ) -> None:
        self._open_session = open_session
        self._components, self._passes = components, passes
        self._changed = threading.Condition()
        self._outstanding: deque[tuple[Token, Planes]] = deque()
        self._passing = 0  # so many of the oldest pass by; the inner session has the others
        self._inner: Session | None = None
        self._fresh = False
        self._healthy_at = 0.0
        self._never_opened: EngineError | None = None
        self._ended = self._aborted = False
        self._name, self._incidents = name, incidents or Incidents()
        self._is_lost = False
        self._closing = threading.Event()
        self._spent_s = 0.0
        self.passed = self.lost = self.failures = 0
        self.failure = ""
        self._opener = self._opening(None, pause_s=0.0)

    def push(self, planes: Planes, token: Token, *, cut: bool = False, emit: bool = True) -> None:
        """See `Session.push`."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._is_over or not emit or self._passing < _WAITING_AT_MOST or self._inner is not None
                )
            )
            if self._never_opened is not None:
                raise self._never_opened
            if self._is_over:
                raise EndOfSession
            inner, fresh = self._inner, self._fresh
            self._fresh = False
            if emit and inner is None and not self._passes:
                self.lost += 1
            elif emit:
                self._outstanding.append((token, planes[: self._components]))
                self._passing += inner is None
                self._changed.notify_all()
        if inner is None:
            return
        try:
            inner.push(planes, token, cut=cut or fresh, emit=emit)
        except EndOfSession:
            if self._is_over:
                raise
        except EngineError as error:
            self._fail(inner, error)

    def pop(self, timeout_s: float | None = None) -> tuple[Token, Planes] | None:
        """See `Session.pop`; what is passed by are the planes that were pushed."""
        deadline = None if timeout_s is None else monotonic() + timeout_s
        while True:
            left_s = None if deadline is None else max(0.0, deadline - monotonic())
            with self._changed:
                there = self._changed.wait_for(lambda: self._outstanding or self._is_over, left_s)
                if self._never_opened is not None:
                    raise self._never_opened
                if self._aborted or (there and not self._outstanding):
                    raise EndOfSession
                if not there:
                    return None
                if self._passing:
                    self._passing -= 1
                    return self._pass()
                inner = self._inner
            assert inner is not None, "what does not pass is with the engine"
            try:
                result = inner.pop(left_s)
            except EndOfSession:
                if self._inner is inner:
                    raise
                continue  # it failed at this moment, on the other thread
            except EngineError as error:
                self._fail(inner, error)
                continue
            if result is None:
                return None
            with self._changed:
                if self._inner is not inner:
                    continue  # likewise: what was under way passes now
                if self._passes and monotonic() < self._healthy_at:
                    return self._pass()
                self._outstanding.popleft()
                self._changed.notify_all()
            if self._is_lost:
                self._is_lost = False
                self._incidents.tell(Incident("engine back", self._name, f"{self._name} works again"))
            return result

    def flush(self) -> None:
        """See `Session.flush`."""
        with self._changed:
            self._ended = True
            inner = self._inner
            self._changed.notify_all()
        if inner is not None:
            inner.flush()

    def abort(self) -> list[Token]:
        """See `Session.abort`."""
        with self._changed:
            self._aborted = True
            left = [token for token, _ in self._outstanding]
            self._outstanding.clear()
            self._passing = 0
            inner = self._inner
            self._changed.notify_all()
        if inner is not None:
            inner.abort()
        return left

    def close(self) -> None:
        """See `Session.close`."""
        self._closing.set()
        self.abort()
        self._opener.join()
        if self._inner is not None:
            self._inner.close()

    @property
    def components(self) -> int:
        """See `Session.components`."""
        return self._components

    @property
    def busy_s(self) -> float:
        """See `Session.busy_s`."""
        inner = self._inner
        return self._spent_s + (0.0 if inner is None else inner.busy_s)

    @property
    def _has_room(self) -> bool:
        return self._inner is not None or self._passing < _WAITING_AT_MOST

    @property
    def _is_over(self) -> bool:
        return self._ended or self._aborted or self._never_opened is not None

    def _pass(self) -> tuple[Token, Planes]:
        self.passed += 1
        self._changed.notify_all()
        return self._outstanding.popleft()

    def _fail(self, inner: Session, error: EngineError) -> None:
        """Have all that is under way pass, or not, and seek a new session."""
        with self._changed:
            if self._inner is not inner or (self._is_over and self._aborted):
                return
            self._inner = None
            if not self._passes:
                self.lost += len(self._outstanding)
                self._outstanding.clear()
            self._passing = len(self._outstanding)
            self.failures += 1
            self.failure = str(error)
            self._spent_s += inner.busy_s
            self._is_lost = True
            self._opener = self._opening(inner, pause_s=_RETRY_S)
            self._changed.notify_all()
        fate = "frames pass unprocessed" if self._passes else "the output pauses"
        told = f"{self._name} failed, and {fate} until it works again: {error}"
        self._incidents.tell(Incident("engine lost", self._name, told))
        inner.abort()

    def _opening(self, failed: Session | None, *, pause_s: float) -> threading.Thread:
        thread = threading.Thread(
            target=self._open, args=(failed, pause_s), name="engine-opener", daemon=True
        )
        thread.start()
        return thread

    def _open(self, failed: Session | None, pause_s: float) -> None:
        if failed is not None:
            failed.close()
        while not self._closing.wait(pause_s):
            try:
                opened = self._open_session()
            except EngineError as error:
                if failed is None:
                    with self._changed:
                        self._never_opened = error
                        self._changed.notify_all()
                    return
                self.failure = str(error)
                pause_s = min(2 * pause_s, _RETRY_AT_MOST_S)
                continue
            with self._changed:
                wanted = not self._is_over
                if wanted:
                    self._inner, self._fresh = opened, True
                    self._healthy_at = 0.0 if failed is None else monotonic() + HEALTHY_S
                    self._changed.notify_all()
            if not wanted:
                opened.close()
            return
