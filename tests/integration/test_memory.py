"""Memory does not grow with the length of a video."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import av
import pytest

from streamderain.media.writing import codecs
from tests.support import media
from tests.support.command import command
from tests.support.writing import write_through


def peak_mb(source: Path, target: Path) -> float:
    """Peak resident memory of the command in MB."""
    process = subprocess.Popen(command("run", source, "-o", target, "-q", "--preset", "ultrafast"))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss / 1024


def test_a_long_video_takes_no_more_than_a_short_one(tmp_path: Path) -> None:
    size = {"width": 160, "height": 120}
    short = media.write(
        tmp_path / "short.mp4", media.Video(frames=200, **size), audio=[media.Sound(seconds=8)]
    )
    long = media.write(
        tmp_path / "long.mp4", media.Video(frames=3000, **size), audio=[media.Sound(seconds=120)]
    )
    few, many = peak_mb(short, tmp_path / "a.mp4"), peak_mb(long, tmp_path / "b.mp4")
    # One leaked luma plane a frame would be 57 MB here, one leaked frame 86 MB.
    assert many < few + 25


def resident_mb(script: str, *arguments: str | Path) -> list[float]:
    """What a Python script prints, a figure a line; it runs in a process of its own."""
    words = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    return [float(line) for line in done.stdout.split()]


def test_encoders_give_their_memory_back_without_the_garbage_collector(tmp_path: Path) -> None:
    source = media.write_video(tmp_path / "in.mkv", frames=30, width=1280, height=720)
    held = resident_mb(
        """
        import gc, sys, psutil
        from streamderain.media.reading.file import FileSource
        from streamderain.media.writing.outputs import open_outputs
        from streamderain.options import EncodeOptions, ReadOptions
        gc.disable()
        for number in range(6):
            opened = FileSource(sys.argv[1], ReadOptions())
            target = f"{sys.argv[2]}/{number}.mp4"
            (output,), _ = open_outputs(opened, [target], EncodeOptions())
            (encoder,), (outlet,) = output.encoders, output.outlets
            for frame in opened.frames(lambda packet: None):
                outlet.mux(encoder.encode(frame, None))
            outlet.mux(encoder.flush())
            outlet.finish()
            encoder.close()
            opened.close()
            del output, encoder, outlet, opened, frame
            print(psutil.Process().memory_info().rss / 1e6)
        """,
        source,
        tmp_path,
    )
    # One 720p encoder that stays holds about 70 MB.
    assert held[-1] < held[1] + 40, held


def test_a_folder_of_many_files_takes_no_more_memory_than_a_few(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    first = media.write(
        folder / "clip000.mp4",
        media.Video(frames=4, width=320, height=240),
        audio=[media.Sound(seconds=0.2)],
    )
    for number in range(1, 200):
        (folder / f"clip{number:03}.mp4").hardlink_to(first)
    held = resident_mb(
        """
        import sys, psutil, streamderain
        from streamderain import EncodeOptions, EngineOptions, RunOptions
        from streamderain.events import Complete
        from streamderain.system.allocator import share_arenas

        share_arenas()  # as the command does; a pool for each thread that ever ran would look like a leak

        def watch(event):
            if isinstance(event, Complete):
                print(psutil.Process().memory_info().rss / 1e6)

        options = RunOptions(
            engine=EngineOptions(engine="identity"), encode=EncodeOptions(preset="ultrafast")
        )
        streamderain.run(sys.argv[1], sys.argv[2], options=options, observer=watch)
        """,
        folder,
        tmp_path / "out",
    )
    assert len(held) == 200
    # The two pools settle within some sixty files (measured over 500: 91, 95, 96, 93, 93 ... 94 MB).
    early, late = sorted(held[60:100])[20], sorted(held[160:])[20]
    assert late < 1.05 * early, (early, late)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "ts"])
@pytest.mark.parametrize("colour_range", [1, 2])
def test_an_encoders_settings_are_tried_once_for_each_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, colour_range: int
) -> None:
    colour = media.Colour(range=colour_range)
    source = media.write(
        tmp_path / "in.mkv", media.Video(colour=colour), audio=[media.Sound()], metadata={"place": "here"}
    )
    opened: list[tuple[int, int]] = []
    real = codecs._open

    def counted(settings: codecs.EncoderSettings) -> av.VideoStream:
        opened.append((settings.width, settings.height))
        return real(settings)

    monkeypatch.setattr(codecs, "_open", counted)
    write_through(source, tmp_path / f"out.{suffix}")
    assert opened.count((64, 48)) == 1, "for the run itself"
    assert len(opened) == 2, "and small, to see what the container gives back"
