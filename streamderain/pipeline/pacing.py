"""Keep a live stream at the present: tell which frames come too late to be worth computing."""

from __future__ import annotations

DRIFT = 500e-6
"""How far two clocks may part, seconds a second: the lag that is forgiven as such."""


class Pacing:
    """Measures how far frames lag behind the clock; newest frame wins.

    A frame's delay is the clock's time minus its own. The least delay there was is that of the way, the rest
    is lag: frames that waited, in buffers of the network or here, for those before them.

    Args:
        max_latency_s: The lag, seconds, from which on a frame is too late.
    """

    def __init__(self, max_latency_s: float) -> None:
        self._max_latency_s = max_latency_s
        self._least_s: float | None = None
        self._at_s = 0.0

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
        return delay_s - self._least_s

    def is_late(self, media_s: float, now_s: float) -> bool:
        """Return whether a frame is too late."""
        return self.lag_s(media_s, now_s) > self._max_latency_s
