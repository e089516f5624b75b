"""Live peers on loopback: what a camera does, and what it does wrong, connection by connection."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.media import Sound, Video, write

Behaviour = Callable[[socket.socket, threading.Event], None]
"""What a peer does with one connection, until it returns or the event is set."""

PACKET_BYTES = 188


def transport_stream(path: Path, *, frames: int = 50, width: int = 64, height: int = 48) -> bytes:
    """Return an MPEG-TS of so many frames at 25 frames/s, a keyframe every 5, with sound."""
    video = Video(frames=frames, width=width, height=height, gop=5)
    write(path.with_suffix(".ts"), video, audio=[Sound(seconds=frames / 25)])
    return path.with_suffix(".ts").read_bytes()


def plays(data: bytes, *, seconds: float) -> Behaviour:
    """Send a stream at the pace of a camera, then hang up."""

    def behave(connection: socket.socket, ended: threading.Event) -> None:
        parts = round(seconds * 50)
        size = -(-len(data) // parts // PACKET_BYTES) * PACKET_BYTES or PACKET_BYTES
        began = time.monotonic()
        for number, start in enumerate(range(0, len(data), size)):
            connection.sendall(data[start : start + size])
            if ended.wait(max(0.0, began + number / 50 - time.monotonic())):
                return

    return behave


def stalls(connection: socket.socket, ended: threading.Event) -> None:
    """Say nothing, and stay."""
    ended.wait(30)


def sends_no_picture(connection: socket.socket, ended: threading.Event) -> None:
    """Send packets of a transport stream that hold nothing."""
    empty = bytes([0x47, 0x1F, 0xFF, 0x10]) + bytes([0xFF]) * 184
    while not ended.wait(0.02):
        connection.sendall(empty * 20)


def sends_garbage(connection: socket.socket, ended: threading.Event) -> None:
    """Send what is no stream, and hang up."""
    connection.sendall(bytes(range(256)) * 400)


def drips(connection: socket.socket, ended: threading.Event) -> None:
    """Send an answer that never ends, a byte now and then: each byte resets a limit of silence."""
    while not ended.wait(0.1):
        connection.sendall(b"R")


def answers(text: str) -> Behaviour:
    """Answer every request of RTSP or HTTP with the same status."""

    def behave(connection: socket.socket, ended: threading.Event) -> None:
        while request := connection.recv(4096).decode(errors="replace"):
            number = next(
                (line for line in request.splitlines() if line.lower().startswith("cseq")), "CSeq: 1"
            )
            connection.sendall(f"RTSP/1.0 {text}\r\n{number}\r\n\r\n".encode())

    return behave


def then(*behaviours: Behaviour) -> Behaviour:
    """Do one thing after the other on one connection."""

    def behave(connection: socket.socket, ended: threading.Event) -> None:
        for one in behaviours:
            one(connection, ended)

    return behave


class Peer:
    """A server that treats each connection as its script says; the last line of that goes on for ever."""

    def __init__(self, script: Sequence[Behaviour], *, port: int = 0) -> None:
        self._script = list(script)
        self._ended = threading.Event()
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = int(self._server.getsockname()[1])
        self.connections = 0
        self._threads = [threading.Thread(target=self._serve, name="peer", daemon=True)]
        self._threads[0].start()

    def address(self, scheme: str = "tcp", path: str = "") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            behaviour = self._script[min(self.connections, len(self._script) - 1)]
            self.connections += 1
            thread = threading.Thread(
                target=self._treat, args=(behaviour, connection), name="peer", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _treat(self, behaviour: Behaviour, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            behaviour(connection, self._ended)

    def close(self) -> None:
        """Hang up everywhere."""
        self._ended.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(5)


@contextmanager
def peer(*script: Behaviour, port: int = 0) -> Iterator[Peer]:
    """Run a peer."""
    server = Peer(script, port=port)
    try:
        yield server
    finally:
        server.close()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
