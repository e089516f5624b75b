"""Full disks, kills, broken pipes and targets that must not be touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from streamderain.errors import ConfigError, EncodeError, MediaError, OpenError, OutputFull
from streamderain.media.reading.file import FileSource
from streamderain.media.writing.outputs import open_outputs
from streamderain.media.writing.sink import PartialFile, StandardOutput
from streamderain.media.writing.target import check_targets
from streamderain.options import EncodeOptions, ReadOptions
from tests.support.media import Sound, Video, probe, write
from tests.support.requirements import require
from tests.support.writing import drive, write_through

ROOT = Path(__file__).parents[2]
NOISY = Video(frames=120, width=320, height=240, options={"crf": "8"})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.mkv", Video(frames=10), audio=[Sound()])


def partials(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "partial" in path.name)


def run_python(code: str, *arguments: object, **fields: object) -> subprocess.CompletedProcess[str]:
    script = textwrap.dedent(code)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, **fields)  # type: ignore[call-overload, no-any-return]


# ---- names


def test_a_target_gets_its_name_only_when_whole(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "out.mp4"
    opened = FileSource(str(source), ReadOptions())
    outputs, _ = open_outputs(opened, [str(target)], EncodeOptions())
    assert partials(tmp_path) == ["out.partial.mp4"]
    assert not target.exists()
    drive(opened, outputs)
    opened.close()
    assert target.exists()
    assert partials(tmp_path) == []


def test_abort_removes_the_partial_and_may_come_twice(tmp_path: Path, source: Path) -> None:
    opened = FileSource(str(source), ReadOptions())
    targets = [str(tmp_path / "out.mp4"), f"{tmp_path}/frames/"]
    outputs, _ = open_outputs(opened, targets, EncodeOptions())
    frames = opened.frames(lambda packet: None)
    for _ in range(3):
        frame = next(frames)
        for output in outputs:
            packets = output.encoders[0].encode(frame, None)
            for outlet in output.outlets:
                outlet.mux(packets)
    assert len(list((tmp_path / "frames").iterdir())) == 3
    for output in outputs:
        for outlet in (*output.outlets, *output.outlets):
            outlet.abort()
    opened.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv"]


def test_a_foreign_partial_is_left_alone(tmp_path: Path, source: Path) -> None:
    foreign = tmp_path / "out.partial.mp4"
    foreign.write_text("somebody else's")
    write_through(source, tmp_path / "out.mp4")
    assert foreign.read_text() == "somebody else's"
    assert len(probe(tmp_path / "out.mp4").video[0].times) == 10


def test_a_file_that_appeared_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    sink = PartialFile(tmp_path / "out.mp4", overwrite=False)
    sink.write(b"ours")
    (tmp_path / "out.mp4").write_bytes(b"theirs")
    with pytest.raises(OpenError, match="appeared"):
        sink.keep()
    assert (tmp_path / "out.mp4").read_bytes() == b"theirs"
    assert sink.partial.read_bytes() == b"ours"


def test_overwrite_replaces_only_at_the_end_and_follows_links(tmp_path: Path, source: Path) -> None:
    real, link = tmp_path / "real.mp4", tmp_path / "link.mp4"
    real.write_text("old")
    link.symlink_to(real)
    opened = FileSource(str(source), ReadOptions())
    outputs, _ = open_outputs(opened, [str(link)], EncodeOptions(overwrite=True))
    assert real.read_text() == "old"
    drive(opened, outputs)
    opened.close()
    assert link.is_symlink()
    assert len(probe(real).video[0].times) == 10


def test_the_longest_file_name_can_be_written(tmp_path: Path, source: Path) -> None:
    name = "n" * 251 + ".mp4"
    write_through(source, tmp_path / name)
    assert (tmp_path / name).exists()


@pytest.mark.parametrize("kind", ["same", "link", "hard link", "dotted"])
def test_a_target_that_is_the_source_is_refused(tmp_path: Path, source: Path, kind: str) -> None:
    target = tmp_path / "other.mkv"
    if kind == "link":
        target.symlink_to(source)
    elif kind == "hard link":
        os.link(source, target)
    else:
        target = source if kind == "same" else tmp_path / "x" / ".." / source.name
    with pytest.raises(ConfigError, match="the source itself"):
        check_targets([source], [str(target)], EncodeOptions(overwrite=True))


def test_a_folder_of_images_is_not_written_over_itself(tmp_path: Path) -> None:
    image = tmp_path / "a1.png"
    image.write_bytes(b"")
    for target in (f"{tmp_path}/", f"{tmp_path}/a%d.png"):
        with pytest.raises(ConfigError, match="the source itself"):
            check_targets([image], [target], EncodeOptions(overwrite=True))


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        ("taken.mp4", ConfigError, "--overwrite"),
        ("missing/out.mp4", OpenError, "does not exist"),
        ("out.xyz", ConfigError, "names no format"),
        ("out.mp5", ConfigError, "names no format"),
        ("out.mpd", ConfigError, "no single file"),
        ("missing/out.m3u8", OpenError, "does not exist"),
        ("out%03d.mp4", ConfigError, "makes images"),
    ],
)
def test_targets_that_cannot_be_are_refused_before_work(
    tmp_path: Path, source: Path, target: str, error: type[Exception], words: str
) -> None:
    (tmp_path / "taken.mp4").write_text("mine")
    with pytest.raises(error, match=words):
        check_targets([source], [str(tmp_path / target)], EncodeOptions())
    assert (tmp_path / "taken.mp4").read_text() == "mine"


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_target_is_not_the_current_folder(source: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="target is empty"):
        check_targets([source], [text], EncodeOptions())


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("H264", ["libx264"]), ("HEVC", ["libx265"]), ("h265", ["libx265"]), ("libx26", ["libx265", "libx264"])],
)
def test_an_unknown_encoder_gets_each_suggestion_once(source: Path, name: str, wanted: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        check_targets([source], ["out.mp4"], EncodeOptions(codec=name))
    offered = str(caught.value).split("; try ")[1].split(", ")
    assert len(set(offered)) == len(offered)
    assert set(wanted) <= set(offered)


def test_a_target_given_twice_is_refused(tmp_path: Path, source: Path) -> None:
    target = str(tmp_path / "out.mp4")
    with pytest.raises(ConfigError, match="twice"):
        check_targets([source], [target, f"{tmp_path}/./out.mp4"], EncodeOptions())


def test_a_special_file_is_no_target(tmp_path: Path, source: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(ConfigError, match="no ordinary file"):
        check_targets([source], [str(tmp_path / "pipe.mp4")], EncodeOptions(overwrite=True))


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder that may not be written to; root needs a read-only file system for that."""
    place = tmp_path / "locked"
    place.mkdir(mode=0o500)
    if os.geteuid() != 0:
        yield place
        return
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(place)], capture_output=True)
    require(done.returncode == 0, "the right to mount a read-only file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_folder_that_may_not_be_written_to_is_refused(locked: Path, source: Path) -> None:
    with pytest.raises(OpenError, match="no permission"):
        check_targets([source], [str(locked / "out.mp4")], EncodeOptions())
    with pytest.raises(OpenError, match="cannot write into"):
        PartialFile(locked / "out.mp4", overwrite=False)


def test_sound_cannot_be_the_target_of_a_video(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ConfigError, match="holds no video"):
        write_through(source, tmp_path / "out.mp3")
    assert partials(tmp_path) == []


@pytest.mark.parametrize("suffix", ["flv", "gif", "apng", "webp", "mxf", "png"])
def test_two_videos_into_what_holds_one_are_refused(tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / "in.mkv", Video(), Video(frames=8))
    with pytest.raises(ConfigError, match=r"cannot hold the 2 video streams of in\.mkv, only one"):
        write_through(source, tmp_path / f"out.{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_a_second_target_that_fails_leaves_nothing_of_the_first(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ConfigError, match="cannot hold"):
        write_through(source, tmp_path / "out.mkv", tmp_path / "out.webm", codec="libx264")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv"]


# ---- full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    require(mounted, "the right to mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_full_disk_is_noticed_while_writing(tmp_path: Path, small_disk: Path, suffix: str) -> None:
    source = write(tmp_path / "in.mkv", NOISY)
    seen = []
    opened = FileSource(str(source), ReadOptions())
    outputs, _ = open_outputs(opened, [str(small_disk / f"out.{suffix}")], EncodeOptions(crf=10))
    with pytest.raises(OutputFull, match=r"bytes free.*free some space"):
        drive(opened, outputs, lambda frame: seen.append(frame.index))
    opened.close()
    assert len(seen) < NOISY.frames, "noticed only at the end"
    assert list(small_disk.iterdir()) == []


def test_a_full_disk_ends_a_folder_of_pictures(tmp_path: Path, small_disk: Path) -> None:
    source = write(tmp_path / "in.mkv", NOISY)
    with pytest.raises(OutputFull, match="free some space"):
        write_through(source, f"{small_disk}/frames/")
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_file_size_limit_is_noticed_while_writing(tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / "in.mkv", NOISY)
    done = run_python(
        """
        import resource, sys
        from pathlib import Path
        from streamderain.errors import OutputFull
        from tests.support.writing import write_through
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        seen = []
        try:
            write_through(Path(sys.argv[1]), sys.argv[2], change=lambda f: seen.append(f.index), crf=10)
        except OutputFull as error:
            print(len(seen), error)
        """,
        source,
        tmp_path / f"out.{suffix}",
    )
    assert done.returncode == 0, done.stderr
    count, _, message = done.stdout.partition(" ")
    assert int(count) < NOISY.frames, "noticed only at the end"
    assert "ulimit -f" in message
    assert partials(tmp_path) == []


def test_standard_output_to_a_full_device_is_a_clean_error(source: Path) -> None:
    require(Path("/dev/full").exists(), "/dev/full")
    with Path("/dev/full").open("wb", buffering=0) as full:
        sink = StandardOutput(full.fileno())
        with pytest.raises(OSError, match="No space"):
            sink.write(b"something")
        with pytest.raises(OutputFull, match="standard output"):
            sink.check()
        sink.discard()


# ---- pipes and kills

TO_STANDARD_OUTPUT = """
    import sys
    from pathlib import Path
    from streamderain.errors import MediaError
    from tests.support.writing import write_through
    try:
        write_through(Path(sys.argv[1]), "-")
    except MediaError as error:
        sys.exit(f"clean: {error}")
"""


def test_standard_output_carries_matroska(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "piped.mkv"
    with target.open("wb") as file:
        command = [sys.executable, "-c", textwrap.dedent(TO_STANDARD_OUTPUT), str(source)]
        subprocess.run(command, cwd=ROOT, stdout=file, check=True, timeout=60)
    before, after = probe(source), probe(target)
    assert after.video[0].times == before.video[0].times
    assert after.of_kind("audio")[0].digests == before.of_kind("audio")[0].digests


def test_a_reader_that_goes_away_ends_the_run_cleanly(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mkv", NOISY)
    command = [sys.executable, "-c", textwrap.dedent(TO_STANDARD_OUTPUT), str(source)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=False
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        errors = process.stderr.read().decode()
        assert process.wait(60) == 1
    assert "clean:" in errors
    assert "its reader went away" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_what_was_written_before_a_kill_can_be_read(tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / "in.mkv", Video(frames=180), audio=[Sound(codec="ac3", seconds=7.2)])
    done = run_python(
        """
        import os, signal, sys
        from pathlib import Path
        from tests.support.writing import write_through
        kill = lambda frame: os.kill(os.getpid(), signal.SIGKILL) if frame.index == 170 else None
        write_through(Path(sys.argv[1]), sys.argv[2], change=kill)
        """,
        source,
        tmp_path / f"out.{suffix}",
    )
    assert done.returncode == -signal.SIGKILL
    assert partials(tmp_path) == [f"out.partial.{suffix}"]
    facts, before = probe(tmp_path / f"out.partial.{suffix}"), probe(source)
    times = facts.video[0].times
    assert len(times) >= 50
    assert times == before.video[0].times[: len(times)]
    sound = facts.of_kind("audio")[0].digests
    assert len(sound) > 10
    assert sound == before.of_kind("audio")[0].digests[: len(sound)]


def test_packets_may_come_from_two_threads(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mkv", Video(frames=60), audio=[Sound(codec="flac", seconds=2.4)])
    opened = FileSource(str(source), ReadOptions())
    outputs, _ = open_outputs(opened, [str(tmp_path / "out.mp4")], EncodeOptions())
    (output,) = outputs
    (outlet,) = output.outlets
    copied: list[av.Packet] = []
    frames = list(opened.frames(copied.append))

    thread = threading.Thread(target=lambda: [outlet.copy(packet) for packet in copied])
    thread.start()
    for frame in frames:
        outlet.mux(output.encoders[0].encode(frame, None))
    outlet.mux(output.encoders[0].flush())
    thread.join()
    outlet.finish()
    opened.close()

    before, after = probe(source), probe(tmp_path / "out.mp4")
    assert after.video[0].times == before.video[0].times
    assert after.of_kind("audio")[0].digests == before.of_kind("audio")[0].digests


def test_a_picture_of_another_size_is_refused_in_words(tmp_path: Path, source: Path) -> None:
    other = write(tmp_path / "other.mkv", Video(width=80, height=64, frames=1))
    opened, strange = FileSource(str(source), ReadOptions()), FileSource(str(other), ReadOptions())
    outputs, _ = open_outputs(opened, [str(tmp_path / "out.mp4")], EncodeOptions())
    with pytest.raises(EncodeError, match="64x48 to 80x64"):
        drive(strange, outputs)
    opened.close()
    strange.close()
    assert partials(tmp_path) == []


def test_errors_name_their_kind() -> None:
    assert issubclass(OutputFull, MediaError)
    assert OutputFull("x").exit_code == 3


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_target_that_got_nothing_is_refused_and_removed(tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / "in.ts", Video(frames=10), audio=[Sound()])
    done = run_python(  # FFmpeg crashes on the trailer of an empty fragmented mp4
        """
        import sys
        from streamderain.errors import EncodeError
        from streamderain.media.reading.file import FileSource
        from streamderain.media.writing.outputs import open_outputs
        from streamderain.options import EncodeOptions, ReadOptions
        outputs, _ = open_outputs(FileSource(sys.argv[1], ReadOptions()), [sys.argv[2]], EncodeOptions())
        try:
            outputs[0].outlets[0].finish()
        except EncodeError as error:
            print(error)
        outputs[0].outlets[0].abort()
        """,
        source,
        tmp_path / f"out.{suffix}",
    )
    assert done.returncode == 0, done.stderr
    assert "nothing to write" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.ts"]
