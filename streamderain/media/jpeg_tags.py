"""What a camera wrote into a JPEG beside the picture: orientation, date, place. FFmpeg's encoder drops it."""

from __future__ import annotations

from pathlib import Path

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
    if not data.startswith(_START):
        return b""
    place, kept = len(_START), b""
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != _SCAN:
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] in (_APP1, _APP13):
            kept += data[place:end]
        place = end
    return kept


def with_jpeg_tags(picture: bytes, tags: bytes) -> bytes:
    """The encoded JPEG with these segments at its beginning, where readers look for them."""
    return _START + tags + picture.removeprefix(_START) if tags else picture
