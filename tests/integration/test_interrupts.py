"""What is whole has its name, what is cut keeps its partial name, and nothing that was whole is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamderain.media.writing.sink import PartialFile
from tests.support import media
from tests.support.command import command, streamderain
from tests.support.reader import frame_count
from tests.support.requirements import require
from tests.support.runs import (
    FAST,
    SIGNALS,
    ended,
    holds,
    interrupted_in_the_middle,
    running,
    wait_until,
)

pytestmark = pytest.mark.slow

LONG = 3000
SLOW = ("--engine", "identity", "--preset", "veryslow", "-e", "g=5")
"""Slow enough to be caught in the middle."""


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that takes the slow options many seconds."""
    path = tmp_path_factory.mktemp("long") / "long.mkv"
    return media.write(
        path, media.Video(frames=LONG, width=320, height=240), audio=[media.Sound("ac3", seconds=120)]
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_what_is_cut_keeps_its_partial_name(
    long: Path, tmp_path: Path, number: signal.Signals, suffix: str
) -> None:
    target = tmp_path / f"clean.{suffix}"
    report = tmp_path / "report.json"
    with interrupted_in_the_middle(long, target, *SLOW, f"--json={report}") as process:
        process.send_signal(number)
        code, said = ended(process)
    assert code == 130
    partial = tmp_path / f"clean.partial.{suffix}"
    assert names(tmp_path) == [partial.name, "report.json"]
    assert f"kept as {partial}" in said
    summary = json.loads(report.read_text())
    assert summary["interrupted"]
    assert 0 < frame_count(partial) == summary["frames_out"] < LONG
    (file,) = summary["files"]
    assert file["interrupted"]
    (result,) = file["results"]
    assert (result["state"], result["kept"]) == ("partial", str(partial))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_interrupt_keeps_the_playable_partial(
    long: Path, tmp_path: Path, number: signal.Signals
) -> None:
    target = tmp_path / "clean.mp4"
    # The pipe that nobody reads holds up the orderly end: a second signal ends that too.
    read, write = os.pipe()
    words = ("run", long, "-o", target, "-o", "-", *SLOW)
    with subprocess.Popen(command(*words), stdout=write, stderr=subprocess.PIPE) as process:
        os.close(write)
        wait_until(lambda: holds(tmp_path / "clean.partial.mp4", 1000), what="a partial result")
        process.send_signal(number)
        threading.Timer(0.3, process.send_signal, [number]).start()
        code, said = ended(process)
    os.close(read)
    assert code == 130, said
    assert names(tmp_path) == ["clean.partial.mp4"]
    assert 0 < frame_count(tmp_path / "clean.partial.mp4") < LONG


def test_an_old_result_stays_until_the_new_one_is_whole(long: Path, tmp_path: Path) -> None:
    target = media.write_video(tmp_path / "clean.mp4", frames=7)
    old = target.read_bytes()
    with interrupted_in_the_middle(long, target, "--overwrite", *SLOW) as process:
        process.send_signal(signal.SIGINT)
        code, _ = ended(process)
    assert code == 130
    assert target.read_bytes() == old
    assert frame_count(tmp_path / "clean.partial.mp4") > 0
    short = media.write_video(tmp_path / "short.mp4", frames=9)
    assert streamderain("run", short, "-o", target, "--overwrite", *FAST).code == 0
    assert names(tmp_path) == ["clean.mp4", "short.mp4"], "the dead partial is gone"
    assert frame_count(target) == 9


def test_a_run_that_was_interrupted_goes_on(long: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    media.write_video(source / "a.mp4", frames=6)
    (source / "b.mkv").symlink_to(long)
    media.write_video(source / "c.mp4", frames=8)
    report = tmp_path / "report.json"
    with running("run", source, "-o", target, *SLOW, f"--json={report}") as process:
        wait_until(lambda: holds(target / "b.partial.mkv", 1000), what="the second file")
        process.send_signal(signal.SIGINT)
        code, said = ended(process)
    assert code == 130
    assert names(target) == ["a.mp4", "b.partial.mkv"]
    assert "1 done; interrupted: b.mkv; 1 not reached" in said
    assert "--skip-existing goes on" in said
    summary = json.loads(report.read_text())
    assert [(file["source"], file["interrupted"]) for file in summary["files"]] == [
        ("a.mp4", False),
        ("b.mkv", True),
    ]
    assert summary["not_reached"] == [str(source / "c.mp4")]

    (source / "b.mkv").unlink()
    media.write_video(source / "b.mkv", frames=5)
    first = (target / "a.mp4").stat()
    assert streamderain("run", source, "-o", target, *FAST).code == 2, "a.mp4 exists"
    outcome = streamderain("run", source, "-o", target, "--skip-existing", "--json", *FAST)
    assert outcome.code == 0, outcome.err
    assert [file["result"] for file in outcome.summary["files"]] == ["skipped", "complete", "complete"]
    assert (target / "a.mp4").stat().st_mtime_ns == first.st_mtime_ns
    assert names(target) == ["a.mp4", "b.mkv", "c.mp4"]
    assert "2 done; 1 skipped" in outcome.err
    again = streamderain("run", source, "-o", target, "--skip-existing", "--json", *FAST)
    assert (again.code, again.summary["frames_out"]) == (0, 0)


def test_skipping_writes_only_the_targets_that_are_missing(tmp_path: Path) -> None:
    clip = media.write_video(tmp_path / "in.mp4", frames=4)
    there = tmp_path / "there.mp4"
    there.write_bytes(b"whole")
    outcome = streamderain("run", clip, "-o", there, "-o", tmp_path / "new.mkv", "--skip-existing", *FAST)
    assert outcome.code == 0, outcome.err
    assert there.read_bytes() == b"whole"
    assert frame_count(tmp_path / "new.mkv") == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--skip-existing", "--overwrite"), "choose one of the two"),
        (("--skip-existing", "-o", "{folder}/%05d.png"), "cannot tell whether all pictures"),
    ],
)
def test_what_skipping_cannot_do_is_said(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    clip = media.write_video(tmp_path / "in.mp4", frames=4)
    given = [word.format(folder=tmp_path) for word in words]
    outcome = streamderain("run", clip, "-o", tmp_path / "o.mkv", *given, *FAST)
    assert outcome.code == 2
    assert message in outcome.err
    assert names(tmp_path) == ["in.mp4"]


# ---- partial files of others


def test_only_dead_partials_of_our_own_are_removed(tmp_path: Path) -> None:
    clip = media.write_video(tmp_path / "in.mp4", frames=4)
    out = tmp_path / "out"
    out.mkdir()
    foreign = out / "clean.partial.mp4"
    foreign.write_bytes(b"somebody else's")
    living = PartialFile(out / "clean.mp4", overwrite=False)
    living.write(b"still being written")
    dead = PartialFile(out / "clean.mp4", overwrite=False)
    dead.write(b"left")
    assert dead.leave() == str(out / "clean.partial-3.mp4")
    other = PartialFile(out / "other.mp4", overwrite=False)
    other.leave()
    assert streamderain("run", clip, "-o", out / "clean.mp4", *FAST).code == 0
    assert names(out) == ["clean.mp4", "clean.partial-2.mp4", "clean.partial.mp4", "other.partial.mp4"]
    assert foreign.read_bytes() == b"somebody else's"
    living.discard()


def test_a_partial_left_by_a_kill_is_removed_by_the_run_that_completes_it(long: Path, tmp_path: Path) -> None:
    target = tmp_path / "clean.mp4"
    with interrupted_in_the_middle(long, target, *SLOW) as process:
        process.kill()
        process.wait()
    assert names(tmp_path) == ["clean.partial.mp4"]
    assert frame_count(tmp_path / "clean.partial.mp4", cut=True) > 0
    clip = media.write_video(tmp_path / "in.mp4", frames=4)
    assert streamderain("run", clip, "-o", target, *FAST).code == 0
    assert names(tmp_path) == ["clean.mp4", "in.mp4"]


def test_two_runs_on_one_target_do_not_harm_each_other(long: Path, tmp_path: Path) -> None:
    target = tmp_path / "clean.mp4"
    clip = media.write_video(tmp_path / "in.mp4", frames=4)
    with interrupted_in_the_middle(long, target, *SLOW) as process:
        assert streamderain("run", clip, "-o", target, *FAST).code == 0
        assert names(tmp_path) == ["clean.mp4", "clean.partial.mp4", "in.mp4"]
        process.send_signal(signal.SIGINT)
        code, _ = ended(process)
    assert code == 130
    assert frame_count(target) == 4
    assert frame_count(tmp_path / "clean.partial.mp4") > 0


def test_a_result_whose_name_was_taken_meanwhile_is_kept(tmp_path: Path) -> None:
    source = media.write_video(tmp_path / "in.mkv", frames=40)
    data = source.read_bytes()
    target = tmp_path / "clean.mp4"
    with running("run", "-", "-o", target, *FAST, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(data[: len(data) // 2])
        process.stdin.flush()
        wait_until(lambda: (tmp_path / "clean.partial.mp4").exists(), what="the partial file")
        target.write_bytes(b"theirs")
        code, said = ended_after(process, data[len(data) // 2 :])
    assert code == 3
    assert target.read_bytes() == b"theirs"
    assert str(tmp_path / "clean.partial.mp4") in said
    assert frame_count(tmp_path / "clean.partial.mp4") == 40


def ended_after(process: subprocess.Popen[bytes], rest: bytes) -> tuple[int, str]:
    _, said = process.communicate(rest, timeout=60)
    assert b"Traceback" not in said
    return process.returncode, said.decode()


# ---- opening


@pytest.mark.parametrize("number", SIGNALS)
def test_a_pipe_that_brings_nothing_can_be_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    read, write = os.pipe()
    with running("run", "-", "-o", tmp_path / "clean.mp4", *FAST, stdin=read) as process:
        wait_until(lambda: _is_ready(process), what="the command")
        process.send_signal(number)
        code, said = ended(process, limit_s=20)
    os.close(read)
    os.close(write)
    # Python ends itself by the signal where that came while modules were still being read: 130 for the shell.
    assert code in (130, -signal.SIGINT), said
    assert names(tmp_path) == []


def test_an_address_that_does_not_answer_can_be_interrupted(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.mp4"
        with running("run", address, "-o", tmp_path / "clean.mp4", *FAST) as process:
            connection, _ = server.accept()
            process.send_signal(signal.SIGINT)
            code, said = ended(process, limit_s=8)  # sooner than the network's own limit of ten seconds
            connection.close()
    assert code == 130, said
    assert names(tmp_path) == []


def _is_ready(process: subprocess.Popen[bytes]) -> bool:
    """Whether the command minds its signals, which it does before it opens anything."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) & 1 << (signal.SIGTERM - 1))


# ---- disks, readers and terminals that go away


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    require(subprocess.run(mount, capture_output=True, check=False).returncode == 0, "the right to mount")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_full_disk_under_one_target_leaves_the_others(
    tmp_path: Path, small_disk: Path, suffix: str
) -> None:
    clip = media.write_video(tmp_path / "in.mp4", frames=200, width=160, height=120)
    full, roomy = small_disk / f"clean.{suffix}", tmp_path / f"clean.{suffix}"
    words = ("-e", "g=5", "--crf", "20")
    outcome = streamderain("run", clip, "-o", full, "-o", roomy, "--json", *words, *FAST)
    assert outcome.code == 3
    assert "no room" in outcome.err
    assert frame_count(roomy) == 200
    assert names(small_disk) == [f"clean.partial.{suffix}"]
    assert 0 < frame_count(small_disk / f"clean.partial.{suffix}", cut=True) < 200
    failed, whole = outcome.summary["files"][0]["results"]
    assert (failed["state"], failed["kept"]) == ("failed", str(small_disk / f"clean.partial.{suffix}"))
    assert whole["state"] == "whole"


def test_a_full_disk_keeps_the_playable_partial(tmp_path: Path, small_disk: Path) -> None:
    clip = media.write_video(tmp_path / "in.mp4", frames=200, width=160, height=120)
    outcome = streamderain("run", clip, "-o", small_disk / "clean.mp4", "-e", "g=5", *FAST)
    assert outcome.code == 3
    partial = small_disk / "clean.partial.mp4"
    assert f"is kept, and plays: {partial}" in outcome.err
    assert 0 < frame_count(partial, cut=True) < 200


def test_a_reader_that_goes_away_leaves_the_file(tmp_path: Path) -> None:
    clip = media.write_video(tmp_path / "in.mp4", frames=200, width=320, height=240)
    words = ("run", clip, "-o", "-", "-o", tmp_path / "clean.mkv", *FAST, "--crf", "0")
    with subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait(60) == 3, said
    assert "its reader went away" in said
    assert frame_count(tmp_path / "clean.mkv") == 200


def test_standard_error_that_nobody_reads_does_not_end_the_work(tmp_path: Path) -> None:
    clip = media.write_video(tmp_path / "in.mp4", frames=50)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        command("run", clip, "-o", tmp_path / "clean.mp4", *FAST), stderr=write, check=False, timeout=60
    )
    os.close(write)
    assert done.returncode == 0
    assert frame_count(tmp_path / "clean.mp4") == 50


def test_a_terminal_that_is_closed_leaves_the_playable_partial(long: Path, tmp_path: Path) -> None:
    import pty

    target = tmp_path / "clean.mp4"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, command("run", long, "-o", target, *SLOW))
    partial = tmp_path / "clean.partial.mp4"
    try:
        wait_until(lambda: _shown(terminal) or holds(partial, 1000), what="a partial result")
    finally:
        os.close(terminal)  # hangs up
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert names(tmp_path) == ["clean.partial.mp4"]
    assert 0 < frame_count(partial) < LONG


def _shown(terminal: int) -> bool:
    """Reads what the terminal shows, so that the command does not wait for it."""
    import select

    while select.select([terminal], [], [], 0)[0]:
        os.read(terminal, 1 << 16)
    return False


@pytest.mark.parametrize("number", SIGNALS)
def test_a_comparison_that_is_ended_leaves_the_old_one(
    long: Path, tmp_path: Path, number: signal.Signals
) -> None:
    target = media.write_video(tmp_path / "both.mp4", frames=3)
    old = target.read_bytes()
    with running("compare", long, long, "-o", target, "--overwrite") as process:
        wait_until(lambda: holds(tmp_path / "both.partial.mp4", 0), what="the comparison")
        process.send_signal(number)
        code, said = ended(process)
    assert code == 130, said
    assert "interrupted" in said
    assert names(tmp_path) == ["both.mp4"]
    assert target.read_bytes() == old


def test_ctrl_c_in_a_python_program_is_an_ordinary_keyboard_interrupt(long: Path, tmp_path: Path) -> None:
    script = """
        import os, signal, sys, threading, streamderain
        from streamderain.events import Progress

        def watch(event):
            if isinstance(event, Progress) and event.frames_out > 20:
                raise KeyboardInterrupt

        options = streamderain.RunOptions(engine=streamderain.EngineOptions(engine="identity"))
        try:
            streamderain.run(sys.argv[1], sys.argv[2], options=options, observer=watch)
        except KeyboardInterrupt:
            print("interrupted")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(long), str(tmp_path / "clean.mkv")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("interrupted\n", 0), done.stderr
    assert names(tmp_path) == ["clean.partial.mkv"]
    assert frame_count(tmp_path / "clean.partial.mkv") > 0
