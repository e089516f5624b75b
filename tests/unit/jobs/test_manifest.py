"""What is kept of a file beside its target, until it is whole."""

from __future__ import annotations

import errno
from fractions import Fraction
from pathlib import Path

import pytest

from streamderain.errors import ConfigError, OutputFull
from streamderain.jobs.manifest import Finished, Manifest
from streamderain.media.reading.piece import Piece
from streamderain.media.reading.trim import TimeRange
from streamderain.media.writing.outputs import packet_path

CUT = Fraction(1)
PIECES = [
    Piece(0, TimeRange(None, CUT), Fraction(0), (0,), (25,)),
    Piece(1, TimeRange(CUT, 2 * CUT), Fraction(0), (25,), (25,)),
    Piece(2, TimeRange(2 * CUT, None), Fraction(0), (50,), (25,)),
]
IDENTITY = {"source": {"bytes": 5}, "options": {"strength": 1.0}}


def made(manifest: Manifest, piece: Piece, *, groups: int) -> None:
    for group in range(groups):
        packet_path(manifest.path(piece), group).write_bytes(b"packets of " + bytes([48 + piece.number]))
    manifest.finish(piece, Finished(frames=25, bytes=0))


def begun(target: Path, *, groups: int) -> None:
    with Manifest(target) as manifest:
        assert not manifest.resume(IDENTITY, restart=False)
        manifest.begin(PIECES, groups=groups)
        made(manifest, PIECES[0], groups=groups)


@pytest.mark.parametrize("groups", [1, 2])
def test_what_is_finished_stays_so_over_several_runs(tmp_path: Path, groups: int) -> None:
    target = tmp_path / "clean.mkv"
    begun(target, groups=groups)
    for piece in PIECES[1:]:
        with Manifest(target) as manifest:
            assert manifest.resume(IDENTITY, restart=False)
            assert manifest.pieces == tuple(PIECES)
            assert next(open_piece.number for open_piece in manifest.open_pieces) == piece.number
            made(manifest, piece, groups=groups)
    with Manifest(target) as manifest:
        assert manifest.resume(IDENTITY, restart=False)
        assert list(manifest.finished) == [0, 1, 2]
        manifest.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("group", [0, 1])
def test_a_piece_that_lost_bytes_is_open_again(tmp_path: Path, group: int) -> None:
    begun(tmp_path / "clean.mkv", groups=2)
    with Manifest(tmp_path / "clean.mkv") as manifest:
        packet_path(manifest.path(PIECES[0]), group).write_bytes(b"less")
        assert manifest.resume(IDENTITY, restart=False)
        assert not manifest.finished


def test_a_full_disk_leaves_the_manifest_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "clean.mkv"
    begun(target, groups=1)

    def full(path: Path, text: str, **_: str) -> int:
        with path.open("w") as file:
            file.write(text[: len(text) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with Manifest(target) as manifest:
        manifest.resume(IDENTITY, restart=False)
        monkeypatch.setattr(Path, "write_text", full)
        with pytest.raises(OutputFull, match="free some space"):
            made(manifest, PIECES[1], groups=1)
    monkeypatch.undo()
    with Manifest(target) as manifest:
        assert manifest.resume(IDENTITY, restart=False)
        assert list(manifest.finished) == [0]


def test_another_run_is_refused_with_the_difference(tmp_path: Path) -> None:
    begun(tmp_path / "clean.mkv", groups=1)
    other = {**IDENTITY, "source": {"bytes": 6}}
    with (
        Manifest(tmp_path / "clean.mkv") as manifest,
        pytest.raises(ConfigError, match="source, bytes was 5, is now 6"),
    ):
        manifest.resume(other, restart=False)
