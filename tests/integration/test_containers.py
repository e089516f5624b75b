"""Sound, times, tags and colours across containers, judged by readers that are not ours."""

from __future__ import annotations

import io
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin

from streamderain.media.arrays import rgb_array
from streamderain.media.writing.timestamps import later_timecode
from tests.support import media
from tests.support.command import command, streamderain
from tests.support.pictures import rgb_of
from tests.support.reader import ffmpeg, ffprobe, frame_count, frame_times
from tests.support.writing import write_through

FAST = ("--engine", "identity", "--preset", "ultrafast")


# ---- the last frame


@pytest.mark.parametrize("suffix", ["mp4", "mov", "m4v", "mkv", "ts"])
@pytest.mark.parametrize("frames", [1, 2, 51, 61, 75, 76, 101, 151])
def test_no_reader_misses_the_last_frame(tmp_path: Path, suffix: str, frames: int) -> None:
    source = media.write_video(tmp_path / "in.mkv", frames=frames)
    write_through(source, tmp_path / f"out.{suffix}", extra={"bf": "3"}, preset="ultrafast")
    assert frame_count(tmp_path / f"out.{suffix}") == frames
    with av.open(str(tmp_path / f"out.{suffix}")) as container:
        assert sum(1 for _ in container.decode(video=0)) == frames


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("gop", [7, 20, 250])
def test_no_reader_misses_the_last_frame_of_any_group(tmp_path: Path, codec: str, gop: int) -> None:
    source = media.write_video(tmp_path / "in.mkv", frames=101)
    target = tmp_path / "out.mp4"
    write_through(source, target, codec=codec, preset="ultrafast", extra={"bf": "4", "g": str(gop)})
    assert tuple(frame_times(target)) == media.probe(source).video[0].times


def length_s(path: Path) -> float:
    return float(ffprobe(path, "-show_entries", "format=duration")["format"]["duration"])


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_a_video_of_variable_rate_keeps_its_length(tmp_path: Path, suffix: str) -> None:
    base = Fraction(1, 90_000)
    source = media.write_video(
        tmp_path / "in.mp4", time_base=base, pts=[0, 3600, 10_800, 45_000, 46_800, 90_000, 93_600, 180_000]
    )
    write_through(source, tmp_path / f"out.{suffix}")
    assert length_s(source) == pytest.approx(2.04, abs=0.001)
    assert length_s(tmp_path / f"out.{suffix}") == pytest.approx(2.04, abs=0.002)
    assert frame_times(tmp_path / f"out.{suffix}") == pytest.approx(frame_times(source), abs=0.001)


# ---- copied streams


def sound(path: Path) -> list[tuple[str, str]]:
    """Time and checksum of every packet of sound, as ffprobe tells them."""
    asked = ("-select_streams", "a", "-show_packets", "-show_data_hash", "md5")
    return [(packet["pts_time"], packet["data_hash"]) for packet in ffprobe(path, *asked)["packets"]]


def samples(path: Path) -> NDArray[Any]:
    """The sound, decoded by FFmpeg's own command."""
    return np.frombuffer(ffmpeg(path, "-map", "0:a", "-f", "s16le"), np.int16)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "flv", "ts"])
def test_aac_of_a_transport_stream_goes_everywhere(tmp_path: Path, suffix: str) -> None:
    source = media.write(tmp_path / "in.ts", media.Video(frames=50), audio=[media.Sound(seconds=2)])
    outcome = streamderain("run", source, "-o", tmp_path / f"out.{suffix}", *FAST)
    assert outcome.code == 0, outcome.err
    assert "left out" not in outcome.err
    before, after = samples(source), samples(tmp_path / f"out.{suffix}")
    assert len(before) > 90_000
    assert np.array_equal(before, after)


