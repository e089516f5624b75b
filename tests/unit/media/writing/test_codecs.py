"""Encoders, their options and pixel formats: what is refused, and in which words."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.codec.codec import PixFmtLoss
from hypothesis import given
from hypothesis import strategies as st

from streamderain.errors import ConfigError, EncodeError
from streamderain.media.writing.codecs import (
    EncoderSettings,
    check_encoder_options,
    choose_pix_fmt,
    encoder_options,
    has_alpha,
    open_encoder,
    settle,
)
from streamderain.media.writing.timestamps import TimestampRescaler
from streamderain.options import EncodeOptions

SETTINGS = EncoderSettings("libx264", 64, 48, "yuv420p", Fraction(1, 25), Fraction(25))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"codec": "libx246"}, "libx264"),
        ({"codec": "aac"}, "encodes audio"),
        ({"codec": "libx264", "extra": {"presett": "fast"}}, "did you mean preset"),
        ({"codec": "ffv1", "crf": 20}, "leave --crf out"),
        ({"codec": "ffv1", "preset": "slow"}, "leave --preset out"),
        ({"codec": "libx264", "crf": 60}, r"0\.\.51"),
        ({"codec": "libx264", "pix_fmt": "rgb24"}, "yuv420p"),
        ({"pix_fmt": "yuv421p"}, "no pixel format"),
    ],
)
def test_options_that_do_not_exist_are_refused_with_those_that_do(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_encoder_options(EncodeOptions(**fields))


def test_defaults_hold_where_nothing_is_chosen() -> None:
    assert dict(encoder_options("libx264", EncodeOptions())) == {"crf": "18", "preset": "veryfast"}
    chosen = EncodeOptions(crf=21.5, preset="slow", extra={"g": "50"})
    assert dict(encoder_options("libx264", chosen)) == {"crf": "21.5", "preset": "slow", "g": "50"}
    assert "crf" not in dict(encoder_options("libx264", EncodeOptions(extra={"b": "2M"})))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("preset", "quickest", "veryfast"),
        ("crf", "high", "crf=high"),
        ("aq-mode", "none-such", "autovariance"),
        ("g", "99999999999", "out of range"),
        ("x264-params", "no-such=1", "no-such"),
        ("tune", "no-such", "tune=no-such"),
    ],
)
def test_bad_values_are_refused_though_ffmpeg_may_take_them(name: str, value: str, words: str) -> None:
    settings = replace(SETTINGS, options=((name, value),), chosen=(name,))
    with pytest.raises(ConfigError, match=words):
        open_encoder(settings)


def test_the_same_bad_value_is_explained_the_second_time_too() -> None:
    settings = replace(SETTINGS, options=(("preset", "quickest"),), chosen=("preset",))
    for _ in range(2):
        with pytest.raises(ConfigError, match="ultrafast"):
            open_encoder(settings)


def test_the_encoder_at_fault_says_why_it_does_not_open() -> None:
    with pytest.raises(EncodeError, match=r"width not divisible by 2.*--pix-fmt"):
        open_encoder(replace(SETTINGS, width=63))


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has the hardware")
def test_a_hardware_encoder_without_its_hardware_is_named() -> None:
    with pytest.raises(EncodeError, match=r"h264_nvenc does not open.*--codec") as caught:
        open_encoder(replace(SETTINGS, codec="h264_nvenc", width=256, height=256))
    assert caught.value.__cause__ is not None


def test_the_first_settings_that_open_are_taken() -> None:
    odd = replace(SETTINGS, width=63)
    stream, settings = settle([odd, replace(odd, pix_fmt="yuv444p")])
    assert settings.pix_fmt == "yuv444p"
    assert stream.codec_context.pix_fmt == "yuv444p"


def test_opening_leaves_the_log_as_it_was() -> None:
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    open_encoder(SETTINGS)
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == before


@pytest.mark.parametrize(
    ("codec", "source", "expected", "loss"),
    [
        ("libx264", "yuv411p", "yuv422p", PixFmtLoss.NONE),
        ("libx264", "yuv410p", "yuv420p", PixFmtLoss.NONE),
        ("libx264", "yuv420p10be", "yuv420p10le", PixFmtLoss.NONE),
        ("libx264", "yuva420p", "yuv420p", PixFmtLoss.ALPHA),
        ("libx264", "yuv422p12le", "yuv422p10le", PixFmtLoss.DEPTH),
        ("ffv1", "yuvj420p", "yuv420p", PixFmtLoss.NONE),
        ("mjpeg", "yuv422p", "yuvj422p", PixFmtLoss.NONE),
        ("tiff", "yuv420p", "rgb24", PixFmtLoss.COLORSPACE),
        ("libvpx-vp9", "yuva444p", "yuva420p", PixFmtLoss.RESOLUTION),
    ],
)
def test_the_nearest_pixel_format_is_chosen(codec: str, source: str, expected: str, loss: PixFmtLoss) -> None:
    chosen, lost = choose_pix_fmt(codec, source)
    assert chosen == expected
    assert lost & loss == loss
    if loss is PixFmtLoss.NONE:
        assert not lost & (PixFmtLoss.DEPTH | PixFmtLoss.ALPHA | PixFmtLoss.RESOLUTION)


def test_alpha_is_known_by_its_component() -> None:
    names = ("yuva420p", "rgba", "ya8", "gbrap12le", "yuv420p", "bgr0", "nv12", "gray")
    assert [has_alpha(name) for name in names] == [True] * 4 + [False] * 4


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60))
def test_a_coarse_clock_keeps_order_and_never_puts_two_frames_in_one_place(steps: list[int]) -> None:
    rescaler = TimestampRescaler(Fraction(1, 90000), Fraction(1, 1000))
    pts, times = 0, []
    for step in steps:
        pts += step
        times.append(pts)
        rescaler.note(pts)
    placed = []
    for pts in times:
        packet = av.Packet(1)
        packet.time_base, packet.pts, packet.dts, packet.duration = Fraction(1, 90000), pts, pts, 0
        rescaler.place(packet)
        assert packet.time_base == Fraction(1, 1000)
        assert packet.dts is not None
        assert packet.pts is not None
        assert packet.dts <= packet.pts
        placed.append(packet.pts)
    assert all(later > earlier for earlier, later in itertools.pairwise(placed))
    assert abs(placed[0] - times[0] / 90) <= 0.5
