"""A live stream goes on whatever the engine does."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from streamderain.errors import DeviceMemoryError, EngineError, InferenceError
from streamderain.frame import Planes
from streamderain.runtime import recovering
from streamderain.runtime.base import EndOfSession, Session
from streamderain.runtime.recovering import RecoveringSession

FRAME = np.arange(12, dtype=np.uint8).reshape(3, 4)
DONE = np.zeros((3, 4), np.uint8)


class Fake(Session):
    """Gives black planes; fails where it is told to."""

    def __init__(self, *, fail_push: int | None = None, fail_pop: int | None = None, ahead: int = 1) -> None:
        self._fail_push, self._fail_pop, self._ahead = fail_push, fail_pop, ahead
        self._changed = threading.Condition()
        self._held: deque[Any] = deque()
        self.pushed: list[tuple[Any, bool]] = []
        self.popped = 0
        self.over = self.ended = self.closed = False

    def push(self, planes: Planes, token: Any, *, cut: bool = False, emit: bool = True) -> None:
        with self._changed:
            if self.over:
                raise EndOfSession
            if len(self.pushed) == self._fail_push:
                raise InferenceError("the card is gone")
            self.pushed.append((token, cut))
            if emit:
                self._held.append(token)
            self._changed.notify_all()

    def pop(self, timeout_s: float | None = None) -> tuple[Any, Planes] | None:
        with self._changed:
            ready = self._changed.wait_for(
                lambda: self.over or self.ended or len(self._held) > self._ahead, timeout_s
            )
            if self.over or (self.ended and not self._held):
                raise EndOfSession
            if not ready:
                return None
            if self.popped == self._fail_pop:
                raise InferenceError("the card is gone")
            self.popped += 1
            return self._held.popleft(), (DONE,)

    def flush(self) -> None:
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def abort(self) -> list[Any]:
        with self._changed:
            self.over = True
            self._changed.notify_all()
            return list(self._held)

    def close(self) -> None:
        self.closed = True

    @property
    def components(self) -> int:
        return 1

    @property
    def busy_s(self) -> float:
        return 1.0


class Engine:
    """Opens sessions one after the other; an error in the list is raised instead."""

    def __init__(self, *sessions: Fake | EngineError, gate: threading.Event | None = None) -> None:
        self._sessions = deque(sessions)
        self._gate = gate

    def __call__(self) -> Session:
        if self._gate is not None:
            assert self._gate.wait(10)
        one = self._sessions.popleft()
        if isinstance(one, EngineError):
            raise one
        return one


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovering, "_RETRY_S", 0.05)
    monkeypatch.setattr(recovering, "HEALTHY_S", 0.0)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def warm(session: RecoveringSession) -> None:
    until(lambda: session._inner is not None)


def pushed_and_popped(
    session: RecoveringSession, count: int, *, pause_s: float = 0.0
) -> list[tuple[int, bool]]:
    """Return what came out: each token, and whether it was processed."""

    def feed() -> None:
        for number in range(count):
            session.push((FRAME,), number)
            time.sleep(pause_s)
        session.flush()

    feeder = threading.Thread(target=feed)
    feeder.start()
    out = []
    while True:
        try:
            popped = session.pop()
        except EndOfSession:
            break
        assert popped is not None
        token, (plane,) = popped
        assert (plane == DONE).all() or (plane == FRAME).all()
        out.append((token, bool((plane == DONE).all())))
    feeder.join()
    return out


def test_what_works_is_left_alone() -> None:
    inner = Fake()
    with RecoveringSession(Engine(inner), components=1) as session:
        warm(session)
        assert pushed_and_popped(session, 20) == [(number, True) for number in range(20)]
        assert (session.passed, session.failures, session.busy_s) == (0, 0, 1.0)
    assert inner.closed


def test_frames_pass_until_the_engine_is_warm() -> None:
    gate = threading.Event()
    with RecoveringSession(Engine(Fake(), gate=gate), components=1) as session:
        for number in range(5):
            session.push((FRAME,), number)
            assert session.pop() == (number, (FRAME,)) or session.passed
        assert session.passed == 5
        gate.set()
        warm(session)
        assert all(processed for _, processed in pushed_and_popped(session, 10))


@pytest.mark.parametrize("where", ["push", "pop"])
@pytest.mark.parametrize("at", [0, 1, 7])
def test_a_failure_loses_nothing_and_is_survived(where: str, at: int) -> None:
    broken, second = Fake(**{f"fail_{where}": at}), Fake()  # type: ignore[arg-type]
    with RecoveringSession(Engine(broken, second), components=1) as session:
        warm(session)
        out = pushed_and_popped(session, 60, pause_s=0.005)
        assert session.failures == 1
        assert session.failure == "the card is gone"
    assert [token for token, _ in out] == list(range(60))
    assert not all(processed for _, processed in out)
    assert out[-1][1], "the second session has taken over"
    assert second.pushed[0][1], "its window begins anew"
    assert broken.closed
    assert session.passed == sum(not processed for _, processed in out)


def test_a_failure_at_the_very_end_loses_nothing() -> None:
    with RecoveringSession(Engine(Fake(fail_pop=19), Fake()), components=1) as session:
        warm(session)
        out = pushed_and_popped(session, 20)
    assert out == [*((number, True) for number in range(19)), (19, False)]


def test_an_engine_is_trusted_again_only_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovering, "HEALTHY_S", 0.4)
    second = Fake()
    with RecoveringSession(Engine(Fake(fail_pop=3), second), components=1) as session:
        warm(session)
        out = pushed_and_popped(session, 150, pause_s=0.005)
    assert [token for token, _ in out] == list(range(150))
    assert second.popped > sum(processed for _, processed in out) - 3
    assert out[-1][1]


def test_it_is_opened_again_until_that_works() -> None:
    refusals = [DeviceMemoryError("full") for _ in range(3)]
    with RecoveringSession(Engine(Fake(fail_pop=0), *refusals, Fake()), components=1) as session:
        warm(session)
        out = pushed_and_popped(session, 200, pause_s=0.005)
    assert [token for token, _ in out] == list(range(200))
    assert out[-1][1]


def test_nothing_unprocessed_leaves_where_that_is_forbidden() -> None:
    gate = threading.Event()
    with RecoveringSession(
        Engine(Fake(fail_pop=5), Fake(), gate=gate), components=1, passes=False
    ) as session:
        session.push((FRAME,), -1)  # nothing is warm yet
        assert session.pop(0.05) is None
        gate.set()
        warm(session)
        out = pushed_and_popped(session, 100, pause_s=0.005)
    assert all(processed for _, processed in out)
    tokens = [token for token, _ in out]
    assert tokens == sorted(set(tokens))
    assert tokens[-1] == 99
    assert session.failures == 1
    assert session.passed == 0
    assert session.lost == 1 + 100 - len(out)


def test_what_never_opened_ends_it() -> None:
    with RecoveringSession(Engine(DeviceMemoryError("too small a card")), components=1) as session:
        until(lambda: session._never_opened)
        with pytest.raises(DeviceMemoryError, match="too small"):
            session.push((FRAME,), 0)
        with pytest.raises(DeviceMemoryError, match="too small"):
            session.pop()


def test_an_abort_wakes_everybody_and_gives_the_tokens_back() -> None:
    session = RecoveringSession(Engine(Fake(ahead=9)), components=1)
    warm(session)
    for number in range(3):
        session.push((FRAME,), number)
    threading.Timer(0.1, session.abort).start()
    with pytest.raises(EndOfSession):
        session.pop()
    with pytest.raises(EndOfSession):
        session.push((FRAME,), 4)
    session.close()
    session.close()


def test_the_tokens_of_an_abort() -> None:
    with RecoveringSession(Engine(Fake(ahead=9)), components=1) as session:
        warm(session)
        for number in range(3):
            session.push((FRAME,), number, emit=number != 1)
        assert session.abort() == [0, 2]


def test_a_time_limit_holds() -> None:
    gate = threading.Event()
    with RecoveringSession(Engine(Fake(), gate=gate), components=1) as session:
        assert session.pop(0.05) is None
        gate.set()
        warm(session)
        session.push((FRAME,), 0)
        assert session.pop(0.05) is None


def test_a_taker_that_is_slow_holds_the_passing_frames_back() -> None:
    gate = threading.Event()
    with RecoveringSession(Engine(Fake(), gate=gate), components=1) as session:
        blocked = threading.Thread(target=lambda: [session.push((FRAME,), n) for n in range(12)])
        blocked.start()
        until(lambda: len(session._outstanding) == recovering._WAITING_AT_MOST)
        time.sleep(0.05)
        assert len(session._outstanding) == recovering._WAITING_AT_MOST
        out = [session.pop() for _ in range(12)]
        assert [popped and popped[0] for popped in out] == list(range(12))
        blocked.join()
        gate.set()