def test_aac_of_a_transport_stream_goes_through_pipes(tmp_path: Path) -> None:
    source = media.write(tmp_path / "in.ts", media.Video(frames=50), audio=[media.Sound(seconds=2)])
    with source.open("rb") as stdin, (tmp_path / "out.mkv").open("wb") as stdout:
        done = subprocess.run(
            command("run", "-", "-o", "-", *FAST),
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert np.array_equal(samples(source), samples(tmp_path / "out.mkv"))
    assert frame_count(tmp_path / "out.mkv") == 50


def test_sound_in_a_form_that_older_players_do_not_hear_is_told(tmp_path: Path) -> None:
    source = media.write(tmp_path / "in.ts", media.Video(), audio=[media.Sound("ac3")])
    warnings = write_through(source, tmp_path / "out.flv")
    assert any("older players do not hear" in one and "(ac3)" in one for one in warnings)
    with av.open(str(tmp_path / "out.flv")) as container:
        assert container.streams.audio[0].codec_context.name == "ac3"
    source = media.write(tmp_path / "in.mp4", media.Video(), audio=[media.Sound()])
    assert not any("older players" in one for one in write_through(source, tmp_path / "plain.flv"))


@pytest.mark.parametrize(
    ("codec_id", "words"),
    [
        (b"A_OPUS", "audio stream 2 (unknown"),
        (b"S_TEXT/UTF8", "subtitle stream 3 (unknown"),
        (b"V_MPEG4/ISO/AVC", "video stream 1 is in a codec that FFmpeg has no decoder for"),
    ],
)
@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "ts", "webm"])
def test_a_stream_of_a_codec_nobody_knows_is_left_out_with_a_word(
    tmp_path: Path, codec_id: bytes, words: str, suffix: str
) -> None:
    source = media.write(
        tmp_path / "in.mkv",
        media.Video(codec="libvpx-vp9"),
        media.Video(),
        audio=[media.Sound("libopus")],
        subtitles=[media.Text()],
    )
    whole = source.read_bytes()
    assert whole.count(codec_id) == 1
    source.write_bytes(whole.replace(codec_id, codec_id[:-1] + b"?"))
    outcome = streamderain("run", source, "-o", tmp_path / f"out.{suffix}", "--engine", "identity")
    assert outcome.code == 0, outcome.err
    assert words in outcome.err
    assert frame_count(tmp_path / f"out.{suffix}") == frame_count(source)


@pytest.mark.parametrize(
    ("suffix", "words"),
    [
        ("ts", ("subtitle stream 2", "attachment stream 3")),
        ("webm", ("attachment stream 3",)),
        ("mp4", ("attachment stream 3",)),
        ("mkv", ()),
    ],
)
def test_no_stream_is_lost_without_a_word(tmp_path: Path, suffix: str, words: tuple[str, ...]) -> None:
    source = media.write(
        tmp_path / "in.mkv",
        media.Video(),
        audio=[media.Sound("libopus")],
        subtitles=[media.Text()],
        attachments=[media.Attachment()],
    )
    warnings = [one for one in write_through(source, tmp_path / f"out.{suffix}") if "left out" in one]
    assert [word in one for word, one in zip(words, warnings, strict=True)] == [True] * len(words)
    found = ffprobe(tmp_path / f"out.{suffix}", "-show_entries", "stream=codec_type")["streams"]
    kinds = {stream["codec_type"] for stream in found}
    expected = {"video", "audio", "subtitle", "attachment"} - {word.split()[0] for word in words}
    assert kinds == expected


@pytest.mark.parametrize("suffix", ["mkv", "mpg", "ts", "mp4"])
@pytest.mark.parametrize("codec", ["mpeg2video", "mpeg1video"])
def test_mpeg_video_can_be_asked_for(tmp_path: Path, codec: str, suffix: str) -> None:
    source = media.write_video(tmp_path / "in.mp4", frames=30)
    write_through(source, tmp_path / f"out.{suffix}", codec=codec)
    assert frame_count(tmp_path / f"out.{suffix}") == 30


# ---- what moves with a cut


