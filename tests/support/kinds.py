"""One small clip of every kind of source, and the containers that results go to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

from tests.support import media
from tests.support.media import Colour, Sound, Text, Video

CONTAINERS = (
    "mp4",
    "mov",
    "m4v",
    "mkv",
    "webm",
    "ts",
    "avi",
    "flv",
    "mpg",
    "asf",
    "3gp",
    "ogv",
    "mxf",
    "nut",
    "gif",
)

_VFR = [0, 3600, 10_800, 45_000, 46_800, 90_000, 93_600, 180_000]

SOURCES: Mapping[str, Callable[[Path], Path]] = {
    "h264-aac.mp4": lambda path: media.write(
        path, Video(frames=51, b_frames=2), audio=[Sound(seconds=2)], metadata={"title": "rain"}
    ),
    "h264-ac3-text.mkv": lambda path: media.write(
        path,
        Video(frames=30, b_frames=3),
        audio=[Sound("ac3", seconds=1.2), Sound("libopus", seconds=1.2)],
        subtitles=[Text()],
        metadata={"title": "rain"},
    ),
    "h264-aac.ts": lambda path: media.write(path, Video(frames=30), audio=[Sound(seconds=1.2)]),
    "mpeg2-mp2.ts": lambda path: media.write(
        path, Video(codec="mpeg2video", frames=30), audio=[Sound("mp2", seconds=1.2)]
    ),
    "late.ts": lambda path: media.write(
        path, Video(frames=20, start_s=Fraction(10)), audio=[Sound("ac3", seconds=1, start_s=Fraction(10))]
    ),
    "vfr.mp4": lambda path: media.write_video(path, time_base=Fraction(1, 90_000), pts=_VFR, frames=8),
    "ntsc.mp4": lambda path: media.write_video(path, rate=Fraction(60_000, 1001), frames=40, b_frames=2),
    "hevc10.mkv": lambda path: media.write_video(
        path, codec="libx265", pix_fmt="yuv420p10le", frames=12, colour=Colour(9, 9, 16)
    ),
    "vp9-opus.webm": lambda path: media.write(
        path, Video(codec="libvpx-vp9", frames=20), audio=[Sound("libopus", seconds=0.8)]
    ),
    "mjpeg-pcm.avi": lambda path: media.write(
        path,
        Video(codec="mjpeg", pix_fmt="yuvj420p", frames=20),
        audio=[Sound("pcm_s16le", seconds=0.8)],
        metadata={"title": "rain"},
    ),
    "rotated.mp4": lambda path: media.write_video(path, frames=12, rotation=90),
    "two.mkv": lambda path: media.write(
        path, Video(frames=20), Video(frames=20, seed=1, width=96), audio=[Sound("flac", seconds=0.8)]
    ),
    "gray.mkv": lambda path: media.write_video(path, codec="ffv1", pix_fmt="gray", frames=8),
    "odd.mkv": lambda path: media.write_video(path, codec="ffv1", width=65, height=49, frames=8),
}
"""File name to what writes it."""
