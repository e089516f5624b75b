"""A piece that is cut out is bit for bit what the whole run gives for these frames."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from streamderain.jobs.job import Job
from streamderain.media.reading.sources import find_sources
from streamderain.options import EncodeOptions, EngineOptions, ReadOptions, RunOptions
from streamderain.pipeline.cuts import CutDetector
from streamderain.runtime.base import Engine
from streamderain.runtime.registry import open_engine
from tests.support.command import command
from tests.support.pictures import texture

RATE = 25
WIDTH, HEIGHT = 96, 64
SCENES = ((0, 11), (11, 12), (12, 30), (30, 33), (33, 44))
"""First frame and end of each scene; one has a single frame."""

REPEATED = (5, 6, 20)
LENGTH = 7
LOSSLESS = EncodeOptions(codec="ffv1", overwrite=True)


def luma(index: int) -> NDArray[np.uint8]:
    """A frame of the clip: scenes of very different brightness, streaks in each, some frames that repeat."""
    scene = next(number for number, (first, end) in enumerate(SCENES) if first <= index < end)
    shown = index - 1 if index in REPEATED else index
    base = texture(shown, WIDTH, HEIGHT, seed=scene)[..., 0] >> 9
    picture = base.astype(np.int64) + (20, 150, 40, 190, 10)[scene]
    streaks = np.random.default_rng(shown).random(WIDTH) < 0.1
    picture[:, streaks] += 50
    return np.clip(picture, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pieces") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options={"qp": "0", "bf": "2", "g": "9"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "gray"
        for index in range(SCENES[-1][1]):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(luma(index), format="gray")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with open_engine(EngineOptions(engine="openvino")) as opened:
        yield opened


def derained(clip: Path, target: Path, engine: Engine, **read: Any) -> list[NDArray[Any]]:
    options = RunOptions(read=ReadOptions(**read), encode=LOSSLESS)
    (spec,) = find_sources(str(clip), options.read)
    Job(spec, [str(target)], options=options, engine=engine).run(lambda event: None, threading.Event())
    with av.open(str(target)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def whole(clip: Path, engine: Engine) -> list[NDArray[Any]]:
    return derained(clip, clip.with_name("whole.mkv"), engine)


def test_the_clip_has_scene_cuts_and_rain_is_taken(
    clip: Path, whole: list[NDArray[Any]], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def note(self: CutDetector, plane: Any, real: Any = CutDetector.is_cut) -> bool:
        found.append(real(self, plane))
        return found[-1]

    monkeypatch.setattr(CutDetector, "is_cut", note)
    derained(clip, clip.with_name("again.mkv"), engine)
    assert [number for number, is_cut in enumerate(found) if is_cut] == [11, 12, 30, 33]
    assert len(whole) == len(found) == 44
    changed = [not np.array_equal(frame[:HEIGHT], luma(index)) for index, frame in enumerate(whole)]
    assert sum(changed) > 30


@pytest.mark.parametrize("start", range(44))
def test_a_piece_is_what_the_whole_run_gives(
    clip: Path, whole: list[NDArray[Any]], engine: Engine, tmp_path: Path, start: int
) -> None:
    piece = derained(clip, tmp_path / "piece.mkv", engine, start_s=start / RATE, duration_s=LENGTH / RATE)
    wanted = whole[start : start + LENGTH]
    assert len(piece) == len(wanted)
    differing = [
        start + n for n, (one, two) in enumerate(zip(piece, wanted, strict=True)) if (one != two).any()
    ]
    assert not differing


def test_deinterlaced_pieces_too(
    clip: Path, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interlaced = tmp_path / "interlaced.mp4"
    with av.open(str(interlaced), "w") as container:
        options = {"qp": "0", "flags": "+ildct+ilme", "x264-params": "log=-1:tff=1:keyint=9"}
        stream: Any = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "gray"
        for index in range(44):
            frame = av.VideoFrame.from_ndarray(luma(index), format="gray")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    whole = derained(interlaced, tmp_path / "whole.mkv", engine, deinterlace=True)
    assert len(whole) == 44
    for start in (0, 1, 7, 11, 12, 29, 31):
        piece = derained(
            interlaced,
            tmp_path / "piece.mkv",
            engine,
            deinterlace=True,
            start_s=start / RATE,
            duration_s=LENGTH / RATE,
        )
        assert len(piece) == LENGTH
        for one, two in zip(piece, whole[start : start + LENGTH], strict=True):
            np.testing.assert_array_equal(one, two)


def test_a_silent_source_gives_its_last_frames_without_what_follows(
    clip: Path, engine: Engine, tmp_path: Path
) -> None:
    """A pipe that brings exactly what -t asks for and then stays open."""
    whole = tmp_path / "short.mkv"
    derained(clip, whole, engine, duration_s=1.0)
    read, write = os.pipe()
    with subprocess.Popen(
        command("run", "-", "-o", tmp_path / "out.mkv", "-t", "1", "--engine", "identity"),
        stdin=read,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(read)
        os.write(write, whole.read_bytes())
        assert process.stderr is not None
        said = process.stderr.read().decode()  # ends with the process: nothing more is written to the pipe
        assert process.wait(30) == 0, said
    os.close(write)
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert sum(1 for _ in container.decode(video=0)) == RATE