@pytest.mark.parametrize(
    ("text", "by_s", "rate", "expected"),
    [
        ("01:00:00:00", 10, Fraction(25), "01:00:10:00"),
        ("23:59:59:24", Fraction(1, 25), Fraction(25), "00:00:00:00"),
        ("00:00:59;29", Fraction(1001, 30_000), Fraction(30_000, 1001), "00:01:00;02"),
        ("00:09:59;29", Fraction(1001, 30_000), Fraction(30_000, 1001), "00:10:00;00"),
        ("00:00:59;59", Fraction(1001, 60_000), Fraction(60_000, 1001), "00:01:00;04"),
        ("00:00:00;00", Fraction(3600 * 30_000 // 1000 * 1001 // 1000, 30), Fraction(30_000, 1001), None),
        ("00:00:59:29", Fraction(1001, 30_000), Fraction(30_000, 1001), "00:01:00:00"),
        ("10:00:00:00", 0, Fraction(25), "10:00:00:00"),
        ("no time code", 10, Fraction(25), "no time code"),
    ],
)
def test_time_codes_move(text: str, by_s: Fraction, rate: Fraction, expected: str | None) -> None:
    moved = later_timecode(text, Fraction(by_s), rate)
    if expected is not None:
        assert moved == expected
    else:
        assert moved.startswith("01:00:0"), "an hour of drop-frame time code is an hour"


@pytest.mark.parametrize("suffix", ["mov", "mp4", "mkv"])
def test_the_time_code_of_a_piece_is_that_of_its_first_frame(tmp_path: Path, suffix: str) -> None:
    source = media.write(
        tmp_path / "in.mov", media.Video(frames=60, metadata={"timecode": "01:02:03:04"}), metadata={}
    )
    outcome = streamderain("run", source, "-o", tmp_path / f"out.{suffix}", "-ss", "1.2", *FAST)
    assert outcome.code == 0, outcome.err
    found = ffprobe(tmp_path / f"out.{suffix}", "-show_entries", "stream_tags:format_tags")
    tags = [one.get("tags", {}) for one in (*found["streams"], found["format"])]
    codes = {value for one in tags for key, value in one.items() if key.lower() == "timecode"}
    assert codes == {"01:02:04:09"}


def test_a_data_sample_across_the_cut_stays_until_its_end(tmp_path: Path) -> None:
    from streamderain.media.reading.trim import Trim, requested_range

    class Stream:
        type, index = "data", 1

    packet: Any = type("Packet", (), {})()
    packet.pts = packet.dts = 0
    packet.duration, packet.time_base, packet.stream, packet.stream_index = 3000, Fraction(1, 1000), Stream, 1
    trim = Trim(requested_range(1.0, None, begin_s=Fraction(0)), streams=1)
    trim.offset_s = Fraction(1)
    assert list(trim.packet(packet)) == [packet]
    assert (packet.pts, packet.dts, packet.duration) == (0, 0, 2000)


# ---- pictures


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


def tagged(path: Path) -> Path:
    """A picture with a colour profile, EXIF and XMP."""
    picture = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8), (48, 1))).convert("RGB")
    exif = Image.Exif()
    exif[0x010E] = "hello"
    extra: dict[str, Any] = {"icc_profile": PROFILE, "exif": exif}
    if path.suffix == ".png":
        extra["pnginfo"] = PngImagePlugin.PngInfo()
        extra["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    elif path.suffix == ".tif":
        extra["tiffinfo"] = {700: XMP, 270: "hello"}
    else:
        extra["xmp"] = XMP
    picture.save(path, **extra)
    return path


def tags_of(path: Path) -> set[str]:
    with Image.open(path) as picture:
        picture.load()
        info = picture.info
        found = {"the colour profile (ICC)"} if info.get("icc_profile") else set()
        found |= {"EXIF"} if picture.getexif().get(0x010E) else set()
        xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or 700 in getattr(picture, "tag_v2", {})
        return found | ({"XMP"} if xmp else set())


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("target", ["png", "jpg", "webp", "tif", "bmp"])
def test_tags_of_a_picture_are_kept_or_told(tmp_path: Path, kind: str, target: str) -> None:
    source = tagged(tmp_path / f"in.{kind}")
    outcome = streamderain("run", source, "-o", tmp_path / f"out.{target}", "--engine", "identity")
    assert outcome.code == 0, outcome.err
    assert tags_of(source) == {"the colour profile (ICC)", "EXIF", "XMP"}
    lost = tags_of(source) - tags_of(tmp_path / f"out.{target}")
    line = next((line for line in outcome.err.splitlines() if "do not keep these tags" in line), "tags: ")
    assert set(line.partition("tags: ")[2].split(", ")) - {""} == lost


# ---- colours


SIDE = 16
"""Edge of the squares of one colour; in their middle subsampled chroma is not mixed with that of others."""


def squares(rng: np.random.Generator) -> NDArray[np.uint8]:
    colours = rng.integers(16, 236, (6, 8, 3), dtype=np.uint8)
    return colours.repeat(SIDE, axis=0).repeat(SIDE, axis=1)


def inside(picture: NDArray[Any]) -> NDArray[Any]:
    """The middles of the squares."""
    rows, columns = (np.arange(length) % SIDE for length in picture.shape[:2])
    middle = [(line > 4) & (line < SIDE - 5) for line in (rows, columns)]
    return picture[middle[0]][:, middle[1]]


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p"])
@pytest.mark.parametrize("matrix", [1, 5])
@pytest.mark.parametrize("full", [False, True])
def test_rgb_made_of_video_is_what_the_standard_says(pix_fmt: str, matrix: int, full: bool) -> None:
    planes = [squares(np.random.default_rng(seed))[..., 0] for seed in range(3)]
    frame = av.VideoFrame(planes[0].shape[1], planes[0].shape[0], pix_fmt)
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    for plane, codes in zip(frame.planes, planes, strict=True):
        across, down = codes.shape[1] // plane.width, codes.shape[0] // plane.height
        lines = np.zeros((plane.height, plane.line_size), np.uint8)
        lines[:, : plane.width] = codes[::down, ::across]
        plane.update(lines.tobytes())
    error = inside(rgb_array(frame) - rgb_of(*planes, matrix, full=full))
    assert abs(error.mean()) < 0.05
    assert np.abs(error).max() < 0.6  # half a code of rounding, and the fixed point of the conversion


@pytest.mark.parametrize("height", [6 * SIDE, 720])
def test_video_made_of_rgb_is_what_the_standard_says(tmp_path: Path, height: int) -> None:
    picture = squares(np.random.default_rng(1))
    picture = np.tile(picture, (-(-height // picture.shape[0]), 1, 1))[:height]
    for number in range(2):
        Image.fromarray(picture).save(tmp_path / f"f{number}.png")
    write_through(tmp_path, tmp_path / "out.mkv", crf=0, codec="libx264", preset="ultrafast")
    with av.open(str(tmp_path / "out.mkv")) as container:
        frame = next(container.decode(video=0))
    assert (frame.format.name, frame.colorspace, frame.color_range) == ("yuv444p", 1, 1)
    planes = [np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[:, : p.width] for p in frame.planes]
    error = inside(rgb_of(*planes, 1, full=False) - picture)
    assert abs(error.mean()) < 0.2
    assert np.abs(error).max() < 2.3  # half a code of Y, U and V each


def test_pictures_made_of_video_are_what_the_standard_says(tmp_path: Path) -> None:
    """From the command's own files: PNGs of a clip, read by Pillow."""
    source = media.write_video(tmp_path / "in.mp4", frames=3, colour=media.Colour())
    assert streamderain("run", source, "-o", f"{tmp_path}/%d.png", "--engine", "identity").code == 0
    frame = media.decoded(source)[0]
    with Image.open(io.BytesIO((tmp_path / "1.png").read_bytes())) as picture:
        got = np.asarray(picture).astype(int)
    assert np.abs(got - media.rgb(frame)).max() <= 1
