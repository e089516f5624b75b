"""Keep a process for each camera: start it, hear what it says, start it again, hand on what it gives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any

from streamderain.addresses import redact
from streamderain.options import RunOptions
from streamderain.pacing import Backoff
from streamderain.serve.camera import PREVIEW_HEADER, to_orders
from streamderain.serve.config import Camera
from streamderain.serve.transport_stream import TransportStream
from streamderain.system.cpu_share import CpuShares

_LOG = logging.getLogger("streamderain.serve")

VIEWER_BYTES = 4 << 20
"""What waits for one who pulls a stream; who does not take it for so long is let go."""

VIEWERS_AT_MOST = 32
INCIDENTS_AT_MOST = 50
INPUT_FPS_OVER_S = 2.0
SILENT_S = 30.0
"""A process that tells nothing for so long hangs, and is replaced."""

END_S = 8.0
_HELD_S = 60.0
_CHUNK = 1 << 16
_LINE_BYTES = 1 << 20


@dataclass
class Status:
    """What is known of a camera.

    Attributes:
        state: `"starting"`, `"running"`, `"lost"` (its source), `"stopped"`.
        numbers: The latest `events.Progress`.
        totals: Counters that go on over restarts of the process.
        incidents: Time and words of the latest ones.
        error: What ended the process the last time; empty while it works.
        light: How much light is taken away, mean codes of luma: more where it rains harder.
        size: Width and height.
        restarts: How often the process was started again.
        input_fps: Frames that come in a second, of the last seconds.
    """

    state: str = "starting"
    numbers: dict[str, Any] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=dict)
    incidents: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=INCIDENTS_AT_MOST))
    error: str = ""
    light: float = 0.0
    size: tuple[int, int] = (0, 0)
    restarts: int = 0
    input_fps: float = 0.0

    def count(self, name: str, by: float = 1) -> None:
        """Add to a total."""
        self.totals[name] = self.totals.get(name, 0) + by


class CameraProcess:
    """The process of one camera, again and again.

    Args:
        name: Of the camera.
        camera: Where it is and where its result goes.
        options: How it is run.
        observed: Called with each latency that is told, seconds; for metrics.
        shares: Where it gets its share of the processor; None where the kernel shares it by itself.
    """

    def __init__(
        self,
        name: str,
        camera: Camera,
        options: RunOptions,
        *,
        observed: Callable[[float], None] = lambda _: None,
        shares: CpuShares | None = None,
    ) -> None:
        self.name, self.camera, self.options = name, camera, options
        self.status = Status()
        self._observed, self._shares = observed, shares
        self._viewers: set[_Viewer] = set()
        self._preview: tuple[int, bytes, bytes] = (0, b"", b"")
        self._previewed = asyncio.Condition()
        self._process: asyncio.subprocess.Process | None = None
        self._heard_at = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Begin to run the camera."""
        self._task = asyncio.create_task(self._run(), name=f"camera {self.name}")

    async def stop(self) -> None:
        """End the camera: what it records is finished."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for viewer in list(self._viewers):
            viewer.close()
        self.status.state = "stopped"

    def stream(self) -> AsyncIterator[bytes]:
        """Return MPEG-TS as it comes, from now on; ends with the camera, or where it is not taken."""
        viewer = _Viewer()
        self._viewers.add(viewer)  # before it is read: it counts from now on
        return self._streamed(viewer)

    async def _streamed(self, viewer: _Viewer) -> AsyncIterator[bytes]:
        try:
            while (data := await viewer.next()) is not None:
                yield data
        finally:
            self._viewers.discard(viewer)

    @property
    def has_room(self) -> bool:
        """Whether another viewer is let in."""
        return len(self._viewers) < VIEWERS_AT_MOST

    async def preview(self, after: int, *, limit_s: float) -> tuple[int, bytes, bytes] | None:
        """Return the next pair of pictures behind one's number, the number first; None where none comes."""
        process, after = self._process, max(after, 0)
        if process is not None and process.stdin is not None and self._preview[0] <= after:
            with contextlib.suppress(OSError, RuntimeError):
                process.stdin.write(b"\n")
        async with self._previewed:
            try:
                await asyncio.wait_for(
                    self._previewed.wait_for(lambda: self._preview[0] > after), timeout=limit_s
                )
            except TimeoutError:
                return None
        return self._preview

    async def _run(self) -> None:
        backoff = Backoff()
        lost_at: float | None = None
        while True:
            started = monotonic()
            self.status.state = "starting"
            try:
                code = await self._run_once()
            except OSError as error:
                code, self.status.error = -1, f"the process cannot be started: {error}"
            if monotonic() - started > _HELD_S:
                backoff, lost_at = Backoff(), None
            lost_at = started if lost_at is None else lost_at
            self.status.restarts += 1
            self.status.state = "lost"
            self._note(self.status.error or f"the process ended ({code}); it is started again")
            await asyncio.sleep(max(0.2, backoff.pause_s(monotonic() - lost_at)))

    async def _run_once(self) -> int:
        """Run a process to its end, and return its code; ends it where this is cancelled."""
        events, tells = os.pipe()
        previews, shows = os.pipe()
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "streamderain.serve.camera", str(os.getpid()), str(tells), str(shows)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                pass_fds=(tells, shows),
                start_new_session=True,  # most kernels weigh sessions, not threads; see system.cpu_share
                limit=_CHUNK,
            )
        finally:
            os.close(tells)
            os.close(shows)
        assert process.stdin is not None
        assert process.stdout is not None
        if self._shares is not None:
            with contextlib.suppress(OSError):  # it may have ended already
                self._shares.give(self.name, process.pid)
        self._heard_at = monotonic()
        process.stdin.write(to_orders(self.name, self.camera.source, self.camera.targets, self.options))
        reading = [
            asyncio.create_task(self._hand_on(process.stdout)),
            asyncio.create_task(self._hear(events)),
            asyncio.create_task(self._show(previews)),
        ]
        watching = asyncio.create_task(self._watch(process))
        try:
            return await process.wait()
        finally:
            watching.cancel()
            await asyncio.shield(self._end(process, reading))
            self._process = None
            if self._shares is not None:
                self._shares.take(self.name)

    async def _end(self, process: asyncio.subprocess.Process, reading: list[asyncio.Task[None]]) -> None:
        """End a process where it still runs, and read what it gave to the end."""
        await _ended(process)
        _, stuck = await asyncio.wait(reading, timeout=END_S)
        for task in stuck:  # a child of its own, say, holds the pipe
            task.cancel()
        if process.stdin is not None:
            process.stdin.close()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Kill a process that says nothing any more: it tells its progress several times a second."""
        while True:
            await asyncio.sleep(1)
            if monotonic() - self._heard_at > SILENT_S:
                self.status.error = f"the process said nothing for {SILENT_S:g} s and was replaced"
                process.kill()

    async def _hand_on(self, stream: asyncio.StreamReader) -> None:
        transport = TransportStream()
        for viewer in self._viewers:
            viewer.joins_anew()  # another process begins another stream
        while data := await stream.read(_CHUNK):
            for is_keyframe, piece in transport.pieces(data):
                for viewer in list(self._viewers):
                    viewer.give(piece, tables=transport.tables if is_keyframe else None)
                    if viewer.is_closed:  # it may have gone before it read anything
                        self._viewers.discard(viewer)

    async def _hear(self, descriptor: int) -> None:
        reader, transport = await _pipe_reader(descriptor)
        try:
            while line := await reader.readline():
                self._heard_at = monotonic()
                with contextlib.suppress(ValueError, KeyError):
                    self._take(json.loads(line))
        finally:
            transport.close()

    async def _show(self, descriptor: int) -> None:
        reader, transport = await _pipe_reader(descriptor)
        try:
            while True:
                sizes = PREVIEW_HEADER.unpack(await reader.readexactly(PREVIEW_HEADER.size))
                before, after = [await reader.readexactly(size) for size in sizes]
                async with self._previewed:
                    self._preview = (self._preview[0] + 1, before, after)
                    self._previewed.notify_all()
        except asyncio.IncompleteReadError:
            pass
        finally:
            transport.close()

    def _take(self, event: dict[str, Any]) -> None:
        """Take over what the process tells."""
        status, kind = self.status, event["kind"]
        if kind == "Progress":
            before = status.numbers if status.numbers.get("elapsed_s", 0) <= event["elapsed_s"] else {}
            passed_s = event["elapsed_s"] - before.get("elapsed_s", 0.0)
            if passed_s > 0:
                came_fps = (event["frames_in"] - before.get("frames_in", 0)) / passed_s
                past = math.exp(-passed_s / INPUT_FPS_OVER_S)
                status.input_fps = past * status.input_fps + (1.0 - past) * came_fps
            for name in ("frames_in", "frames_out", "dropped", "passed"):
                status.count(name, max(0, event[name] - before.get(name, 0)))
            status.numbers = event
            if event["frames_out"] > before.get("frames_out", 0):
                self._observed(event["latency_s"])
                status.state, status.error = "running", ""
        elif kind == "Started":
            status.size = (event["width"], event["height"])
            status.numbers = {}
        elif kind == "Rain":
            status.light = 0.8 * status.light + 0.2 * event["light"]
        elif kind == "Incident":
            self._note(event["message"])
            status.count(event["what"])
            if event["what"] in ("source lost", "source missing"):
                status.state = "lost"
        elif kind == "Failed":
            status.error = event["message"]

    def _note(self, message: str) -> None:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        told = redact(message)
        self.status.incidents.append((now, told))
        _LOG.warning("%s", told, extra={"camera": self.name})


class _Viewer:
    """One who pulls a stream, from a keyframe on; is let go where too much waits for it."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._joined = False
        self._bytes = 0
        self._closed = False

    @property
    def is_closed(self) -> bool:
        return self._closed

    def joins_anew(self) -> None:
        """Have it wait for the next keyframe."""
        self._joined = False

    def give(self, data: bytes, *, tables: bytes | None) -> None:
        """Hand on whole packets.

        Args:
            data: The packets.
            tables: What goes before them for one who joins; None where they begin with no keyframe.
        """
        if self._closed or (not self._joined and tables is None):
            return
        if not self._joined and tables is not None:
            self._joined, data = True, tables + data
        self._bytes += len(data)
        if self._bytes > VIEWER_BYTES:
            self.close()
        else:
            self._waiting.put_nowait(data)

    def close(self) -> None:
        self._closed = True
        self._waiting.put_nowait(None)

    async def next(self) -> bytes | None:
        data = await self._waiting.get()
        self._bytes -= len(data or b"")
        return data


async def _pipe_reader(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader(limit=_LINE_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    return reader, transport


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Have a process finish its recordings; kill it where that takes too long."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), END_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
