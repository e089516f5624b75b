"""Decoding on a GPU: asked for and not there, not possible, and what comes back from one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest

from streamderain.errors import ConfigError, OpenError, UnsupportedFormat
from streamderain.media.reading.decoder import VideoDecoder
from streamderain.media.reading.sources import find_sources, open_source
from streamderain.options import ReadOptions
from streamderain.system.gpu import has_driver
from tests.support.command import streamderain
from tests.support.media import write_video

CUDA = ReadOptions(hwaccel="cuda")


def test_a_gpu_that_is_not_there_is_told(tmp_path: Path) -> None:
    if has_driver():
        pytest.skip("there is a GPU")
    source = write_video(tmp_path / "clip.mp4")
    with pytest.raises(OpenError, match=r"--hwaccel cuda: no NVIDIA GPU .* leave --hwaccel out"):
        open_source(find_sources(str(source), CUDA)[0], CUDA)
    done = streamderain("run", source, "-o", tmp_path / "clean.mp4", "--hwaccel", "cuda")
    assert (done.code, "leave --hwaccel out" in done.err) == (3, True)
    assert not (tmp_path / "clean.mp4").exists()
    assert streamderain("run", source, "-o", tmp_path / "clean.mp4", "--hwaccel", "none").code == 0


def test_a_codec_that_no_gpu_decodes_is_told(tmp_path: Path) -> None:
    source = write_video(tmp_path / "clip.mkv", codec="ffv1")
    with pytest.raises(UnsupportedFormat, match="does not decode; leave --hwaccel out"):
        open_source(find_sources(str(source), CUDA)[0], CUDA)


def test_a_file_that_may_not_be_opened_is_not_blamed_on_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_video(tmp_path / "clip.mp4")

    def refuse(*_: Any, **__: Any) -> None:
        raise av.error.PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("streamderain.media.reading.container.av.open", refuse)
    with pytest.raises(OpenError, match="may not be read by this user"):
        open_source(find_sources(str(source), ReadOptions())[0], ReadOptions())


def test_other_hardware_is_refused() -> None:
    with pytest.raises(ConfigError, match="hwaccel must be none or cuda, not 'vaapi'"):
        ReadOptions(hwaccel="vaapi")


def test_pictures_from_a_gpu_get_their_colour_tags_back() -> None:
    tags = {"color_range": 2, "colorspace": 9, "color_primaries": 9, "color_trc": 16}
    picture = av.VideoFrame(16, 16, "nv12")
    context = SimpleNamespace(is_hwaccel=True, decode=lambda packet: [picture], **tags)
    decoder: Any = VideoDecoder.__new__(VideoDecoder)
    decoder.stream = SimpleNamespace(codec_context=context)
    decoder.decoded = 0
    assert decoder.decode(None) == [picture]
    assert {tag: int(getattr(picture, tag)) for tag in tags} == tags
