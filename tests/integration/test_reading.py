"""Every kind of whole file: all frames, exact times and copied packets, against an independent reading."""

from __future__ import annotations

import gc
import hashlib
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av import Packet, VideoFrame

from streamderain.errors import UnsupportedFormat
from streamderain.frame import Frame
from streamderain.media.arrays import rgb_array
from streamderain.media.pixels import component_planes
from streamderain.media.reading.file import FileSource
from streamderain.options import ReadOptions
from tests.support.media import (
    HDR10_X265,
    Attachment,
    Colour,
    Sound,
    Text,
    Video,
    decoded,
    joined,
    probe,
    rgb,
    size_change,
    write,
    write_video,
)

Writer = Callable[[Path], Path]


def video(name: str, **fields: Any) -> Any:
    return pytest.param(lambda folder: write_video(folder / name, **fields), id=f"{name} {sorted(fields)}")


def file(name: str, *streams: Video, **fields: Any) -> Any:
    return pytest.param(
        lambda folder: write(folder / name, *streams, **fields), id=f"{name} {sorted(fields)}"
    )


VFR = (0, 3000, 3001, 9000, 100_000, 103_600)

WHOLE = [
    # containers
    video("h264.mp4"),
    video("h264.mkv"),
    video("h264.ts"),
    video("h264.flv"),
    video("h264.mov"),
    video("mpeg2.mpg", codec="mpeg2video"),
    video("mpeg2.vob", codec="mpeg2video"),
    video("mpeg4.avi", codec="mpeg4"),
    video("raw.m2v", codec="mpeg2video", rate=Fraction(30_000, 1001)),
    video("wmv.asf", codec="wmv2"),
    video("raw.y4m", codec="wrapped_avframe"),
    file("fragmented.mp4", Video(frames=25), options={"movflags": "frag_keyframe+empty_moov"}),
    file("faststart.mp4", Video(frames=25), options={"movflags": "faststart"}),
    # codecs
    video("hevc.mp4", codec="libx265"),
    video("hevc 10 bits.mp4", codec="libx265", pix_fmt="yuv420p10le"),
    video("vp8.webm", codec="libvpx"),
    video("vp9.webm", codec="libvpx-vp9"),
    video("av1.mp4", codec="libsvtav1"),
    video("mjpeg.avi", codec="mjpeg", pix_fmt="yuvj420p"),
    video("prores 4444.mov", codec="prores_ks", pix_fmt="yuva444p10le"),
    video("prores 422.mov", codec="prores_ks", pix_fmt="yuv422p10le"),
    video("animated.gif", codec="gif", pix_fmt="bgr8", rate=Fraction(10)),
    video("animated.apng", codec="apng", pix_fmt="rgba"),
    video("palette.mov", codec="png", pix_fmt="pal8"),
    video("one bit.mov", codec="png", pix_fmt="monob"),
    video("gray 16.mov", codec="png", pix_fmt="gray16be"),
    # sizes and formats
    video("odd.mkv", codec="ffv1", width=37, height=21),
    video("odd 422.mkv", codec="ffv1", pix_fmt="yuv422p", width=37, height=21),
    video("one.mkv", codec="ffv1", pix_fmt="yuv444p", width=1, height=1),
    video("two.mp4", width=2, height=2),
    video("wide.mkv", codec="ffv1", width=4096, height=16, frames=2),
    video("deep.mkv", codec="ffv1", pix_fmt="yuv444p16le"),
    video("411.mkv", codec="ffv1", pix_fmt="yuv411p"),
    video("gray.mkv", codec="ffv1", pix_fmt="gray"),
    video("rgb.mkv", codec="libx264rgb", pix_fmt="rgb24"),
    video("rgb 16.mkv", codec="ffv1", pix_fmt="gbrp16le"),
    video("bottom up.avi", codec="rawvideo", pix_fmt="bgr24"),
    video("yuyv.avi", codec="rawvideo", pix_fmt="yuyv422"),
    video("uyvy.mov", codec="rawvideo", pix_fmt="uyvy422"),
    video("nv12.nut", codec="rawvideo", pix_fmt="nv12"),
    video("p010.nut", codec="rawvideo", pix_fmt="p010le"),
    video("full range.mp4", pix_fmt="yuvj420p"),
    # times
    video("vfr.mp4", time_base=Fraction(1, 90_000), pts=VFR),
    video("vfr b.mp4", time_base=Fraction(1, 90_000), pts=VFR, b_frames=2),
    video("time jump.mkv", time_base=Fraction(1, 1000), pts=(0, 40, 80, 20_080, 20_120)),
    video("ntsc.mp4", rate=Fraction(30_000, 1001), frames=31),
    video("odd time base.mp4", rate=Fraction(1_000_000, 33_367), frames=12),
    video("late.mp4", start_s=Fraction(5)),
    video("late.ts", start_s=Fraction(100)),
    video("b frames.mp4", b_frames=3, frames=25),
    video("b frames.ts", b_frames=3, frames=25),
    video("b frames mpeg4.avi", codec="mpeg4", b_frames=2, frames=25),
    video(
        "b frames.webm", codec="libvpx-vp9", frames=40, options={"auto-alt-ref": "1", "lag-in-frames": "25"}
    ),
    video(
        "open gop.mkv", codec="libx265", frames=60, gop=20, options={"x265-params": "open-gop=1:bframes=4"}
    ),
    video("one frame.mp4", frames=1),
    file(
        "edit list.mp4",  # the first five frames are there to be decoded, not shown
        Video(frames=30, gop=30, pts=range(-5, 25)),
        audio=[Sound()],
        options={"avoid_negative_ts": "disabled"},
    ),
    # everything beside the picture
    video("rotated.mp4", rotation=90),
    video("anamorphic.mp4", sar=Fraction(4, 3)),
    file("sound.mp4", Video(), audio=[Sound(), Sound(start_s=Fraction(1, 10))]),
    file("sound.ts", Video(), audio=[Sound("mp2")]),
    file("late video.mkv", Video(start_s=Fraction(3, 10)), audio=[Sound("libopus")]),
    file("front and rear.mp4", Video(), Video(width=32, height=32, seed=1), audio=[Sound()]),
    file("rear is late.mkv", Video(frames=25), Video(seed=1, start_s=Fraction(1, 2))),
    file("cover.mp4", Video(), cover=True),
    file("cover.mkv", Video(), cover=True),
    file(
        "everything.mkv",
        Video(),
        audio=[Sound(), Sound("flac")],
        subtitles=[Text(), Text("ass")],
        chapters=[(0, 200, "one"), (200, 400, "two")],
        attachments=[Attachment()],
        metadata={"title": "all"},
    ),
    file("text.mp4", Video(), subtitles=[Text("mov_text")]),
    file("text.webm", Video("libvpx-vp9"), subtitles=[Text("webvtt")]),
]


