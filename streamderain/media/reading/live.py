"""Live sources: cameras and streams that go on until somebody ends them, whatever happens on the way.

A connection is a `FileSource` of its own. One that ends, stalls or brings no picture is closed, and the next
one is sought: at once, then ever less often. What comes after a gap gets times that follow what came before,
by the wall clock, and starts a new temporal window.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from time import monotonic
from typing import Any

from av.container import InputContainer

from streamderain.addresses import redact_address
from streamderain.closable import Closable
from streamderain.errors import (
    ConfigError,
    DecodeError,
    MediaError,
    OpenError,
    Unreachable,
    UnsupportedFormat,
)
from streamderain.frame import Frame, Geometry, StreamInfo
from streamderain.media.reading.damage import Damage, Gap
from streamderain.media.reading.decoder import DEFAULT_RATE
from streamderain.media.reading.file import FileSource
from streamderain.media.track import VideoTrack
from streamderain.options import ReadOptions

PATIENCE_S = 10.0
"""A connection that gives no picture for so long is given up: packets may still come, without a keyframe."""

FIRST_TRIES_S = 10.0
"""An address that never gave a picture is tried for so long, unless it is waited for."""

_HELD_S = 5.0
"""A connection that held for so long was a good one: the next one is sought without a pause."""

_SOON_S, _LATE_S = 1.0, 10.0
_SOON_FOR_S = 60.0
_REFUSED_S = 60.0
_JITTER = 0.2

Packet = Any


class Backoff:
    """Tells how long to wait before an attempt: not at all, then up to a second, after a minute up to ten.

    Args:
        jitter: By what share a pause may be longer or shorter, so that many do not come back at one moment.
    """

    def __init__(self, *, jitter: float = _JITTER) -> None:
        self._jitter = jitter
        self._attempts = 0

    def pause_s(self, since_s: float, *, refused: bool = False) -> float:
        """Return the next pause.

        Args:
            since_s: Seconds since the connection was lost.
            refused: The last attempt met a fault that does not pass by itself: a minute goes by then.
        """
        self._attempts += 1
        if self._attempts == 1:
            return 0.0
        most_s = _REFUSED_S if refused else _SOON_S if since_s < _SOON_FOR_S else _LATE_S
        pause_s = most_s if refused else min(most_s, 0.125 * 2 ** min(self._attempts, 16))
        return pause_s * random.uniform(1 - self._jitter, 1 + self._jitter)


class LiveSource(Closable):
    """Yields the frames of a live source, through every interruption.

    Args:
        address: With its credentials.
        options: How it is read; a length (`-t`) ends it.
        stop: Once it is set, the source ends.

    Attributes:
        path: The address.
        name: Without credentials.
        warnings: What the user should know; grows while reading.

    Raises:
        OpenError: It refuses, or nothing answered in the first seconds.
        MediaError: What it brings cannot be derained.
        ConfigError: A begin (`-ss`) was asked for: there is none to count from.
    """

    image_paths: tuple[Path, ...] = ()
    end_s: Fraction | None = None
    offset_s = Fraction(0)
    is_live = True

    def __init__(self, address: str, options: ReadOptions, stop: threading.Event | None = None) -> None:
        if options.start_s:
            raise ConfigError(
                f"{redact_address(address)} is live: it has no begin to count from. Leave -ss out"
            )
        self.path, self.name = address, redact_address(address)
        self._options = options
        self._stop = stop or threading.Event()
        self.warnings: list[str] = []
        self.damage = Damage()
        self._backoff = Backoff()
        first = self._opened(monotonic(), first=True)
        if first is None:
            raise OpenError(f"{self.name}: stopped before anything came")
        self._connection, self._connected_at = first, monotonic()
        # What is written is described by the first connection, once, before it can be lost.
        self.tracks: tuple[VideoTrack, ...] = first.tracks
        self.copied = first.copied
        self._is = _Description.of(first)
        self.warnings += first.warnings
        self._next_index = [0] * len(self.tracks)
        self._last_pts: list[int | None] = [None] * len(self.tracks)
        self._cut = [False] * len(self.tracks)
        self._shift_s: Fraction | None = Fraction(0)
        self._resume_s = Fraction(0)
        self._begin_s: Fraction | None = None
        self._last_s = Fraction(0)
        self._seen_at = monotonic()
        self._losses = 0

    @property
    def container(self) -> InputContainer:
        """The container of the connection."""
        return self._connection.container

    @property
    def streams(self) -> tuple[StreamInfo, ...]:
        """The video streams, in order of position."""
        return tuple(track.info for track in self.tracks)

    @property
    def is_complete(self) -> bool:
        """Never: there is always more."""
        return False

    @property
    def was_stopped(self) -> bool:
        """Whether the stop that it was told of ended it."""
        return self._stop.is_set()

    def peek(self, stream_index: int) -> Packet | None:
        """Return the first packet of a stream among those read ahead; None where there is none yet."""
        return self._connection.peek(stream_index)

    def end(self) -> bool:
        """Live sources are ended by their stop alone."""
        return False

    def frames(self, copy: Callable[[Packet], None]) -> Iterator[Frame]:
        """Yield frames until the stop or the length; call `copy` with packets of copied streams.

        Raises:
            UnsupportedFormat: Size, pixel format or streams changed.
            OpenError: It was given up, see `ReadOptions.give_up_after_s`.
        """
        while True:
            for frame in self._connection.frames(lambda packet: copy(self._moved(packet))):
                placed = self._placed(frame)
                if self._is_over(placed):
                    break
                yield placed
                if self._stop.is_set():
                    break
            else:
                self._absorb_damage()
                if self._reconnect():
                    continue
                return
            self._absorb_damage()
            return

    def close(self) -> None:
        """Close the connection. Idempotent.

        Streams of the container are not to be touched afterwards, nor after a connection was lost.
        """
        self._connection.close()

    def _absorb_damage(self) -> None:
        """Take over what was broken within a connection, at the times it has now."""
        shift_s = float(self._shift_s or 0)
        for gap in self._connection.damage.gaps:
            from_s, to_s = (None if time_s is None else time_s + shift_s for time_s in (gap.from_s, gap.to_s))
            self.damage.add(replace(gap, from_s=from_s, to_s=to_s))

    def _is_over(self, frame: Frame) -> bool:
        if self._begin_s is None:
            self._begin_s = frame.pts * frame.time_base
        length_s = self._options.duration_s
        return length_s is not None and frame.pts * frame.time_base - self._begin_s >= Fraction(str(length_s))

    def _reconnect(self) -> bool:
        """Seek the next connection; return False where the stop came first."""
        lost_at = self._seen_at
        self._connection.close()
        if not self._losses:
            self.warnings.append(f"{self.name}: the connection was lost and sought again; see the gaps")
        self._losses += 1
        if monotonic() - self._connected_at > _HELD_S:
            self._backoff = Backoff()
        found = None if self._stop.is_set() else self._opened(lost_at, first=False)
        if found is None:
            return False
        self._require_same(found)
        gap_s = Fraction(round(1000 * (monotonic() - lost_at)), 1000)
        for position, track in enumerate(self.tracks):
            lost = round(gap_s * (track.info.rate_fps or DEFAULT_RATE))
            ends = (float(self._last_s), float(self._last_s + gap_s))
            self.damage.add(Gap(position, *ends, max(1, lost), never_came=True))
        self._connection, self._connected_at = found, monotonic()
        self._resume_s = self._last_s + gap_s
        self._shift_s = None
        self._cut = [True] * len(self.tracks)
        return True

    def _opened(self, since: float, *, first: bool) -> FileSource | None:
        """Connect, again and again; return None where the stop came first.

        Args:
            since: When it was lost, or first sought, on the monotonic clock.
            first: Whether it has never given a picture.
        """
        whole = replace(self._options, duration_s=None)
        refused = False
        while not self._stop.wait(self._backoff.pause_s(monotonic() - since, refused=refused)):
            try:
                return FileSource(self.path, whole, stop=self._stop, patience_s=PATIENCE_S)
            except MediaError as error:
                if self._gives_up(error, monotonic() - since, first=first):
                    raise
                refused = not _may_pass(error)
        return None

    def _gives_up(self, error: MediaError, since_s: float, *, first: bool) -> bool:
        """Return whether a fault ends the source."""
        if first:
            return not self._options.wait and (not _may_pass(error) or since_s > FIRST_TRIES_S)
        limit_s = self._options.give_up_after_s
        return limit_s is not None and since_s > limit_s

    def _require_same(self, found: FileSource) -> None:
        now = _Description.of(found)
        if now != self._is:
            found.close()
            raise UnsupportedFormat(
                f"{self.name} came back with other streams (it was {self._is}, and is {now}); run again for "
                "what it is now"
            )

    def _shift(self, time_s: Fraction) -> Fraction:
        """Return what is added to the times of this connection; its first item tells."""
        if self._shift_s is None:
            self._shift_s = self._resume_s - time_s
        return self._shift_s

    def _placed(self, frame: Frame) -> Frame:
        """Give a frame its place among those of all connections."""
        stream, info = frame.stream, self.tracks[frame.stream].info
        time_s = frame.pts * frame.time_base
        pts = round((time_s + self._shift(time_s)) / info.time_base)
        last = self._last_pts[stream]
        if last is not None:
            pts = max(pts, last + 1)
        self._last_pts[stream] = pts
        frame.cut = frame.cut or self._cut[stream]
        self._cut[stream] = False
        frame.index, self._next_index[stream] = self._next_index[stream], self._next_index[stream] + 1
        frame.pts, frame.time_base = pts, info.time_base
        frame.picture.pts, frame.picture.time_base = pts, info.time_base
        self._last_s = max(self._last_s, pts * info.time_base)
        self._seen_at = monotonic()
        return frame

    def _moved(self, packet: Packet) -> Packet:
        """Give a copied packet its place in time."""
        if packet.dts is not None and packet.time_base:
            shift = round(self._shift(packet.dts * packet.time_base) / packet.time_base)
            packet.dts += shift
            if packet.pts is not None:
                packet.pts += shift
        return packet


@dataclass(frozen=True, slots=True)
class _Description:
    """What a connection brings: every connection of a source has to bring the same.

    Attributes:
        video: Geometry, codec and pixel format of each video stream.
        copied: Index and codec of each other one.
    """

    video: tuple[tuple[Geometry, str, str], ...]
    copied: tuple[tuple[int, str], ...]

    @classmethod
    def of(cls, source: FileSource) -> _Description:
        """Return what a connection brings."""
        return cls(
            tuple((info.geometry, info.codec, info.pix_fmt) for info in source.streams),
            tuple((s.index, s.codec_context.name) for s in source.copied if s.codec_context is not None),
        )

    def __str__(self) -> str:
        video = [f"{form.width}x{form.height} {codec} {pix_fmt}" for form, codec, pix_fmt in self.video]
        return ", ".join([*video, *(codec for _, codec in self.copied)])


def _may_pass(error: MediaError) -> bool:
    """Return whether a fault may pass by itself: no answer, or no picture yet."""
    return isinstance(error, Unreachable | DecodeError)
