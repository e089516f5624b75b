"""Photographs, and folders as targets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import media
from tests.support.command import streamderain
from tests.support.reader import ffprobe, frame_count

FAST = ("--engine", "identity")


def photograph(path: Path, *, index: int = 0, preview: bool = False) -> Path:
    """A JPEG, on request with a small preview in a tag before the picture, as cameras write it."""
    data = media.image_bytes("mjpeg", 320, 240, "yuvj420p", index=index)
    if preview:
        small = media.image_bytes("mjpeg", 32, 24, "yuvj420p", index=7)
        tag = b"Exif\0\0" + b"II*\0\x08\0\0\0\0\0\0\0\0\0" + small
        data = data[:2] + b"\xff\xe1" + (len(tag) + 2).to_bytes(2, "big") + tag + data[2:]
    path.write_bytes(data)
    return path


def size(path: Path) -> tuple[int, int]:
    (stream,) = ffprobe(path, "-show_entries", "stream=width,height")["streams"]
    return stream["width"], stream["height"]


@pytest.mark.parametrize("keep", [0.02, 0.1, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize("alone", [False, True])
def test_a_truncated_photograph_is_never_taken_for_whole(
    tmp_path: Path, keep: float, preview: bool, alone: bool
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    cut = media.truncate(photograph(folder / "a.jpg", preview=preview), keep=keep)
    if not alone:
        photograph(folder / "b.jpg")
    outcome = streamderain("run", cut if alone else folder, "-o", f"{out}/", "--stills", *FAST)
    assert outcome.code in (3, 7), outcome.err
    made = out / "a.jpg"
    assert made.exists() == (outcome.code == 7)
    if made.exists():
        assert size(made) == (320, 240)
        assert "a part of it is missing" in outcome.err
    assert alone or size(out / "b.jpg") == (320, 240)


def test_the_preview_is_not_the_picture(tmp_path: Path) -> None:
    whole = photograph(tmp_path / "a.jpg", preview=True)
    data = whole.read_bytes()
    scan = data.rindex(b"\xff\xda")
    whole.write_bytes(data[: scan - 30])
    outcome = streamderain("run", whole, "-o", tmp_path / "out.jpg", *FAST)
    assert outcome.code == 3
    assert not (tmp_path / "out.jpg").exists()


def test_a_whole_photograph_is_whole(tmp_path: Path) -> None:
    for preview in (False, True):
        path = photograph(tmp_path / f"{preview}.jpg", preview=preview)
        assert streamderain("run", path, "-o", tmp_path / f"{preview}.png", *FAST).code == 0
        path.write_bytes(path.read_bytes() + b"\0" * 100)  # some cameras append things
        assert streamderain("run", path, "-o", tmp_path / f"{preview}2.png", *FAST).code == 0


def test_a_truncated_picture_of_a_numbered_run_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(5):
        photograph(folder / f"f{number}.jpg", index=number)
    media.truncate(folder / "f3.jpg", keep=0.7)
    outcome = streamderain("run", folder, "-o", tmp_path / "out.mkv", *FAST)
    assert outcome.code == 7, outcome.err
    assert frame_count(tmp_path / "out.mkv") == 5


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("name", ["clip.mp4", "picture.png", "photo.jpg"])
def test_one_file_into_a_folder_keeps_its_name(tmp_path: Path, name: str, there: bool, slash: str) -> None:
    source = tmp_path / name
    if name.endswith(".mp4"):
        media.write_video(source, frames=5)
    elif name.endswith(".png"):
        media.write_image(source)
    else:
        photograph(source)
    out = tmp_path / "out"
    if there:
        out.mkdir()
    outcome = streamderain("run", source, "-o", f"{out}{slash}", *FAST)
    assert outcome.code == 0, outcome.err
    assert [path.name for path in out.iterdir()] == [name]
    assert frame_count(out / name) == (5 if name.endswith(".mp4") else 1)


def test_one_file_into_its_own_folder_is_refused(tmp_path: Path) -> None:
    clip = media.write_video(tmp_path / "a.mp4", frames=3)
    before = clip.read_bytes()
    outcome = streamderain("run", clip, "-o", tmp_path, "--overwrite", *FAST)
    assert outcome.code == 2
    assert clip.read_bytes() == before


def test_many_photographs_are_not_warned_of_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(12):
        photograph(folder / f"IMG_{number:04}.jpg")
    outcome = streamderain("run", folder, "-o", tmp_path / "out", "--stills", "--json", *FAST)
    assert outcome.code == 0, outcome.err
    assert outcome.summary["warnings"] == []
    assert "warning" not in outcome.err
    assert len(list((tmp_path / "out").iterdir())) == 12


def test_photographs_are_not_called_a_video_without_a_word(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        photograph(folder / f"IMG_{number:04}.jpg")
    outcome = streamderain("run", folder, "-o", tmp_path / "out.mp4", *FAST)
    assert outcome.code == 0
    assert "3 numbered pictures (IMG_0000.jpg to IMG_0002.jpg) are taken for one video" in outcome.err
    assert "--stills" in outcome.err


def test_single_pictures_get_the_model_that_does_best_on_them(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    one = photograph(folder / "a.jpg")
    chosen = streamderain("run", one, "-o", tmp_path / "a.png")
    assert chosen.code == 0, chosen.err
    assert "dcd-quality on " in chosen.err
    assert "dcd-quality: it takes more of the rain out of single pictures; dcd-lite is quicker" in chosen.err
    named = streamderain("run", one, "-o", tmp_path / "b.png", "--model", "dcd-lite")
    assert "dcd-lite on " in named.err
    assert "single pictures" not in named.err
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
    photograph(folder / "b.jpg", index=3)
    many = streamderain("run", folder, "-o", f"{tmp_path}/many/", "--stills")
    assert "dcd-quality on " in many.err
    media.write_video(folder / "c.mp4", frames=3)
    mixed = streamderain("run", folder, "-o", f"{tmp_path}/mixed/", "--stills", "--json", "-q")
    assert mixed.summary["model"] == "dcd-lite"
    assert (
        "there is video among the pictures"
        in streamderain("run", folder, "-o", f"{tmp_path}/mixed/", "--stills", "--overwrite").err
    )
