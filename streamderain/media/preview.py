"""Small pictures of what comes in and what goes out, for people who look at a running stream."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

_QUALITY = "5"


def small(picture: av.VideoFrame, *, width: int) -> av.VideoFrame:
    """Return a copy of a picture that is at most so wide, as JPEG holds it (4:2:0, full range)."""
    width = min(width, picture.width) // 2 * 2 or 2
    height = max(2, round(picture.height * width / picture.width) // 2 * 2)
    copy = picture.reformat(width, height, "yuvj420p", dst_color_range="JPEG")
    copy.pts = None
    return copy


def jpeg(picture: av.VideoFrame) -> bytes:
    """Return a picture from `small` as JPEG."""
    encoder = av.CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = picture.width, picture.height, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"qmin": _QUALITY, "qmax": _QUALITY}
    picture.pts, picture.time_base = 0, Fraction(1, 25)
    packets = [*encoder.encode(picture), *encoder.encode(None)]
    return b"".join(map(bytes, packets))


def removed_light(before: av.VideoFrame, after: av.VideoFrame) -> float:
    """Return by how much darker the second of two pictures from `small` is, mean codes of 8 bits of luma."""
    one, other = _luma(before), _luma(after)
    return float(np.mean(np.maximum(one.astype(np.int16) - other, 0)))


def _luma(picture: av.VideoFrame) -> NDArray[np.uint8]:
    plane = picture.planes[0]
    rows: NDArray[np.uint8] = np.frombuffer(memoryview(plane), np.uint8)
    return rows.reshape(picture.height, plane.line_size)[:, : picture.width]
