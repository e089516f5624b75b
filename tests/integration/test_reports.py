"""Reports never cost the user a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support import media
from tests.support.command import streamderain

FAST = ("--engine", "identity", "--preset", "ultrafast")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return media.write_video(tmp_path / "a.mp4", frames=6)


def unharmed(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "words",
    [
        ("run", "{a}", "-o", "{folder}/j.mp4", "--json={a}", "--overwrite"),
        ("run", "{a}", "-o", "{folder}/j.mp4", "--json={folder}/j.mp4", "--overwrite"),
        ("run", "{a}", "-o", "{folder}/j.mp4", "--json={folder}/other.mkv", "--overwrite"),
        ("run", "{a}", "-o", "{folder}/j.mp4", "--json={folder}/hidden", "--overwrite"),
        ("run", "{a}", "-o", "{folder}/j.mp4", "--json={folder}/new.mp4", "--overwrite"),
        ("run", "{a}", "-o", "{folder}/j.mp4", "--json={folder}/link", "--overwrite"),
        ("run", "{a}", "-o", "{folder}/j.mp4", "--json={folder}/hard", "--overwrite"),
        ("run", "{a}", "-o", "{folder}/j.mp4", "--json={folder}", "--overwrite"),
        ("estimate", "{a}", "--json={a}", "--overwrite"),
        ("estimate", "{a}", "--json={folder}/hidden", "--overwrite"),
        ("bench", "{a}", "--html={a}", "--overwrite"),
        ("bench", "{a}", "--markdown={a}", "--overwrite"),
        ("bench", "{a}", "--json={a}", "--overwrite"),
        ("bench", "{a}", "--reference", "{folder}/hidden", "--json={folder}/hidden", "--overwrite"),
        ("bench", "{a}", "--json={folder}/r.txt", "--markdown={folder}/r.txt", "--overwrite"),
        ("bench", "{a}", "--json", "--markdown"),
        ("compare", "{a}", "{b}", "-o", "{folder}/page.html", "--json={a}", "--overwrite"),
        ("compare", "{a}", "{b}", "-o", "{folder}/page.html", "--json={b}", "--overwrite"),
        ("compare", "{a}", "{b}", "-o", "{folder}/page.html", "--json={folder}/page.html", "--overwrite"),
        ("compare", "{a}", "{b}", "-o", "{b}", "--overwrite"),
        ("compare", "{a}", "{b}", "-o", "{folder}/hard.html", "--overwrite"),
        ("compare", "{a}", "{b}", "-o", "{folder}/c.mp4", "--json={folder}/c.mp4", "--overwrite"),
        ("doctor", "--json={a}", "--overwrite"),
    ],
    ids=" ".join,
)
def test_no_report_lands_on_media(clip: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    other = media.write_video(tmp_path / "other.mkv", frames=6, seed=1)
    (tmp_path / "hidden").write_bytes(other.read_bytes())
    (tmp_path / "link").symlink_to(clip)
    os.link(clip, tmp_path / "hard")
    os.link(clip, tmp_path / "hard.html")
    before = unharmed(tmp_path)
    outcome = streamderain(*(word.format(a=clip, b=other, folder=tmp_path) for word in words))
    assert outcome.code == 2, outcome.err
    assert unharmed(tmp_path) == before


def test_the_word_behind_json_is_a_source(clip: Path, tmp_path: Path) -> None:
    other = media.write_video(tmp_path / "b.mp4", frames=4)
    before = other.read_bytes()
    outcome = streamderain("run", "--overwrite", "--json", clip, other, "-o", tmp_path / "out", *FAST)
    assert outcome.code == 0, outcome.err
    assert [file["source"] for file in outcome.summary["files"]] == ["a.mp4", "b.mp4"]
    assert other.read_bytes() == before


def test_an_earlier_report_is_replaced_only_when_asked(clip: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    words = ("run", clip, "-o", tmp_path / "o.mp4", f"--json={report}", *FAST)
    assert streamderain(*words).code == 0
    first = report.read_text()
    assert streamderain(*words, "--skip-existing").code == 2
    assert report.read_text() == first
    assert streamderain(*words, "--overwrite").code == 0
    assert json.loads(report.read_text())["frames_out"] == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "o.mp4", "report.json"]


def test_a_report_may_go_into_a_device(clip: Path, tmp_path: Path) -> None:
    assert streamderain("run", clip, "-o", tmp_path / "o.mp4", "--json=/dev/null", *FAST).code == 0
    outcome = streamderain("run", clip, "-o", tmp_path / "p.mp4", "--json=/dev/stdout", *FAST)
    assert outcome.summary["frames_out"] == 6


def test_a_failed_run_has_a_report_too(clip: Path, tmp_path: Path) -> None:
    outcome = streamderain("run", tmp_path / "no.mp4", "-o", tmp_path / "o.mp4", "--json")
    assert outcome.code == outcome.summary["exit_code"] == 3
    assert outcome.summary["error"] == "OpenError"
    assert str(tmp_path / "no.mp4") in outcome.summary["message"]
    broken = media.garbage(tmp_path / "broken.mp4")
    outcome = streamderain("run", broken, "-o", tmp_path / "o.mp4", "--json")
    (failed,) = outcome.summary["files"]
    assert (failed["result"], failed["path"], failed["exit_code"]) == ("failed", str(broken), 3)
    outcome = streamderain("run", clip, "-o", tmp_path / "o.xyz", "--json")
    assert outcome.code == outcome.summary["exit_code"] == 2


def test_paths_in_a_report_are_full(clip: Path, tmp_path: Path) -> None:
    outcome = streamderain("run", "a.mp4", "-o", "o.mkv", "--json", *FAST, cwd=tmp_path)
    (file,) = outcome.summary["files"]
    assert file["path"] == str(clip)
    assert [result["path"] for result in file["results"]] == [str(tmp_path / "o.mkv")]
    assert [result["state"] for result in file["results"]] == ["whole"]


def test_the_demo_replaces_nothing_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "clean.mp4").write_bytes(b"mine")
    outcome = streamderain("demo", "-o", tmp_path)
    assert outcome.code == 2
    assert (tmp_path / "clean.mp4").read_bytes() == b"mine"


def test_a_comparison_leaves_the_partial_files_of_others(clip: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "c.partial.mp4"
    foreign.write_bytes(b"somebody else's")
    assert streamderain("compare", clip, clip, "-o", tmp_path / "c.mp4", "-q").code == 0
    assert foreign.read_bytes() == b"somebody else's"


def test_a_video_where_a_command_belongs_gets_a_hint(clip: Path) -> None:
    outcome = streamderain(clip)
    assert outcome.code == 2
    assert f"streamderain run {clip} -o TARGET" in outcome.err


def test_a_file_name_that_is_no_text_ends_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/a\xff\xe4.mp4"))
    media.write_video(odd, frames=5)
    plain = media.write_video(folder / "b.mp4", frames=5)
    outcome = streamderain("run", folder, "-o", tmp_path / "out", f"--json={tmp_path}/r.json", *FAST)
    assert outcome.code == 0, outcome.err
    made = sorted(os.fsencode(path.name) for path in (tmp_path / "out").iterdir())
    assert made == [b"a\xff\xe4.mp4", b"b.mp4"]
    assert len(json.loads((tmp_path / "r.json").read_text())["files"]) == 2
    bench = ("bench", odd, "--engine", "identity", "--repeats", "1", "-q", f"--markdown={tmp_path}/r.md")
    assert streamderain(*bench).code == 0
    for name in ("c.html", "c.mp4"):
        compared = streamderain("compare", odd, plain, "-o", tmp_path / name, "-q")
        assert compared.code == 0, compared.err
    assert streamderain("estimate", odd, "--engine", "identity").code == 0
    again = streamderain("run", odd, "-o", tmp_path / "out", *FAST)
    assert (again.code, "exists" in again.err) == (2, True)


def test_options_of_the_wrong_type_are_refused() -> None:
    import streamderain as package
    from streamderain.errors import ConfigError

    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (package.ReadOptions, {"start_s": "1"}, "start_s must be float"),
        (package.ReadOptions, {"stills": 1}, "stills must be bool"),
        (package.ReadOptions, {"duration_s": True}, "duration_s must be float or None"),
        (package.EncodeOptions, {"crf": "18"}, "crf must be float or None"),
        (package.EncodeOptions, {"codec": 3}, "codec must be str or None"),
        (package.EncodeOptions, {"extra": ["a=b"]}, "extra must be Mapping"),
        (package.EngineOptions, {"threads": 1.5}, "threads must be int"),
        (package.EngineOptions, {"strength": None}, "strength must be float"),
        (package.RunOptions, {"read": {}}, "read must be ReadOptions"),
        (package.RunOptions, {"encode": None}, "encode must be EncodeOptions"),
    ]
    for kind, fields, words in wrong:
        with pytest.raises(ConfigError, match=words):
            kind(**fields)
    assert package.EncodeOptions(crf=18).crf == 18
    for call in (
        lambda: package.run(3, "a.mp4"),  # type: ignore[arg-type]
        lambda: package.run("a.mp4", ["b.mp4"]),  # type: ignore[arg-type]
        lambda: package.run("a.mp4", "b.mp4", options={}),  # type: ignore[arg-type]
        lambda: package.run("a.mp4", "b.mp4", options=package.ReadOptions()),  # type: ignore[arg-type]
        lambda: package.Derainer("dcd-lite"),  # type: ignore[arg-type]
        lambda: next(package.frames("a.mp4", package.ReadOptions())),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError):
            call()


def test_options_that_do_nothing_are_named(clip: Path, tmp_path: Path) -> None:
    picture = media.write_image(tmp_path / "p.png")
    for source, words, said in (
        (clip, ("--stills",), "--stills does nothing"),
        (clip, ("--image-rate", "10"), "--image-rate does nothing"),
        (clip, ("--deinterlace",), "--deinterlace changed nothing"),
        (picture, ("-t", "1"), "-t does nothing"),
        (picture, ("--deinterlace",), "--deinterlace does nothing"),
    ):
        always = ("-o", f"{tmp_path}/out/", "--overwrite", "--engine", "identity")
        outcome = streamderain("run", source, *always, *words)
        assert outcome.code == 0, outcome.err
        assert said in outcome.err
    assert "does nothing" not in streamderain("run", clip, "-o", tmp_path / "o.mp4", *FAST).err


def test_a_folder_that_was_made_for_nothing_is_gone(tmp_path: Path) -> None:
    broken = media.garbage(tmp_path / "broken.mp4")
    assert streamderain("run", broken, "-o", tmp_path / "new" / "out", *FAST).code == 3
    assert streamderain("run", broken, "-o", tmp_path / "out", "--model", "no-such").code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["broken.mp4"]


def test_in_a_folder_a_name_that_cannot_be_written_becomes_matroska(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    media.write(folder / "a.mp4", media.Video(frames=3)).rename(folder / "a.insv")
    media.write_video(folder / "b.mp4", frames=3)
    outcome = streamderain("run", folder, "-o", tmp_path / "out", *FAST)
    assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mkv", "b.mp4"]


def test_a_folder_run_is_told_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.mp4", "c.mp4"):
        media.write_video(folder / name, frames=3)
    media.garbage(folder / "b.mp4")
    outcome = streamderain("run", folder, "-o", tmp_path / "out", *FAST)
    assert outcome.code == 3
    lines = outcome.err.splitlines()
    assert lines[-1] == "2 done; 1 failed: b.mp4"
    assert sum("dcd-lite on identity" in line for line in lines) == 1
    assert [line.split()[0] for line in lines if line.startswith("[")] == ["[1/3]", "[2/3]", "[3/3]"]
