"""Describe video tracks and open sources to the writing side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import av
from av.container import InputContainer

from streamderain.frame import Frame, StreamInfo

Packet = Any


class CannotBeCut(Exception):
    """A source has to be worked through in one go; the message says why, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class VideoTrack:
    """One video stream with what an encoder copies from it.

    Attributes:
        info: What the pipeline needs to know.
        stream: The container's stream: sample aspect ratio, metadata, disposition.
        first: The first decoded frame, in the format all frames come in: colour tags, rotation, side data.
    """

    info: StreamInfo
    stream: av.VideoStream
    first: av.VideoFrame


class DamageReport(Protocol):
    """What was found broken in a source so far."""

    @property
    def skipped_frames(self) -> int:
        """Frames that the source holds but the decoder could not give."""

    def texts(self) -> list[str]:
        """Return one line for each broken place."""


class MediaSource(Protocol):
    """An open source: a file, a pipe, or a numbered run of images.

    Attributes:
        path: What was opened; `-` for standard input, the first image of a run.
        name: Its name for messages and reports, without credentials.
        tracks: The video streams, in order of position.
        copied: Audio, subtitle, data and attachment streams and cover art, in the container's order.
        image_paths: The images of a numbered run in order; none for other sources.
        end_s: End of the piece on the source's own clock; None without a length.
        warnings: What the user should know; grows while reading.
    """

    path: str
    name: str
    tracks: tuple[VideoTrack, ...]
    copied: tuple[Any, ...]
    image_paths: tuple[Path, ...]
    end_s: Fraction | None
    warnings: list[str]

    @property
    def damage(self) -> DamageReport:
        """What was found broken so far."""

    @property
    def container(self) -> InputContainer:
        """The open container: its metadata and chapters."""

    @property
    def offset_s(self) -> Fraction:
        """What is subtracted from every time; 0 without a start."""

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """The video streams, in order of position."""

    @property
    def is_live(self) -> bool:
        """Whether it goes on until somebody ends it: what was read until then is the whole of it."""

    @property
    def is_complete(self) -> bool:
        """Whether all frames that will be written were read: what may follow only helps the last ones."""

    @property
    def was_stopped(self) -> bool:
        """Whether it gave up at a stop that it was told of by itself: it was not read to its end."""

    def peek(self, stream_index: int) -> Packet | None:
        """Return the first packet of a stream among those read ahead; None where there is none yet."""

    def frames(self, copy: Callable[[Packet], None]) -> Iterator[Frame]:
        """Yield the frames of all video streams as they are decoded; call `copy` with copied packets."""

    @property
    def goes_on(self) -> bool:
        """Whether `frames` ended because other streams follow, of which `take_up` makes it tell."""

    @property
    def is_given_up(self) -> bool:
        """Whether a live source was lost and sought for as long as it was to be."""

    def refresh(self) -> bool:
        """Ask a live source to begin anew at the present; return whether that can be done."""

    def take_up(self) -> bool:
        """Make ready what follows where `frames` ended because the streams changed; return whether any does.

        What the source says of its streams, `tracks` and `copied`, is new afterwards.
        """

    def end(self) -> bool:
        """End a source that brings nothing more, from another thread; return whether that can be done."""

    def close(self) -> None:
        """Release the source. Idempotent; may be called while `frames` is suspended."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
