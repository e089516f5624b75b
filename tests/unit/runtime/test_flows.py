"""The flow between two frames is estimated once, though both need it, and a failure reaches both."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from streamderain import motion
from streamderain.runtime.luma_session import FlowsBetween, LumaFrame, Once

CELL = 4


def frame(number: int) -> LumaFrame:
    plane = np.random.default_rng(number).integers(0, 255, (96, 128), dtype=np.uint8)
    return LumaFrame(
        (plane,), number=number, luma=plane, coarse=Once(lambda: motion.coarse(plane, cell=CELL))
    )


def test_both_directions_come_from_one_search(monkeypatch: pytest.MonkeyPatch) -> None:
    searched, search = [], motion.flow
    both_ask = threading.Barrier(2)

    def counted(*planes: Any, cell: int) -> motion.Flow:
        searched.append(planes)
        return search(*planes, cell=cell)

    monkeypatch.setattr(motion, "flow", counted)
    flows, older, newer = FlowsBetween(CELL, kept=4), frame(0), frame(1)

    def ask(one: LumaFrame, other: LumaFrame) -> motion.Flow:
        both_ask.wait(10)
        return flows(one, other)

    with ThreadPoolExecutor(2) as pool:
        onward, back = (pool.submit(ask, *pair) for pair in ((older, newer), (newer, older)))
        np.testing.assert_array_equal(back.result(10), motion.inverse(onward.result(10), cell=CELL))
    assert len(searched) == 1
    np.testing.assert_array_equal(onward.result(), search(*searched[0], cell=CELL))


def test_only_the_last_pairs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = []

    def counted(*planes: Any, cell: int) -> motion.Flow:
        searched.append(planes)
        return np.zeros((24, 32, 2), np.float32)

    monkeypatch.setattr(motion, "flow", counted)
    flows, frames = FlowsBetween(CELL, kept=2), [frame(number) for number in range(4)]
    for one, other in itertools.pairwise(frames):
        flows(one, other)
    flows(frames[2], frames[3])
    assert len(searched) == 3
    flows(frames[0], frames[1])
    assert len(searched) == 4


def test_a_failed_search_fails_for_all_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any, cell: int) -> motion.Flow:
        raise MemoryError(f"no room for cells of {cell}")

    monkeypatch.setattr(motion, "flow", failing)
    flows, older, newer = FlowsBetween(CELL, kept=4), frame(0), frame(1)
    for pair in ((older, newer), (newer, older)):
        with pytest.raises(MemoryError, match="cells of 4"):
            flows(*pair)
