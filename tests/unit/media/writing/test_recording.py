"""Names of recordings, and which of them are kept."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from streamderain.errors import ConfigError, OpenError
from streamderain.media.writing.recording import Keep, RecordingNames, holds_time
from streamderain.media.writing.sink import PartialFile
from streamderain.media.writing.target import check_targets, parse_target
from streamderain.options import EncodeOptions


@pytest.mark.parametrize(
    ("text", "keep"),
    [("7d", Keep(seconds=604_800)), ("90min", Keep(seconds=5400)), ("1.5GB", Keep(size_bytes=1_500_000_000))],
)
def test_what_is_kept_is_a_time_or_a_size(text: str, keep: Keep) -> None:
    assert Keep.parse(text) == keep


@pytest.mark.parametrize("text", ["7", "d", "-1d", "7 days", "50 gigs", ""])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither a time"):
        Keep.parse(text)


def test_a_name_is_given_once_and_never_one_that_is_taken(tmp_path: Path) -> None:
    names = RecordingNames(tmp_path / "clean.mkv", splits=False, overwrite=False)
    first, may_replace = names.next()
    assert (first.name, may_replace) == ("clean.mkv", False)
    assert names.next()[0].name == "clean-2.mkv"
    (tmp_path / "clean.mkv").touch()
    (tmp_path / "clean-2.mkv").touch()
    assert names.next()[0].name == "clean-3.mkv"


def test_only_the_first_file_may_replace_one(tmp_path: Path) -> None:
    (tmp_path / "clean.mkv").touch()
    names = RecordingNames(tmp_path / "clean.mkv", splits=False, overwrite=True)
    assert names.next() == (tmp_path / "clean.mkv", True)
    assert names.next() == (tmp_path / "clean-2.mkv", False)


def test_times_go_into_names_and_folders_that_are_made(tmp_path: Path) -> None:
    names = RecordingNames(tmp_path / "%Y" / "%m-%d" / "cam-%H%M%S.ts", splits=True, overwrite=False)
    path, _ = names.next()
    assert path.parent.is_dir()
    assert time.strptime(str(path.relative_to(tmp_path)), "%Y/%m-%d/cam-%H%M%S.ts")
    stamped = RecordingNames(tmp_path / "cam.ts", splits=True, overwrite=False).next()[0]
    assert time.strptime(stamped.name, "cam-%Y%m%d-%H%M%S.ts")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / time.strftime("%Y")).touch()
    with pytest.raises(OpenError, match="cannot be made"):
        RecordingNames(tmp_path / "%Y" / "cam-%H%M%S.ts", splits=True, overwrite=False).next()


def aged(path: Path, *, age_s: float, size: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - age_s, time.time() - age_s))
    return path


def test_the_oldest_recordings_go_and_nothing_else(tmp_path: Path) -> None:
    names = RecordingNames(tmp_path / "%Y%m%d" / "cam-%H%M%S.ts", splits=True, overwrite=False)
    old = aged(tmp_path / "20260101" / "cam-120000.ts", age_s=9000)
    again = aged(tmp_path / "20260101" / "cam-120000-2.ts", age_s=8000)
    new = aged(tmp_path / "20260102" / "cam-120000.ts", age_s=10)
    others = [
        aged(tmp_path / "20260101" / "holiday.ts", age_s=9000),
        aged(tmp_path / "20260101" / "cam-120000.mp4", age_s=9000),
        aged(tmp_path / "20260101" / "cam-1200000.ts", age_s=9000),
        aged(tmp_path / "notes" / "cam-120000.ts", age_s=9000),
        aged(tmp_path / "20260101" / "cam-130000.partial.ts", age_s=9000),
    ]
    names.remove_old(Keep(seconds=3600))
    assert not old.exists()
    assert not again.exists()
    assert new.exists()
    assert all(path.exists() for path in others)


def test_no_more_than_a_size_is_kept(tmp_path: Path) -> None:
    names = RecordingNames(tmp_path / "cam-%H%M%S.ts", splits=True, overwrite=False)
    files = [aged(tmp_path / f"cam-12000{n}.ts", age_s=100 - n, size=400) for n in range(5)]
    names.remove_old(Keep(size_bytes=1000))
    assert [path.exists() for path in files] == [False, False, False, True, True]


def test_what_a_killed_run_left_gets_its_name_unless_it_is_being_written(tmp_path: Path) -> None:
    names = RecordingNames(tmp_path / "cam-%H%M%S.ts", splits=True, overwrite=False)
    dead, alive = (
        PartialFile(tmp_path / name, overwrite=False) for name in ("cam-120000.ts", "cam-120001.ts")
    )
    for file in (dead, alive):
        file.write(b"frames")
    strangers = aged(tmp_path / "cam-120002.partial.ts", age_s=9)  # of another program
    os.close(dead._fd)  # as its process ended
    names.adopt()
    assert (tmp_path / "cam-120000.ts").read_bytes() == b"frames"
    assert not dead.partial.exists()
    assert alive.partial.exists()
    assert strangers.exists()
    alive.discard()


@pytest.mark.parametrize(
    ("name", "holds"),
    [("%Y.ts", True), ("a-%H%M.mkv", True), ("100%.mp4", False), ("%05d.mp4", False), ("a.mp4", False)],
)
def test_which_names_hold_a_time(name: str, holds: bool) -> None:
    assert holds_time(name) is holds


def test_options_of_split_files_are_refused_where_they_do_nothing(tmp_path: Path) -> None:
    file, pattern = str(tmp_path / "clean.mkv"), str(tmp_path / "%H%M%S.mkv")
    check_targets([], [pattern], EncodeOptions(keep="7d"))
    check_targets([], [file], EncodeOptions(keep="7d", split_s=60.0))
    with pytest.raises(ConfigError, match="add --split"):
        check_targets([], [file], EncodeOptions(keep="7d"))
    with pytest.raises(ConfigError, match="neither a time"):
        check_targets([], [pattern], EncodeOptions(keep="a week"))
    with pytest.raises(ConfigError, match="no target is one"):
        check_targets([], ["rtsp://h/a"], EncodeOptions(split_s=60.0))
    with pytest.raises(ConfigError, match="take the time into their names"):
        parse_target(str(tmp_path / "%05d.mp4"))


@pytest.mark.parametrize(
    ("text", "kind", "muxer"),
    [
        ("rtsp://u:p@h/a", "network", "rtsp"),
        ("RTMPS://h/a", "network", "flv"),
        ("udp://h:1", "network", "mpegts"),
        ("a.m3u8", "playlist", "mpegts"),
        ("-", "pipe", "matroska"),
    ],
)
def test_what_targets_are(text: str, kind: str, muxer: str) -> None:
    target = parse_target(text)
    assert (target.kind, target.muxer) == (kind, muxer)
    assert "u:p" not in target.text + repr(target)


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("http://h/a", EncodeOptions(), "cannot be published to"),
        ("srt://h:1", EncodeOptions(), "srt-live-transmit"),
        ("-", EncodeOptions(container="mp4"), "cannot be used for standard output"),
        ("a.m3u8", EncodeOptions(container="matroska"), "cannot be used for a playlist"),
    ],
)
def test_targets_that_cannot_be(text: str, options: EncodeOptions, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_target(text, options)
