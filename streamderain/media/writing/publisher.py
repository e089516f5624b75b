"""A process of its own that carries packets to one network target.

FFmpeg's calls may hang for good in a handshake or in a frozen connection, and hold the interpreter's lock
meanwhile. So they are made where nobody else waits: whoever started this process watches its progress and
kills it. Run as a module, with the parent's process number, it reads an `Order` as a line of JSON and then
NUT from standard input, and answers with lines of JSON on standard output.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from io import FileIO
from time import monotonic
from typing import Any

import av

from streamderain.media.network import fault_words, network_fault, send_at_once
from streamderain.pacing import KeyframeGate, Pacing
from streamderain.system.process import die_with_parent, leave_no_core_file

_AT_ONCE = {"probesize": "32", "analyzeduration": "1", "fpsprobesize": "0"}
"""NUT names its streams; looking for longer only delays the first packet."""

_INTERLEAVED = {"max_interleave_delta": "1"}
"""What comes is in order already: nothing waits for a stream that pauses."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is published where.

    Attributes:
        address: The target, with its credentials; a path for HLS.
        muxer: FFmpeg's name of the format.
        options: Of the muxer and the protocol.
        max_lag_s: Packets that come later than this are dropped up to the next keyframe; None drops none.
    """

    address: str
    muxer: str
    options: Mapping[str, str]
    max_lag_s: float | None

    def to_line(self) -> bytes:
        """Return the order as a line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"


def main() -> None:
    """Carry packets until standard input ends."""
    die_with_parent(int(sys.argv[1]))
    leave_no_core_file()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever started this ends it
    with FileIO(0, closefd=False) as pipe:
        line = _first_line(pipe)
        if not line:
            return
        order = Order(**json.loads(line))
        try:
            _publish(pipe, order)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            verified = order.options.get("tls_verify") == "1"
            words = fault_words(error)
            fault = network_fault(order.address, error, words, publishing=True, verified=verified)
            _say(error=str(fault), kind=type(fault).__name__)
            os._exit(1)  # closing a broken connection may hang
    _say(done=True)


def _publish(pipe: FileIO, order: Order) -> None:
    with (
        av.open(pipe, "r", format="nut", options=_AT_ONCE) as source,
        av.open(
            order.address, "w", format=order.muxer, container_options={**order.options, **_INTERLEAVED}
        ) as target,
    ):
        streams = [target.add_stream_from_template(stream, opaque=True) for stream in source.streams]
        for stream, template in zip(streams, source.streams, strict=True):
            stream.metadata.update(template.metadata)
        target.start_encoding()
        send_at_once()
        _say(ready=True)
        _carry(source, target, streams, order.max_lag_s)


def _carry(source: Any, target: Any, streams: list[Any], max_lag_s: float | None) -> None:
    pacing = None if max_lag_s is None else Pacing(max_lag_s)
    gate = KeyframeGate()
    origin_s: Fraction | None = None
    told = 0
    for packet in source.demux():
        if not packet.size:
            continue
        packet.dts = packet.pts if packet.dts is None else packet.dts
        time_s = packet.dts * packet.time_base
        is_video = packet.stream.type == "video"
        if is_video and pacing is not None and pacing.is_late(float(time_s), monotonic()):
            gate.shut(lost=1)
            continue
        if is_video:
            passes = gate.passes(packet.stream_index, is_keyframe=packet.is_keyframe)
        else:
            passes = gate.passes_beside()
        if passes:
            # Each connection counts from zero: clocks of 32 bits would end after some weeks.
            origin_s = time_s if origin_s is None else origin_s
            shift = round(origin_s / packet.time_base)
            packet.dts -= shift
            packet.pts -= shift
            packet.stream = streams[packet.stream_index]
            target.mux(packet)
        if gate.lost != told:
            told = gate.lost
            _say(lost=told)


def _first_line(pipe: FileIO) -> bytes:
    line = bytearray()
    while (byte := pipe.read(1)) and byte != b"\n":
        line += byte
    return bytes(line) if byte else b""


def _say(**values: Any) -> None:
    os.write(1, json.dumps(values).encode() + b"\n")


if __name__ == "__main__":
    main()
