"""What is written is read back, by other code, and compared with the source."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from streamderain.errors import ConfigError
from streamderain.media.reading.file import FileSource
from streamderain.media.writing.hdr10 import hdr10_of
from streamderain.media.writing.outputs import open_outputs
from streamderain.options import EncodeOptions, ReadOptions
from tests.support.media import (
    HDR10_X265,
    Attachment,
    Colour,
    CopiedFacts,
    Sound,
    Text,
    Video,
    decoded,
    image_bytes,
    probe,
    write,
)
from tests.support.pictures import rgb_of
from tests.support.writing import luma_inverted, untouched, write_through

BT709 = Colour()
UNEVEN = (0, 100, 4000, 4001, 9000, 20000, 90000)


def carried(path: Path, kind: str) -> list[CopiedFacts]:
    return probe(path).of_kind(kind)


def boxes(path: Path) -> list[str]:
    """Names of an mp4's outermost boxes."""
    data, place, names = path.read_bytes(), 0, []
    while place < len(data):
        names.append(data[place + 4 : place + 8].decode())
        place += int.from_bytes(data[place : place + 4], "big")
    return names


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_everything_of_an_ordinary_file_survives(tmp_path: Path, suffix: str) -> None:
    source = write(
        tmp_path / "in.mkv",
        Video(frames=12, b_frames=2, rotation=90, sar=Fraction(4, 3), colour=BT709),
        audio=[Sound(codec="ac3", metadata={"language": "deu"}), Sound(codec="ac3")],
        chapters=[(0, 200, "one"), (200, 400, "two")],
        metadata={"title": "A wet day", "comment": "said"},
    )
    target = tmp_path / f"out.{suffix}"

    warnings = write_through(source, target)

    before, after = probe(source), probe(target)
    video = after.video[0]
    assert video.times == before.video[0].times
    assert (video.rotation, video.sar, video.colour) == (90, Fraction(4, 3), BT709)
    assert [facts.digests for facts in after.of_kind("audio")] == [
        facts.digests for facts in before.of_kind("audio")
    ]
    assert after.chapters == before.chapters
    tags = {name.lower(): value for name, value in after.metadata.items()}
    assert (tags["title"], tags["comment"]) == ("A wet day", "said")
    if suffix != "mov":  # QuickTime's language table knows no ISO codes beyond its own
        assert after.of_kind("audio")[0].metadata["language"] == "deu"
    assert warnings == []


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize(
    "video",
    [
        Video(frames=7, pts=UNEVEN, time_base=Fraction(1, 90000), b_frames=2),
        Video(frames=8, rate=Fraction(30000, 1001), start_s=Fraction(1, 2), b_frames=2),
        Video(frames=6, rate=Fraction(1000), time_base=Fraction(1, 90000)),
    ],
    ids=["uneven", "late", "fast"],
)
def test_mp4_gives_every_time_back_exactly(tmp_path: Path, suffix: str, video: Video) -> None:
    source = write(tmp_path / "in.mp4", video, audio=[Sound(start_s=Fraction(1, 5))])
    target = tmp_path / f"out.{suffix}"

    write_through(source, target)

    before, after = probe(source), probe(target)
    assert after.video[0].times == before.video[0].times
    assert after.of_kind("audio")[0].times == before.of_kind("audio")[0].times


