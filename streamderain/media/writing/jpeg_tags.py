"""Carry a JPEG's EXIF, XMP and IPTC segments over, which FFmpeg's encoder drops."""

from __future__ import annotations

from pathlib import Path

from streamderain.media.jpeg import START, segments

_APP1, _APP13 = 0xE1, 0xED
"""EXIF and XMP; IPTC."""

_HEAD_BYTES = 1 << 20


def jpeg_tags(path: Path) -> bytes:
    """Return the EXIF, XMP and IPTC segments of a JPEG file as they are; empty where there are none.

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
    """Return the encoded JPEG with these segments at its beginning, where readers look for them."""
    return START + tags + picture.removeprefix(START) if tags else picture
