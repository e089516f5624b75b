"""Convert frames to arrays, and write arrays as image files and clips."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from numpy.typing import NDArray

from streamderain.errors import EncodeError
from streamderain.frame import Planes
from streamderain.media.pixels import converted, write_planes


def rgb_array(picture: Any, planes: Planes | None = None) -> NDArray[np.uint8]:
    """Convert a decoder's frame to RGB, after writing derained planes into it where there are any.

    Args:
        picture: An `av.VideoFrame`; becomes writable and is written to, unless there are no planes.
        planes: Its first colour components, derained; None takes it as it is.

    Returns:
        (height, width, 3) uint8, full range.
    """
    if planes is not None:
        picture.make_writable()
        write_planes(picture, planes)
    return np.ascontiguousarray(cast(NDArray[np.uint8], converted(picture, "rgb24").to_ndarray()))


def save_picture(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB picture as PNG.

    Args:
        path: Where to; the name ends with `.png`. An existing file is replaced.
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
    """Encode an RGB picture as a JPEG of high quality, for pages.

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
            container.mux(stream.encode(converted(frame, "yuvj444p", matrix=Colorspace.ITU601)))
            container.mux(stream.encode(None))
        return data.getvalue()
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise EncodeError(f"a picture of shape {image.shape} cannot be encoded: {error}") from error


class ClipWriter:
    """Writes arrays as H.264 in 4:2:0; use as a context manager.

    Args:
        path: Where to; the extension chooses the container. An existing file is replaced.
        rate_fps: Frames per second.
        crf: Quality of libx264, 0 to 51, lower is better.
        preset: Speed of libx264.
        title: Metadata title; empty for none.

    Raises:
        EncodeError: From any call, when the file cannot be written.
    """

    def __init__(
        self, path: Path, *, rate_fps: Fraction, crf: float = 18, preset: str = "veryfast", title: str = ""
    ) -> None:
        self._path = path
        self._rate = rate_fps.limit_denominator(1 << 16)
        self._options = {"crf": str(crf), "preset": preset}
        self._written = 0
        try:
            self._container = av.open(str(path), "w", options={"movflags": "faststart"})
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._failure(error) from error
        if title:
            # A file name need not be text, as metadata must be.
            self._container.metadata["title"] = title.encode(errors="backslashreplace").decode()
        self._stream: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._stream is not None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
        except (av.error.FFmpegError, OSError, ValueError) as problem:
            if kind is None:
                raise self._failure(problem) from problem

    def write(self, picture: NDArray[np.uint8]) -> None:
        """Write one frame.

        Args:
            picture: (height, width) luma of studio range, or (height, width, 3) RGB of full range; all of one
                size. An odd last row or column is left out: 4:2:0 has none.
        """
        picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
        frame = _gray(picture) if picture.ndim == 2 else _colour(picture)
        try:
            stream = self._stream or self._open(frame)
            frame.pts, frame.time_base = self._written, 1 / self._rate
            self._container.mux(stream.encode(frame))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._failure(error) from error
        self._written += 1

    def _open(self, frame: av.VideoFrame) -> Any:
        stream: Any = self._container.add_stream("libx264", rate=self._rate, options=self._options)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
        stream.codec_context.time_base = 1 / self._rate
        context = stream.codec_context
        context.colorspace, context.color_primaries = Colorspace.ITU709, ColorPrimaries.BT709
        context.color_trc, context.color_range = ColorTrc.BT709, ColorRange.MPEG
        self._stream = stream
        return stream

    def _failure(self, error: Exception) -> EncodeError:
        return EncodeError(
            f"{self._path} cannot be written: {error}; check the folder, its free space and the extension"
        )


def _gray(luma: NDArray[np.uint8]) -> av.VideoFrame:
    height, width = luma.shape
    chroma = np.full((height // 2, width), 128, np.uint8)
    return av.VideoFrame.from_ndarray(np.vstack([luma, chroma]), format="yuv420p")


def _colour(rgb: NDArray[np.uint8]) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    return converted(frame, "yuv420p", matrix=Colorspace.ITU709, color_range=ColorRange.MPEG)
