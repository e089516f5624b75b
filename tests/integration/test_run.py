"""`streamderain run` from the outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from streamderain import frames
from streamderain.options import EngineOptions, RunOptions
from tests.support import media
from tests.support.command import command, streamderain
from tests.support.reader import frame_count
from tests.support.requirements import require

FAST = ("--engine", "identity", "--preset", "ultrafast")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return media.write(
        tmp_path / "dashcam.mp4", media.Video(frames=12), audio=[media.Sound()], metadata={"title": "rain"}
    )


def times(path: Path) -> tuple[Fraction | None, ...]:
    return media.probe(path).video[0].times


def only(folder: Path, *names: str) -> None:
    """No stray file lies in the folder."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_the_readme_command(clip: Path, tmp_path: Path) -> None:
    outcome = streamderain("run", clip, "-o", tmp_path / "clean.mp4")
    assert outcome.code == 0, outcome.err
    before, after = media.probe(clip), media.probe(tmp_path / "clean.mp4")
    assert after.video[0].times == before.video[0].times
    assert [(c.kind, c.digests, c.times) for c in after.copied] == [
        (c.kind, c.digests, c.times) for c in before.copied
    ]
    assert after.metadata["title"] == "rain"
    assert "12 frames" in outcome.err
    assert "openvino int8" in outcome.err
    only(tmp_path, "dashcam.mp4", "clean.mp4")


def test_json_summary_tells_frames_speed_engine_and_model(clip: Path, tmp_path: Path) -> None:
    outcome = streamderain("run", clip, "-o", tmp_path / "clean.mkv", "--json", "-q")
    summary = outcome.summary
    assert (summary["frames_in"], summary["frames_out"], summary["skipped"]) == (12, 12, 0)
    assert (summary["engine"], summary["precision"], summary["model"]) == ("openvino", "int8", "dcd-lite")
    assert set(summary["files"][0]["stages"]) == {"read", "engine", "write"}
    assert len(summary["model_sha256"]) == 64
    assert summary["exit_code"] == 0