def read_all(source: FileSource) -> tuple[list[Frame], dict[int, list[Any]]]:
    packets: dict[int, list[Any]] = {stream.index: [] for stream in source.copied}
    frames = list(source.frames(lambda packet: packets[packet.stream_index].append(packet)))
    return frames, packets


@pytest.mark.parametrize("make", WHOLE)
def test_whole_files_are_read_completely_and_exactly(make: Writer, tmp_path: Path) -> None:
    path = make(tmp_path)
    facts = probe(path)
    source = FileSource(str(path), ReadOptions())
    frames, packets = read_all(source)
    assert not source.damage, source.damage.texts()
    assert not source.warnings
    assert len(source.streams) == len(facts.video)
    for stream, want in zip(source.tracks, facts.video, strict=True):
        got = [frame for frame in frames if frame.stream == stream.info.position]
        assert [frame.pts * frame.time_base for frame in got] == list(want.times)
        assert [frame.index for frame in got] == list(range(len(want.times)))
        assert all(frame.emit for frame in got)
        assert (stream.info.geometry.width, stream.info.geometry.height) == (want.width, want.height)
        assert all(frame.picture.pts == frame.pts for frame in got)
        assert all(
            frame.picture.format.name == stream.info.pix_fmt == stream.first.format.name for frame in got
        )
        assert (stream.first.rotation, stream.stream.sample_aspect_ratio) == (want.rotation, want.sar)
    copied = [stream for stream in source.copied if stream.type != "attachment"]
    for stream, expected in zip(copied, facts.copied, strict=True):
        digests = [hashlib.sha256(bytes(packet)).hexdigest() for packet in packets[stream.index]]
        assert digests == list(expected.digests), expected
        if expected.kind != "picture":
            assert [packet.pts * packet.time_base for packet in packets[stream.index]] == list(expected.times)
        assert all(packet.dts is not None for packet in packets[stream.index])
    source.close()


