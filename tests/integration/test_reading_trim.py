"""Trimming: to the frame, sound in sync, times from zero, with the frames around the piece that decide it."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from streamderain.errors import ConfigError
from streamderain.frame import Frame, Lead
from streamderain.media.reading import demuxer
from streamderain.media.reading.file import FileSource
from streamderain.options import ReadOptions
from tests.support.media import Sound, Text, Video, decoded, joined, probe, write, write_video

RATE = 25
LEAD = Lead(before=2, after=1)


def trimmed(
    path: Path, start_s: float, duration_s: float | None = None
) -> tuple[FileSource, list[Frame], list[Any]]:
    source = FileSource(str(path), ReadOptions(start_s=start_s, duration_s=duration_s), LEAD)
    packets: list[Any] = []
    frames = list(source.frames(packets.append))
    return source, frames, packets


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("a.mp4", {"gop": 25}),
    ("b.mp4", {"gop": 25, "b_frames": 3}),
    ("a.mkv", {"gop": 250}),
    ("a.ts", {"gop": 25}),
    ("b.ts", {"gop": 30, "b_frames": 3}),
    ("a.flv", {"gop": 12}),
    ("a.avi", {"codec": "mpeg4"}),
    ("a.mpg", {"codec": "mpeg2video"}),
    ("a.webm", {"codec": "libvpx-vp9"}),
    ("hevc.mp4", {"codec": "libx265", "gop": 25}),
    ("late.mp4", {"start_s": Fraction(10)}),
    ("late.ts", {"start_s": Fraction(10)}),
    ("raw.h264", {}),
    ("a.gif", {"codec": "gif", "pix_fmt": "bgr8"}),
]


@pytest.fixture(scope="module", params=KINDS, ids=[name for name, _ in KINDS])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A file of 100 frames, and the luma of each."""
    name, fields = request.param
    path = write_video(tmp_path_factory.mktemp("whole") / name, frames=100, **fields)
    source = FileSource(str(path), ReadOptions())
    return path, [frame.planes[0].copy() for frame in source.frames(lambda packet: None)]


@pytest.mark.parametrize("number", [1, 2, 37, 99])
def test_the_cut_is_at_the_frame(whole: tuple[Path, list[Any]], number: int) -> None:
    path, pictures = whole
    source, frames, _ = trimmed(path, number / RATE, 10 / RATE)
    kept = [frame for frame in frames if frame.emit]
    around = [frame for frame in frames if not frame.emit]
    wanted = pictures[number : number + 10]
    assert len(kept) == len(wanted)
    for got, want in zip(kept, wanted, strict=True):
        assert (got.planes[0] == want).all()
    assert kept[0].pts == 0
    assert all(frame.picture.pts == frame.pts for frame in frames)
    positions = [*range(max(0, number - 2), number), *range(number + 10, min(number + 11, 100))]
    for got, want in zip(around, [pictures[position] for position in positions], strict=True):
        assert (got.planes[0] == want).all()
    assert not any(frame.cut for frame in frames)
    assert not source.damage
    assert source.streams[0].frames in (None, 10, 11) or number > 90
    source.close()


@pytest.mark.parametrize("start_s", [0.5, 0.1 + 0.2, 1.017, 1.9])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_sound_stays_in_sync_and_no_times_collide(name: str, start_s: float, tmp_path: Path) -> None:
    path = write(tmp_path / name, Video(frames=100, gop=25), audio=[Sound("mp2", seconds=4)])
    facts = probe(path)
    begin_s = min(facts.video[0].times[0], facts.copied[0].times[0])
    source, frames, packets = trimmed(path, start_s, 1.5)
    kept = [frame for frame in frames if frame.emit]
    original_times = facts.copied[0].times
    assert source.offset_s >= begin_s + Fraction(start_s).limit_denominator(1000) - Fraction(1, 2000)
    assert kept[0].pts == 0
    assert packets
    for packet in packets:
        original = packet.pts * packet.time_base + source.offset_s
        near = min(original_times, key=lambda time: abs(time - original))
        assert abs(near - original) <= packet.time_base
    sound = [packet.pts * packet.time_base for packet in packets]
    assert all(after > before for before, after in pairwise(sound))
    assert 0 <= sound[0] < Fraction(1, 20)
    assert sound[-1] < Fraction(3, 2)
    assert sound[-1] > Fraction(14, 10)
    assert len(kept) in (37, 38)
    source.close()


def test_a_length_without_a_start_leaves_times_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", Video(frames=50, start_s=Fraction(2)), audio=[Sound(seconds=4)])
    source, frames, packets = trimmed(path, 0.0, 3.0)
    assert (source.offset_s, source.end_s) == (0, 3)
    kept = [frame for frame in frames if frame.emit]
    assert [kept[0].time_s, kept[-1].time_s] == [2.0, pytest.approx(2.96)]
    assert [frame.emit for frame in frames].count(False) == LEAD.after
    assert all(packet.pts * packet.time_base < 3 for packet in packets)
    source.close()


