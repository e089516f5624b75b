"""Whether a file ends before its own header says."""

from __future__ import annotations

import stat
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av

from streamderain.media.opening import is_address

if TYPE_CHECKING:
    from streamderain.media.reading import Reading

TOLERANCE_S = Fraction(1, 4)
"""Headers are often wrong by a packet or two."""

TS_PACKET_BYTES = (188, 192, 204)


def early_ending(reading: Reading) -> str:
    """Returns in words how a source that was read to its end is cut short; empty where it is whole."""
    name = reading.container.format.name
    if "mp4" in name:
        return _missing_frames(reading)
    if "matroska" in name or name == "avi":
        return _missing_time(reading)
    return _torn_packet(reading) if name == "mpegts" else ""


def _missing_frames(reading: Reading) -> str:
    """Compares with the index of an mp4, which lies apart from the pictures and lists them all."""
    for lane in reading.lanes:
        expected = lane.stream.frames
        if reading.was_moved:
            return _missing_time(reading)
        if lane.packets < expected:
            return (
                f"the file ends early: its index lists {expected} frames of video {lane.position}, "
                f"{lane.packets} are there"
            )
    return ""


def _missing_time(reading: Reading) -> str:
    """Compares with the length in the header, where there is one and FFmpeg did not have to guess."""
    container = reading.container
    guessed = "matroska" in container.format.name and any(s.duration for s in container.streams)
    if guessed or not container.duration or not reading.ends_s:
        return ""
    promised_s = Fraction(container.duration + (container.start_time or 0), av.time_base)
    end_s = max(reading.ends_s.values())
    step_s = 3 / (reading.lanes[0].rate or Fraction(25))
    if end_s >= promised_s - max(TOLERANCE_S, step_s):
        return ""
    return f"the file ends early: at {float(end_s):.2f} s of the {float(promised_s):.2f} s in its header"


def _torn_packet(reading: Reading) -> str:
    if is_address(reading.path) or not Path(reading.path).is_file():
        return ""
    found = Path(reading.path).stat()
    torn = stat.S_ISREG(found.st_mode) and all(found.st_size % size for size in TS_PACKET_BYTES)
    return "the file ends early: in the middle of a packet" if torn else ""