@pytest.mark.parametrize("make", [param for param in WHOLE if "pts" not in param.id])
def test_whole_files_without_a_pause_have_no_cuts(make: Writer, tmp_path: Path) -> None:
    source = FileSource(str(make(tmp_path)), ReadOptions())
    assert [frame.index for frame in source.frames(lambda packet: None) if frame.cut] == []
    source.close()


@pytest.mark.parametrize("name", ["planar.mkv", "bottom up.avi", "packed.avi"])
def test_planes_are_the_pictures_that_ffmpeg_decodes(name: str, tmp_path: Path) -> None:
    kinds = {
        "planar.mkv": ("ffv1", "yuv420p"),
        "bottom up.avi": ("rawvideo", "bgr24"),
        "packed.avi": ("rawvideo", "yuyv422"),
    }
    codec, pix_fmt = kinds[name]
    path = write_video(tmp_path / name, codec=codec, pix_fmt=pix_fmt, width=38, height=22)
    wanted = [rgb(frame) for frame in decoded(path)]
    source = FileSource(str(path), ReadOptions())
    frames = list(source.frames(lambda packet: None))
    assert len(frames) == len(wanted)
    for frame, want in zip(frames, wanted, strict=True):
        planes = tuple(plane.copy() for plane in frame.planes)
        assert np.abs(rgb_array(frame.picture).astype(int) - want).max() <= 1
        assert np.abs(rgb_array(frame.picture, planes).astype(int) - want).max() <= 1
    source.close()


def test_a_long_pause_is_a_cut(tmp_path: Path) -> None:
    pts = (0, 40, 80, 20_080, 20_120)
    path = write_video(tmp_path / "pause.mkv", time_base=Fraction(1, 1000), pts=pts)
    source = FileSource(str(path), ReadOptions())
    assert [(frame.pts, frame.cut) for frame in source.frames(lambda packet: None)] == [
        (0, False),
        (40, False),
        (80, False),
        (20_080, True),
        (20_120, False),
    ]
    source.close()


def test_raw_streams_get_times_from_the_frame_rate_and_say_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "raw.h264", rate=Fraction(30_000, 1001), frames=31)
    source = FileSource(str(path), ReadOptions())
    frames = list(source.frames(lambda packet: None))
    assert [frame.pts * frame.time_base for frame in frames] == [
        Fraction(i * 1001, 30_000) for i in range(31)
    ]
    assert "31 frames have no time" in "".join(source.warnings)
    source.close()


