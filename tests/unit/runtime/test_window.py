from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamderain.runtime.window import Window, WindowFrames


def run(
    count: int,
    *,
    before: int = 1,
    after: int = 1,
    causal: bool = False,
    cuts: tuple[int, ...] = (),
    hidden: tuple[int, ...] = (),
    repeated: tuple[int, ...] = (),
) -> list[WindowFrames[int]]:
    window: Window[int] = Window(before, after, causal=causal)
    windows: list[WindowFrames[int]] = []
    for number in range(count):
        windows += window.push(
            number, cut=number in cuts, emit=number not in hidden, repeated=number in repeated
        )
    return windows + window.flush()


def test_neighbours_and_ends() -> None:
    assert run(3) == [
        WindowFrames((0, 0, 1), (0.0, 1.0)),
        WindowFrames((0, 1, 2), (1.0, 1.0)),
        WindowFrames((1, 2, 2), (1.0, 0.0)),
    ]


def test_a_still_has_no_neighbours() -> None:
    assert run(1) == [WindowFrames((0, 0, 0), (0.0, 0.0))]


def test_wider_windows_are_oldest_first() -> None:
    assert run(5, before=2, after=2)[2] == WindowFrames((0, 1, 2, 3, 4), (1.0, 1.0, 1.0, 1.0))


def test_a_cut_hides_both_sides() -> None:
    windows = run(4, cuts=(2,))
    assert windows[1] == WindowFrames((0, 1, 1), (1.0, 0.0))
    assert windows[2] == WindowFrames((2, 2, 3), (0.0, 1.0))


def test_lead_in_is_seen_and_not_computed() -> None:
    assert run(3, hidden=(0,))[0] == WindowFrames((0, 1, 2), (1.0, 1.0))


def test_repetitions_are_missing_on_both_sides() -> None:
    windows = run(4, repeated=(2,))
    assert windows[1] == WindowFrames((0, 1, 1), (1.0, 0.0))
    assert windows[2] == WindowFrames((2, 2, 3), (0.0, 1.0))


def test_a_repetition_does_not_hide_the_frames_beyond_it_in_a_wide_window() -> None:
    assert run(5, before=2, after=2, repeated=(2,))[2] == WindowFrames((0, 2, 2, 3, 4), (1.0, 0.0, 1.0, 1.0))


def test_causal_windows_never_wait() -> None:
    window: Window[str] = Window(1, 1, causal=True)
    assert window.push("a", cut=False, emit=True, repeated=False) == [
        WindowFrames(("a", "a", "a"), (0.0, 0.0))
    ]
    assert window.push("b", cut=False, emit=True, repeated=False) == [
        WindowFrames(("a", "b", "b"), (1.0, 0.0))
    ]


@given(
    count=st.integers(0, 12),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
    cuts=st.sets(st.integers(0, 11)),
    hidden=st.sets(st.integers(0, 11)),
)
def test_every_emitted_frame_is_computed_once_in_order(
    count: int, before: int, after: int, cuts: set[int], hidden: set[int]
) -> None:
    windows = run(count, before=before, after=after, cuts=tuple(cuts), hidden=tuple(hidden))
    assert [found.frames[before] for found in windows] == [n for n in range(count) if n not in hidden]
    for found in windows:
        current = found.frames[before]
        neighbours = found.frames[:before] + found.frames[before + 1 :]
        for neighbour, valid in zip(neighbours, found.validity, strict=True):
            assert neighbour == current or valid == 1.0
            between = range(min(neighbour, current) + 1, max(neighbour, current) + 1)
            assert not cuts.intersection(between), "no window spans a cut"
