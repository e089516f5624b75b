"""Still images, numbered runs of them, folders and globs."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamderain.errors import ConfigError, DecodeError, OpenError, UnsupportedFormat
from streamderain.frame import Lead
from streamderain.media.pixels import component_planes
from streamderain.media.reading.images import ImageSequence, size_of
from streamderain.media.reading.sources import SourceSpec, find_sources, open_source
from streamderain.options import ReadOptions
from tests.support.media import decoded, truncate, write_image, write_sequence, write_video

STILLS: list[tuple[str, dict[str, Any], str]] = [
    ("a.png", {"pix_fmt": "rgb24"}, "rgb24"),
    ("a.png", {"pix_fmt": "rgba"}, "rgba"),
    ("a.png", {"pix_fmt": "rgb48be"}, "rgb48be"),
    ("a.png", {"pix_fmt": "gray"}, "gray"),
    ("a.png", {"pix_fmt": "gray16be"}, "gray16be"),
    ("a.png", {"pix_fmt": "ya8"}, "ya8"),
    ("a.png", {"pix_fmt": "pal8"}, "rgba"),
    ("a.png", {"pix_fmt": "monob"}, "gray"),
    ("a.jpg", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}, "yuvj420p"),
    ("a.jpeg", {"codec": "mjpeg", "pix_fmt": "yuvj444p"}, "yuvj444p"),
    ("a.tif", {"codec": "tiff", "pix_fmt": "rgb24"}, "rgb24"),
    ("a.tiff", {"codec": "tiff", "pix_fmt": "rgb48le"}, "rgb48le"),
    ("a.bmp", {"codec": "bmp", "pix_fmt": "bgr24"}, "bgr24"),
    ("a.bmp", {"codec": "bmp", "pix_fmt": "rgb565le"}, "rgb24"),
    ("a.tga", {"codec": "targa", "pix_fmt": "bgr24"}, "bgr24"),
    ("a.webp", {"codec": "libwebp", "pix_fmt": "yuv420p"}, "yuv420p"),
    ("a.exr", {"codec": "exr", "pix_fmt": "gbrpf32le"}, "gbrp16le"),
    ("a.ppm", {"codec": "ppm", "pix_fmt": "rgb24"}, "rgb24"),
    ("a.pgm", {"codec": "pgm", "pix_fmt": "gray"}, "gray"),
    ("a.j2k", {"codec": "jpeg2000", "pix_fmt": "rgb24"}, "rgb24"),
    ("a.avif", {"codec": "avif", "pix_fmt": "yuv420p"}, "yuv420p"),
    ("a.dpx", {"codec": "dpx", "pix_fmt": "gbrp10be"}, "gbrp10le"),
]


def specs_of(source: Path | str, **options: Any) -> list[tuple[str, str, int]]:
    return [
        (spec.kind, spec.name, len(spec.paths)) for spec in find_sources(str(source), ReadOptions(**options))
    ]


def sequence_in(folder: Path, **options: Any) -> ImageSequence:
    spec = find_sources(str(folder), ReadOptions(**options))[0]
    assert spec.kind == "sequence"
    source = open_source(spec, ReadOptions(**options))
    assert isinstance(source, ImageSequence)
    return source


@pytest.mark.parametrize(
    ("name", "kind", "pix_fmt"), STILLS, ids=[f"{name} {kind}" for name, kind, _ in STILLS]
)
def test_a_still_is_one_frame_without_a_rate(
    name: str, kind: dict[str, Any], pix_fmt: str, tmp_path: Path
) -> None:
    if name.endswith("avif"):
        path = write_video(tmp_path / name, codec="libsvtav1", frames=1, width=66, height=42)
    else:
        path = write_image(tmp_path / name, width=66, height=42, **kind)
    (spec,) = find_sources(str(path), ReadOptions())
    assert (spec.kind, spec.name) == ("still", name)
    source = open_source(spec, ReadOptions())
    frames = list(source.frames(lambda packet: None))
    (info,) = source.streams
    assert len(frames) == 1
    assert (info.pix_fmt, info.rate_fps, info.frames) == (pix_fmt, None, 1)
    assert frames[0].planes[0].shape == (42, 66)
    assert not source.damage
    assert size_of(path) == (66, 42)
    source.close()


@pytest.mark.parametrize(
    "kind", [{}, {"codec": "mjpeg", "pix_fmt": "yuvj420p", "pattern": "{}.jpg"}], ids=str
)
def test_a_numbered_run_is_a_video(kind: dict[str, Any], tmp_path: Path) -> None:
    paths = write_sequence(tmp_path / "rain", count=12, first=98, **kind)
    assert specs_of(tmp_path / "rain") == [("sequence", "rain.mp4", 12)]
    source = sequence_in(tmp_path / "rain", image_rate_fps=30000 / 1001)
    frames = list(source.frames(lambda packet: None))
    assert [frame.pts * frame.time_base for frame in frames] == [
        Fraction(1001 * n, 30_000) for n in range(12)
    ]
    assert [frame.index for frame in frames] == list(range(12))
    for frame, path in zip(frames, paths, strict=True):
        assert (frame.planes[0] == component_planes(decoded(path)[0])[0]).all()
    assert not any(frame.cut for frame in frames)
    assert (source.streams[0].frames, source.streams[0].rate_fps) == (12, Fraction(30_000, 1001))
    assert source.copied == ()
    assert list(source.container.chapters()) == []
    source.close()
    source.close()


def test_stills_on_request(tmp_path: Path) -> None:
    write_sequence(tmp_path, count=3)
    assert specs_of(tmp_path, stills=True) == [("still", f"rain_000{n}.png", 1) for n in (1, 2, 3)]


def test_order_is_natural(tmp_path: Path) -> None:
    for name in ("v10.mp4", "v9.mp4", "V1.mp4", "a.mp4"):
        (tmp_path / name).write_bytes(b"x")
    assert [name for _, name, _ in specs_of(tmp_path)] == ["a.mp4", "V1.mp4", "v9.mp4", "v10.mp4"]


def test_what_is_no_run_stands_alone(tmp_path: Path) -> None:
    write_sequence(tmp_path / "sizes", count=2, pattern="a{}.png")
    write_image(tmp_path / "sizes" / "a3.png", width=32, height=32)
    assert [kind for kind, _, _ in specs_of(tmp_path / "sizes")] == ["still"] * 3
    write_sequence(tmp_path / "dates", count=1, first=20240101, pattern="{}.png")
    write_sequence(tmp_path / "dates", count=1, first=20250101, pattern="{}.png")
    assert [kind for kind, _, _ in specs_of(tmp_path / "dates")] == ["still"] * 2
    write_sequence(tmp_path / "one", count=1)
    assert specs_of(tmp_path / "one") == [("still", "rain_0001.png", 1)]
    (tmp_path / "names").mkdir()
    write_image(tmp_path / "names" / "x.png")
    write_image(tmp_path / "names" / "y.png")
    assert [kind for kind, _, _ in specs_of(tmp_path / "names")] == ["still"] * 2


def test_two_runs_in_one_folder_are_two_videos(tmp_path: Path) -> None:
    write_sequence(tmp_path, count=3, pattern="left_{:03d}.png")
    write_sequence(tmp_path, count=4, pattern="right_{:03d}.png")
    assert specs_of(tmp_path) == [("sequence", "left.mp4", 3), ("sequence", "right.mp4", 4)]


def test_a_mixed_folder_gives_everything_that_is_known(tmp_path: Path) -> None:
    write_sequence(tmp_path, count=3)
    write_image(tmp_path / "snapshot.jpg", codec="mjpeg", pix_fmt="yuvj420p")
    write_video(tmp_path / "clip.MP4")
    for name in ("notes.txt", ".hidden.mp4", "Thumbs.db"):
        (tmp_path / name).write_text("x")
    (tmp_path / "inner.mp4").mkdir()
    assert specs_of(tmp_path) == [
        ("video", "clip.MP4", 1),
        ("sequence", f"{tmp_path.name}.mp4", 3),
        ("still", "snapshot.jpg", 1),
    ]


def test_globs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("front/a.mp4", "rear/a.mp4", "rear/b.mkv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_video(tmp_path / name)
    names = [name for _, name, _ in specs_of(tmp_path / "*" / "*.m*")]
    assert names == ["a.mp4", "rear_a.mp4", "b.mkv"]
    monkeypatch.chdir(tmp_path)
    assert [name for _, name, _ in specs_of("**/*.mp4")] == ["a.mp4", "rear_a.mp4"]
    write_sequence(tmp_path / "run", count=3)
    assert specs_of("run/rain_*.png") == [("sequence", "run.mp4", 3)]


def test_several_sources_are_files_of_a_pattern_or_follow_each_other(tmp_path: Path) -> None:
    run = write_sequence(tmp_path / "run", count=3)
    clips = [write_video(tmp_path / "a.mp4"), write_video(tmp_path / "b.mkv").rename(tmp_path / "b.odd")]
    names = [str(path) for path in (*reversed(run), *clips)]
    options = ReadOptions()
    assert [(spec.kind, spec.name) for spec in find_sources(names[:3], options)] == [("sequence", "run.mp4")]
    assert [spec.name for spec in find_sources(names[3:], options)] == ["a.mp4", "b.odd"]
    mixed = find_sources([str(tmp_path / "run"), names[3], names[3]], options)
    assert [spec.kind for spec in mixed] == ["sequence", "video", "video"]
    assert len({spec.name for spec in mixed}) == 3


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4").rename(tmp_path / "a[1].mp4")
    assert specs_of(tmp_path / "a[1].mp4") == [("video", "a[1].mp4", 1)]


def test_standard_input_and_addresses() -> None:
    assert specs_of("-") == [("video", "stdin.mkv", 1)]
    (spec,) = find_sources("https://user:secret@example.org/a/clip.mp4?x=1", ReadOptions())
    assert spec.name == "clip.mp4"
    assert "secret" not in repr(spec)
    with pytest.raises(OpenError, match=r"\*\*\*@127\.0\.0\.1:9"):
        open_source(find_sources("http://user:secret@127.0.0.1:9/a.mp4", ReadOptions())[0], ReadOptions())


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("empty", r"the folder .*empty holds no videos and no images \(no files\)"),
        ("texts", r"holds no videos and no images \(1 files of other kinds\)"),
        ("nothing/*.mp4", "no file matches"),
        ("empty/*.[pm]ng", "no file matches"),
    ],
)
def test_nothing_to_derain_is_one_clear_error(source: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    with pytest.raises(OpenError, match=says):
        find_sources(str(tmp_path / source), ReadOptions())


def test_a_broken_image_is_skipped_counted_and_leaves_its_time_free(tmp_path: Path) -> None:
    paths = write_sequence(tmp_path, count=6)
    truncate(paths[2], keep=0.3)
    source = sequence_in(tmp_path)
    frames = list(source.frames(lambda packet: None))
    assert [(frame.pts, frame.cut) for frame in frames] == [
        (0, False),
        (1, False),
        (3, True),
        (4, False),
        (5, False),
    ]
    assert source.damage.texts() == ["video 0, from 0.040 s to 0.120 s: 1 frame could not be decoded"]
    assert "rain_0003.png cannot be decoded" in source.warnings[0]
    source.close()


def test_a_hole_in_the_numbers_is_a_cut_without_a_gap_in_time(tmp_path: Path) -> None:
    paths = write_sequence(tmp_path, count=6)
    paths[2].unlink()
    source = sequence_in(tmp_path)
    frames = list(source.frames(lambda packet: None))
    assert [(frame.pts, frame.cut) for frame in frames] == [
        (0, False),
        (1, False),
        (2, True),
        (3, False),
        (4, False),
    ]
    assert not source.damage
    source.close()


@pytest.mark.parametrize(
    ("first", "other"), [("gray", "rgb24"), ("rgb24", "rgba"), ("rgb24", "rgb48be"), ("rgb24", "gray16be")]
)
def test_an_image_that_does_not_fit_ends_the_run_with_a_clear_error(
    first: str, other: str, tmp_path: Path
) -> None:
    paths = write_sequence(tmp_path, count=5, pix_fmt=first)
    write_image(paths[3], pix_fmt=other)
    source = sequence_in(tmp_path)
    with pytest.raises(UnsupportedFormat, match=f"from 64x48 {first} to 64x48 {other} at frame 3"):
        list(source.frames(lambda packet: None))
    source.close()


@pytest.mark.parametrize(
    ("first", "other", "common"),
    [
        ("rgb24", {"pix_fmt": "gray"}, "rgb24"),
        ("rgb24", {"pix_fmt": "pal8"}, "rgb24"),
        ("rgb24", {"codec": "bmp", "pix_fmt": "bgr24"}, "rgb24"),
        ("pal8", {"pix_fmt": "rgba"}, "rgba"),
        ("pal8", {"pix_fmt": "gray"}, "rgba"),
    ],
    ids=str,
)
def test_an_image_that_fits_is_converted(
    first: str, other: dict[str, str], common: str, tmp_path: Path
) -> None:
    """Also one that is named like another kind."""
    paths = write_sequence(tmp_path, count=5, pix_fmt=first)
    write_image(paths[3], **other)
    source = sequence_in(tmp_path)
    frames = list(source.frames(lambda packet: None))
    assert [frame.pts for frame in frames] == [0, 1, 2, 3, 4]
    assert {frame.picture.format.name for frame in frames} == {common}
    wanted = decoded(paths[3])[0].reformat(format="rgb24").to_ndarray()
    assert (np.stack(frames[3].planes, axis=-1) == wanted).all()
    assert not source.damage
    source.close()


@pytest.mark.parametrize(
    ("start_s", "duration_s", "kept"), [(0.08, None, [2, 3, 4, 5]), (0.04, 0.08, [1, 2])]
)
def test_a_run_can_be_trimmed(
    start_s: float, duration_s: float | None, kept: list[int], tmp_path: Path
) -> None:
    paths = write_sequence(tmp_path, count=6)
    options = ReadOptions(start_s=start_s, duration_s=duration_s)
    source = ImageSequence(tuple(paths), name="run", options=options, lead=Lead(2, 1))
    frames = list(source.frames(lambda packet: None))
    emitted = [frame for frame in frames if frame.emit]
    assert [frame.pts for frame in emitted] == list(range(len(kept)))
    assert len(frames) - len(emitted) == min(2, kept[0]) + min(1, 5 - kept[-1])
    for frame, number in zip(emitted, kept, strict=True):
        assert (frame.planes[0] == component_planes(decoded(paths[number])[0])[0]).all()
    assert source.offset_s == Fraction(kept[0], 25)
    assert source.streams[0].frames == len(kept)
    source.close()


def test_a_start_behind_the_last_image_is_a_mistake_in_the_options(tmp_path: Path) -> None:
    paths = write_sequence(tmp_path, count=3)
    with pytest.raises(ConfigError, match="has 3 images"):
        ImageSequence(tuple(paths), name="run", options=ReadOptions(start_s=1.0))


def test_a_run_whose_first_image_is_broken_says_which(tmp_path: Path) -> None:
    paths = write_sequence(tmp_path, count=3)
    truncate(paths[0], keep=0.3)
    with pytest.raises(DecodeError, match=r"rain_0001\.png cannot be decoded"):
        ImageSequence(tuple(paths), name="run", options=ReadOptions())


def test_planes_of_a_palette_are_its_colours(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", pix_fmt="pal8")
    source = open_source(SourceSpec("still", "a.png", (path,)), ReadOptions())
    (frame,) = source.frames(lambda packet: None)
    wanted = decoded(path)[0].reformat(format="rgb24").to_ndarray()
    assert (np.stack(frame.planes, axis=-1) == wanted).all()
    source.close()
