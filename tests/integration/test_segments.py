"""Pieces: the joined result is what one go gives, at every cut, whatever the source is like."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
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


def contents(path: Path) -> dict[str, Any]:
    """Everything that is in a file: packets of each stream with their times, tags, chapters, frames."""
    with av.open(str(path)) as container:
        found: dict[str, Any] = {
            "tags": dict(container.metadata),
            "chapters": container.chapters(),
            "streams": [(s.type, s.time_base, s.start_time, dict(s.metadata)) for s in container.streams],
            "packets": [
                (p.stream_index, p.pts, p.dts, p.duration, hashlib.sha256(bytes(p)).hexdigest())
                for p in container.demux()
                if p.size
            ],
        }
    return found


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
