"""The command `python -m benchmarks soak`; see `benchmarks.live`."""

from benchmarks.live import soak as soak
