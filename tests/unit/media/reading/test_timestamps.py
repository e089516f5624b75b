"""Repair of times: nothing is changed that a muxer would take, and what is changed stays in order."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamderain.media.reading.timestamps import Continuity, Timeline

MS = Fraction(1, 1000)


def timeline(step: Fraction = Fraction(40)) -> Timeline:
    return Timeline(step, MS)


@given(st.sets(st.integers(-(10**9), 10**9), min_size=1))
def test_increasing_times_are_left_as_they_are(times: set[int]) -> None:
    clock = timeline()
    assert [clock.place(pts) for pts in sorted(times)] == sorted(times)
    assert (clock.repaired, clock.invented) == (0, 0)


@given(st.lists(st.none() | st.integers(-100, 100), min_size=1))
def test_any_times_come_out_strictly_increasing(times: list[int | None]) -> None:
    clock = timeline()
    placed = [clock.place(pts) for pts in times]
    assert all(before < after for before, after in pairwise(placed))


@given(st.fractions(Fraction(1, 10), Fraction(1000)), st.integers(1, 300))
def test_missing_times_never_drift_from_the_rate(step: Fraction, count: int) -> None:
    clock = timeline(max(step, Fraction(1)))
    placed = [clock.place(None) for _ in range(count)]
    for number, pts in enumerate(placed):
        assert abs(pts - number * max(step, Fraction(1))) <= 1
    assert clock.invented == count


@pytest.mark.parametrize(
    ("times", "placed"),
    [
        ([0, 40, 40, 80], [0, 40, 41, 80]),
        ([0, 40, 30, 80], [0, 40, 41, 80]),
        ([0, 40, 40, 40, 41, 120], [0, 40, 41, 42, 43, 120]),
        ([0, None, 80], [0, 40, 80]),
        ([5, None, None, 125], [5, 45, 85, 125]),
    ],
)
def test_repairs_are_the_smallest(times: list[int | None], placed: list[int]) -> None:
    clock = timeline()
    assert [clock.place(pts) for pts in times] == placed


def test_a_pause_is_longer_than_a_second_and_than_five_usual_steps() -> None:
    clock, slow = timeline(), timeline(Fraction(2000))
    clock.place(0)
    slow.place(0)
    assert [clock.is_pause(pts) for pts in (40, 1000, 1001)] == [False, False, True]
    assert [slow.is_pause(pts) for pts in (2000, 10_000, 10_001)] == [False, False, True]
    assert not timeline().is_pause(10**9)


@dataclass
class Packet:
    stream_index: int
    pts: int | None
    dts: int | None
    time_base: Fraction = MS


def mended(clock: Continuity, stream: int, dts: int, time_base: Fraction = MS) -> int | None:
    packet = Packet(stream, dts, dts, time_base)
    clock.mend(packet)
    assert packet.pts == packet.dts
    return packet.dts


def test_streams_that_begin_anew_together_move_by_the_same_amount() -> None:
    clock = Continuity()
    assert [mended(clock, 0, dts) for dts in (0, 5000, 10_000)] == [0, 5000, 10_000]
    assert [mended(clock, 1, dts, MS / 2) for dts in (0, 20_000)] == [0, 20_000]
    assert mended(clock, 0, 40) == 10_000
    assert mended(clock, 1, 80, MS / 2) == 2 * (10_000 - 40) + 80
    assert mended(clock, 0, 80) == 10_040
    assert clock.jumps == 1


def test_small_steps_back_and_any_step_forward_are_left() -> None:
    clock = Continuity()
    times = [0, 5000, 4100, 100_000, 99_500]
    assert [mended(clock, 0, dts) for dts in times] == times
    assert clock.jumps == 0


def test_a_packet_without_a_decode_time_is_left() -> None:
    packet = Packet(0, 7, None)
    Continuity().mend(packet)
    assert packet == Packet(0, 7, None)
