"""Find where one may begin to read an MPEG-TS: whole packets, and those that begin a keyframe.

ISO/IEC 13818-1: packets of 188 bytes (2.4.3.2), the random access indicator of the adaptation field
(2.4.3.4), the program association and map tables (2.4.4).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

PACKET_BYTES = 188
_PAT_PID = 0
_SECTION = 5
"""Where a table begins in a packet without adaptation field: behind the header and the pointer."""

_ENTRY = _SECTION + 8
"""Where the first program of an association table, and the clock's PID of a map table stand."""


class TransportStream:
    """Cuts a stream as it comes into pieces, so that one who joins can begin at a keyframe.

    Attributes:
        tables: The latest packets that tell which streams there are: what one who joins needs first.
    """

    def __init__(self) -> None:
        self.tables = b""
        self._rest = b""
        self._association = b""
        self._map_pid = self._clock_pid = -1

    def pieces(self, data: bytes) -> Iterator[tuple[bool, bytes]]:
        """Take what came next, and yield the whole packets of it.

        Args:
            data: Of any length.

        Yields:
            Whether it begins with a keyframe of the stream that has the clock (the video), and the packets.
        """
        data = self._rest + data
        whole = len(data) // PACKET_BYTES * PACKET_BYTES
        data, self._rest = data[:whole], data[whole:]
        if not data:
            return
        packets = np.frombuffer(data, np.uint8).reshape(-1, PACKET_BYTES)
        pids = ((packets[:, 1] & 0x1F).astype(np.int32) << 8) | packets[:, 2]
        self._read_tables(packets, pids)
        has_flags = (packets[:, 3] & 0x20 > 0) & (packets[:, 4] > 0)
        joins = has_flags & (packets[:, 5] & 0x40 > 0) & (pids == self._clock_pid)
        starts = PACKET_BYTES * np.flatnonzero(joins)
        begin = 0
        for start in (*starts.tolist(), whole):
            if start > begin:
                yield begin in starts, data[begin:start]
            begin = start

    def _read_tables(self, packets: NDArray[np.uint8], pids: NDArray[np.int32]) -> None:
        """Take over the latest tables: FFmpeg repeats each, in a packet of its own, ten times a second."""
        for packet in packets[pids == _PAT_PID][-1:]:
            self._association = packet.tobytes()
            self._map_pid = _pid(self._association, _ENTRY + 2)
        for packet in packets[pids == self._map_pid][-1:]:
            program = packet.tobytes()
            self._clock_pid = _pid(program, _ENTRY)
            self.tables = self._association + program


def _pid(packet: bytes, at: int) -> int:
    return (packet[at] & 0x1F) << 8 | packet[at + 1]
