"""A small RTSP server for loopback: takes what publishers announce, and serves it packet by packet.

Media go over TCP (interleaved, RFC 2326, 10.12), verbatim: faults can be put in at the level of RTP, and
times be taken where a packet passes. It knows just what FFmpeg says, and is no server for anybody else.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Self

RTP_HEADER_BYTES = 12

Fault = Callable[["Packet"], Iterable["Packet"]]
"""Gives what goes on to a reader for each packet: itself, nothing, several, or others."""


@dataclass(frozen=True, slots=True)
class Packet:
    """An interleaved packet: RTP on even channels, RTCP on odd ones.

    Attributes:
        channel: Twice the number of the stream, plus 1 for RTCP.
        data: With its header.
    """

    channel: int
    data: bytes

    @property
    def is_media(self) -> bool:
        """Whether it is RTP."""
        return self.channel % 2 == 0 and len(self.data) > RTP_HEADER_BYTES

    @property
    def timestamp(self) -> int:
        """The RTP timestamp, in ticks of the stream's clock."""
        return int.from_bytes(self.data[4:8])

    @property
    def ends_frame(self) -> bool:
        """Whether the marker says that a frame is complete."""
        return bool(self.data[1] & 0x80)

    @property
    def begins_keyframe(self) -> bool:
        """Whether a keyframe of H.264 begins: with its parameter sets, or its first slice."""
        kind = self.data[RTP_HEADER_BYTES] & 0x1F
        if kind in (28, 29):  # a fragment: the kind stands behind
            return bool(self.data[13] & 0x80) and self.data[13] & 0x1F in (5, 7)
        return kind in (5, 7)

    def at(self, timestamp: int) -> Packet:
        """Return the packet with another timestamp."""
        return Packet(self.channel, self.data[:4] + (timestamp % 2**32).to_bytes(4) + self.data[8:])


@dataclass
class Published:
    """A stream that is being published.

    Attributes:
        sdp: What its publisher announced.
        readers: Those who play it.
        frames: Time (`time.monotonic`) and RTP timestamp of each whole frame that came, of video.
    """

    sdp: bytes
    readers: dict[asyncio.StreamWriter, None] = field(default_factory=dict)
    frames: list[tuple[float, int]] = field(default_factory=list)


