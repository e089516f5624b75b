"""Models of RGB, from file to file: every kind of source, what is left alone, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support import media
from tests.support.command import streamderain
from tests.support.models import small_generator

LOSSLESS = ("--codec", "ffv1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_generator(tmp_path_factory.mktemp("models") / "small-generator")


def components(frame: av.VideoFrame) -> list[NDArray[np.int64]]:
    """Each component's codes, whatever the layout."""
    array = (
        frame.to_ndarray() if len(frame.planes) == 1 else frame.reformat(format="yuv444p16le").to_ndarray()
    )
    return [array.astype(np.int64)] if array.ndim == 2 else list(array.astype(np.int64))


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "yuv444p", "gray"])
def test_a_video_keeps_its_form_and_changes_in_luma_and_chroma(
    tmp_path: Path, model: Path, pix_fmt: str
) -> None:
    source = media.write_video(
        tmp_path / "in.mkv", frames=4, width=70, height=46, pix_fmt=pix_fmt, codec="ffv1"
    )
    target = tmp_path / "out.mkv"
    outcome = streamderain("run", source, "-o", target, "--model", model, *LOSSLESS)
    assert outcome.code == 0, outcome.err
    before, after = media.decoded(source), media.decoded(target)
    assert [frame.pts for frame in before] == [frame.pts for frame in after]
    assert {frame.format.name for frame in after} == {before[0].format.name}
    for one, two in zip(before, after, strict=True):
        assert all((a != b).any() for a, b in zip(components(one), components(two), strict=True))


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "yuv411p", "gray"])
def test_strength_0_is_the_source_bit_for_bit(tmp_path: Path, model: Path, pix_fmt: str) -> None:
    source = media.write_video(
        tmp_path / "in.mkv", frames=3, width=70, height=46, pix_fmt=pix_fmt, codec="ffv1"
    )
    target = tmp_path / "out.mkv"
    outcome = streamderain("run", source, "-o", target, "--model", model, "--strength", "0", *LOSSLESS)
    assert outcome.code == 0, outcome.err
    for one, two in zip(media.decoded(source), media.decoded(target), strict=True):
        assert all(bytes(a) == bytes(b) for a, b in zip(one.planes, two.planes, strict=True))


@pytest.mark.parametrize("pix_fmt", ["rgb24", "rgba", "rgb48be", "gray"])
def test_pictures_keep_depth_and_alpha(tmp_path: Path, model: Path, pix_fmt: str) -> None:
    source = media.write_image(tmp_path / "in.png", width=61, height=45, pix_fmt=pix_fmt)
    target = tmp_path / "out.png"
    outcome = streamderain("run", source, "-o", target, "--model", model)
    assert outcome.code == 0, outcome.err
    (before,), (after,) = media.decoded(source), media.decoded(target)
    assert after.format.name == before.format.name
    one, two = before.to_ndarray(), after.to_ndarray()
    assert (one != two).any()
    if pix_fmt == "rgba":
        np.testing.assert_array_equal(one[..., 3], two[..., 3])


def test_a_smaller_working_size_makes_another_video_of_the_same_size(tmp_path: Path, model: Path) -> None:
    source = media.write_video(tmp_path / "in.mkv", frames=2, width=160, height=90, codec="ffv1")
    frames = []
    for number, more in enumerate(((), ("--max-size", "64"))):
        target = tmp_path / f"{number}.mkv"
        outcome = streamderain("run", source, "-o", target, "--model", model, *LOSSLESS, *more)
        assert outcome.code == 0, outcome.err
        frames.append(media.decoded(target)[0].to_ndarray())
    assert frames[0].shape == frames[1].shape
    assert (frames[0] != frames[1]).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--max-size", "640"), "dcd-lite takes frames of any size"),
        (("--model", "dcd-gan", "--max-size", "20"), "at least 64 px"),
        (("--model", "dcd-gan", "--max-size", "-5"), "at least 64 px"),
    ],
)
def test_sizes_that_cannot_be_are_refused(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    source = media.write_video(tmp_path / "in.mkv", frames=2)
    outcome = streamderain("run", source, "-o", tmp_path / "out.mkv", *options)
    assert outcome.code == 2
    assert words in outcome.err
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_frame_that_does_not_fit_into_memory_is_refused_before(
    tmp_path: Path, model: Path, engine: str
) -> None:
    hungry = shutil.copytree(model, tmp_path / "hungry")
    card = hungry / "card.toml"
    told = next(line for line in card.read_text().splitlines() if line.startswith("bytes_per_px"))
    card.write_text(card.read_text().replace(told, "bytes_per_px = 1_000_000_000"))
    source = media.write_video(tmp_path / "in.mkv", frames=2, width=640, height=480)
    outcome = streamderain("run", source, "-o", tmp_path / "out.mkv", "--model", hungry, "--engine", engine)
    assert outcome.code == 5, outcome.err
    assert "640x480 needs about" in outcome.err
    assert "--max-size" in outcome.err
    assert not list(tmp_path.glob("out*"))


def test_a_lost_shard_is_named(tmp_path: Path, model: Path) -> None:
    broken = shutil.copytree(model, tmp_path / "broken")
    (shard,) = broken.glob("weights*.safetensors")
    shard.unlink()
    source = media.write_video(tmp_path / "in.mkv", frames=2)
    outcome = streamderain("run", source, "-o", tmp_path / "out.mkv", "--model", broken)
    assert outcome.code == 4
    assert shard.name in outcome.err
