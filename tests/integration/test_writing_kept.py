"""Range, times and rotation in targets that have no word for them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from streamderain.media.writing.rotation import rotation_filters
from tests.support.media import Sound, Video, decoded, probe, rgb, write
from tests.support.writing import write_through

DASHCAM = Video(codec="mjpeg", pix_fmt="yuvj420p", frames=4, rate=Fraction(20))
ONE = 1 << 16


def luma(path: Path) -> np.ndarray:
    """Luma of the first picture as a reader that follows its tags sees it, 0..255."""
    frame = decoded(path)[0]
    codes = frame.to_ndarray()[: frame.height].astype(float)
    full = frame.color_range == 2 or frame.format.name.startswith("yuvj")
    return codes if full else (codes - 16) * 255 / 219


@pytest.mark.parametrize("suffix", ["avi", "mkv", "mp4", "ts", "mov", "webm", "mpg", "ogv"])
def test_full_range_looks_the_same_in_every_container(tmp_path: Path, suffix: str) -> None:
    source, target = write(tmp_path / "in.avi", DASHCAM), tmp_path / f"out.{suffix}"
    # Without B-frames the few darkest pixels of a noisy picture are coded coarsely: a better quality shows
    # the range.
    warnings = write_through(source, target, **({"crf": 8} if suffix == "mpg" else {}))

    difference = luma(target) - luma(source)
    # A range read wrongly leaves the darkest and brightest some sixteen codes away.
    dark, bright = luma(source) < 32, luma(source) > 224
    assert abs(difference[dark].mean()) < 5
    assert abs(difference[bright].mean()) < 5
    assert any("limited range" in warning for warning in warnings) == (suffix == "ogv")


def test_full_range_goes_into_avi_as_jpeg(tmp_path: Path) -> None:
    source = write(tmp_path / "in.avi", DASHCAM)
    assert write_through(source, tmp_path / "out.avi") == []
    video = probe(tmp_path / "out.avi").video[0]
    assert (video.codec, video.pix_fmt) == ("mjpeg", "yuvj420p")


@pytest.mark.parametrize(
    ("codec", "suffix"), [("mpeg4", "avi"), ("mpeg4", "mp4"), ("mpeg2video", "mpg"), ("ffv1", "avi")]
)
def test_an_encoder_without_a_word_for_full_range_gets_limited(
    tmp_path: Path, codec: str, suffix: str
) -> None:
    source, target = write(tmp_path / "in.avi", DASHCAM), tmp_path / f"out.{suffix}"
    warnings = write_through(source, target, codec=codec)

    assert any(f"{codec} in" in warning and "limited range" in warning for warning in warnings)
    assert np.abs(luma(target) - luma(source)).mean() < 8
    assert abs((luma(target) - luma(source)).mean()) < 1


@pytest.mark.parametrize("container", ["mp4", "mkv"])
@pytest.mark.parametrize("codec", ["aac", "mp3", "ac3", "pcm_s16le"])
@pytest.mark.parametrize("encoder", [None, "mjpeg"])
def test_avi_keeps_every_time_beside_sound(
    tmp_path: Path, container: str, codec: str, encoder: str | None
) -> None:
    source = write(
        tmp_path / f"in.{container}", Video(frames=12, rate=Fraction(20)), audio=[Sound(codec=codec)]
    )
    warnings = write_through(source, tmp_path / "out.avi", codec=encoder)

    before, after = probe(source), probe(tmp_path / "out.avi")
    assert after.video[0].times == before.video[0].times
    old, new = before.of_kind("audio")[0], after.of_kind("audio")[0]
    dropped = len(old.digests) - len(new.digests)
    assert new.digests == old.digests[dropped:]
    # What was the first sound left is heard at zero; that is where it was, to half a packet.
    assert abs(old.times[dropped] or Fraction(0)) < Fraction(16, 1000)
    assert any("before it are left out" in warning for warning in warnings) == bool(dropped)
    assert dropped == (codec in ("aac", "mp3"))


def test_what_avi_moves_to_zero_is_said(tmp_path: Path) -> None:
    late = Sound(codec="pcm_s16le", start_s=Fraction(1, 2))
    source = write(
        tmp_path / "in.mov", Video(frames=6, rate=Fraction(20), start_s=Fraction(1, 5)), audio=[late]
    )
    sound, picture = write_through(source, tmp_path / "out.avi")
    assert "500 ms too early" in sound
    assert "shown 0.2 s early" in picture
    assert probe(tmp_path / "out.avi").video[0].times[1:] == probe(source).video[0].times[1:]


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p"])
@pytest.mark.parametrize("rotation", [90, 180, -90])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
def test_pictures_of_a_rotated_video_are_turned(
    tmp_path: Path, suffix: str, rotation: int, pix_fmt: str
) -> None:
    plain = write(tmp_path / "plain.mp4", Video(frames=2, pix_fmt=pix_fmt))
    source = write(tmp_path / "in.mp4", Video(frames=2, pix_fmt=pix_fmt, rotation=rotation))
    warnings = write_through(source, f"{tmp_path}/turned%d.{suffix}")
    write_through(plain, f"{tmp_path}/plain%d.png")

    result = decoded(tmp_path / f"turned2.{suffix}")[0]
    wanted = np.rot90(decoded(tmp_path / "plain2.png")[0].to_ndarray(), rotation // 90)
    assert result.rotation == 0
    got = rgb(result).astype(int)
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).mean() < (12 if suffix == "jpg" or pix_fmt == "yuv422p" else 1)
    assert not any("rotation" in warning for warning in warnings)


def test_a_rotated_video_keeps_its_rotation_beside_turned_pictures(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mp4", Video(frames=3, rotation=90))
    write_through(source, tmp_path / "out.mp4", f"{tmp_path}/out%d.png")
    video = probe(tmp_path / "out.mp4").video[0]
    assert (video.rotation, video.width, video.height) == (90, 64, 48)
    assert [decoded(tmp_path / f"out{n}.png")[0].width for n in (1, 2, 3)] == [48, 48, 48]


@pytest.mark.parametrize(
    ("corner", "filters"),
    [
        ((1, 0, 0, 1), ()),
        ((-1, 0, 0, 1), ("hflip",)),
        ((1, 0, 0, -1), ("vflip",)),
        ((-1, 0, 0, -1), ("hflip", "vflip")),
        ((0, 1, -1, 0), ("transpose=clock",)),
        ((0, -1, 1, 0), ("transpose=cclock",)),
        ((0, 1, 1, 0), ("transpose=cclock_flip",)),
        ((0, -1, -1, 0), ("transpose=clock_flip",)),
        ((0.7, 0.7, -0.7, 0.7), None),
    ],
)
def test_a_display_matrix_becomes_filters(corner: tuple[float, ...], filters: tuple[str, ...] | None) -> None:
    a, b, c, d = (round(number * ONE) for number in corner)
    assert rotation_filters([a, b, 0, c, d, 0, 0, 0, 1 << 30]) == filters


def test_the_slant_of_a_video_is_said(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mp4", Video(frames=2, rotation=30))
    warnings = write_through(source, f"{tmp_path}/out%d.png")
    assert any("at a slant" in warning for warning in warnings)
    assert decoded(tmp_path / "out1.png")[0].width == 64


def test_images_of_a_longer_run_are_counted_before_they_mix(tmp_path: Path) -> None:
    long, short = (write(tmp_path / f"{n}.mp4", Video(frames=n)) for n in (5, 3))
    for target in (f"{tmp_path}/out/", f"{tmp_path}/run_%03d.png"):
        assert not any("already" in warning for warning in write_through(long, target))
        warnings = write_through(short, target, overwrite=True)
        assert [w for w in warnings if "5 numbered images are there already" in w]
    assert len(list((tmp_path / "out").iterdir())) == 5


def test_a_codec_named_for_its_encoder_gets_that_encoders_defaults(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mkv", Video(frames=3))
    for codec in ("h264", "libx264"):
        assert write_through(source, tmp_path / f"{codec}.mp4", codec=codec) == []
    one, other = (
        [bytes(frame.planes[0]) for frame in decoded(tmp_path / f"{codec}.mp4")]
        for codec in ("h264", "libx264")
    )
    assert one == other


def test_h264_that_the_user_asked_for_is_not_talked_about(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mkv", Video(pix_fmt="yuv444p", frames=2))
    assert write_through(source, tmp_path / "a.mp4", codec="libx264") == []
    assert write_through(source, tmp_path / "b.mp4", pix_fmt="yuv444p") == []
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv444p"
