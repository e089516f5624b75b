"""Detect files that end before their header says."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import av

from streamderain.addresses import is_address
from streamderain.media.reading.container import mov_atoms

if TYPE_CHECKING:
    from streamderain.media.reading.demuxer import Demuxer

TOLERANCE_S = Fraction(1, 4)
"""Headers are often wrong by a packet or two."""

TS_PACKET_BYTES = (188, 192, 204)


def truncation(demuxer: Demuxer) -> str:
    """Return in words how a source that was read to its end is cut short; empty where it is whole."""
    name = demuxer.container.format.name
    if "mp4" in name:
        return _missing_frames(demuxer) or _torn(demuxer, _is_torn_mov)
    if name == "avi":
        return _torn(demuxer, _is_torn_avi)
    if "matroska" in name:
        return _missing_time(demuxer)
    return _torn(demuxer, _is_torn_ts) if name == "mpegts" else ""


def _missing_frames(demuxer: Demuxer) -> str:
    """Compare with the index of an mp4, which lies apart from the pictures and lists them all."""
    for decoder in demuxer.decoders:
        expected = decoder.stream.frames
        if demuxer.was_moved:
            return _missing_time(demuxer)
        if decoder.packets < expected:
            return (
                f"the file ends early: its index lists {expected} frames of video {decoder.position}, "
                f"{decoder.packets} are there"
            )
    return ""


def _missing_time(demuxer: Demuxer) -> str:
    """Compare with the length in the header, where there is one and FFmpeg did not have to guess."""
    container = demuxer.container
    guessed = "matroska" in container.format.name and any(s.duration for s in container.streams)
    if guessed or not container.duration or not demuxer.ends_s:
        return ""
    promised_s = Fraction(container.duration + (container.start_time or 0), av.time_base)
    end_s = max(demuxer.ends_s.values())
    step_s = 3 / (demuxer.decoders[0].rate or Fraction(25))
    if end_s >= promised_s - max(TOLERANCE_S, step_s):
        return ""
    return f"the file ends early: at {float(end_s):.2f} s of the {float(promised_s):.2f} s in its header"


def _torn(demuxer: Demuxer, is_torn: Callable[[BinaryIO], bool]) -> str:
    """Look whether a file, where the source is one, end inside one of its parts."""
    if is_address(demuxer.path) or not Path(demuxer.path).is_file():
        return ""
    with Path(demuxer.path).open("rb") as file:
        return "the file ends early: in the middle of one of its parts" if is_torn(file) else ""


def _is_torn_mov(file: BinaryIO) -> bool:
    return mov_atoms(file)[1]


def _is_torn_avi(file: BinaryIO) -> bool:
    """Walk over the RIFF parts of an AVI (one per gigabyte)."""
    end = file.seek(0, os.SEEK_END)
    position = 0
    while position + 8 <= end:
        file.seek(position)
        header = file.read(8)
        size = int.from_bytes(header[4:], "little")
        if (
            header[:4] != b"RIFF" or size == 0
        ):  # bytes after the last part, or a recorder that was switched off
            return False
        position += 8 + size + size % 2
    return position > end + 1  # some writers leave out the last padding byte


def _is_torn_ts(file: BinaryIO) -> bool:
    end = file.seek(0, os.SEEK_END)
    return all(end % size for size in TS_PACKET_BYTES)
