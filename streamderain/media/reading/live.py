"""Live sources: cameras and streams that go on until somebody ends them, whatever happens on the way.

A connection is a `FileSource` of its own. One that ends, stalls or brings no picture is closed, and the next
one is sought: at once, then ever less often. What comes after a gap gets times that follow what came before,
by the wall clock, and starts a new temporal window.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from time import monotonic
from typing import Any

from streamderain.addresses import redact_address
from streamderain.closable import Closable
from streamderain.errors import (
    ConfigError,
    DecodeError,
    MediaError,
    NotServed,
    OpenError,
    Unreachable,
    UnsupportedFormat,
)
from streamderain.events import Incident, Incidents
from streamderain.frame import Frame, Geometry, StreamInfo
from streamderain.media.reading.damage import Damage, Gap
from streamderain.media.reading.decoder import DEFAULT_RATE
from streamderain.media.reading.file import FileSource
from streamderain.media.reading.held import HeldStreams
from streamderain.media.track import VideoTrack
from streamderain.options import ReadOptions
from streamderain.pacing import Backoff, Pacing

PATIENCE_S = 10.0
"""A connection that gives no picture for so long is given up: packets may still come, without a keyframe."""

FIRST_TRIES_S = 10.0
"""An address that never gave a picture is tried for so long, unless it is waited for."""

JUMP_S = 5
"""Times that step by more than this beyond the clock's are not a gap: the source's clock was set."""

_SAME_RATE = 0.1

_HELD_S = 5.0
"""A connection that held for so long was a good one: the next one is sought without a pause."""

Packet = Any


class LiveSource(Closable):
    """Yields the frames of a live source, through every interruption.

    Where it comes back with other streams, its frames end, and begin anew after `take_up`.

    Args:
        address: With its credentials.
        options: How it is read; a length (`-t`) ends it.
        stop: Once it is set, the source ends.
        incidents: Is told when it is lost, and when it is back.
        opened: The first connection, where it was opened already.

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

    def __init__(
        self,
        address: str,
        options: ReadOptions,
        stop: threading.Event | None = None,
        *,
        incidents: Incidents | None = None,
        opened: FileSource | None = None,
    ) -> None:
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
        self._clock = Pacing(math.inf)
        self._incidents = incidents or Incidents()
        first = opened or self._opened(monotonic(), first=True)
        if first is None:
            raise OpenError(f"{self.name}: stopped before anything came")
        self._next: FileSource | None = None
        self._refreshing = False
        self._shift_s: Fraction | None = Fraction(0)
        self._resume_s = Fraction(0)
        self._begin_s: Fraction | None = None
        self._last_s = Fraction(0)
        self._seen_at = monotonic()
        self.losses = self.jumps = 0
        self.is_given_up = False
        self._describe(first)

    def _describe(self, connection: FileSource) -> None:
        """Take over what a connection says of its streams: it holds for those that follow, too."""
        self._connection, self._connected_at = connection, monotonic()
        self._held = HeldStreams(connection)
        self.tracks: tuple[VideoTrack, ...] = tuple(
            replace(track, stream=self._held.of(track.stream)) for track in connection.tracks
        )
        self.copied = self._held.copied
        self._is = _Description.of(connection)
        told = (*connection.warnings, *self._held.warnings)
        self.warnings += [warning for warning in told if warning not in self.warnings]
        self._next_index = [0] * len(self.tracks)
        self._last_pts: list[int | None] = [None] * len(self.tracks)
        self._cut = [False] * len(self.tracks)

    @property
    def container(self) -> Any:
        """A container that describes the streams and outlives every connection."""
        return self._held.container

    @property
    def streams(self) -> tuple[StreamInfo, ...]:
        """The video streams, in order of position."""
        return tuple(track.info for track in self.tracks)

    @property
    def is_complete(self) -> bool:
        """Never: there is always more."""
        return False

    @property
    def goes_on(self) -> bool:
        """Whether its frames ended because other streams follow."""
        return self._next is not None

    @property
    def was_stopped(self) -> bool:
        """Whether the stop that it was told of ended it."""
        return self._stop.is_set()

    def peek(self, stream_index: int) -> Packet | None:
        """Return the first packet of a stream among those read ahead; None where there is none yet."""
        return self._connection.peek(self._held.original_index(stream_index))

    def refresh(self) -> bool:
        """Have the connection replaced after the frame in hand."""
        self._refreshing = True
        return True

    def take_up(self) -> bool:
        """Go on with other streams, where those were the reason that the frames ended."""
        if self._next is None:
            return False
        self._held.close()
        self._describe(self._next)
        self._next = None
        return True

    def end(self) -> bool:
        """Live sources are ended by their stop alone."""
        return False

    def frames(self, copy: Callable[[Packet], None]) -> Iterator[Frame]:
        """Yield frames until the stop, the length, or other streams; call `copy` with packets beside them.

        Raises:
            OpenError: It was given up, see `ReadOptions.give_up_after_s`.
        """

        def copy_moved(packet: Packet) -> None:
            if self._moved(packet):
                copy(packet)

        while True:
            try:
                for frame in self._connection.frames(copy_moved):
                    placed = self._placed(frame)
                    if self._is_over(placed):
                        return
                    yield placed
                    if self._stop.is_set():
                        return
                    if self._refreshing:
                        break
            except UnsupportedFormat as error:
                self._incidents.tell(Incident("source changed", self.name, str(error)))
            finally:
                self._absorb_damage()
            if not self._reconnect():
                return

    def close(self) -> None:
        """Close the connection. Idempotent.

        Streams of the container are not to be touched afterwards.
        """
        self._connection.close()
        if self._next is not None:
            self._next.close()
        self._held.close()

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
        """Seek the next connection; return False where the stop came first, or it brings other streams."""
        lost_at = self._seen_at
        self._connection.close()
        if not self.losses:
            self.warnings.append(f"{self.name}: the connection was lost and sought again; see the gaps")
        self.losses += 1
        if monotonic() - self._connected_at > _HELD_S:
            self._backoff = Backoff()
        if self._stop.is_set():
            return False
        why = "came ever later" if self._refreshing else "was lost"
        self._refreshing = False
        self._incidents.tell(Incident("source lost", self.name, f"{self.name} {why}, and is sought again"))
        found = self._opened(lost_at, first=False)
        if found is None:
            return False
        now_s = monotonic()
        away_s = now_s - lost_at
        self._incidents.tell(Incident("source back", self.name, f"{self.name} is back after {away_s:.1f} s"))
        self._resume_s = self._present_s(now_s)
        gap_s = self._resume_s - self._last_s
        for position, track in enumerate(self.tracks):
            lost = round(gap_s * (track.info.rate_fps or DEFAULT_RATE))
            ends = (float(self._last_s), float(self._resume_s))
            self.damage.add(Gap(position, *ends, max(1, lost), never_came=True))
        self._shift_s = None
        now = _Description.of(found)
        if not now.is_like(self._is):
            self._next = found
            told = f"{self.name} brings other streams: it was {self._is}, and is {now}"
            self._incidents.tell(Incident("source changed", self.name, told))
            return False
        self._connection, self._connected_at = found, monotonic()
        self._cut = [True] * len(self.tracks)
        return True

    def _opened(self, since: float, *, first: bool) -> FileSource | None:
        """Connect, again and again; return None where the stop came first.

        Args:
            since: When it was lost, or first sought, on the monotonic clock.
            first: Whether it has never given a picture.
        """
        whole = replace(self._options, duration_s=None)
        refused, told = False, ""
        while not self._stop.wait(self._backoff.pause_s(monotonic() - since, refused=refused)):
            try:
                return FileSource(self.path, whole, stop=self._stop, patience_s=PATIENCE_S)
            except MediaError as error:
                if self._gives_up(error, monotonic() - since, first=first):
                    self.is_given_up = True
                    raise
                # Who waits for a stream says that it will be there: an unknown one may be so at any moment.
                refused = not _may_pass(error, worked=not first or self._options.wait)
                if str(error) != told:
                    told = str(error)
                    self._incidents.tell(Incident("source missing", self.name, f"{told}. It is tried again"))
        return None

    def _gives_up(self, error: MediaError, since_s: float, *, first: bool) -> bool:
        """Return whether a fault ends the source."""
        if first:
            passing = _may_pass(error, worked=False)
            return not self._options.wait and (not passing or since_s > FIRST_TRIES_S)
        limit_s = self._options.give_up_after_s
        return limit_s is not None and since_s > limit_s

    def _shift(self, time_s: Fraction) -> Fraction:
        """Return what is added to the times of this connection; its first item tells."""
        if self._shift_s is None:
            self._shift_s = self._resume_s - time_s
        return self._shift_s

    def _placed(self, frame: Frame) -> Frame:
        """Give a frame its place among those of all connections."""
        stream, info = frame.stream, self.tracks[frame.stream].info
        time_s = frame.pts * frame.time_base
        self._follow_jump(time_s)
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
        self._clock.lag_s(frame.time_s, self._seen_at)
        return frame

    def _follow_jump(self, time_s: Fraction) -> None:
        """Carry time on by the clock where that of the source jumps."""
        if self._shift_s is None or self._begin_s is None:
            return
        present_s = self._present_s(monotonic())
        step_s = time_s + self._shift_s - self._last_s
        if step_s < -JUMP_S or time_s + self._shift_s > present_s + JUMP_S:
            self._shift_s = present_s - time_s
            self._cut = [True] * len(self.tracks)
            self.jumps += 1
            told = f"the clock of {self.name} jumped by {float(step_s):.1f} s; time goes on as before"
            self._incidents.tell(Incident("source jumped", self.name, told))

    def _present_s(self, now_s: float) -> Fraction:
        """Return what time it is in the result, as if its time had gone on with the clock; after all frames.

        The last frame may have come late: what FFmpeg holds back shows when a read gives up.
        """
        present_s = self._clock.present_s(now_s)
        return max(self._last_s, Fraction(round(1000 * (present_s or 0)), 1000)) + Fraction(1, 1000)

    def _moved(self, packet: Packet) -> bool:
        """Give a copied packet its place in time; return whether it has one."""
        stream = self._held.of(packet.stream)
        if stream is None:
            return False
        if packet.dts is not None and packet.time_base:
            time_s = packet.dts * packet.time_base
            shift_s = self._shift(time_s)
            if self._begin_s is not None and abs(time_s + shift_s - self._last_s) > 2 * JUMP_S:
                return False  # of another time: its stream jumped before the picture did
            shift = round(shift_s / packet.time_base)
            packet.dts += shift
            if packet.pts is not None:
                packet.pts += shift
        time_base = packet.time_base
        packet.stream = stream
        packet.time_base = time_base
        return True


