"""Single pictures: a derained frame as an RGB array, and an RGB array as an image file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from streamderain.errors import EncodeError
from streamderain.frame import Planes
from streamderain.media.encoder import write_planes


def rgb_array(picture: Any, planes: Planes) -> NDArray[np.uint8]:
    """Writes derained planes into a decoder's frame and converts it to RGB.

    Args:
        picture: An ``av.VideoFrame``; becomes writable and is written to.
        planes: Its first colour components, derained.

    Returns:
        (height, width, 3) uint8, full range.
    """
    picture.make_writable()
    write_planes(picture, planes)
    array: NDArray[np.uint8] = picture.to_ndarray(format="rgb24")
    return np.ascontiguousarray(array)


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
