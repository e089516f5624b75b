"""Find where a file can be cut, by demuxing alone: nothing is decoded."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from streamderain.addresses import is_address
from streamderain.errors import MediaError
from streamderain.media.reading.container import is_pipe, open_container
from streamderain.media.reading.decoder import ONE_PACKET_ONE_PICTURE, RAW_STREAMS
from streamderain.media.reading.demuxer import is_cover
from streamderain.media.reading.timestamps import Continuity
from streamderain.media.track import CannotBeCut, VideoTrack
from streamderain.options import ReadOptions

Times = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StreamScan:
    """The packets of one video stream.

    Attributes:
        time_base: Seconds per unit of the times.
        times: Presentation times of all pictures that are shown, rising.
        keys: Presentation times of those that decoding can begin with, rising.
    """

    time_base: Fraction
    times: Times
    keys: Times

    def rank(self, time_s: Fraction, *, slack_s: Fraction = Fraction(0)) -> int:
        """Return how many pictures are shown before a time in seconds."""
        return int(np.searchsorted(self.times, _ceiling((time_s - slack_s) / self.time_base)))

    def time_s(self, number: int) -> Fraction:
        """Return when the picture of a number, from 0, is shown, in seconds."""
        return int(self.times[number]) * self.time_base


def _ceiling(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)


def length_s(path: str, options: ReadOptions) -> float:
    """Return how long a file says that it is, in seconds; 0 where it does not say, or cannot be opened."""
    try:
        with open_container(path, options=options) as container:
            return (container.duration or 0) / av.time_base
    except MediaError:
        return 0.0


def scan(
    path: str, tracks: tuple[VideoTrack, ...], options: ReadOptions, stop: threading.Event
) -> tuple[StreamScan, ...] | None:
    """Read through a file for the times of its pictures.

    Args:
        path: The file.
        tracks: The video streams that are derained, in order of position, of another opening of the file.
        options: How it is read.
        stop: Ends it once it is set.

    Returns:
        One for each stream; None where it was stopped.

    Raises:
        CannotBeCut: Its packets do not tell all that is needed.
        MediaError: It cannot be opened.
    """
    if is_pipe(path) or is_address(path):
        raise CannotBeCut("a pipe or an address can be read only once, from front to back")
    for track in tracks:
        codec = track.info.codec
        if codec not in ONE_PACKET_ONE_PICTURE:
            raise CannotBeCut(f"the packets of {codec} do not tell how many pictures they hold")
    with open_container(path, options=options) as container:
        if container.format.name in RAW_STREAMS or container.format.name == "avi":
            raise CannotBeCut(f"a file of the format {container.format.name} holds no times of its pictures")
        return _scanned(container, [track.stream.index for track in tracks], stop)


def _scanned(
    container: InputContainer, indices: list[int], stop: threading.Event
) -> tuple[StreamScan, ...] | None:
    streams = [container.streams[index] for index in indices]
    shown: dict[int, list[int]] = {index: [] for index in indices}
    keys: dict[int, list[int]] = {index: [] for index in indices}
    continuity = Continuity()
    try:
        for packet in container.demux(streams):
            if stop.is_set():
                return None
            if not packet.size:
                continue
            continuity.mend(packet)
            if continuity.jumps:
                raise CannotBeCut("its times begin anew in the middle, as in files that were joined")
            if packet.pts is None:
                raise CannotBeCut("some of its pictures have no time")
            if packet.is_discard:
                continue
            shown[packet.stream_index].append(packet.pts)
            if packet.is_keyframe:
                keys[packet.stream_index].append(packet.pts)
    except (av.error.FFmpegError, OSError) as error:
        raise CannotBeCut(f"it is damaged ({getattr(error, 'strerror', error)})") from error
    return tuple(
        _checked(stream.time_base or Fraction(1, 1000), shown[stream.index], keys[stream.index])
        for stream in streams
        if not is_cover(stream)
    )


def _checked(time_base: Fraction, shown: list[int], keys: list[int]) -> StreamScan:
    times, starts = (np.array(found, np.int64) for found in (shown, keys))
    times.sort()
    starts.sort()
    if not len(times) or not len(starts):
        raise CannotBeCut("it has no picture that decoding can begin with")
    if (np.diff(times) <= 0).any():
        raise CannotBeCut("some of its pictures have the same time")
    return StreamScan(time_base, times, starts)