def test_json_to_a_path_never_costs_a_file(clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    other.write_bytes(b"precious")
    outcome = streamderain("run", clip, "-o", tmp_path / "clean.mp4", f"--json={other}")
    assert outcome.code == 2
    assert other.read_bytes() == b"precious"
    path = tmp_path / "report.json"
    assert streamderain("run", clip, "-o", tmp_path / "clean.mp4", f"--json={path}", *FAST).code == 0
    assert json.loads(path.read_text())["frames_out"] == 12


def test_several_targets_and_trimming(clip: Path, tmp_path: Path) -> None:
    outcome = streamderain(
        "run", clip, "-o", tmp_path / "a.mp4", "-o", tmp_path / "b.mkv", "-ss", "0.12", "-t", "0.2", *FAST
    )
    assert outcome.code == 0, outcome.err
    for name in ("a.mp4", "b.mkv"):
        pts = times(tmp_path / name)
        assert len(pts) == 5
        assert pts[0] == 0


def test_a_folder_of_videos_goes_into_a_folder(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("clip2.mp4", "clip10.mkv"):
        media.write_video(source / name, frames=4)
    (source / "notes.txt").write_text("not a video")
    outcome = streamderain("run", source, "-o", tmp_path / "out", "--json", *FAST)
    assert outcome.code == 0, outcome.err
    only(tmp_path / "out", "clip2.mp4", "clip10.mkv")
    assert [file["frames_out"] for file in outcome.summary["files"]] == [4, 4]


def test_in_a_folder_a_broken_file_is_reported_and_the_others_are_done(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    media.garbage(source / "a.mp4")
    media.write_video(source / "b.mp4", frames=4)
    outcome = streamderain("run", source, "-o", tmp_path / "out", *FAST)
    assert outcome.code == 3
    assert "a.mp4" in outcome.err
    only(tmp_path / "out", "b.mp4")


def test_shell_expanded_files(tmp_path: Path) -> None:
    clips = [media.write_video(tmp_path / name, frames=3) for name in ("a.mp4", "b.mp4")]
    outcome = streamderain("run", *clips, "-o", tmp_path / "out", *FAST)
    assert outcome.code == 0, outcome.err
    only(tmp_path / "out", "a.mp4", "b.mp4")


def test_numbered_images_are_a_video_and_stills_keep_their_names(tmp_path: Path) -> None:
    media.write_sequence(tmp_path / "frames", count=4)
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert streamderain("run", tmp_path / "frames", "-o", tmp_path / "clean.mp4", *FAST).code == 0
    assert len(times(tmp_path / "clean.mp4")) == 4
    outcome = streamderain("run", tmp_path / "frames", "-o", tmp_path / "stills", "--stills")
    assert outcome.code == 0, outcome.err
    only(tmp_path / "stills", *names)
    pattern = f"{tmp_path}/frames/*.png"
    outcome = streamderain("run", pattern, "-o", f"{tmp_path}/again/", "--engine", "identity")
    assert outcome.code == 0, outcome.err
    only(tmp_path / "again", *names)
    images = sorted((tmp_path / "frames").iterdir())
    assert streamderain("run", *images, "-o", tmp_path / "expanded.mp4", *FAST).code == 0
    assert len(times(tmp_path / "expanded.mp4")) == 4


def test_pipes_carry_matroska(clip: Path) -> None:
    outcome = streamderain("run", "-", "-o", "-", *FAST, stdin=_as_matroska(clip))
    assert outcome.code == 0, outcome.err
    assert outcome.out[:4] == b"\x1a\x45\xdf\xa3"


def _as_matroska(clip: Path) -> bytes:
    target = clip.with_suffix(".mkv")
    media.remux(clip, target)
    return target.read_bytes()


@pytest.fixture(scope="module")
def long_pipe(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = media.write_video(tmp_path_factory.mktemp("long") / "long.mkv", frames=200, width=160, height=120)
    return path.read_bytes()


@contextmanager
def waiting(target: Path, data: bytes, size_bytes: int) -> Iterator[subprocess.Popen[bytes]]:
    """The command with three quarters of its source read from a pipe that then falls silent.

    Goes on once the partial target holds `size_bytes`.
    """
    partial = target.with_suffix(f".partial{target.suffix}")
    arguments = command("run", "-", "-o", target, *FAST, "--crf", "0")
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(data[: len(data) * 3 // 4])
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not (partial.exists() and partial.stat().st_size > size_bytes):
            assert process.poll() is None
            assert time.monotonic() < deadline, "nothing was written"
            time.sleep(0.05)
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_a_playable_partial_and_130(
    tmp_path: Path, long_pipe: bytes, number: signal.Signals
) -> None:
    with waiting(tmp_path / "clean.mp4", long_pipe, 0) as process:
        process.send_signal(number)
        assert process.stderr is not None
        err = process.stderr.read()
        assert process.wait(30) == 130, err
    assert b"Traceback" not in err
    assert b"interrupted" in err
    assert 0 < len(times(tmp_path / "clean.partial.mp4")) < 200
    only(tmp_path, "clean.partial.mp4")


def test_a_kill_leaves_a_playable_partial_and_no_result(tmp_path: Path, long_pipe: bytes) -> None:
    with waiting(tmp_path / "clean.mp4", long_pipe, 50_000) as process:
        process.kill()
        process.wait(30)
    only(tmp_path, "clean.partial.mp4")
    with av.open(str(tmp_path / "clean.partial.mp4")) as container:
        assert next(container.decode(video=0)).width == 160


def test_a_damaged_file_is_kept_as_far_as_it_goes(tmp_path: Path) -> None:
    source = media.write_video(tmp_path / "whole.mkv", frames=60, gop=12)
    media.truncate(source, keep=0.6)
    outcome = streamderain("run", source, "-o", tmp_path / "clean.mkv", "--json", *FAST)
    assert outcome.code == 7
    assert "damaged" in outcome.err
    assert 10 < outcome.summary["frames_out"] < 60
    assert outcome.summary["files"][0]["damage"]
    assert len(times(tmp_path / "clean.mkv")) == outcome.summary["frames_out"]


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda folder: folder / "missing.mp4", 3),
        (lambda folder: media.garbage(folder / "garbage.mp4"), 3),
        (lambda folder: media.text_file(folder / "text.mp4"), 3),
        (lambda folder: media.audio_only(folder / "sound.mp4"), 3),
        (lambda folder: media.zero_frames(folder / "zero.mp4"), 3),
        (lambda folder: media.without_moov(folder / "cut.mp4"), 3),
        (lambda folder: folder, 3),
    ],
    ids=["missing", "garbage", "text", "audio only", "zero frames", "no moov", "empty folder"],
)
def test_bad_input_is_one_clear_error_and_no_file(tmp_path: Path, make: object, code: int) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    source = make(folder)  # type: ignore[operator]
    (tmp_path / "out").mkdir()
    outcome = streamderain("run", source, "-o", tmp_path / "out" / "clean.mp4", *FAST)
    assert outcome.code == code, outcome.err
    assert outcome.err.count("streamderain: ") == 1
    assert source.name in outcome.err
    only(tmp_path / "out")


def test_a_source_that_changes_in_the_middle_keeps_what_came_before(tmp_path: Path) -> None:
    source = media.size_change(tmp_path / "sizes.ts")
    (tmp_path / "out").mkdir()
    outcome = streamderain("run", source, "-o", tmp_path / "out" / "clean.mp4", *FAST)
    assert outcome.code == 3, outcome.err
    assert "Split the file there" in outcome.err
    assert f"is kept, and plays: {tmp_path}/out/clean.partial.mp4" in outcome.err
    only(tmp_path / "out", "clean.partial.mp4")
    assert frame_count(tmp_path / "out" / "clean.partial.mp4") == 8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-o", "{clip}"), "source itself"),
        (("-o", "{folder}/there.mp4"), "--overwrite"),
        (("-o", "{folder}/clean.xyz"), "extension"),
        (("-o", "{folder}/clean.mp4", "--strength", "2"), "strength"),
        (("-o", "{folder}/clean.mp4", "--engine", "vulkan"), "openvino"),
        (("-o", "{folder}/clean.mp4", "--codec", "nonsense"), "nonsense"),
        (("-o", "{folder}/clean.mp4", "-e", "nonsense=1"), "nonsense"),
        (("-o", "{folder}/clean.mp4", "-e", "nonsense"), "key=value"),
        (("-o", "{folder}/clean.mp4", "-ss", "abc"), "abc"),
        (("-o", "{folder}/clean.mp4", "-ss", "99"), "-ss"),
        (("-o", "-", "--json"), "--json"),
        (("{clip}", "-o", "{folder}/several.mp4"), "folder"),
        ((), "-o"),
    ],
)
def test_bad_arguments_end_with_2_before_any_work(
    clip: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    (tmp_path / "there.mp4").write_bytes(b"precious")
    places = [argument.format(clip=clip, folder=tmp_path) for argument in arguments]
    outcome = streamderain("run", clip, *places)
    assert outcome.code == 2, outcome.err
    assert words in outcome.err
    assert (tmp_path / "there.mp4").read_bytes() == b"precious"
    only(tmp_path, "dashcam.mp4", "there.mp4")


def test_model_and_engine_errors_have_their_codes(clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "clean.mp4"
    assert streamderain("run", clip, "-o", target, "--model", "no-such").code == 4
    assert streamderain("run", clip, "-o", target, "--device", "NPU").code == 5
    only(tmp_path, "dashcam.mp4")


def test_an_encoder_that_does_not_open_is_a_clear_error(clip: Path, tmp_path: Path) -> None:
    outcome = streamderain("run", clip, "-o", tmp_path / "clean.mp4", "--codec", "h264_nvenc")
    assert outcome.code == 3
    assert "h264_nvenc" in outcome.err
    only(tmp_path, "dashcam.mp4")


def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
    )
    require(mounted.returncode == 0, "the right to mount a small tmpfs")
    try:
        source = media.write_video(tmp_path / "in.mp4", frames=120, width=640, height=480)
        outcome = streamderain("run", source, "-o", disk / "clean.mp4", *FAST, "--crf", "0")
        assert outcome.code == 3, outcome.err
        assert "no room" in outcome.err
        assert "kept, and plays" in outcome.err
        only(disk, "clean.partial.mp4")
        assert frame_count(disk / "clean.partial.mp4", cut=True) >= 1
        (disk / "clean.partial.mp4").unlink()
        outcome = streamderain("run", source, "-o", disk / "clean.mp4", *FAST, "--crf", "25", "-e", "g=10")
        assert outcome.code == 3, outcome.err
        assert "kept, and plays" in outcome.err
        only(disk, "clean.partial.mp4")
        assert 10 <= frame_count(disk / "clean.partial.mp4", cut=True) < 120
    finally:
        subprocess.run(["umount", disk], check=True)


def test_an_unreadable_source_and_a_read_only_target(clip: Path, tmp_path: Path) -> None:
    require(os.geteuid() != 0 or Path("/usr/bin/setpriv").exists(), "setpriv, to drop root's rights")
    clip.chmod(0)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if str(parent).startswith("/tmp/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    drop = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*drop, *command("run", clip, "-o", "/tmp/clean-by-nobody.mp4", *FAST)],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert b"dashcam.mp4" in done.stderr
    clip.chmod(0o644)
    done = subprocess.run(
        [*drop, *command("run", clip, "-o", tmp_path / "clean.mp4", *FAST)], capture_output=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert b"permission" in done.stderr


def test_a_terminal_gets_a_bar_and_a_file_gets_lines(clip: Path, tmp_path: Path) -> None:
    outcome = streamderain("run", clip, "-o", tmp_path / "clean.mp4", *FAST)
    assert "\x1b[" not in outcome.err
    assert streamderain("run", clip, "-o", tmp_path / "b.mp4", *FAST, "-q").err == ""


def test_models_list_and_show() -> None:
    listed = streamderain("models", "list")
    assert listed.code == 0
    assert b"dcd-lite" in listed.out
    shown = streamderain("models", "show", "dcd-lite")
    assert b"doing nothing" in shown.out
    cards = json.loads(streamderain("models", "list", "--json").out)
    assert [card["name"] for card in cards] == ["dcd-gan", "dcd-lite", "dcd-quality"]
    assert streamderain("models", "show", "nothing").code == 4


def test_the_demo_says_where_its_results_are(tmp_path: Path) -> None:
    outcome = streamderain("demo", "-o", tmp_path / "demo")
    assert outcome.code == 0, outcome.err
    only(tmp_path / "demo", "clean.mp4", "before-after.png")
    assert str(tmp_path / "demo" / "before-after.png").encode() in outcome.out
    with av.open(str(tmp_path / "demo" / "before-after.png")) as picture:
        frame = next(picture.decode(video=0))
        assert (frame.width, frame.height) == (2 * 768 + 4, 432)


def test_alignment_can_be_left_off(clip: Path, tmp_path: Path) -> None:
    results = {}
    for how in ("auto", "off"):
        target = tmp_path / f"{how}.mkv"
        outcome = streamderain("run", clip, "-o", target, "--alignment", how, "--codec", "ffv1")
        assert outcome.code == 0, outcome.err
        unchanged = RunOptions(engine=EngineOptions(engine="identity"))
        results[how] = np.stack([frame.image for frame in frames(target, unchanged)])
    assert results["auto"].shape == results["off"].shape
    assert (results["auto"] != results["off"]).any(), "the clip moves"
    refused = streamderain("run", clip, "-o", tmp_path / "out.mkv", "--alignment", "sideways")
    assert refused.code == 2
    assert "auto or off" in refused.err
    assert not (tmp_path / "out.mkv").exists()