@dataclass(frozen=True, slots=True)
class _Description:
    """What a connection brings: every connection of a source has to bring the same.

    Attributes:
        video: Geometry, codec and pixel format of each video stream.
        copied: Index and codec of each other one.
        rates_fps: Frames per second of each video stream; 0 where unknown.
    """

    video: tuple[tuple[Geometry, str, str], ...]
    copied: tuple[tuple[int, str], ...]
    rates_fps: tuple[float, ...]

    @classmethod
    def of(cls, source: FileSource) -> _Description:
        """Return what a connection brings."""
        return cls(
            tuple((info.geometry, info.codec, info.pix_fmt) for info in source.streams),
            tuple((s.index, s.codec_context.name) for s in source.copied if s.codec_context is not None),
            tuple(float(info.rate_fps or 0) for info in source.streams),
        )

    def is_like(self, other: _Description) -> bool:
        """Return whether the same encoders and sessions serve both; rates are guesses and differ a little."""
        same_rates = all(
            abs(one - two) <= _SAME_RATE * max(one, two)
            for one, two in zip(self.rates_fps, other.rates_fps, strict=False)
        )
        return (self.video, self.copied) == (other.video, other.copied) and same_rates

    def __str__(self) -> str:
        video = [
            f"{form.width}x{form.height} {codec} {pix_fmt} {rate:.4g}/s"
            for (form, codec, pix_fmt), rate in zip(self.video, self.rates_fps, strict=True)
        ]
        return ", ".join([*video, *(codec for _, codec in self.copied)])


def _may_pass(error: MediaError, *, worked: bool) -> bool:
    """Return whether a fault may pass: no answer, no picture yet, or a stream that was there once."""
    return isinstance(error, Unreachable | DecodeError) and (worked or not isinstance(error, NotServed))