def test_times_of_variable_rate_stay_exact(tmp_path: Path) -> None:
    pts = (0, 3000, 3001, 90_000, 90_017, 200_000)
    path = write_video(tmp_path / "a.mp4", time_base=Fraction(1, 90_000), pts=pts)
    source, frames, _ = trimmed(path, 0.9)
    assert [frame.pts for frame in frames if frame.emit] == [0, 17, 110_000]
    source.close()


def test_a_front_and_a_rear_camera_are_cut_at_the_same_time(tmp_path: Path) -> None:
    rear = Video(frames=100, seed=1, start_s=Fraction(1, 50), time_base=Fraction(1, 1000))
    path = write(tmp_path / "a.mkv", Video(frames=100), rear, audio=[Sound(seconds=4)])
    source, frames, _ = trimmed(path, 1.0, 1.0)
    for stream, first in ((0, 0), (1, 20)):
        mine = [frame for frame in frames if frame.stream == stream]
        kept = [frame.pts for frame in mine if frame.emit]
        assert kept[0] == first
        assert len(kept) == 25
        assert [frame.emit for frame in mine[:3]] == [False, False, True]
    source.close()


def test_a_subtitle_on_screen_at_the_cut_stays_until_its_end(tmp_path: Path) -> None:
    texts = [
        Text(events=[(0, 300, "gone"), (400, 1500, "cut"), (1600, 1700, "whole"), (3000, 3100, "after")])
    ]
    path = write(tmp_path / "a.mkv", Video(frames=100), subtitles=texts)
    source, _, packets = trimmed(path, 1.0, 1.0)
    assert [(bytes(packet), packet.pts, packet.duration) for packet in packets] == [
        (b"cut", 0, 500),
        (b"whole", 600, 100),
    ]
    source.close()


def test_cover_art_survives_a_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", Video(frames=100, gop=10), cover=True)
    source, _, packets = trimmed(path, 3.0)
    assert [(packet.stream.codec_context.name, packet.pts) for packet in packets] == [("png", 0)]
    source.close()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "raw.h264"])
def test_a_start_behind_the_end_is_a_mistake_in_the_options(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, frames=20)
    with pytest.raises(ConfigError, match=r"nothing of .* lies at or after 7"):
        FileSource(str(path), ReadOptions(start_s=7.0))


def test_reading_stops_soon_after_the_end(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.mkv", Video(frames=1000, gop=25, width=16, height=16), audio=[Sound(seconds=40)]
    )
    source = FileSource(str(path), ReadOptions(start_s=2.0, duration_s=1.0))
    assert sum(frame.emit for frame in source.frames(lambda packet: None)) == 25
    assert not source._demuxer.reached_end
    source.close()


@pytest.mark.parametrize("lands_at", [4, 60, 99])
def test_a_seek_that_lands_late_is_taken_back(
    lands_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some indexes lead behind the wanted time; then reading begins earlier, at last at the beginning."""
    path = write_video(tmp_path / "a.mkv", frames=100, gop=1)
    seek = demuxer.Demuxer.seek
    tried = []

    def late(self: demuxer.Demuxer, to_s: Fraction) -> None:
        tried.append(to_s)
        seek(self, Fraction(lands_at, RATE))

    monkeypatch.setattr(demuxer.Demuxer, "seek", late)
    source, frames, _ = trimmed(path, 2.0)
    assert tried[0] == 1 - Fraction(LEAD.before, RATE)
    kept = [frame for frame in frames if frame.emit]
    assert len(kept) == 50
    assert bytes(kept[0].picture.planes[0]) == bytes(decoded(path)[50].planes[0])
    assert [frame.emit for frame in frames[:3]] == [False, False, True]
    source.close()


def test_where_seeking_fails_reading_begins_at_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mkv", frames=100)

    def refuse(*_: Any) -> None:
        raise av.error.PermissionError(1, "Operation not permitted", "x")

    monkeypatch.setattr(demuxer.Demuxer, "seek", refuse)
    source, frames, _ = trimmed(path, 2.0)
    assert sum(frame.emit for frame in frames) == 50
    source.close()


def test_a_cut_behind_a_jump_back_in_time(tmp_path: Path) -> None:
    """Joined files have every time twice; the cut counts what is seen when the file is played."""
    parts = [write_video(tmp_path / f"{n}.ts", frames=50, seed=n) for n in range(2)]
    path = joined(tmp_path / "joined.ts", *parts)
    source, frames, _ = trimmed(path, 1.0)
    times = [frame.pts for frame in frames if frame.emit]
    assert times[0] == 0
    assert all(after > before for before, after in pairwise(times))
    assert len(times) == 75
    source.close()


def test_deinterlacing_and_cutting_together(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=50, interlaced=True)
    source = FileSource(str(path), ReadOptions(start_s=1.0, deinterlace=True))
    frames = list(source.frames(lambda packet: None))
    assert [frame.pts for frame in frames if frame.emit] == [512 * n for n in range(25)]
    source.close()
