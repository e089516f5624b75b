"""Where one may begin to read a transport stream."""

from __future__ import annotations

import io

import av
import pytest

from streamderain.serve.transport_stream import PACKET_BYTES, TransportStream
from tests.support.media import Sound, Video, write

KEYFRAME_EVERY = 5


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("stream") / "a.ts"
    write(path, Video(frames=20, width=64, height=48, gop=KEYFRAME_EVERY), audio=[Sound(seconds=0.8)])
    return path.read_bytes()


@pytest.mark.parametrize("chunk", [1 << 16, 1000, PACKET_BYTES, 7])
def test_nothing_is_lost_and_every_keyframe_is_found(stream: bytes, chunk: int) -> None:
    transport = TransportStream()
    parts = [stream[at : at + chunk] for at in range(0, len(stream), chunk)]
    pieces = [piece for part in parts for piece in transport.pieces(part)]
    assert b"".join(data for _, data in pieces) == stream
    assert all(len(data) % PACKET_BYTES == 0 for _, data in pieces)
    assert sum(joins for joins, _ in pieces) == 20 // KEYFRAME_EVERY


def test_who_joins_at_a_keyframe_decodes_from_its_first_packet_on(stream: bytes) -> None:
    transport = TransportStream()
    pieces = list(transport.pieces(stream))
    second = [number for number, (joins, _) in enumerate(pieces) if joins][1]
    joined = transport.tables + b"".join(data for _, data in pieces[second:])
    with av.open(io.BytesIO(joined), format="mpegts") as container:
        first = next(container.demux(container.streams.video[0]))
        assert first.is_keyframe
    with av.open(io.BytesIO(joined), format="mpegts") as container:
        container.streams.video[0].codec_context.options = {"err_detect": "explode"}
        assert len(list(container.decode(video=0))) == 20 - KEYFRAME_EVERY