class Relay:
    """The server, on a thread of its own.

    Args:
        port: 0 for any.
        user: Wanted of readers and publishers by digest; empty for none.
        password: Of the user.

    Attributes:
        port: What it listens on.
        streams: What is published now, by path.
        announced: How often something was announced, by path.
        played: How often something was played, by path.
        first_keyframes: When a keyframe first passed to a reader (`time.monotonic`), by path.
        faults: What befalls the packets of a path, whoever publishes it.
        frozen: While it is set, nothing is read or answered.
    """

    def __init__(self, port: int = 0, *, user: str = "", password: str = "") -> None:
        self.streams: dict[str, Published] = {}
        self.announced: dict[str, int] = {}
        self.played: dict[str, int] = {}
        self.first_keyframes: dict[str, float] = {}
        self.faults: dict[str, Fault] = {}
        self.frozen = threading.Event()
        self._user, self._password = user, password
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._wait(
            asyncio.start_server(self._serve, "127.0.0.1", port, limit=1 << 24)
        )
        self.port = int(self._server.sockets[0].getsockname()[1])

    def address(self, path: str, *, user: str = "", password: str = "") -> str:
        """Return the address of a path."""
        credentials = f"{user}:{password}@" if user else ""
        return f"rtsp://{credentials}127.0.0.1:{self.port}{path}"

    def hang_up(self, path: str) -> None:
        """Close the connections of all who read or publish a path."""

        async def close() -> None:
            stream = self.streams.pop(path, None)
            for writer in list(stream.readers) if stream else []:
                writer.close()

        self._wait(close())

    def close(self) -> None:
        """Stop to listen and close all connections. Idempotent."""
        if not self._thread.is_alive():
            return

        async def close() -> None:
            # A server that is closed while it accepts a connection forgets that one's socket
            # (`Server._attach` asserts that it is open): no more are accepted first, then it is closed.
            for listening in self._server.sockets:
                self._loop.remove_reader(listening.fileno())
            last = self._loop.time() + 2.0
            while (tasks := asyncio.all_tasks() - {asyncio.current_task()}) and self._loop.time() < last:
                for writer in list(self._writers):
                    writer.transport.abort()
                await asyncio.wait(tasks, timeout=0.1)
            self._server.close()

        self._wait(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        done: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        client = _Client(self, reader, writer)
        try:
            await client.talk()
        except (asyncio.IncompleteReadError, ConnectionError, ValueError, asyncio.LimitOverrunError):
            pass
        finally:
            client.leave()
            writer.close()
            with suppress(ConnectionError):
                # What was written may wait for one who no longer reads: `close` then aborts the connection.
                await writer.wait_closed()
            self._writers.discard(writer)

    def refuses(self, method: str, headers: dict[str, str]) -> bool:
        """Return whether a request lacks the right digest (RFC 2617, without qop)."""
        if not self._user:
            return False
        said = dict(re.findall(r'(\w+)="([^"]*)"', headers.get("authorization", "")))
        one = _md5(f"{self._user}:streamderain:{self._password}")
        other = _md5(f"{method}:{said.get('uri', '')}")
        return said.get("response") != _md5(f"{one}:{said.get('nonce', '')}:{other}")


class _Client:
    """One connection."""

    def __init__(self, relay: Relay, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._relay, self._reader, self._writer = relay, reader, writer
        self._path = ""
        self._published: Published | None = None
        self._setups = 0

    def leave(self) -> None:
        """Forget the connection; a publisher's readers are hung up on."""
        streams = self._relay.streams
        if self._published is not None and streams.get(self._path) is self._published:
            for writer in self._published.readers:
                writer.close()
            del streams[self._path]
        elif self._path in streams:
            streams[self._path].readers.pop(self._writer, None)

    async def talk(self) -> None:
        """Answer until the client goes."""
        while True:
            first = await self._reader.readexactly(1)
            while self._relay.frozen.is_set():
                await asyncio.sleep(0.01)
            if first == b"$":
                await self._take_packet()
                continue
            head = (first + await self._reader.readuntil(b"\r\n\r\n")).decode(errors="replace")
            lines = head.split("\r\n")
            method, address, _ = lines[0].split(" ", 2)
            pairs = (line.partition(":")[::2] for line in lines[1:] if ":" in line)
            headers = {name.lower(): value.strip() for name, value in pairs}
            body = await self._reader.readexactly(int(headers.get("content-length", 0)))
            self._answer(method, address, headers, body)
            if method == "TEARDOWN":
                return

    async def _take_packet(self) -> None:
        channel = (await self._reader.readexactly(1))[0]
        size = int.from_bytes(await self._reader.readexactly(2))
        packet = Packet(channel, await self._reader.readexactly(size))
        stream = self._published
        if stream is None:
            return
        if packet.channel == 0 and packet.is_media and packet.ends_frame:
            stream.frames.append((monotonic(), packet.timestamp))
        if stream.readers and packet.channel == 0 and packet.is_media and packet.begins_keyframe:
            self._relay.first_keyframes.setdefault(self._path, monotonic())
        fault = self._relay.faults.get(self._path)
        for passed in (packet,) if fault is None else fault(packet):
            data = b"$" + bytes([passed.channel]) + len(passed.data).to_bytes(2) + passed.data
            for writer in stream.readers:
                if not writer.is_closing():
                    writer.write(data)

    def _answer(self, method: str, address: str, headers: dict[str, str], body: bytes) -> None:
        relay = self._relay
        path = "/" + address.partition("://")[2].partition("/")[2]
        if method in ("ANNOUNCE", "DESCRIBE"):
            self._path = path.rstrip("/")
        if method != "OPTIONS" and relay.refuses(method, headers):
            challenge = 'WWW-Authenticate: Digest realm="streamderain", nonce="f00d"'
            self._reply(headers, "401 Unauthorized", [challenge])
            return
        match method:
            case "OPTIONS":
                methods = "ANNOUNCE, DESCRIBE, SETUP, PLAY, RECORD, TEARDOWN, GET_PARAMETER"
                self._reply(headers, "200 OK", [f"Public: {methods}"])
            case "ANNOUNCE":
                self._published = Published(body)
                relay.streams[self._path] = self._published
                relay.announced[self._path] = relay.announced.get(self._path, 0) + 1
                self._reply(headers, "200 OK")
            case "DESCRIBE":
                stream = relay.streams.get(self._path)
                if stream is None:
                    self._reply(headers, "404 Not Found")
                else:
                    base = f"Content-Base: {address.rstrip('/')}/"
                    self._reply(headers, "200 OK", [base, "Content-Type: application/sdp"], stream.sdp)
            case "SETUP":
                channels = f"{2 * self._setups}-{2 * self._setups + 1}"
                self._setups += 1
                self._reply(headers, "200 OK", [f"Transport: RTP/AVP/TCP;unicast;interleaved={channels}"])
            case "PLAY":
                relay.played[self._path] = relay.played.get(self._path, 0) + 1
                self._reply(headers, "200 OK")
                if self._path in relay.streams:
                    relay.streams[self._path].readers[self._writer] = None
            case _:
                self._reply(headers, "200 OK")

    def _reply(
        self, headers: dict[str, str], status: str, more: Iterable[str] = (), body: bytes = b""
    ) -> None:
        lines = [f"RTSP/1.0 {status}", f"CSeq: {headers.get('cseq', '1')}", "Session: 1;timeout=60", *more]
        lines += [f"Content-Length: {len(body)}"] if body else []
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
