"""Judges a result beside its source by FFmpeg's own commands: counts, times, pictures, sound, tags."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.reader import ffmpeg, ffprobe

LEAST_PSNR_DB = 24.0
"""Between a picture and its encoded self: GIF's palettes and MPEG's coarsest quantisers stay above."""

_MADE_BY_WRITERS = {
    "major_brand",
    "minor_version",
    "compatible_brands",
    "encoder",
    "duration",
    "creation_time",
}


_PRIMING = 4096
"""Samples at the beginning that an mp4 tells readers to leave out and other formats cannot."""


def faults(source: Path, target: Path, warnings: Sequence[str], *, code: int = 0) -> list[str]:
    """What a careful person would find wrong with a result.

    Args:
        source: What was derained, by the engine that changes nothing.
        target: The result.
        warnings: What was said beforehand: a loss that was told is none.
        code: Exit code of the run.

    Returns:
        Each fault in words; none where all is well.
    """
    found = [f"exit code {code}"] if code else []
    for look in (_video_faults, _sound_faults, _tag_faults):
        try:
            found += look(source, target, warnings)
        except subprocess.CalledProcessError as error:
            found.append(f"{error.cmd[0]} cannot read it: {str(error.stderr)[-200:]}")
    return found


def video_streams(path: Path) -> list[int]:
    """Indices of the video streams that are no covers."""
    asked = ("-select_streams", "v", "-show_entries", "stream=index:stream_disposition=attached_pic")
    streams = ffprobe(path, *asked, cut=True)["streams"]
    return [stream["index"] for stream in streams if not stream["disposition"]["attached_pic"]]


def times_s(path: Path, index: int) -> list[Fraction | None]:
    """Presentation time of each decoded frame of a stream, in seconds; None where there is none."""
    asked = "frame=best_effort_timestamp,pkt_dts:stream=time_base"
    found = ffprobe(path, "-select_streams", str(index), "-show_entries", asked, cut=True)
    base = Fraction(found["streams"][0]["time_base"])
    # Where a format has decoding times alone, frames come out in their order.
    times = [frame.get("best_effort_timestamp", frame.get("pkt_dts")) for frame in found["frames"]]
    return [None if time is None else int(time) * base for time in times]


def _video_faults(source: Path, target: Path, warnings: Sequence[str]) -> list[str]:
    before, after = video_streams(source), video_streams(target)
    if len(before) != len(after):
        return [f"{len(after)} video streams of {len(before)}"]
    found = []
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        found += [
            f"video {number}: {fault}"
            for fault in _times_faults(times_s(source, old), times_s(target, new), warnings)
        ]
        found += [f"video {number}: {fault}" for fault in _picture_faults(source, old, target, new)]
    return found


def _times_faults(
    old: Sequence[Fraction | None], new: Sequence[Fraction | None], warnings: Sequence[str]
) -> list[str]:
    if len(old) != len(new):
        return [f"{len(new)} frames of {len(old)}"]
    said = " ".join(warnings)
    known = [time for time in new if time is not None]
    expected = [time for time in old if time is not None]
    if len(known) < len(new):
        return [] if "mpeg has no times" in said else ["frames without times"]
    if not all(one < other for one, other in pairwise(known)):
        return ["times do not rise"]
    if "the first picture" in said:
        known, expected = known[1:], expected[1:]
    if (slower := re.search(r"plays ([\d.]+) times slower", said)) is not None:
        expected = [time * Fraction(slower[1]) for time in expected]
    shift = known[0] - expected[0] if known and ("later" in said or "early" in said) else Fraction(0)
    rounded = any(words in said for words in ("steady rate", "counts time", "cannot count time"))
    allowed = Fraction(1, 20) if rounded else Fraction(1, 100_000)
    if "uneven times are moved" in said:
        allowed = 2 * (expected[-1] - expected[0]) / max(len(expected) - 1, 1)
    worst = max((abs(b - a - shift) for a, b in zip(expected, known, strict=True)), default=Fraction(0))
    return [f"times differ by up to {float(worst):.4f} s"] if worst > allowed else []


def picture(path: Path, index: int, *, last: bool) -> NDArray[np.float64]:
    """The first or last picture of a stream in gray, (height, width) as shown by FFmpeg."""
    size = ffprobe(path, "-select_streams", str(index), "-show_entries", "stream=width,height", cut=True)[
        "streams"
    ][0]
    words = ("-map", f"0:{index}", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "gray")
    data = np.frombuffer(ffmpeg(path, *words), np.uint8)
    frames = data.reshape(-1, size["height"], size["width"])
    chosen: NDArray[np.float64] = frames[-1 if last else 0].astype(np.float64)
    return chosen


def _picture_faults(source: Path, old: int, target: Path, new: int) -> list[str]:
    found = []
    for last in (False, True):
        before, after = picture(source, old, last=last), picture(target, new, last=last)
        if before.shape != after.shape:
            found.append(f"{after.shape[1]}x{after.shape[0]} instead of {before.shape[1]}x{before.shape[0]}")
            continue
        error = float(np.mean((before - after) ** 2))
        psnr = 99.0 if error == 0 else 10 * np.log10(255**2 / error)
        if psnr < LEAST_PSNR_DB:
            found.append(f"{'last' if last else 'first'} picture differs: {psnr:.1f} dB")
    return found


def sound(path: Path) -> list[list[str]]:
    """Checksums of the packets of every stream of sound."""
    asked = (
        "-show_entries",
        "packet=stream_index,data_hash:stream=index,codec_type",
        "-show_data_hash",
        "md5",
    )
    found: dict[str, Any] = ffprobe(path, *asked, cut=True)
    indices = [stream["index"] for stream in found["streams"] if stream["codec_type"] == "audio"]
    packets = found.get("packets", [])
    return [[one["data_hash"] for one in packets if one["stream_index"] == index] for index in indices]


def samples(path: Path, number: int) -> NDArray[np.int16]:
    """A stream of sound, decoded."""
    return np.frombuffer(ffmpeg(path, "-map", f"0:a:{number}", "-f", "s16le"), np.int16)


def _sounds_alike(one: NDArray[np.int16], other: NDArray[np.int16]) -> bool:
    """Whether two sounds are equal but for what is before the first sample that counts."""
    length = min(len(one), len(other))
    return max(len(one), len(other)) - length <= _PRIMING and np.array_equal(one[-length:], other[-length:])


def _sound_faults(source: Path, target: Path, warnings: Sequence[str]) -> list[str]:
    told = sum("cannot hold audio stream" in one for one in warnings)
    before, after = sound(source), sound(target)
    if len(after) + told != len(before):
        return [f"{len(after)} streams of sound of {len(before)}, {told} were told to be left out"]
    if told or any("older players" in one for one in warnings):
        return []
    found = []
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        begins_later = any("are left out" in one for one in warnings)
        same = old == new or (begins_later and new == old[len(old) - len(new) :])
        # Where packets get or lose a header of their own, the sound itself must be the same.
        if not same and not _sounds_alike(samples(source, number), samples(target, number)):
            found.append(f"sound {number} differs: {len(new)} packets of {len(old)}")
    return found


def _tags(path: Path) -> dict[str, str]:
    found = ffprobe(path, "-show_format", cut=True)["format"].get("tags", {})
    return {key.lower(): value for key, value in found.items()}


def _tag_faults(source: Path, target: Path, warnings: Sequence[str]) -> list[str]:
    old, new = _tags(source), _tags(target)
    lost = {key for key in old.keys() - _MADE_BY_WRITERS if new.get(key) != old[key]}
    said = " ".join(one.lower() for one in warnings if "tags of the file are lost" in one)
    untold = sorted(key for key in lost if key not in said)
    return [f"tags lost without a word: {untold}"] if untold else []
