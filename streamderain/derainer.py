"""Derain arrays in memory, as images or as a video, and walk over a source's derained frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamderain.closable import Closable
from streamderain.errors import ConfigError
from streamderain.frame import Frame, Geometry, Planes
from streamderain.media.arrays import rgb_array
from streamderain.media.reading.sources import find_sources, open_source
from streamderain.models import chosen_model
from streamderain.options import EngineOptions, RunOptions
from streamderain.pipeline.cuts import lead_of
from streamderain.pipeline.inline import InlineSession
from streamderain.runtime.registry import open_engine

Image = NDArray[Any]
"""(height, width) gray or (height, width, 3) RGB, `uint8` or `uint16`, full range."""


class Derainer(Closable):
    """Takes the rain out of numpy images.

    Args:
        options: Model, engine, device, precision and strength. The model `"auto"` is dcd-lite, which suits
            video; dcd-quality takes more of the rain, of single images too.

    Raises:
        StreamderainError: The model or the engine cannot be used.

    Example:
        >>> import numpy as np
        >>> from streamderain import Derainer
        >>> rainy = np.full((48, 64, 3), 90, np.uint8)
        >>> with Derainer() as derainer:
        ...     clean = derainer.image(rainy)
        >>> clean.shape, clean.dtype
        ((48, 64, 3), dtype('uint8'))
    """

    def __init__(self, options: EngineOptions | None = None) -> None:
        self._options = EngineOptions() if options is None else options
        if not isinstance(self._options, EngineOptions):
            raise ConfigError(f"options must be EngineOptions, not {type(options).__name__}")
        self._engine = open_engine(self._options)

    def image(self, image: Image) -> Image:
        """Derain one image by itself.

        Args:
            image: See `Image`; not changed.

        Returns:
            A new array of the same shape and dtype.

        Raises:
            ConfigError: The array is no image of that kind.
            EngineError: The engine failed on it.
        """
        return next(self.video([image]))

    def video(self, images: Iterable[Image]) -> Iterator[Image]:
        """Derain consecutive frames, each with the help of its neighbours.

        Args:
            images: Frames of one shape and dtype, in order. Scene cuts are found.

        Yields:
            One new array per frame, in order; results lag a few frames behind.

        Raises:
            ConfigError: An array is no image, or differs in shape or dtype from the first.
            EngineError: The engine failed on a frame.
        """
        frames = iter(images)
        first = next(frames, None)
        if first is None:
            return
        geometry = _geometry(first)
        with InlineSession(self._engine, geometry, self._options) as session:
            for image in self._checked(first, frames, geometry):
                yield from (_image(planes) for _, planes in session.push(_planes(image), None))
            yield from (_image(planes) for _, planes in session.drain())

    def close(self) -> None:
        """Release the engine. Idempotent."""
        self._engine.close()

    @staticmethod
    def _checked(first: Image, others: Iterator[Image], geometry: Geometry) -> Iterator[Image]:
        yield first
        for number, image in enumerate(others, start=1):
            if _geometry(image) != geometry:
                raise ConfigError(
                    f"frame {number} has shape {image.shape} and dtype {image.dtype}, the first one "
                    f"{first.shape} and {first.dtype}; derain videos of different kinds one after the other"
                )
            yield image


@dataclass(frozen=True, slots=True)
class DerainedFrame:
    """A derained frame of a source.

    Attributes:
        image: (height, width, 3) RGB, `uint8`, full range, as coded: rotation is not applied.
        stream: Position of its video stream in the source.
        index: Number of the frame in its stream, from 0.
        time_s: Presentation time in seconds.
    """

    image: NDArray[np.uint8]
    stream: int
    index: int
    time_s: float


def frames(source: str | Path, options: RunOptions | None = None) -> Iterator[DerainedFrame]:
    """Walk over the derained frames of a source.

    Args:
        source: One file, numbered run of images, still image, or `"-"`.
        options: How to read and derain; what concerns encoding is not used.

    Yields:
        Frames of all video streams, in order within each stream.

    Raises:
        StreamderainError: The source cannot be read or derained.
    """
    options = RunOptions() if options is None else options
    if not isinstance(options, RunOptions):
        raise ConfigError(f"options must be RunOptions, not {type(options).__name__}")
    specs = find_sources(str(source), options.read)
    if len(specs) > 1:
        raise ConfigError(f"{source} holds {len(specs)} files; walk over them one by one")
    with ExitStack() as cleanup:
        model = chosen_model(options.engine.model, {specs[0].kind})
        engine = cleanup.enter_context(open_engine(replace(options.engine, model=model)))
        opened = cleanup.enter_context(open_source(specs[0], options.read, lead_of(engine.model)))
        sessions = [
            cleanup.enter_context(InlineSession(engine, stream.geometry, options.engine))
            for stream in opened.streams
        ]
        for frame in opened.frames(lambda packet: None):
            popped = sessions[frame.stream].push(frame.planes, frame, cut=frame.cut, emit=frame.emit)
            yield from (_derained(token, planes) for token, planes in popped)
        for session in sessions:
            yield from (_derained(token, planes) for token, planes in session.drain())


def _geometry(image: Image) -> Geometry:
    if not isinstance(image, np.ndarray):
        raise ConfigError(f"an image must be a numpy array, not {type(image).__name__}")
    gray = image.ndim == 2
    if image.dtype not in (np.uint8, np.uint16) or not (gray or (image.ndim == 3 and image.shape[2] == 3)):
        raise ConfigError(
            f"an image must be (height, width) or (height, width, 3) of uint8 or uint16, "
            f"not {image.shape} of {image.dtype}"
        )
    if not image.size:
        raise ConfigError(f"the image is empty: its shape is {image.shape}")
    return Geometry(
        width=image.shape[1],
        height=image.shape[0],
        bits=8 * image.dtype.itemsize,
        chroma="gray" if gray else "rgb",
        range="full",
    )


def _derained(frame: Frame, planes: Planes) -> DerainedFrame:
    return DerainedFrame(rgb_array(frame.picture, planes), frame.stream, frame.index, frame.time_s)


def _planes(image: Image) -> Planes:
    return (image,) if image.ndim == 2 else tuple(image[..., c] for c in range(3))


def _image(planes: Planes) -> Image:
    return planes[0] if len(planes) == 1 else np.stack(planes, axis=-1)
