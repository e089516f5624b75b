"""Broken files are read as far as they go and counted; hopeless ones end in one clear error."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from streamderain.addresses import redact
from streamderain.errors import DecodeError, MediaError, OpenError, UnsupportedFormat
from streamderain.frame import Frame
from streamderain.media.reading.damage import TEXTS_AT_MOST, Damage, Gap
from streamderain.media.reading.file import FileSource
from streamderain.options import ReadOptions
from tests.support.media import (
    Sound,
    Video,
    audio_only,
    decoded,
    encrypted,
    flip_bits,
    garbage,
    joined,
    picture,
    png_bytes,
    probe,
    remux,
    text_file,
    truncate,
    without_moov,
    write,
    write_video,
    zero_frames,
)

FASTSTART = {"movflags": "faststart"}
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}


def read(path: Path, **options: Any) -> tuple[FileSource, list[Frame]]:
    source = FileSource(str(path), ReadOptions(**options))
    frames = list(source.frames(lambda packet: None))
    source.close()
    return source, frames


# ---- hopeless


def missing(folder: Path) -> Path:
    return folder / "nothing.mp4"


def dangling(folder: Path) -> Path:
    (folder / "link.mp4").symlink_to(folder / "gone.mp4")
    return folder / "link.mp4"


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "fifo.mp4")
    return folder / "fifo.mp4"


def empty(folder: Path) -> Path:
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


def only_cover(folder: Path) -> Path:
    return write(folder / "song.mp4", audio=[Sound()], cover=True)


def cut_in_the_header(folder: Path) -> Path:
    path = write_video(folder / "short.mkv")
    path.write_bytes(path.read_bytes()[:300])
    return path


def broken_png(folder: Path) -> Path:
    (folder / "cut.png").write_bytes(png_bytes()[:60])
    return folder / "cut.png"


def no_keyframe(folder: Path) -> Path:
    return remux(write_video(folder / "a.mkv", frames=8, gop=100), folder / "b.mkv", drop=[0])


def unknown_codec(folder: Path) -> Path:
    path = write_video(folder / "unknown.mkv")
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_XXXXX/ISO/AVC"))
    return path


def animated_webp(folder: Path) -> Path:
    return write_video(folder / "animated.webp", codec="libwebp_anim", frames=5)


def renamed_text(folder: Path) -> Path:
    return text_file(folder / "video.mp4")


HOPELESS: list[tuple[Callable[[Path], Path], type[MediaError], str]] = [
    (missing, OpenError, r"nothing\.mp4 is not there; check the name"),
    (dangling, OpenError, r"link\.mp4 is a link to .*gone\.mp4, which is not there"),
    (lambda folder: folder, OpenError, "is a folder"),
    (fifo, OpenError, "is a FIFO; pass it to standard input"),
    (empty, OpenError, r"is empty \(0 bytes\)"),
    (lambda folder: garbage(folder / "noise.mp4"), OpenError, "not a video or picture of any known kind"),
    (lambda folder: text_file(folder / "notes.txt"), OpenError, "is text"),
    (renamed_text, OpenError, "is text"),
    (lambda folder: without_moov(folder / "lost.mp4"), OpenError, r"without its index \(moov\).*untrunc"),
    (lambda folder: truncate(write_video(folder / "cut.mp4")), OpenError, r"without its index \(moov\)"),
    (lambda folder: audio_only(folder / "song.mp4"), OpenError, "has sound but no video"),
    (only_cover, OpenError, "sound and a cover picture, but no video"),
    (lambda folder: zero_frames(folder / "zero.mp4"), OpenError, "holds no streams"),
    (lambda folder: zero_frames(folder / "zero.mkv"), MediaError, "zero.mkv"),
    (lambda folder: zero_frames(folder / "zero.avi"), MediaError, "zero.avi"),
    (lambda folder: encrypted(folder / "drm.mp4"), UnsupportedFormat, "is encrypted"),
    (cut_in_the_header, MediaError, "short.mkv"),
    (broken_png, DecodeError, "no picture of it can be decoded"),
    (unknown_codec, UnsupportedFormat, "a codec that FFmpeg has no decoder for"),
    (animated_webp, UnsupportedFormat, "animated WebP.*Convert"),
    (no_keyframe, DecodeError, "no picture of it can be decoded"),
]


@pytest.mark.parametrize(("make", "kind", "says"), HOPELESS, ids=[says for _, _, says in HOPELESS])
def test_hopeless_files_end_in_one_clear_error(
    make: Callable[[Path], Path], kind: type[MediaError], says: str, tmp_path: Path, capfd: Any
) -> None:
    path = make(tmp_path)
    with pytest.raises(kind, match=says) as raised:
        FileSource(str(path), ReadOptions())
    text = str(raised.value)
    assert str(path) in text
    assert not re.search(r"Errno|av\.error|\[0x", text)
    assert capfd.readouterr() == ("", ""), "FFmpeg talks only through errors"


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Gives up the superuser's right to read everything for a while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


def test_an_unreadable_file_names_its_permissions(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = write_video(tmp_path / "secret.mp4")
    path.chmod(0)
    request.getfixturevalue("ordinary_user")
    with pytest.raises(OpenError, match="permissions"):
        FileSource(str(path), ReadOptions())


def test_a_refusal_by_the_system_names_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise av.error.PermissionError(13, "Permission denied", "x")

    path = write_video(tmp_path / "secret.mp4")
    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(OpenError, match=r"secret\.mp4 may not be read by this user"):
        FileSource(str(path), ReadOptions())


@pytest.mark.parametrize(
    "name", ["12:30:00.mp4", "-.mp4", "100%.mp4", "a b ü 雨.mp4", "rtsp:x.mp4", "[1].mp4", "#?.mp4"]
)
def test_unusual_names_are_just_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    source, frames = read(Path(name))
    assert (len(frames), source.name) == (10, name)


def test_metadata_that_is_no_utf8_does_not_stop_reading(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", Video(), metadata={"title": "Xregnericht"})
    path.write_bytes(path.read_bytes().replace(b"Xregnericht", b"\xe4regnericht"))
    source = FileSource(str(path), ReadOptions())
    assert source.container.metadata["title"].endswith("regnericht")
    source.close()


def test_passwords_are_never_shown() -> None:
    with pytest.raises(OpenError) as raised:
        FileSource("http://user:secret@127.0.0.1:9/video.mp4", ReadOptions())
    assert "secret" not in str(raised.value)
    assert "127.0.0.1:9/video.mp4" in str(raised.value)
    assert redact("rtsp://a:b@host/x and http://c@d/y") == "rtsp://***@host/x and http://***@d/y"


# ---- damaged


def test_a_broken_packet_is_skipped_counted_and_named(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mkv", codec="ffv1", frames=20)
    source, frames = read(remux(whole, tmp_path / "b.mkv", spoil=[7, 8, 15]))
    assert [round(frame.time_s * 25) for frame in frames] == [n for n in range(20) if n not in (7, 8, 15)]
    assert [frame.index for frame in frames] == list(range(17))
    assert [round(frame.time_s * 25) for frame in frames if frame.cut] == [9, 16]
    assert source.damage
    assert source.damage.skipped_frames == 3
    assert source.damage.texts() == [
        "video 0, from 0.240 s to 0.360 s: 2 frames could not be decoded",
        "video 0, from 0.560 s to 0.640 s: 1 frame could not be decoded",
    ]


def test_a_broken_last_packet_is_counted(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mkv", codec="ffv1", frames=20)
    source, frames = read(remux(whole, tmp_path / "b.mkv", spoil=[19]))
    assert len(frames) == 19
    assert source.damage.texts() == ["video 0, from 0.720 s to the end: 1 frame could not be decoded"]


def test_a_broken_first_packet_is_counted(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mkv", codec="ffv1", frames=20, gop=1)
    source, frames = read(remux(whole, tmp_path / "b.mkv", spoil=[0]))
    assert len(frames) == 19
    assert source.damage.texts() == ["video 0, from the beginning to 0.040 s: 1 frame could not be decoded"]


def test_frames_decoded_from_broken_data_are_kept_named_and_stand_alone(tmp_path: Path) -> None:
    options = {"preset": "medium"}
    whole = write_video(tmp_path / "a.mkv", frames=30, width=320, height=240, options=options)
    path = tmp_path / "b.mkv"
    _flip_inside(whole, path, packets=(10,))
    source, frames = read(path)
    assert len(frames) == 30
    assert any(gap.kept for gap in source.damage.gaps)
    assert source.damage.skipped_frames == 0
    assert "decoded from broken data" in source.damage.texts()[0]
    broken = [frame.index for frame in frames if frame.picture.is_corrupt]
    assert broken
    for index in broken:
        assert frames[index].cut
        assert frames[index + 1].cut


def _flip_inside(source: Path, target: Path, *, packets: tuple[int, ...]) -> None:
    """Flips bits in the later part of some packets, which stay decodable."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for number, packet in enumerate(container.demux(video=0)):
            if packet.dts is None:
                continue
            data = bytearray(bytes(packet))
            if number in packets:
                for position in range(len(data) // 3, len(data), 5):
                    data[position] ^= 0x10
            copy: Any = av.Packet(bytes(data))
            copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
            copy.time_base, copy.is_keyframe = packet.time_base, packet.is_keyframe
            copy.stream = stream
            out.mux(copy)


CUT_SHORT = [
    ("faststart.mp4", FASTSTART, r"index lists 60 frames of video 0, \d+ are there"),
    ("fragmented.mp4", FRAGMENTED, "ends early"),
    ("cut.mkv", {}, r"at 1\.\d\d s of the 2\.40 s in its header"),
    ("cut.avi", {}, "ends early"),
    ("cut.ts", {}, "in the middle of one of its parts"),
]


@pytest.mark.parametrize(("name", "options", "says"), CUT_SHORT, ids=[name for name, _, _ in CUT_SHORT])
def test_files_cut_short_are_read_to_the_cut(
    name: str, options: dict[str, str], says: str, tmp_path: Path
) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    path = write(tmp_path / name, Video(codec, frames=60), audio=[Sound("mp2", seconds=2.4)], options=options)
    source, frames = read(truncate(path, keep=0.601))
    assert 20 <= len(frames) < 60
    numbers = [round(frame.time_s * 25) for frame in frames]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert source.damage.truncated
    assert re.search(says, source.damage.texts()[-1]), source.damage.texts()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts", "a.mpg", "a.flv"])
@pytest.mark.parametrize("seed", range(3))
def test_flipped_bits_never_raise(name: str, seed: int, tmp_path: Path) -> None:
    codec = {"avi": "mpeg4", "mpg": "mpeg2video", "flv": "flv"}.get(name.rsplit(".", 1)[-1], "libx264")
    path = write(
        tmp_path / name, Video(codec, frames=50), audio=[Sound("mp2" if codec != "flv" else "aac", seconds=2)]
    )
    _, frames = read(flip_bits(path, start=0.3, end=0.45, every=101, seed=seed))
    assert len(frames) > 10
    times = [frame.pts for frame in frames]
    assert times == sorted(set(times)), "times increase strictly whatever the file says"


def test_lost_packets_without_a_trace_leave_times_as_they_are(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mkv", codec="ffv1", frames=20)
    source, frames = read(remux(whole, tmp_path / "b.mkv", drop=[5, 6]))
    assert [round(frame.time_s * 25) for frame in frames] == [n for n in range(20) if n not in (5, 6)]
    assert not source.damage


@pytest.mark.parametrize("pts", [(0, 40, 40, 80), (0, 40, 30, 80), (0, 40, 40, 40)])
def test_times_that_do_not_increase_are_moved_on_and_counted(pts: tuple[int, ...], tmp_path: Path) -> None:
    path = _with_times(tmp_path / "a.nut", pts)
    source, frames = read(path)
    got = [frame.pts * frame.time_base * 1000 for frame in frames]
    assert len(got) == 4
    assert all(after > before for before, after in pairwise(got))
    assert got[:2] == [0, 40]
    assert "not after the one before" in "".join(source.warnings)
    assert not source.damage


def _with_times(path: Path, pts: tuple[int, ...]) -> Path:
    """Writes a file whose pictures carry these times in ms, which no muxer would accept from us."""
    whole = write_video(path.with_suffix(".mkv"), codec="mjpeg", pix_fmt="yuvj420p", frames=len(pts))
    blocks = path.with_suffix(".b.mkv")
    data = bytearray(whole.read_bytes())
    with av.open(str(whole)) as container:
        positions = [packet.pos for packet in container.demux() if packet.size]
    for position, time in zip(positions, pts, strict=True):
        header = data.index(b"\x81", position - 1)
        data[header + 1 : header + 3] = time.to_bytes(2, "big")
    blocks.write_bytes(data)
    return blocks


def test_a_stream_that_starts_between_keyframes_says_what_is_lost(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.ts", frames=40, gop=10)
    path = remux(whole, tmp_path / "b.ts", drop=range(5))
    source, frames = read(path)
    assert len(frames) == 30
    assert len(frames) == len(decoded(path))
    assert not frames[0].cut or source.damage


def _with_odd_pictures(folder: Path, *odd: int) -> Path:
    """Writes a motion JPEG of 12 pictures, some of which have another size than their container says."""
    small = write_video(folder / "small.mkv", codec="mjpeg", pix_fmt="yuvj420p", frames=12)
    large = write_video(
        folder / "large.mkv", codec="mjpeg", pix_fmt="yuvj420p", frames=12, width=80, height=48
    )
    with av.open(str(large)) as container:
        others = [bytes(packet) for packet in container.demux() if packet.size]
    with av.open(str(small)) as container, av.open(str(folder / "mixed.mkv"), "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for number, packet in enumerate(packet for packet in container.demux() if packet.size):
            copy: Any = av.Packet(others[number] if number in odd else bytes(packet))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = True, stream
            out.mux(copy)
    return folder / "mixed.mkv"


@pytest.mark.parametrize("odd", [5, 11])
def test_one_picture_of_another_size_has_a_broken_header(odd: int, tmp_path: Path) -> None:
    source, frames = read(_with_odd_pictures(tmp_path, odd))
    assert [round(frame.time_s * 25) for frame in frames] == [n for n in range(12) if n != odd]
    assert source.damage.skipped_frames == 1


def test_two_pictures_of_another_size_are_a_change(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat, match=r"64x48 yuvj420p to 80x48 yuvj420p at frame 5 \(0.200 s\)"):
        read(_with_odd_pictures(tmp_path, 5, 6))


def test_a_stream_that_begins_in_the_middle_does_not_stop_reading(tmp_path: Path) -> None:
    first = write_video(tmp_path / "1.ts", frames=20)
    second = write(tmp_path / "2.ts", Video(frames=20, start_s=Fraction(4, 5)), audio=[Sound("mp2")])
    _, frames = read(joined(tmp_path / "joined.ts", first, second))
    assert len(frames) == 40


def test_a_second_stream_without_pictures_is_left_out_with_a_warning(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.mkv", Video("ffv1"), Video("ffv1", seed=1))
    path = tmp_path / "b.mkv"
    with av.open(str(whole)) as container, av.open(str(path), "w") as out:
        streams = [out.add_stream_from_template(stream) for stream in container.streams.video]
        for packet in container.demux():
            if packet.dts is None:
                continue
            copy: Any = av.Packet(bytes(packet) if packet.stream_index == 0 else b"\0" * 40)
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe = True
            copy.stream = streams[packet.stream_index]
            out.mux(copy)
    source, frames = read(path)
    assert (len(source.streams), len(frames)) == (1, 10)
    assert "video 1 (ffv1) gave no picture and is left out" in source.warnings
    assert {frame.stream for frame in frames} == {0}


def test_damage_beside_the_clip_does_not_count(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mkv", codec="ffv1", frames=50)
    path = remux(whole, tmp_path / "b.mkv", spoil=[3, 40])
    source, frames = read(path, start_s=0.8, duration_s=0.4)
    assert sum(frame.emit for frame in frames) == 10
    assert not source.damage


def test_a_long_broken_stretch_is_one_line_and_many_are_counted() -> None:
    damage = Damage()
    for n in range(5):
        damage.add(Gap(0, n * 0.04, (n + 1) * 0.04, 1, kept=True))
    assert len(damage.gaps) == 1
    assert sum(gap.frames for gap in damage.gaps if gap.kept) == 5
    for n in range(TEXTS_AT_MOST + 5):
        damage.add(Gap(0, 10.0 + n, 10.5 + n, 1))
    assert damage.texts()[-1] == "and 6 more places like these"
    assert damage.skipped_frames == TEXTS_AT_MOST + 5


def test_an_unfinished_matroska_without_a_length_is_whole(tmp_path: Path) -> None:
    """Its length is FFmpeg's guess, and no promise."""
    path = tmp_path / "live.mkv"
    with path.open("wb") as file:
        unseekable = type("Pipe", (), {"write": lambda _, data: file.write(data)})()
        with av.open(unseekable, "w", format="matroska") as out:
            stream = out.add_stream("mpeg4", rate=25, width=64, height=48)
            for number in range(30):
                frame = picture(number, 64, 48, "yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    source, frames = read(path)
    assert len(frames) == 30
    assert not source.damage, source.damage.texts()


def test_probe_reads_what_it_is_meant_to(tmp_path: Path) -> None:
    assert probe(write_video(tmp_path / "a.mp4", frames=3)).video[0].times == (
        0,
        Fraction(1, 25),
        Fraction(2, 25),
    )
