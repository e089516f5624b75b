"""The tree of errors that is written down is the one that there is."""

from __future__ import annotations

import pytest

from streamderain import errors
from streamderain.errors import StreamderainError
from streamderain.jobs.piece_work import PieceFailed
from streamderain.media.writing.piece_file import BrokenPiece
from streamderain.system.process import Crashed


def drawn_tree() -> dict[str, str]:
    """Each error's parent, as the module's docstring draws them."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        head, mark, rest = line.partition("── ")
        if mark:
            depth = (len(head) - 4) // 4 + 1
            path[depth:] = [rest.split()[0]]
            parents[path[-1]] = path[depth - 1]
        elif line.strip() == "StreamderainError":
            path = ["StreamderainError"]
    return parents


def subclasses(kind: type[StreamderainError]) -> dict[str, str]:
    found = {}
    for child in kind.__subclasses__():
        if child.__module__.startswith(("streamderain", "trainer")):
            found[child.__name__] = kind.__name__
        found |= subclasses(child)
    return found


def test_the_drawn_tree_is_complete() -> None:
    loop = pytest.importorskip("trainer.run.loop", reason="needs torch")
    adapt = pytest.importorskip("trainer.run.adapt", reason="needs torch")
    there = subclasses(StreamderainError)
    assert {Crashed.__name__, PieceFailed.__name__, BrokenPiece.__name__} <= set(there)
    assert {loop.TrainingDiverged.__name__, adapt.Harmed.__name__} <= set(there)
    assert drawn_tree() == there


def test_the_exit_codes_are_those_that_are_drawn() -> None:
    for line in (errors.__doc__ or "").splitlines():
        words = line.partition("── ")[2].split()
        codes = [word for word in words[1:3] if word.isdigit()]
        if codes and hasattr(errors, words[0]):
            assert getattr(errors, words[0]).exit_code == int(codes[0]), words[0]
