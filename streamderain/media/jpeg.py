"""What FFmpeg does not tell of a JPEG file: the camera's tags beside the picture, and whether it is whole.

FFmpeg's encoder drops the tags. Its decoder fills what is missing of a picture with gray without a word, and
takes the small preview inside the tags for the picture where that is missing altogether.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import av
from av.codec.context import CodecContext

_START = b"\xff\xd8"
_APP1, _APP13, _SCAN = 0xE1, 0xED, 0xDA
"""EXIF and XMP; IPTC; the segment after which picture data begins."""

_HEAD_BYTES = 1 << 20


def jpeg_tags(path: Path) -> bytes:
    """EXIF, XMP and IPTC segments of a JPEG file as they are; empty where there are none.

    Args:
        path: A file; one that is no JPEG or cannot be read gives nothing.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_HEAD_BYTES)
    except OSError:
        return b""
    return b"".join(data[begin:end] for kind, begin, end in segments(data) if kind in (_APP1, _APP13))


def with_jpeg_tags(picture: bytes, tags: bytes) -> bytes:
    """The encoded JPEG with these segments at its beginning, where readers look for them."""
    return _START + tags + picture.removeprefix(_START) if tags else picture


def jpeg_fault(data: bytes) -> Literal["", "broken", "missing"]:
    """Tell what is wrong with a JPEG file.

    Args:
        data: The whole file.

    Returns:
        ``"missing"`` where it ends before the picture begins, ``"broken"`` where a part of the picture is
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
    """Yields kind, beginning and end of each segment of a JPEG up to the first scan's header."""
    place = len(_START)
    while data.startswith(_START) and place + 4 <= len(data) and data[place] == 0xFF:
        kind = data[place + 1]
        if kind == 0xFF:  # padding
            place += 1
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        yield kind, place, end
        if kind == _SCAN:
            return
        place = end
