"""Archives: folders within folders, a ledger that several processes share, and what it tells."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from streamderain.errors import ConfigError
from streamderain.jobs.ledger import FOLDER, LEASE_S, Ledger, Row
from streamderain.media.reading.sources import find_sources
from streamderain.options import ReadOptions, WorkOptions
from tests.support import media
from tests.support.command import command, streamderain
from tests.support.reader import frame_count
from tests.support.runs import FAST, running, wait_until

pytestmark = pytest.mark.slow

TREE = ("a.mp4", "2023/b.mkv", "2023/may/c.mp4", "2024/d.mp4", "2024/d.mkv")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    root = tmp_path / "archive"
    for number, name in enumerate(TREE):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        media.write_video(root / name, frames=12 + number)
    for number in range(4):
        (root / "2024" / "frames").mkdir(exist_ok=True)
        picture = media.image_bytes("png", 64, 48, "rgb24", index=number)
        (root / "2024" / "frames" / f"f{number:03}.png").write_bytes(picture)
    (root / ".hidden").mkdir()
    media.write_video(root / ".hidden" / "x.mp4")
    (root / "notes.txt").write_text("nothing to see")
    return root


def results(clean: Path) -> list[str]:
    return sorted(
        str(path.relative_to(clean))
        for path in clean.rglob("*")
        if path.is_file() and FOLDER not in path.parts
    )


def status(clean: Path) -> dict[str, Any]:
    outcome = streamderain("status", clean, "--json", "-q")
    assert outcome.code == 0, outcome.err
    return outcome.summary


WANTED = sorted([*TREE, "2024/frames.mp4"])


def test_the_same_tree_in_the_target(archive: Path, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    outcome = streamderain("run", archive, "-o", f"{clean}/", "--recursive", *FAST)
    assert outcome.code == 0, outcome.err
    assert results(clean) == WANTED
    for number, name in enumerate(TREE):
        assert frame_count(clean / name) == 12 + number
    told = status(clean)
    assert told["counts"] == {"done": 6, "running": 0, "failed": 0, "open": 0}
    assert told["left_s"] == 0
    again = streamderain("run", archive, "-o", f"{clean}/", "--recursive", *FAST, "--json", "-q")
    assert again.code == 0, again.err
    assert {file["result"] for file in again.summary["files"]} == {"skipped"}


def test_the_target_may_lie_within_the_source(archive: Path) -> None:
    clean = archive / "clean"
    for _ in range(2):
        assert streamderain("run", archive, "-o", f"{clean}/", "--recursive", *FAST).code == 0
        assert results(clean) == WANTED


def test_a_file_that_fails_does_not_stop_the_rest(archive: Path, tmp_path: Path) -> None:
    clean, broken = tmp_path / "clean", archive / "2023" / "broken.mp4"
    broken.write_bytes(b"not a video at all")
    outcome = streamderain("run", archive, "-o", f"{clean}/", "--recursive", *FAST)
    assert outcome.code == 3
    assert results(clean) == WANTED
    shown = streamderain("status", clean)
    assert "6 of 7 files done" in shown.out.decode()
    assert "2023/broken.mp4" in shown.out.decode()
    again = streamderain("run", archive, "-o", f"{clean}/", "--recursive", *FAST)
    assert again.code == 0
    assert "it failed before, --retry-failed takes it up again" in again.err
    media.write_video(broken, frames=5)
    assert streamderain("run", archive, "-o", f"{clean}/", "--recursive", "--retry-failed", *FAST).code == 0
    assert frame_count(clean / "2023" / "broken.mp4") == 5
    assert status(clean)["counts"]["done"] == 7


def test_several_processes_share_an_archive(tmp_path: Path) -> None:
    root, clean = tmp_path / "archive", tmp_path / "clean"
    root.mkdir()
    for number in range(16):
        media.write_video(root / f"{number}.mp4", frames=5)
    words: list[str | Path] = ["run", root, "-o", f"{clean}/", "--recursive", *FAST, "--json", "-q"]
    runs = [
        subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)
    ]
    done: list[str] = []
    for one in runs:
        out, err = one.communicate(timeout=120)
        assert one.returncode == 0, err.decode()
        done += [file["path"] for file in json.loads(out)["files"] if file["result"] == "complete"]
    assert len(done) == len(set(done)) == 16
    assert len(results(clean)) == 16


def test_jobs_work_on_several_files_at_once(archive: Path, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    outcome = streamderain(
        "run",
        archive,
        "-o",
        f"{clean}/",
        "--recursive",
        "--jobs",
        "2",
        *FAST,
        "--json=" + str(tmp_path / "r"),
    )
    assert outcome.code == 0, outcome.err
    assert results(clean) == WANTED
    report = json.loads((tmp_path / "r").read_text())
    assert [file["result"] for file in report["files"]] == ["complete"] * 6


def test_a_killed_process_leaves_its_file_to_others(archive: Path, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    slow = ("--engine", "identity", "--preset", "veryslow", "-e", "g=5")
    media.write_video(archive / "a.mp4", frames=2000, width=320, height=240)
    with running("run", archive, "-o", f"{clean}/", "--recursive", *slow) as process:
        wait_until(lambda: list(clean.rglob("a.partial.mp4")), what="work on a.mp4")
        assert status(clean)["counts"]["running"] == 1
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
    psutil.wait_procs(children, timeout=10)
    assert status(clean)["counts"]["running"] == 0
    media.write_video(archive / "a.mp4", frames=12)
    assert streamderain("run", archive, "-o", f"{clean}/", "--recursive", *FAST).code == 0
    assert results(clean) == WANTED


def left_at_the_end(clean: Path, name: str) -> None:
    """Leave a file as a process does that is killed when it has named its result: nothing more was noted."""
    for path in (clean / FOLDER).glob("*.done"):
        claim = json.loads(path.with_suffix(".claim-1").read_text())
        if claim["name"] == name:
            path.unlink()
            os.utime(path.with_suffix(".claim-1"), (0, 0))
            return
    raise AssertionError(f"{name} was not done")


def test_a_process_that_is_killed_before_it_notes_what_is_whole(archive: Path, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    words = ("run", archive, "-o", f"{clean}/", "--recursive", *FAST)
    assert streamderain(*words).code == 0
    left_at_the_end(clean, "2023/b.mkv")
    inode = (clean / "2023" / "b.mkv").stat().st_ino
    assert status(clean)["counts"] == {"done": 5, "running": 0, "failed": 0, "open": 1}
    again = streamderain(*words, "--json", "-q")
    assert again.code == 0, again.err
    assert {file["result"] for file in again.summary["files"]} == {"skipped"}
    assert status(clean)["counts"]["done"] == 6
    assert (clean / "2023" / "b.mkv").stat().st_ino == inode
    left_at_the_end(clean, "2023/b.mkv")
    assert streamderain(*words, "--overwrite").code == 0
    assert (clean / "2023" / "b.mkv").stat().st_ino != inode
    assert status(clean)["counts"]["done"] == 6


def test_a_file_that_was_there_before_is_nobodys_result(archive: Path, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    words = ("run", archive, "-o", f"{clean}/", "--recursive", *FAST)
    clean.mkdir()
    (clean / "a.mp4").write_bytes(b"the user's own")
    assert streamderain(*words, "--overwrite").code == 0
    left_at_the_end(clean, "a.mp4")
    again = streamderain(*words)
    assert again.code == 2
    assert "a.mp4 exists" in again.err


def test_a_result_that_was_removed_is_made_again(archive: Path, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    words = ("run", archive, "-o", f"{clean}/", "--recursive", *FAST)
    assert streamderain(*words).code == 0
    (clean / "2024" / "d.mp4").unlink()
    again = streamderain(*words, "--json", "-q")
    assert again.code == 0, again.err
    made = [file["path"] for file in again.summary["files"] if file["result"] == "complete"]
    assert made == ["2024/d.mp4"] or made == [str(archive / "2024" / "d.mp4")]
    assert results(clean) == WANTED
    assert status(clean)["counts"]["done"] == 6


def test_shards_part_the_files_without_a_ledger(archive: Path, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    done: list[str] = []
    for number in range(3):
        outcome = streamderain(
            "run", archive, "-o", f"{clean}/", "--recursive", "--shard", f"{number}/3", *FAST, "--json", "-q"
        )
        assert outcome.code == 0, outcome.err
        done += [file["path"] for file in outcome.summary["files"]]
    assert len(done) == len(set(done)) == 6
    assert results(clean) == WANTED
    assert not (clean / FOLDER).exists()


@pytest.mark.parametrize("shard", ["4/4", "1", "a/b", "-1/2"])
def test_a_shard_that_is_none(shard: str) -> None:
    with pytest.raises(ConfigError, match="shard must be"):
        WorkOptions(shard=shard)


def test_what_recursive_cannot_be_used_for(archive: Path, tmp_path: Path) -> None:
    outcome = streamderain("run", archive / "a.mp4", "-o", f"{tmp_path}/clean/", "--recursive", *FAST)
    assert (outcome.code, "one folder" in outcome.err) == (2, True)
    outcome = streamderain("run", archive, "-o", tmp_path / "clean.mp4", "--recursive", *FAST)
    assert (outcome.code, "a folder, such as" in outcome.err) == (2, True)
    outcome = streamderain("status", tmp_path)
    assert (outcome.code, "--recursive" in outcome.err) == (3, True)
    assert "--recursive" in streamderain("run", tmp_path, "-o", f"{tmp_path}/clean/", *FAST).err


def test_a_claim_that_nobody_touches_is_taken_over_once(tmp_path: Path) -> None:
    with Ledger(tmp_path) as first, Ledger(tmp_path) as second, Ledger(tmp_path) as third:
        claim = first.claim("a.mp4", str(tmp_path / "a.mp4"))
        assert claim is not None
        assert second.claim("a.mp4", str(tmp_path / "a.mp4")) is None
        assert second.row("a.mp4").state == "running"
        old = time.time() - 2 * LEASE_S
        os.utime(claim.path, (old, old))
        assert second.row("a.mp4").state == "open"
        taken = second.claim("a.mp4", str(tmp_path / "a.mp4"))
        assert taken is not None
        assert third.claim("a.mp4", str(tmp_path / "a.mp4")) is None
        # The first one was only slow: what it says comes too late.
        assert not first.settle(claim, Row("a.mp4", "failed", error="late"))
        assert second.settle(taken, Row("a.mp4", "done", frames=3))
        assert third.row("a.mp4") == Row("a.mp4", "done", second.row("a.mp4").owner, frames=3)


def test_no_clock_but_the_file_servers_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger(tmp_path) as first, Ledger(tmp_path) as second:
        assert first.claim("a.mp4", str(tmp_path / "a.mp4")) is not None
        for wrong_s in (-86_400.0, 86_400.0):
            monkeypatch.setattr(time, "time", lambda by=wrong_s, real=time.time: real() + by)
            assert second.row("a.mp4").state == "running"


def test_names_of_results_in_a_tree(archive: Path) -> None:
    names = [spec.name for spec in find_sources(str(archive), ReadOptions(recursive=True))]
    assert sorted(names) == WANTED
    assert [spec.name for spec in find_sources(str(archive), ReadOptions())] == ["a.mp4"]