def test_the_file_that_survives_a_kill_has_the_times_of_a_plain_one(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mp4", Video(frames=30, start_s=Fraction(1, 2)), audio=[Sound()])
    target = tmp_path / "out.mp4"

    write_through(source, target)

    with av.open(str(source)) as plain, av.open(str(target)) as ours:
        assert [stream.start_time for stream in ours.streams] == [
            stream.start_time for stream in plain.streams
        ]
        assert ours.duration == plain.duration
    assert boxes(target) == ["ftyp", "free", "mdat", "moov"]


def test_matroska_rounds_times_says_so_and_loses_no_frame(tmp_path: Path) -> None:
    video = Video(frames=40, rate=Fraction(5000), time_base=Fraction(1, 90000), b_frames=2)
    source, target = write(tmp_path / "in.mp4", video), tmp_path / "out.mkv"

    warnings = write_through(source, target)

    times = probe(target).video[0].times
    assert len(set(times)) == 40
    assert list(times) == sorted(t for t in times if t is not None)
    assert any("steps of 1 ms" in warning for warning in warnings)


def test_aac_before_zero_moves_all_streams_of_matroska_alike(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mp4", Video(frames=10), audio=[Sound()])
    target = tmp_path / "out.mkv"

    warnings = write_through(source, target)

    before, after = probe(source), probe(target)
    late = after.video[0].times[0]
    assert late == Fraction(21, 1000)
    shift = [b - a for a, b in zip(before.video[0].times, after.video[0].times, strict=True)]
    assert set(shift) == {late}
    sound = zip(before.of_kind("audio")[0].times, after.of_kind("audio")[0].times, strict=True)
    assert all(abs(b - a - late) <= Fraction(1, 1000) for a, b in sound)
    assert [w for w in warnings if "21 ms later" in w]


def test_one_encode_feeds_files_whose_settings_agree(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mp4", Video(frames=10, b_frames=2), audio=[Sound()])
    targets = [str(tmp_path / name) for name in ("a.mp4", "b.mkv", "c.mov", "d.webm")]
    with_source = FileSource(str(source), ReadOptions())
    outputs, _ = open_outputs(with_source, targets, EncodeOptions())
    for output in outputs:
        for outlet in output.outlets:
            outlet.abort()
    with_source.close()
    assert [len(output.outlets) for output in outputs] == [3, 1]

    write_through(source, tmp_path / "a.mp4", tmp_path / "b.mkv")

    first = [bytes(frame.planes[0]) for frame in decoded(tmp_path / "a.mp4")]
    assert first == [bytes(frame.planes[0]) for frame in decoded(tmp_path / "b.mkv")]


def test_two_video_streams_are_both_written(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in.mp4",
        Video(frames=8),
        Video(width=80, height=64, frames=7, pts=UNEVEN, time_base=Fraction(1, 90000)),
        audio=[Sound()],
    )
    write_through(source, tmp_path / "out.mp4")

    before, after = probe(source), probe(tmp_path / "out.mp4")
    assert [v.times for v in after.video] == [v.times for v in before.video]
    assert [(v.width, v.height) for v in after.video] == [(64, 48), (80, 64)]


def test_derained_luma_is_written_and_chroma_left_alone(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mkv", Video(codec="ffv1", frames=3))
    write_through(source, tmp_path / "out.mkv", change=luma_inverted, codec="ffv1")

    for before, after in zip(decoded(source), decoded(tmp_path / "out.mkv"), strict=True):
        old, new = before.to_ndarray(), after.to_ndarray()
        luma = old[:48].astype(int)
        assert np.array_equal(new[:48], luma.max() - luma + luma.min())
        assert np.array_equal(new[48:], old[48:])


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix", "expected"),
    [
        ("libx264", "yuv420p10le", "mp4", ("hevc", "yuv420p10le")),
        ("libx264", "yuv422p10le", "mkv", ("hevc", "yuv422p10le")),
        ("libx264", "yuv444p", "mov", ("h264", "yuv444p")),
        ("mjpeg", "yuvj420p", "mp4", ("h264", "yuvj420p")),
        ("libx265", "yuv420p12le", "mp4", ("hevc", "yuv420p12le")),
        ("libx265", "yuv420p10le", "mp4", ("hevc", "yuv420p10le")),
        ("libx265", "yuv420p", "mkv", ("hevc", "yuv420p")),
        ("ffv1", "gray10le", "mkv", ("hevc", "gray10le")),
        ("ffv1", "yuv440p", "mkv", ("h264", "yuv444p")),
        ("ffv1", "yuva420p", "mkv", ("ffv1", "yuva420p")),
        ("ffv1", "yuva444p10le", "mov", ("prores", "yuva444p10le")),
        ("ffv1", "yuv420p10le", "webm", ("libdav1d", "yuv420p10le")),
    ],
)
def test_depth_chroma_and_alpha_are_kept(
    tmp_path: Path, codec: str, pix_fmt: str, suffix: str, expected: tuple[str, str]
) -> None:
    source = write(tmp_path / "in.mkv", Video(codec=codec, pix_fmt=pix_fmt, frames=3, colour=BT709))
    target = tmp_path / f"out.{suffix}"

    warnings = write_through(source, target)

    video = probe(target).video[0]
    assert (video.codec, video.pix_fmt) == expected
    assert video.times == probe(source).video[0].times
    if suffix != "mov":  # the writer of the source stores 10 bits with alpha as 12, which ProRes reduces
        known = ("plays everywhere", "becomes HEVC")
        assert [warning for warning in warnings if not any(words in warning for words in known)] == []
    assert any("becomes HEVC" in warning for warning in warnings) == (video.codec == "hevc")
    rare = video.codec == "h264" and pix_fmt != "yuvj420p"
    assert any("plays everywhere" in warning for warning in warnings) == rare


def test_webm_keeps_alpha(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mkv", Video(codec="ffv1", pix_fmt="yuva420p", frames=3))
    write_through(source, tmp_path / "out.webm", change=untouched)

    with av.open(str(tmp_path / "out.webm")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        assert container.streams.video[0].metadata["alpha_mode"] == "1"
        assert all(packet.has_sidedata("matroska_block_additional") for packet in packets)


@pytest.mark.parametrize(
    ("video", "suffix", "words"),
    [
        (Video(codec="ffv1", pix_fmt="yuva420p"), "mp4", "transparency is dropped"),
        (Video(codec="ffv1", pix_fmt="bgr0"), "mp4", "between RGB and YCbCr"),
        (Video(codec="ffv1", pix_fmt="gray16le"), "mp4", "bit depth is reduced"),
        (Video(codec="ffv1", width=65, height=49), "mp4", "no row or column is lost"),
        (Video(rotation=90), "avi", "rotation of the picture is lost"),
        (Video(sar=Fraction(4, 3)), "webm", "sample aspect ratio is lost"),
        (Video(), "gif", "palette of 256"),
        (Video(rate=Fraction(60)), "gif", "plays 1.2 times slower"),
        (Video(pix_fmt="yuv444p"), "mp4", "--pix-fmt yuv420p plays everywhere"),
        (Video(pix_fmt="yuv420p10le"), "mp4", "takes several times as long"),
        (Video(codec="ffv1", pix_fmt="yuva420p"), "webm", "keeps transparency beside the picture"),
        (Video(codec="mjpeg", pix_fmt="yuvj420p"), "ogv", "converted to limited range"),
    ],
)
def test_what_is_lost_is_said_beforehand(tmp_path: Path, video: Video, suffix: str, words: str) -> None:
    source = write(tmp_path / "in.mkv", video)
    warnings = write_through(source, tmp_path / f"out.{suffix}")
    assert any(words in warning for warning in warnings), warnings


@pytest.mark.parametrize(("width", "height"), [(65, 48), (64, 49), (63, 47), (1, 1), (2, 2)])
def test_odd_sizes_keep_every_pixel(tmp_path: Path, width: int, height: int) -> None:
    source = write(tmp_path / "in.mkv", Video(codec="ffv1", frames=2, width=width, height=height))
    write_through(source, tmp_path / "out.mp4", crf=0)

    before, after = decoded(source), decoded(tmp_path / "out.mp4")
    assert [(frame.width, frame.height) for frame in after] == [(width, height)] * 2
    for old, new in zip(before, after, strict=True):
        assert np.array_equal(old.to_ndarray(format="gray"), new.to_ndarray(format="gray"))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_hdr10_metadata_is_kept(tmp_path: Path, suffix: str) -> None:
    video = Video(
        codec="libx265",
        pix_fmt="yuv420p10le",
        frames=3,
        height=64,
        options={"x265-params": HDR10_X265},
        colour=Colour(9, 9, 16, 1),
    )
    source = write(tmp_path / "in.mp4", video)
    target = tmp_path / f"out.{suffix}"
    write_through(source, target)

    before, after = hdr10_of(decoded(source)[0]), hdr10_of(decoded(target)[0])
    assert before is not None
    assert after is not None
    assert after.light == before.light == (1000, 400)
    # AV1 stores fixed-point numbers of its own.
    assert after.mastering == pytest.approx(before.mastering, abs=35)
    assert probe(target).video[0].colour == Colour(9, 9, 16, 1)


def test_hdr10_to_libx264_is_warned_about(tmp_path: Path) -> None:
    video = Video(
        codec="libx265", pix_fmt="yuv420p10le", frames=2, height=64, options={"x265-params": HDR10_X265}
    )
    source = write(tmp_path / "in.mp4", video)
    warnings = write_through(source, tmp_path / "out.mp4", codec="libx264")
    assert any("HDR10" in warning and "libx265" in warning for warning in warnings)


def test_text_subtitles_change_their_dress_and_keep_text_and_times(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in.mkv",
        Video(frames=12),
        subtitles=[Text(metadata={"language": "eng"}), Text(codec="ass")],
        attachments=[Attachment()],
    )
    warnings = write_through(source, tmp_path / "out.mp4", tmp_path / "out.webm", tmp_path / "back.mkv")
    write_through(tmp_path / "out.mp4", tmp_path / "again.mkv")

    assert [s.codec for s in carried(tmp_path / "out.mp4", "subtitle")] == ["mov_text", "mov_text"]
    assert [s.codec for s in carried(tmp_path / "out.webm", "subtitle")] == ["webvtt", "webvtt"]
    same, original = carried(tmp_path / "back.mkv", "subtitle"), carried(source, "subtitle")
    assert [s.digests for s in same] == [s.digests for s in original]
    assert probe(tmp_path / "back.mkv").attachments == probe(source).attachments
    again = carried(tmp_path / "again.mkv", "subtitle")
    assert [s.times for s in again] == [s.times for s in original]
    with av.open(str(tmp_path / "again.mkv")) as container:
        texts = [bytes(packet) for packet in container.demux(subtitles=0) if packet.size]
    assert texts == [b"one", b"two"]
    assert any("styles do not" in warning for warning in warnings)
    assert any("attachment" in warning and "out.mp4" in warning for warning in warnings)
    assert not any("back.mkv" in warning for warning in warnings)


def test_cover_pictures_go_where_there_is_a_place_for_them(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mp4", Video(frames=6), audio=[Sound()], cover=True)
    warnings = write_through(source, tmp_path / "out.mp4", tmp_path / "out.mkv", tmp_path / "out.mov")

    wanted = carried(source, "picture")[0].digests
    assert carried(tmp_path / "out.mp4", "picture")[0].digests == wanted
    assert carried(tmp_path / "out.mkv", "picture")[0].digests == wanted
    assert len(probe(tmp_path / "out.mp4").video) == 1
    assert any("cover picture" in warning and "out.mov" in warning for warning in warnings)


def test_audio_a_target_cannot_hold_is_named_and_the_video_written(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mp4", Video(frames=6), audio=[Sound()])
    warnings = write_through(source, tmp_path / "out.webm")
    assert len(probe(tmp_path / "out.webm").video[0].times) == 6
    assert any("audio stream 1 (aac" in warning for warning in warnings)


def test_tags_beyond_the_classic_ones_survive_in_mp4(tmp_path: Path) -> None:
    tags = {"title": "A wet day", "com.example.where": "Hamburg"}
    source = write(tmp_path / "in.mkv", Video(frames=3), metadata=tags)
    write_through(source, tmp_path / "out.mp4")
    kept = {name.lower(): value for name, value in probe(tmp_path / "out.mp4").metadata.items()}
    assert kept["title"] == "A wet day"
    assert kept["com.example.where"] == "Hamburg"


def test_a_clip_keeps_sound_in_step_and_cuts_its_chapters(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in.mp4",
        Video(frames=50),
        audio=[Sound(seconds=2.0)],
        chapters=[(0, 500, "before"), (500, 1200, "across"), (1200, 2000, "after")],
    )
    write_through(source, tmp_path / "out.mp4", read=ReadOptions(start_s=0.6, duration_s=0.4))

    facts = probe(tmp_path / "out.mp4")
    assert facts.video[0].times == tuple(Fraction(n, 25) for n in range(10))
    assert facts.chapters == ((Fraction(0), Fraction(2, 5), "across"),)
    sound = facts.of_kind("audio")[0]
    assert set(sound.digests) < set(carried(source, "audio")[0].digests)


def test_still_images_keep_depth_alpha_and_every_code(tmp_path: Path) -> None:
    for name, codec, pix_fmt in [
        ("a.png", "png", "rgb24"),
        ("b.png", "png", "rgb48be"),
        ("c.png", "png", "rgba"),
        ("d.tif", "tiff", "rgb48le"),
        ("e.bmp", "bmp", "bgr24"),
        ("f.png", "png", "gray16be"),
    ]:
        source, target = tmp_path / name, tmp_path / f"out_{name}"
        source.write_bytes(image_bytes(codec, 33, 21, pix_fmt))
        assert write_through(source, target) == []
        before, after = decoded(source)[0], decoded(target)[0]
        assert after.format.name == before.format.name
        assert np.array_equal(before.to_ndarray(), after.to_ndarray())


def test_jpeg_keeps_its_chroma_at_high_quality(tmp_path: Path) -> None:
    source = tmp_path / "in.jpg"
    source.write_bytes(image_bytes("mjpeg", 64, 48, "yuvj422p"))
    write_through(source, tmp_path / "out.jpg")
    before, after = decoded(source)[0], decoded(tmp_path / "out.jpg")[0]
    assert after.format.name == "yuvj422p"
    difference = before.to_ndarray(format="gray").astype(int) - after.to_ndarray(format="gray")
    assert np.abs(difference).mean() < 1.5


def test_pictures_of_a_run_keep_their_names_and_a_pattern_numbers_them(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for number in range(3):
        (run / f"rain{number + 8:03d}.png").write_bytes(image_bytes("png", 32, 32, "rgb24", index=number))
    write_through(run, f"{tmp_path}/out/", f"{tmp_path}/run%02d.tif", tmp_path / "run.mp4")

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "rain008.png",
        "rain009.png",
        "rain010.png",
    ]
    assert sorted(path.name for path in tmp_path.glob("*.tif")) == ["run01.tif", "run02.tif", "run03.tif"]
    assert len(probe(tmp_path / "run.mp4").video[0].times) == 3
    with pytest.raises(ConfigError, match="--overwrite"):
        write_through(run, f"{tmp_path}/out/")


def test_a_video_does_not_fit_into_one_picture(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mp4", Video(frames=3))
    with pytest.raises(ConfigError, match="holds one picture"):
        write_through(source, tmp_path / "out.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4"]


@pytest.mark.parametrize("suffix", ["avi", "ts", "flv", "gif", "apng", "m4v", "3gp"])
def test_other_containers_take_every_frame(tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / "in.mp4", Video(frames=9, b_frames=2), audio=[Sound()])
    write_through(source, tmp_path / f"out.{suffix}")
    assert len(decoded(tmp_path / f"out.{suffix}")) == 9


def exif(orientation: int) -> bytes:
    """A JPEG segment with an orientation, as cameras write it."""
    entry = (0x0112).to_bytes(2, "big") + (3).to_bytes(2, "big") + (1).to_bytes(4, "big")
    table = b"\x00\x01" + entry + orientation.to_bytes(2, "big") + b"\x00\x00" + bytes(4)
    body = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08" + table
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body


def test_a_photo_keeps_its_orientation(tmp_path: Path) -> None:
    plain = image_bytes("mjpeg", 64, 48, "yuvj420p")
    source = tmp_path / "in.jpg"
    source.write_bytes(plain[:2] + exif(6) + plain[2:])
    warnings = [write_through(source, tmp_path / name) for name in ("out.jpg", "out.png", "out.bmp")]

    assert exif(6) in (tmp_path / "out.jpg").read_bytes()
    assert [decoded(tmp_path / f"out.{suffix}")[0].rotation for suffix in ("jpg", "png")] == [-90, -90]
    assert warnings[0] == []
    assert any("rotation" in warning for warning in warnings[2])


def test_a_timecode_track_is_made_again(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mov", Video(frames=4, metadata={"timecode": "01:00:00:00"}))
    assert write_through(source, tmp_path / "out.mp4", tmp_path / "out.mkv") == []
    assert carried(tmp_path / "out.mp4", "data")[0].metadata["timecode"] == "01:00:00:00"
    assert probe(tmp_path / "out.mkv").video[0].metadata["TIMECODE"] == "01:00:00:00"


def test_hevc_in_mp4_has_the_tag_apple_reads(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mkv", Video(frames=2))
    write_through(source, tmp_path / "out.mp4", codec="libx265")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"


def test_dispositions_stay_as_they_were(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mp4", Video(frames=3), audio=[Sound(), Sound()])
    write_through(source, tmp_path / "out.mkv")
    with av.open(str(source)) as before, av.open(str(tmp_path / "out.mkv")) as after:
        assert [s.disposition for s in after.streams] == [s.disposition for s in before.streams]


@pytest.mark.parametrize(("matrix", "full"), [(1, False), (5, False), (1, True), (9, False)])
def test_pictures_of_a_video_have_its_colours(tmp_path: Path, matrix: int, full: bool) -> None:
    colour = Colour(1, matrix, 1, 2 if full else 1)
    source = write(tmp_path / "in.mkv", Video(codec="ffv1", pix_fmt="yuv444p", frames=1, colour=colour))
    write_through(source, f"{tmp_path}/out%d.png", f"{tmp_path}/out%d.jpg")

    wanted = rgb_of(*decoded(source)[0].to_ndarray(), matrix, full=full)
    png, jpeg = decoded(tmp_path / "out1.png")[0], decoded(tmp_path / "out1.jpg")[0]
    assert np.abs(png.to_ndarray() - wanted).max() <= 1
    assert np.abs(rgb_of(*jpeg.to_ndarray(), 5, full=True) - wanted).mean() < 2.5


def test_rgb_becomes_tagged_ycbcr_with_the_same_colours(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mov", Video(codec="png", pix_fmt="rgb24", frames=1))
    write_through(source, tmp_path / "out.mp4", crf=0)
    frame = decoded(tmp_path / "out.mp4")[0]
    assert (frame.format.name, frame.colorspace, frame.color_range) == ("yuv444p", 1, 1)
    assert np.abs(rgb_of(*frame.to_ndarray(), 1, full=False) - decoded(source)[0].to_ndarray()).max() <= 2.5


def test_full_range_without_a_j_format_stays_full(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mkv", Video(codec="mjpeg", pix_fmt="yuvj420p", frames=2))
    write_through(source, tmp_path / "out.webm", crf=4)
    before, after = decoded(source)[0], decoded(tmp_path / "out.webm")[0]
    assert after.color_range == 2
    difference = before.to_ndarray()[:48].astype(int) - after.to_ndarray()[:48]
    assert np.abs(difference).mean() < 2


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
def test_sound_of_a_transport_stream_is_copied(tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / "in.ts", Video(frames=20, b_frames=2), audio=[Sound(seconds=0.8)])
    target = tmp_path / f"out.{suffix}"
    write_through(source, target)

    before, after = probe(source), probe(target)
    old, new = before.of_kind("audio")[0], after.of_kind("audio")[0]
    assert len(new.digests) == len(old.digests)
    lead_before = [a - b for a, b in zip(old.times, before.video[0].times, strict=False)]
    lead_after = [a - b for a, b in zip(new.times, after.video[0].times, strict=False)]
    assert all(abs(a - b) <= Fraction(1, 500) for a, b in zip(lead_before, lead_after, strict=True))
    if suffix in ("mp4", "mov"):
        assert after.video[0].times == before.video[0].times


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj422p"])
def test_avi_stays_in_step_with_its_sound(tmp_path: Path, pix_fmt: str) -> None:
    codec = "libx264" if pix_fmt == "yuv420p" else "mjpeg"
    video = Video(codec=codec, pix_fmt=pix_fmt, frames=10, b_frames=2)
    source = write(tmp_path / "in.mov", video, audio=[Sound(codec="pcm_s16le")])
    write_through(source, tmp_path / "out.avi")

    facts = probe(tmp_path / "out.avi")
    assert facts.video[0].times == tuple(Fraction(n, 25) for n in range(10))
    assert facts.of_kind("audio")[0].times[0] == 0
    assert facts.video[0].pix_fmt == pix_fmt


def test_an_encoder_with_coarse_time_still_keeps_uneven_times(tmp_path: Path) -> None:
    video = Video(frames=7, pts=UNEVEN, time_base=Fraction(1, 90000))
    source = write(tmp_path / "in.mp4", video)
    warnings = write_through(source, tmp_path / "out.mp4", codec="mpeg4")
    pairs = zip(probe(source).video[0].times, probe(tmp_path / "out.mp4").video[0].times, strict=True)
    assert all(abs(old - new) < Fraction(1, 20000) for old, new in pairs)
    assert any("mpeg4 cannot count time" in warning for warning in warnings)