@pytest.mark.parametrize("b_frames", [1, 2, 3])
def test_h264_with_b_frames_in_avi_has_even_times(b_frames: int, tmp_path: Path) -> None:
    """FFmpeg's own are out of order there: AVI stores none."""
    options = {"preset": "medium"}
    path = write_video(tmp_path / "a.avi", b_frames=b_frames, frames=40, gop=15, options=options)
    source = FileSource(str(path), ReadOptions())
    frames = list(source.frames(lambda packet: None))
    assert {after.pts - before.pts for before, after in pairwise(frames)} == {1}
    assert 0 <= frames[0].pts <= 2
    for frame, want in zip(frames, decoded(path), strict=True):
        assert (frame.planes[0] == component_planes(want)[0]).all()
    assert not source.damage
    assert not source.warnings
    source.close()


def test_times_that_begin_anew_are_carried_on_with_the_sound(tmp_path: Path) -> None:
    parts = [
        write(tmp_path / f"{n}.ts", Video(frames=50, seed=n), audio=[Sound("mp2", seconds=2.0)])
        for n in range(2)
    ]
    source = FileSource(str(joined(tmp_path / "joined.ts", *parts)), ReadOptions())
    frames, packets = read_all(source)
    times = [frame.pts * frame.time_base for frame in frames]
    steps = [after - before for before, after in pairwise(times)]
    assert len(frames) == 100
    assert all(0 < step < Fraction(1, 10) for step in steps)
    sound = [packet.pts * packet.time_base for packet in next(iter(packets.values()))]
    assert all(before < after for before, after in pairwise(sound))
    assert abs(sound[-1] - times[-1]) < Fraction(1, 5)
    assert "began anew" in "".join(source.warnings)
    source.close()


def test_hdr10_tags_and_side_data_are_on_the_first_frame(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "hdr.mp4",
        codec="libx265",
        pix_fmt="yuv420p10le",
        colour=Colour(9, 9, 16, 1),
        options={"x265-params": HDR10_X265},
    )
    source = FileSource(str(path), ReadOptions())
    first = source.tracks[0].first
    assert (first.color_primaries, first.colorspace, first.color_trc, first.color_range) == (9, 9, 16, 1)
    assert {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"} <= {
        item.type.name for item in first.side_data
    }
    assert source.streams[0].geometry.matrix == "bt2020"
    source.close()


@pytest.mark.parametrize("name", ["field.mp4", "field.mpg"])
def test_interlaced_video_is_refused_by_the_name_of_the_option(name: str, tmp_path: Path) -> None:
    codec = "mpeg2video" if name.endswith("mpg") else "libx264"
    path = write_video(tmp_path / name, codec=codec, interlaced=True)
    with pytest.raises(UnsupportedFormat, match="--deinterlace"):
        FileSource(str(path), ReadOptions())


@pytest.mark.parametrize("name", ["field.mp4", "field.mpg"])
def test_deinterlacing_keeps_count_and_times(name: str, tmp_path: Path) -> None:
    codec = "mpeg2video" if name.endswith("mpg") else "libx264"
    path = write_video(tmp_path / name, codec=codec, interlaced=True, frames=12)
    source = FileSource(str(path), ReadOptions(deinterlace=True))
    frames = list(source.frames(lambda packet: None))
    assert [frame.pts * frame.time_base for frame in frames] == list(probe(path).video[0].times)
    assert not any(frame.picture.interlaced_frame for frame in frames)
    assert not source.damage
    source.close()


def test_deinterlacing_changes_interlaced_frames_and_leaves_progressive_ones(tmp_path: Path) -> None:
    for interlaced in (True, False):
        path = write_video(tmp_path / f"{interlaced}.mp4", interlaced=interlaced)
        source = FileSource(str(path), ReadOptions(deinterlace=True))
        got = [frame.planes[0].copy() for frame in source.frames(lambda packet: None)]
        source.close()
        same = [(a == component_planes(b)[0]).all() for a, b in zip(got, decoded(path), strict=True)]
        assert not any(same) if interlaced else all(same)


