"""A camera on loopback, as a process of its own: plays a clip over and over, at its pace, to an RTSP server.

`python -m benchmarks.camera CLIP ADDRESS JITTER_S`. With jitter its frames come at slightly uneven times that
are always the same, so that a frame can be told from others by its distance to its neighbours.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av

from streamderain.media.network import send_at_once

CLOCK_HZ = 90_000


def play(clip: Path, address: str, jitter_s: float = 0.0) -> None:
    """Publish a clip without end."""
    uneven = random.Random(7)
    with (
        av.open(str(clip)) as source,
        av.open(address, "w", format="rtsp", options={"rtsp_transport": "tcp"}) as target,
    ):
        streams = {
            stream.index: target.add_stream_from_template(stream, opaque=True)
            for stream in (*source.streams.video, *source.streams.audio)
        }
        target.start_encoding()
        send_at_once()
        began, offset_s, end_s = time.monotonic(), Fraction(0), Fraction(0)
        while True:
            source.seek(0)
            for packet in source.demux(*(source.streams[index] for index in streams)):
                if packet.dts is None or packet.pts is None:
                    continue
                time_s = offset_s + packet.dts * packet.time_base
                end_s = max(end_s, time_s + (packet.duration or 0) * packet.time_base)
                moved_s = time_s
                if packet.stream.type == "video":
                    moved_s += Fraction(round(CLOCK_HZ * uneven.uniform(0, jitter_s)), CLOCK_HZ)
                time.sleep(max(0.0, began + float(moved_s) - time.monotonic()))
                stream = streams[packet.stream.index]
                packet.pts = packet.dts = round(moved_s / packet.time_base)
                packet.stream = stream
                target.mux(packet)
            offset_s = end_s


@contextmanager
def camera(clip: Path, address: str, *, jitter_s: float = 0.0) -> Iterator[subprocess.Popen[bytes]]:
    """Run a camera."""
    command = [sys.executable, "-m", "benchmarks.camera", str(clip), address, str(jitter_s)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    play(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
