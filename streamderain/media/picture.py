"""Single pictures: a decoded or derained frame as an RGB array, and an RGB array as an image file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from numpy.typing import NDArray

from streamderain.errors import EncodeError
from streamderain.frame import Planes
from streamderain.media.encoder import write_planes
from streamderain.media.pixels import converted


def rgb_array(picture: Any, planes: Planes | None = None) -> NDArray[np.uint8]:
    """Converts a decoder's frame to RGB, after writing derained planes into it where there are any.

    Args:
        picture: An ``av.VideoFrame``; becomes writable and is written to, unless there are no planes.
        planes: Its first colour components, derained; None takes it as it is.

    Returns:
        (height, width, 3) uint8, full range.
    """
    if planes is not None:
        picture.make_writable()
        write_planes(picture, planes)
    return np.ascontiguousarray(cast(NDArray[np.uint8], converted(picture, "rgb24").to_ndarray()))


def save_picture(path: Path, image: NDArray[np.uint8]) -> None:
    """Writes an RGB picture as PNG.

    Args:
        path: Where to; the name ends with ``.png``. An existing file is replaced.
        image: (height, width, 3) uint8, full range.

    Raises:
        EncodeError: It cannot be written.
    """
    try:
        with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
            stream = container.add_stream("png", rate=1)
            stream.height, stream.width = image.shape[:2]
            stream.pix_fmt = "rgb24"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
    except (av.error.FFmpegError, OSError) as error:
        raise EncodeError(
            f"the picture {path} cannot be written: {error}; check the folder and its free space"
        ) from error


def jpeg_bytes(image: NDArray[np.uint8]) -> bytes:
    """Encodes an RGB picture as a JPEG of high quality, for pages.

    Args:
        image: (height, width, 3) uint8, full range.

    Raises:
        EncodeError: It cannot be encoded.
    """
    data = io.BytesIO()
    try:
        with av.open(data, "w", format="mjpeg") as container:
            stream = container.add_stream("mjpeg", rate=1, options={"q:v": "2", "huffman": "optimal"})
            stream.height, stream.width = image.shape[:2]
            stream.pix_fmt = "yuvj444p"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            # JFIF is BT.601 of full range.
            container.mux(stream.encode(converted(frame, "yuvj444p", matrix=5)))
            container.mux(stream.encode(None))
        return data.getvalue()
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise EncodeError(f"a picture of shape {image.shape} cannot be encoded: {error}") from error
