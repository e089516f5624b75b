"""Parse the segments of a JPEG file, and tell whether its picture is whole.

FFmpeg's decoder fills what is missing of a picture with gray without a word, and takes the small preview
inside the tags for the picture where that is missing altogether.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import av
from av.codec.context import CodecContext

START = b"\xff\xd8"
_SCAN = 0xDA
"""The segment after which picture data begins."""


def jpeg_fault(data: bytes) -> Literal["", "broken", "missing"]:
    """Tell what is wrong with a JPEG file.

    Args:
        data: The whole file.

    Returns:
        `"missing"` where it ends before the picture begins, `"broken"` where a part of the picture is
        missing or cannot be what the camera wrote, else an empty text.
    """
    if not any(kind == _SCAN for kind, _, end in segments(data) if end < len(data)):
        return "missing"
    decoder = CodecContext.create("mjpeg", "r")
    decoder.options = {"err_detect": "explode"}
    try:
        return "" if decoder.decode(av.Packet(data)) + decoder.decode(None) else "broken"
    except (av.error.FFmpegError, OSError):
        return "broken"


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield kind, beginning and end of each segment of a JPEG up to the first scan's header."""
    place = len(START)
    while data.startswith(START) and place + 4 <= len(data) and data[place] == 0xFF:
        kind = data[place + 1]
        if kind == 0xFF:  # padding
            place += 1
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        yield kind, place, end
        if kind == _SCAN:
            return
        place = end
