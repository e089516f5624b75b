"""Record how long each step of a frame takes, for benchmarks."""

from __future__ import annotations

from collections import defaultdict
from typing import Literal

Step = Literal["decode", "copy-in", "align", "network", "copy-out", "write-back", "write", "frame"]
"""`write` is all an output does with a frame, `write-back` among it; `frame` is the whole way, from the
decoder's hand to the encoder's."""


class Trace:
    """Durations by step, a value per frame. Steps of one frame end on different threads.

    Attributes:
        seconds: Durations by step, in order of completion.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[Step, list[float]] = defaultdict(list)

    def add(self, step: Step, seconds: float) -> None:
        """Note one duration."""
        self.seconds[step].append(seconds)