def test_a_change_of_size_names_frame_time_and_both_sizes(tmp_path: Path) -> None:
    source = FileSource(str(size_change(tmp_path / "size.ts", frames=8)), ReadOptions())
    seen = 0
    with pytest.raises(
        UnsupportedFormat, match=r"64x48 yuv420p to 96x64 yuv420p at frame 8 \(0.320 s\).*Split"
    ):
        for _ in source.frames(lambda packet: None):
            seen += 1
    assert seen == 8
    source.close()


def test_close_may_interrupt_reading_and_be_repeated(tmp_path: Path) -> None:
    source = FileSource(str(write(tmp_path / "a.mkv", Video(frames=50), audio=[Sound()])), ReadOptions())
    frames = source.frames(lambda packet: None)
    first = next(frames)
    source.close()
    source.close()
    assert first.planes[0].sum() > 0
    assert list(frames) == []


def test_frames_outlive_their_source(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", codec="ffv1")
    source = FileSource(str(path), ReadOptions())
    frames = list(source.frames(lambda packet: None))
    source.close()
    for frame, want in zip(frames, decoded(path), strict=True):
        assert (frame.planes[0] == component_planes(want)[0]).all()


def test_nothing_piles_up_while_reading(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", Video(frames=300), Video(frames=300, seed=1), audio=[Sound(seconds=12)])
    source = FileSource(str(path), ReadOptions())
    most = 0
    for frame in source.frames(lambda packet: None):
        if frame.index % 50 == 0:
            alive = sum(issubclass(type(thing), Frame | VideoFrame | Packet) for thing in gc.get_objects())
            most = max(most, alive)
    assert 1 < most < 40
    source.close()


READER = """
import sys
from streamderain.media.reading.file import FileSource
from streamderain.options import ReadOptions
from streamderain.errors import StreamderainError
try:
    source = FileSource("-", ReadOptions(start_s=float(sys.argv[1])))
    print(len([f for f in source.frames(lambda packet: None) if f.emit]), source.name)
except StreamderainError as error:
    print(type(error).__name__, error)
"""


def read_standard_input(stdin: Any, *, start_s: float = 0.0, data: bytes | None = None) -> str:
    command = [sys.executable, "-c", READER, str(start_s)]
    if data is None:
        done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, timeout=60)
    else:
        done = subprocess.run(command, input=data, capture_output=True, timeout=60)  # type: ignore[assignment]
    assert not done.stderr
    return done.stdout if isinstance(done.stdout, str) else done.stdout.decode()


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.avi", "a.h264"])
def test_standard_input_as_a_pipe(name: str, tmp_path: Path) -> None:
    data = write_video(
        tmp_path / name, codec="mpeg4" if name.endswith("avi") else "libx264", frames=20
    ).read_bytes()
    assert read_standard_input(subprocess.PIPE, data=data) == "20 standard input\n"


def test_a_pipe_can_be_trimmed(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.mkv", frames=20).read_bytes()
    assert read_standard_input(subprocess.PIPE, data=data, start_s=0.4) == "10 standard input\n"


def test_a_piped_mp4_with_its_index_at_the_end_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """A large one: FFmpeg can still go back in what it has buffered of a small one."""
    data = write_video(tmp_path / "a.mp4", frames=20).read_bytes()
    index = data.rindex(b"moov") - 4
    free = (8 << 20).to_bytes(4, "big") + b"free" + bytes((8 << 20) - 8)
    said = read_standard_input(subprocess.PIPE, data=data[:index] + free + data[index:])
    assert "OpenError" in said
    assert "+faststart" in said


def test_a_piped_mp4_with_its_index_in_front_is_read(tmp_path: Path) -> None:
    data = write(tmp_path / "a.mp4", Video(frames=20), options={"movflags": "faststart"}).read_bytes()
    assert read_standard_input(subprocess.PIPE, data=data) == "20 standard input\n"


def test_standard_input_from_a_file_can_be_sought_in(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=20)
    with path.open("rb") as stdin:
        assert read_standard_input(stdin, start_s=0.4) == "10 standard input\n"
