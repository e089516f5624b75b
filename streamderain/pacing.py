"""Keep a live stream at the present: what is too late, where it goes on after a loss, when to try again."""

from __future__ import annotations

import random

DRIFT = 500e-6
"""How far two clocks may part, seconds a second: the lag that is forgiven as such."""

_SOON_S, _LATE_S = 1.0, 10.0
_SOON_FOR_S = 60.0
_REFUSED_S = 60.0
_JITTER = 0.2


class Pacing:
    """Measures how far frames lag behind the clock; newest frame wins.

    A frame's delay is the clock's time minus its own. The least delay there was is that of the way, the rest
    is lag: frames that waited, in buffers of the network or here, for those before them.

    Args:
        max_latency_s: The lag, seconds, from which on a frame is too late.

    Attributes:
        last_lag_s: That of the last frame.
    """

    def __init__(self, max_latency_s: float) -> None:
        self._max_latency_s = max_latency_s
        self._least_s: float | None = None
        self._at_s = 0.0
        self.last_lag_s = 0.0

    def lag_s(self, media_s: float, now_s: float) -> float:
        """Return how late a frame is.

        Args:
            media_s: Its own time.
            now_s: The clock's, when it was decoded; never less than before.
        """
        delay_s = now_s - media_s
        if self._least_s is None:
            self._least_s = delay_s
        else:
            self._least_s = min(self._least_s + DRIFT * (now_s - self._at_s), delay_s)
        self._at_s = now_s
        self.last_lag_s = delay_s - self._least_s
        return self.last_lag_s

    def present_s(self, now_s: float) -> float | None:
        """Return the time of a frame that would come at this moment without lag; None before the first."""
        return None if self._least_s is None else now_s - self._least_s

    def is_late(self, media_s: float, now_s: float) -> bool:
        """Return whether a frame is too late."""
        return self.lag_s(media_s, now_s) > self._max_latency_s

    def forget(self) -> None:
        """Begin anew: the next frame comes by another way."""
        self._least_s = None


class KeyframeGate:
    """Tells which packets can be used after some were lost: none of a video before its next keyframe.

    Attributes:
        lost: Packets that were held back.
    """

    def __init__(self) -> None:
        self._open: set[int] | None = None
        self.lost = 0

    def shut(self, *, lost: int = 0) -> None:
        """Note that packets were lost, and count them."""
        self._open = set()
        self.lost += lost

    def passes(self, stream: int, *, is_keyframe: bool) -> bool:
        """Return whether a packet of a video can be used."""
        if self._open is None:
            return True
        if is_keyframe:
            self._open.add(stream)
        passes = stream in self._open
        self.lost += not passes
        return passes

    def passes_beside(self) -> bool:
        """Return whether a packet of sound, or of anything else that goes beside a video, can be used."""
        passes = self._open is None or bool(self._open)
        self.lost += not passes
        return passes


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
