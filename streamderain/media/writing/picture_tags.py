"""Find the metadata of an image file, and which of it a result keeps."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from streamderain.media.jpeg import segments

PROFILE, EXIF, XMP = "the colour profile (ICC)", "EXIF", "XMP"

_KEPT = {"png": {PROFILE, EXIF}, "mjpeg": {PROFILE}}
"""What FFmpeg's encoders write of what its decoders tell. JPEGs made of JPEGs keep their segments as they
are."""

_DESCRIBING = (270, 271, 272, 306, 315, 33432)
"""Description, maker and model of the camera, date, author, rights: what TIFF files say without EXIF."""

_TIFF_TAGS = {700: XMP, 34665: EXIF, 34675: PROFILE, **dict.fromkeys(_DESCRIBING, EXIF)}
_PNG_CHUNKS = {b"iCCP": PROFILE, b"eXIf": EXIF}
_WEBP_CHUNKS = {b"ICCP": PROFILE, b"EXIF": EXIF, b"XMP ": XMP}


def picture_tags(data: bytes) -> set[str]:
    """Return which kinds of tags an image file holds: a JPEG, PNG, WebP or TIFF; none for others.

    Args:
        data: The whole file; one that is damaged tells what it can.
    """
    if data.startswith(b"\xff\xd8"):
        return set(_jpeg_tags(data))
    if data.startswith(b"\x89PNG"):
        return set(_png_tags(data))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return {_WEBP_CHUNKS[kind] for kind, _ in _chunks(data, 12, "<") if kind in _WEBP_CHUNKS}
    return set(_tiff_tags(data)) if data[:4] in (b"II*\0", b"MM\0*") else set()


def lost_tags(path: Path, codec: str) -> set[str]:
    """Return which tags of an image file do not come through.

    Args:
        path: The source; one that cannot be read loses nothing.
        codec: The encoder of the result, as FFmpeg calls it.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return set()
    if codec == "mjpeg" and data.startswith(b"\xff\xd8"):
        return set()
    return picture_tags(data) - _KEPT.get(codec, set())


def _jpeg_tags(data: bytes) -> Iterator[str]:
    for kind, begin, end in segments(data):
        body = data[begin + 4 : end]
        if kind == 0xE1 and body.startswith(b"Exif"):
            yield EXIF
        elif kind == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/"):
            yield XMP
        elif kind == 0xE2 and body.startswith(b"ICC_PROFILE"):
            yield PROFILE


def _png_tags(data: bytes) -> Iterator[str]:
    for kind, body in _chunks(data, 8, ">"):
        if kind in _PNG_CHUNKS:
            yield _PNG_CHUNKS[kind]
        elif kind in (b"iTXt", b"tEXt", b"zTXt") and re.match(
            rb"XML:com\.adobe\.xmp\0|Raw profile type xmp\0", body
        ):
            yield XMP


def _chunks(data: bytes, place: int, order: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and beginning of the content of each chunk of a PNG (`>`) or RIFF file (`<`)."""
    while place + 8 <= len(data):
        head = data[place : place + 8]
        size = struct.unpack(f"{order}I", head[:4] if order == ">" else head[4:])[0]
        kind = head[4:] if order == ">" else head[:4]
        yield kind, data[place + 8 : place + 8 + min(size, 64)]
        place += 8 + size + (4 if order == ">" else size % 2)


def _tiff_tags(data: bytes) -> Iterator[str]:
    order = "<" if data[:2] == b"II" else ">"
    (place,) = struct.unpack(f"{order}I", data[4:8])
    if place + 2 > len(data):
        return
    (count,) = struct.unpack(f"{order}H", data[place : place + 2])
    for entry in range(place + 2, min(place + 2 + 12 * count, len(data) - 1), 12):
        (tag,) = struct.unpack(f"{order}H", data[entry : entry + 2])
        if tag in _TIFF_TAGS:
            yield _TIFF_TAGS[tag]
