"""Pieces: the joined result is what one go gives, at every cut, whatever the source is like."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamderain import run
from streamderain.events import Event, Started
from streamderain.options import EncodeOptions, EngineOptions, ReadOptions, RunOptions, WorkOptions
from tests.support import media
from tests.support.kills import contents
from tests.support.models import small_deep
from tests.support.reader import frame_count

LOSSLESS = EncodeOptions(codec="ffv1", overwrite=True)
SIZE: dict[str, Any] = {"width": 96, "height": 64, "frames": 150}
X265 = {
    "preset": "medium",
    "x265-params": "open-gop=1:keyint=20:min-keyint=20:bframes=4:b-adapt=0:rc-lookahead=10",
}


def steps(count: int) -> list[int]:
    """Times of a video whose frames come now close together and now far apart, in ms."""
    return [int(value) for value in np.cumsum(np.random.default_rng(4).choice([17, 33, 40, 95], count))]


def h264(path: Path) -> Path:
    return media.write(path, media.Video(**SIZE, b_frames=3, gop=20), audio=[media.Sound(seconds=6.0)])


def h264_open_gop(path: Path) -> Path:
    options = {"preset": "medium", "x264-params": "open-gop=1:keyint=20:min-keyint=20:b-adapt=0:bframes=3"}
    return media.write_video(path, **SIZE, b_frames=3, gop=20, options=options)


def hevc_rasl(path: Path) -> Path:
    return media.write_video(path, **SIZE, codec="libx265", b_frames=4, gop=20, options=X265)


def ten_bits(path: Path) -> Path:
    return media.write_video(path, **SIZE, pix_fmt="yuv420p10le", b_frames=2, gop=20)


def variable_rate(path: Path) -> Path:
    times = steps(SIZE["frames"])
    return media.write_video(path, **SIZE, pts=times, time_base=Fraction(1, 1000), b_frames=2, gop=20)


def edit_list(path: Path) -> Path:
    """Sound begins before the pictures, which begin late: an mp4 says so by edit lists."""
    video = media.Video(**SIZE, b_frames=2, gop=20, start_s=Fraction(1, 5))
    return media.write(path, video, audio=[media.Sound(seconds=6.0)])


def two_videos(path: Path) -> Path:
    rear = media.Video(width=64, height=48, frames=180, rate=Fraction(30), gop=33, seed=5, b_frames=1)
    return media.write(path, media.Video(**SIZE, b_frames=2, gop=20), rear, audio=[media.Sound(seconds=6.0)])


def transport_stream(path: Path) -> Path:
    return media.write(path, media.Video(**SIZE, b_frames=2, gop=20), audio=[media.Sound(seconds=6.0)])


def with_everything(path: Path) -> Path:
    texts = media.Text(events=[(start, start + 300, f"line {start}") for start in range(0, 5500, 450)])
    return media.write(
        path,
        media.Video(**SIZE, b_frames=2, gop=20, codec="libx264"),
        audio=[media.Sound("ac3", seconds=6.0)],
        subtitles=[texts],
        chapters=[(0, 2500, "one"), (2500, 6000, "two")],
        attachments=[media.Attachment()],
        metadata={"title": "a drive"},
    )


SOURCES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "h264": (h264, "mp4"),
    "h264-open-gop": (h264_open_gop, "mp4"),
    "h264-open-gop-mkv": (h264_open_gop, "mkv"),
    "hevc-rasl": (hevc_rasl, "mp4"),
    "ten-bits": (ten_bits, "mkv"),
    "variable-rate": (variable_rate, "mp4"),
    "edit-list": (edit_list, "mp4"),
    "two-videos": (two_videos, "mp4"),
    "transport-stream": (transport_stream, "ts"),
    "everything": (with_everything, "mkv"),
}


def options(*, pieces: bool, **read: Any) -> RunOptions:
    work = WorkOptions(segment_length_s=1.0) if pieces else WorkOptions()
    return RunOptions(
        read=ReadOptions(**read), encode=LOSSLESS, engine=EngineOptions(engine="openvino"), work=work
    )


def derained(source: Path, target: Path, wanted: RunOptions) -> list[Event]:
    events: list[Event] = []
    report = run(source, target, options=wanted, observer=events.append)
    assert report.exit_code == 0
    return events


def pieces_of(events: list[Event]) -> str:
    (started,) = [event for event in events if isinstance(event, Started)]
    return started.parting


@pytest.mark.parametrize("name", SOURCES)
def test_the_joined_result_is_what_one_go_gives(name: str, tmp_path: Path) -> None:
    make, suffix = SOURCES[name]
    source = make(tmp_path / f"source.{suffix}")
    whole, joined = tmp_path / "whole.mkv", tmp_path / "joined.mkv"
    assert not pieces_of(derained(source, whole, options(pieces=False)))
    assert int(pieces_of(derained(source, joined, options(pieces=True))).split()[0]) >= 3
    assert contents(joined) == contents(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, whole.name, joined.name])


@pytest.mark.parametrize(("start_s", "duration_s"), [(0.5, None), (0.0, 3.3), (1.13, 3.61)])
@pytest.mark.parametrize("name", ["h264-open-gop", "two-videos", "variable-rate"])
def test_of_a_stretch_too(name: str, start_s: float, duration_s: float | None, tmp_path: Path) -> None:
    make, suffix = SOURCES[name]
    source = make(tmp_path / f"source.{suffix}")
    whole, joined = tmp_path / "whole.mkv", tmp_path / "joined.mkv"
    read = {"start_s": start_s, "duration_s": duration_s}
    derained(source, whole, options(pieces=False, **read))
    assert pieces_of(derained(source, joined, options(pieces=True, **read)))
    assert contents(joined) == contents(whole)


def lossy(**work: Any) -> RunOptions:
    return RunOptions(
        encode=EncodeOptions(overwrite=True, preset="ultrafast"),
        engine=EngineOptions(engine="identity"),
        work=WorkOptions(segment_length_s=1.0, **work),
    )


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "libsvtav1"])
def test_pieces_begin_with_keyframes_and_play_through(codec: str, tmp_path: Path) -> None:
    source = variable_rate(tmp_path / "source.mp4")
    target = tmp_path / "clean.mp4"
    presets = {"libvpx-vp9": None, "libsvtav1": "12"}
    encode = EncodeOptions(codec=codec, preset=presets.get(codec, "ultrafast"), overwrite=True)
    events = derained(source, target, replace(lossy(), encode=encode))
    pieces = int(pieces_of(events).split()[0])
    with av.open(str(target)) as container:
        times = [packet.pts or 0 for packet in container.demux(video=0) if packet.size]
        container.seek(0)
        keys = [p.pts for p in container.demux(video=0) if p.size and p.is_keyframe]
        container.seek(0)
        frames = [frame.pts for frame in container.decode(video=0)]
    assert sorted(times) == frames
    assert len(frames) == SIZE["frames"]
    assert pieces > 2
    assert len(keys) >= pieces


def test_two_targets_share_pieces_or_have_their_own(tmp_path: Path) -> None:
    source = h264(tmp_path / "source.mp4")
    targets = [tmp_path / "a.mp4", tmp_path / "b.mkv", tmp_path / "c.webm"]
    wanted = replace(lossy(), encode=EncodeOptions(overwrite=True))
    report = run(source, *targets, options=wanted)
    assert report.exit_code == 0
    for target in targets:
        with av.open(str(target)) as container:
            assert sum(1 for _ in container.decode(video=0)) == SIZE["frames"]
            # WebM holds no AAC: that is told, as in one go.
            assert bool(container.streams.audio) == (target.suffix != ".webm")


def told(events: list[Event]) -> str:
    started = [event for event in events if isinstance(event, Started)][-1]
    assert not started.parting
    (words,) = [warning for warning in started.warnings if "in one go" in warning]
    return words


def test_what_cannot_be_cut_is_derained_in_one_go_and_says_why(tmp_path: Path) -> None:
    refreshed = {"x264-params": "intra-refresh=1:keyint=25:bframes=0:ref=1", "preset": "veryfast"}
    cases = {
        "refresh.mp4": (media.Video(**SIZE, options=refreshed), "leans on others"),
        "short.mp4": (media.Video(width=64, height=48, frames=12), "no place to be cut at"),
        "old.avi": (media.Video(**SIZE, codec="mpeg4"), "mpeg4"),
        "raw.avi": (media.Video(**SIZE), "avi"),
    }
    for name, (video, words) in cases.items():
        source = media.write(tmp_path / name, video)
        events = derained(source, tmp_path / "clean.mkv", options(pieces=True))
        assert words in told(events), name
        with av.open(str(tmp_path / "clean.mkv")) as container:
            assert sum(1 for _ in container.decode(video=0)) == video.frames
    assert not list(tmp_path.glob("*.pieces"))


def test_a_bit_rate_and_pictures_are_worked_on_in_one_go(tmp_path: Path) -> None:
    source = h264(tmp_path / "source.mp4")
    capped = replace(lossy(), encode=EncodeOptions(max_bitrate=200_000))
    assert "bit rate" in told(derained(source, tmp_path / "clean.mp4", capped))
    pictures = replace(lossy(), encode=EncodeOptions())
    assert "no video file" in told(derained(source, tmp_path / "%04d.png", pictures))


@pytest.mark.parametrize("model", ["dcd-lite", "small-deep"])
def test_threads_change_nothing(model: str, tmp_path: Path) -> None:
    """Pieces are computed with as many threads as there is room for: the result must not tell.

    It does tell with models that look at whole frames (those that are not tileable), which therefore keep the
    threads that they have in one go.
    """
    source = media.write_video(tmp_path / "source.mp4", width=128, height=96, frames=12)
    name = str(small_deep(tmp_path / model)) if model != "dcd-lite" else model
    results = []
    for threads in (1, 2, 3):
        target = tmp_path / f"{threads}.mkv"
        engine = EngineOptions(model=name, engine="openvino", threads=threads)
        derained(source, target, RunOptions(encode=LOSSLESS, engine=engine))
        results.append(contents(target)["packets"])
    assert results[0] == results[1] == results[2]


SCRIPT = """
import sys
from streamderain import EncodeOptions, EngineOptions, RunOptions, WorkOptions, run

print("begun")
options = RunOptions(
    engine=EngineOptions(engine="identity"),
    encode=EncodeOptions(preset="ultrafast"),
    work=WorkOptions(jobs=2, segment_length_s=1.0),
)
assert run(sys.argv[1], sys.argv[2], options=options).exit_code == 0
assert __file__ == sys.argv[0] and __spec__ is None
"""


def test_a_script_may_begin_without_asking_whether_it_is_the_main_module(tmp_path: Path) -> None:
    media.write_video(tmp_path / "source.mp4", frames=75)
    (tmp_path / "script.py").write_text(SCRIPT)
    words = [tmp_path / "script.py", tmp_path / "source.mp4", tmp_path / "clean.mp4"]
    done = subprocess.run([sys.executable, *words], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().split() == ["begun"]
    assert frame_count(tmp_path / "clean.mp4") == 75
