"""A run in pieces goes on after whatever ends it, and repeats nothing that is whole."""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from streamderain import run
from streamderain.errors import OutputFull
from streamderain.jobs.manifest import folder_of
from streamderain.options import EncodeOptions, EngineOptions, RunOptions, WorkOptions
from tests.support import kills, media
from tests.support.command import command, streamderain
from tests.support.kills import contents
from tests.support.runs import ended, running, wait_until

pytestmark = pytest.mark.slow

FRAMES = 300
SLOW = ("--engine", "identity", "--codec", "ffv1", "-e", "threads=1", "--segment-length", "1")


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.mkv"
    video = media.Video(frames=FRAMES, width=320, height=240, gop=25, options={"preset": "ultrafast"})
    return media.write(path, video, audio=[media.Sound("ac3", seconds=12)])


@pytest.fixture(scope="module")
def whole(long: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("whole") / "clean.mkv"
    assert streamderain("run", long, "-o", target, *SLOW[:-2]).code == 0
    return target


def packets(target: Path) -> dict[str, int]:
    """The packets of pieces that are there, and when they were written; a run may be at work on them."""
    found = {}
    for path in target.with_name(f"{target.name}.pieces").glob("*.packets"):
        with suppress(FileNotFoundError):  # joined and removed since it was listed
            if ".partial" not in path.name:
                found[path.name] = path.stat().st_mtime_ns
    return found


def begun(target: Path, pieces: int = 1) -> bool:
    return target.with_name(f"{target.name}.pieces").exists() and len(packets(target)) >= pieces


def go_on(source: Path, target: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        command("run", source, "-o", target, *SLOW, *words), capture_output=True, timeout=120, check=False
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


KILLS = st.builds(kills.Kill, st.sampled_from(kills.VICTIMS), st.floats(0.8, 3.0))


def test_runs_that_are_killed_anywhere_end_as_one_go(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A dozen kills; `python -m benchmarks robustness` makes hundreds."""
    source = kills.source_in_pieces(tmp_path_factory.mktemp("source"))
    wanted = kills.in_one_go(source, source.with_name("whole.mkv"))

    @settings(max_examples=4, deadline=None, phases=[Phase.generate], derandomize=True, database=None)
    @given(st.lists(KILLS, min_size=3, max_size=3))
    def tried(points: list[kills.Kill]) -> None:
        target = tmp_path_factory.mktemp("killed") / "clean.mkv"
        assert kills.killed_and_resumed(source, wanted, target, points) == []

    tried()


def test_an_interrupt_keeps_the_pieces_and_tells_how_to_go_on(
    long: Path, whole: Path, tmp_path: Path
) -> None:
    target, report = tmp_path / "clean.mkv", tmp_path / "report.json"
    with running("run", long, "-o", target, *SLOW, f"--json={report}") as process:
        wait_until(lambda: begun(target, 2), what="two pieces")
        process.send_signal(signal.SIGINT)
        code, said = ended(process)
    assert code == 130
    assert f"kept in {target}.pieces" in said
    assert f"streamderain run {long} -o {target}" in said
    (file,) = json.loads(report.read_text())["files"]
    assert file["results"][0]["state"] == "pieces"
    assert 0 < file["frames_out"] < FRAMES
    assert go_on(long, target).returncode == 0
    assert contents(target) == contents(whole)


KILLED_AT_THE_END = """
import os, signal, sys
from streamderain.cli.main import main
from streamderain.media.writing.sink import PartialFile

keep, left = PartialFile.keep, int(sys.argv.pop(1))

def killed(sink):
    global left
    keep(sink)
    left -= not sink.path.suffix == ".packets"
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

PartialFile.keep = killed
sys.exit(main())
"""


@pytest.mark.parametrize("named", [1, 2])
def test_a_run_that_is_killed_when_its_targets_have_their_names(
    long: Path, whole: Path, tmp_path: Path, named: int
) -> None:
    """With all of them there is nothing left to do; with some, what is missing is joined once more."""
    targets = [tmp_path / "clean.mkv", tmp_path / "other.mkv"]
    words: list[str | Path] = ["run", long, "-o", targets[0], "-o", targets[1], *SLOW]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AT_THE_END, str(named), *map(str, words)],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert [target.exists() for target in targets].count(True) == named
    assert folder_of(targets[0]).is_dir()
    before = {target: target.stat().st_ino for target in targets if target.exists()}
    other = streamderain(*words, "--strength", "0.5")
    assert other.code == 2
    assert {target: target.stat().st_ino for target in targets if target.exists()} == before
    again = streamderain(*words, "--json", "-q")
    assert again.code == 0, again.err
    assert [file["result"] for file in again.summary["files"]] == ["skipped" if named == 2 else "complete"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean.mkv", "other.mkv"]
    if named == 2:
        assert {target: target.stat().st_ino for target in targets} == before
    assert contents(targets[0]) == contents(targets[1]) == contents(whole)


def test_two_runs_on_one_target(long: Path, tmp_path: Path) -> None:
    target = tmp_path / "clean.mkv"
    with running("run", long, "-o", target, *SLOW) as process:
        wait_until(lambda: begun(target), what="a piece")
        second = go_on(long, target)
        assert second.returncode == 2
        assert f"being written by process {process.pid} on " in second.stderr.decode()
        process.kill()
        process.wait()
    assert go_on(long, target).returncode == 0


def test_pieces_of_another_run_are_not_taken(long: Path, tmp_path: Path) -> None:
    target = tmp_path / "clean.mkv"
    with running("run", long, "-o", target, *SLOW) as process:
        wait_until(lambda: begun(target), what="a piece")
        process.kill()
        process.wait()
    other = go_on(long, target, "--strength", "0.5")
    assert other.returncode == 2
    assert "options, engine, strength was 1.0, is now 0.5" in other.stderr.decode()
    assert "--restart" in other.stderr.decode()
    changed = tmp_path / "changed.mkv"
    changed.write_bytes(long.read_bytes() + b"\0" * 64)
    assert "source, bytes was" in go_on(changed, target).stderr.decode()
    threads = go_on(long, target, "--strength", "0.5", "--restart")
    assert threads.returncode == 0
    assert not target.with_name("clean.mkv.pieces").exists()


def test_a_piece_that_the_disk_lost_is_made_again(long: Path, whole: Path, tmp_path: Path) -> None:
    target = tmp_path / "clean.mkv"
    with running("run", long, "-o", target, *SLOW) as process:
        wait_until(lambda: begun(target, 3), what="three pieces")
        process.kill()
        process.wait()
    folder = target.with_name("clean.mkv.pieces")
    damaged = bytearray((folder / "00000-0.packets").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (folder / "00000-0.packets").write_bytes(damaged)
    (folder / "00001-0.packets").unlink()
    done = go_on(long, target)
    assert done.returncode == 0, done.stderr.decode()
    assert contents(target) == contents(whole)


def test_a_manifest_that_cannot_be_read(long: Path, tmp_path: Path) -> None:
    target = tmp_path / "clean.mkv"
    folder = target.with_name("clean.mkv.pieces")
    folder.mkdir()
    (folder / "manifest.json").write_text("{")
    done = go_on(long, target)
    assert done.returncode == 2
    assert "--restart" in done.stderr.decode()
    assert go_on(long, target, "--restart").returncode == 0


def kill_workers(process: subprocess.Popen[bytes], times: int) -> None:
    """Kill the process that works on pieces, again and again, as a fault of native code would."""
    killed: set[int] = set()
    while len(killed) < times and process.poll() is None:
        for child in psutil.Process(process.pid).children():
            if child.pid not in killed and "spawn_main" in " ".join(child.cmdline()):
                killed.add(child.pid)
                os.kill(child.pid, signal.SIGSEGV)
        time.sleep(0.01)


def test_a_piece_that_crashes_again_and_again_is_told(long: Path, tmp_path: Path) -> None:
    target = tmp_path / "clean.mkv"
    with running("run", long, "-o", target, *SLOW) as process:
        kill_workers(process, 3)
        code, said = ended(process)
    assert code == 5
    assert "the piece from the beginning to 1." in said
    assert "SIGSEGV, 3 times" in said
    assert "--pass-failed" in said
    assert go_on(long, target).returncode == 0


def test_a_piece_that_crashes_again_and_again_passes_where_that_is_wanted(long: Path, tmp_path: Path) -> None:
    target, report = tmp_path / "clean.mkv", tmp_path / "report.json"
    with running("run", long, "-o", target, *SLOW, "--pass-failed", f"--json={report}") as process:
        kill_workers(process, 3)
        code, said = ended(process)
    assert code == 0, said
    assert "was let through unprocessed" in said
    summary = json.loads(report.read_text())
    assert 0 < summary["passed"] < FRAMES
    assert summary["frames_out"] == FRAMES


@pytest.mark.parametrize("limit", [400_000, 9_000_000])
def test_a_full_disk_keeps_what_is_whole(long: Path, whole: Path, tmp_path: Path, limit: int) -> None:
    """The small limit stops a piece, the large one the joined file."""
    target = tmp_path / "clean.mkv"
    done = subprocess.run(
        command("run", long, "-o", target, *SLOW),
        capture_output=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    said = done.stderr.decode()
    assert done.returncode == 3, said
    assert "Traceback" not in said
    assert "ulimit -f" in said
    assert not target.exists()
    assert go_on(long, target).returncode == 0
    assert contents(target) == contents(whole)


@pytest.mark.parametrize("number", [0, 1, 5])
def test_a_disk_that_is_full_when_the_manifest_is_written(
    long: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    target = tmp_path / "clean.mkv"
    write, written = Path.write_text, itertools.count()

    def full(path: Path, *arguments: str, **named: str) -> int:
        if path.name.startswith("manifest") and next(written) == number:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, *arguments, **named)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputFull, match=r"no room to write .*manifest"):
        run(
            long,
            target,
            options=RunOptions(
                engine=EngineOptions(engine="identity"),
                encode=EncodeOptions(codec="ffv1", extra={"threads": "1"}),
                work=WorkOptions(segment_length_s=1.0),
            ),
        )
    assert not target.exists()
    done = go_on(long, target)
    assert done.returncode == 0, done.stderr.decode()
    assert contents(target) == contents(whole)


def test_nothing_is_left_of_a_run_that_could_not_begin(long: Path, tmp_path: Path) -> None:
    done = go_on(long, tmp_path / "clean.mkv", "--pix-fmt", "no-such-format")
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []
