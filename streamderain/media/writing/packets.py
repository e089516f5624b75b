"""Duplicate packets for several targets."""

from __future__ import annotations

from typing import Any

import av


def duplicate(packet: av.Packet[Any]) -> av.Packet[Any]:
    """Return a packet of the same stream, times, flags and side data, with data of its own.

    Muxing rewrites a packet's stream and times, so that threads cannot share one.
    """
    copy: av.Packet[Any] = av.Packet(bytes(packet))
    copy.stream = packet.stream
    copy.time_base = packet.time_base
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    copy.is_keyframe, copy.is_corrupt = packet.is_keyframe, packet.is_corrupt
    for side in packet.iter_sidedata():
        copy.set_sidedata(side)
    return copy
