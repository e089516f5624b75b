"""Network targets: a child process carries the packets, and is replaced whenever it stops to.

Nothing here waits for the network longer than a few seconds: a child that takes nothing is killed, what comes
meanwhile is counted and left out, and the target goes on with the next keyframe once it is there again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from streamderain.addresses import redact_address
from streamderain.errors import MediaError, NotServed, OpenError, Unreachable
from streamderain.events import Incident, Incidents
from streamderain.media.writing.container import ContainerOutlet
from streamderain.media.writing.packets import duplicate
from streamderain.media.writing.publisher import Order
from streamderain.media.writing.sink import Sink
from streamderain.pacing import Backoff, KeyframeGate
from streamderain.system.process import start_child

CONNECT_S = 10.0
"""A connection that is not made within this time is given up."""

STALL_S = 3.0
"""A target that takes nothing for so long while there is something to send is stuck."""

FIRST_TRIES_S = 10.0
"""A target that has never taken anything is tried for so long, unless it is waited for."""

END_S = 3.0
"""How long a child may take to say goodbye."""

STALE_S = 1.0
"""What waited longer than this for a live target is left out, up to the next keyframe."""

_HELD_S = 5.0
"""A connection that held for so long was a good one: the next one is sought without a pause."""

_FAULTS = {kind.__name__: kind for kind in (OpenError, Unreachable, NotServed)}

_PIPE_BYTES = 1 << 20


class Publisher:
    """The process that carries packets to a network target; also the sink that its NUT goes into.

    Args:
        order: What is published where.

    Attributes:
        error: Why the last write failed; None while all is well.
        written_bytes: How much the process took.
        fault: What the process said before it ended, and whether that passes by itself.
        lost: Packets that it left out because they came too late.
    """

    def __init__(self, order: Order) -> None:
        self.error: OSError | None = None
        self.written_bytes = 0
        self.fault: OpenError | None = None
        self.lost = 0
        self._name = redact_address(order.address)
        self._began = monotonic()
        self._ready = self._done = self._closed = False
        self._taken_bytes, self._moved_at = 0, self._began
        # Without a tail that holds the address: every user of the machine can read command lines.
        command = [sys.executable, "-m", "streamderain.media.writing.publisher", str(os.getpid())]
        self._process = start_child(
            lambda: subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        assert self._process.stdin is not None
        self._fd = self._process.stdin.fileno()
        os.set_blocking(self._fd, False)
        _enlarge(self._fd)
        self._listener = threading.Thread(target=self._listen, name="publisher-listener", daemon=True)
        self._listener.start()
        with contextlib.suppress(OSError):  # it tells why when it is listened to
            self.write(order.to_line())

    @property
    def closed(self) -> bool:
        """Whether nothing more is taken. PyAV writes no trailer into a closed file."""
        return self._closed

    @property
    def is_ready(self) -> bool:
        """Whether the target has accepted the stream."""
        return self._ready

    @property
    def held_s(self) -> float:
        """Seconds since the target was connected to."""
        return monotonic() - self._began

    def connect(self) -> None:
        """Note that the header comes now: from here on the target has to answer."""
        self._began = self._moved_at = monotonic()

    def write(self, data: bytes) -> int:
        """Hand over all of `data`; return its length.

        Raises:
            OSError: The process is gone, or took nothing for too long.
        """
        rest = memoryview(data)
        while rest and not self._closed:
            try:
                count = os.write(self._fd, rest)
            except BlockingIOError:
                self._await_room()
                continue
            except OSError as error:
                self.error = self.error or error
                raise
            self.written_bytes += count
            rest = rest[count:]
        return len(data)

    def watch(self) -> None:
        """Look whether the target moves; to be called with every packet.

        Raises:
            MediaError: It does not, or the process is gone.
        """
        self.check()
        waiting = _unread_bytes(self._fd)
        taken_bytes = self.written_bytes - waiting
        if self._ready and (not waiting or taken_bytes != self._taken_bytes):
            self._taken_bytes, self._moved_at = taken_bytes, monotonic()
        if monotonic() - self._moved_at > self._patience_s:
            self.error = self.error or OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            self.check()

    def check(self) -> None:
        """Raise what ended the process or the writing.

        Raises:
            MediaError: In words; the child's own where it said any.
        """
        if self.error is None and self.fault is None and self._process.poll() is None:
            return
        if self._process.poll() is not None or isinstance(self.error, BrokenPipeError):
            self._listener.join(END_S)
        if self.fault is not None:
            raise self.fault
        if self.error is not None and self.error.errno == errno.ETIMEDOUT:
            doing = "took no data" if self._ready else "did not answer"
            raise Unreachable(f"{self._name} {doing} for {self._patience_s:g} s. Check the server")
        raise Unreachable(f"{self._name} is gone: the process that sent to it ended. It is started again")

    def keep(self) -> None:
        """Let the process send what it has, and end it.

        Raises:
            MediaError: It did not come to its end.
        """
        self._end()
        if not self._done:
            raise self.fault or Unreachable(f"{self._name} did not take the end of the stream")

    def leave(self) -> str | None:
        """Let the process send what it has, and end it; there is no file. Idempotent, never raises."""
        self._end()
        return None

    def discard(self) -> None:
        """Kill the process. Idempotent, never raises."""
        self._closed = True
        self._process.kill()
        self._end()

    @property
    def _patience_s(self) -> float:
        return STALL_S if self._ready else CONNECT_S

    def _await_room(self) -> None:
        """Wait until the pipe takes something.

        Raises:
            TimeoutError: It does not, for too long.
        """
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        if not poll.poll(1000 * self._patience_s):
            self.error = self.error or TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            raise self.error

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with contextlib.suppress(ValueError):
                    self._hear(json.loads(line))

    def _hear(self, said: dict[str, Any]) -> None:
        if said.get("ready"):
            self._ready, self._moved_at = True, monotonic()
        if "error" in said:
            self.fault = _FAULTS[said["kind"]](said["error"])
        self.lost = said.get("lost", self.lost)
        self._done = self._done or bool(said.get("done"))

    def _end(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._process.stdin and self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(END_S)


class NetworkOutlet:
    """Publishes to an address or a playlist, again and again.

    Args:
        order: What is published where.
        name: Of the target, for messages; without credentials.
        open_container: Opens NUT in a sink.
        incidents: Is told when the target is lost, and when it is back.
        worked: Whether the target has taken something before in this run.
        waits: Wait for ever for a target that has never taken anything.
        is_live: Whether the source is: what is late then is worth nothing. Else frames go out at their own
            pace.

    Attributes:
        worked: Whether the target has taken something.
    """

    partial = None
    may_pause = False

    def __init__(
        self,
        order: Order,
        *,
        name: str,
        open_container: Callable[[Sink], ContainerOutlet],
        incidents: Incidents,
        worked: bool,
        waits: bool,
        is_live: bool,
    ) -> None:
        self.name, self.path = name, redact_address(order.address)
        self.worked = worked
        self.drops = is_live
        self.stale_after_s = STALE_S if is_live else None
        self._order, self._open_container = order, open_container
        self._incidents, self._waits = incidents, waits
        self._gate = KeyframeGate()
        self._gate.shut()
        self._publishers_lost = 0
        self._container: ContainerOutlet | None = None
        self._backoff = Backoff()
        self._lost_at: float | None = None
        self._told = ""
        self._fault: MediaError | None = None
        self._next_at = self._began = 0.0
        self._written_bytes = 0
        self._clock_offset_s: float | None = None
        # Already now: while the first frames are computed, it starts.
        self._publisher: Publisher | None = Publisher(order)

    @property
    def written_bytes(self) -> int:
        """See `Outlet`."""
        return self._written_bytes + (0 if self._publisher is None else self._publisher.written_bytes)

    @property
    def lost(self) -> int:
        """Packets that were left out: while there was no target, or because they came too late."""
        late = 0 if self._publisher is None else self._publisher.lost
        return self._gate.lost + self._publishers_lost + late

    def duplicate(self, packet: Any) -> Any:
        """See `media.writing.packets.duplicate`."""
        return duplicate(packet)

    def mux(self, packets: Sequence[Any]) -> None:
        """Send encoded packets, or count those that cannot be sent.

        Raises:
            MediaError: The target has never worked, and is given up.
        """
        for packet in packets:
            if self._container is None and not (packet.is_keyframe and self._begin()):
                self._gate.shut(lost=1)
            elif self._gate.passes(packet.stream_index, is_keyframe=packet.is_keyframe):
                self._pace(packet)
                self._send(lambda container, packet=packet: container.mux([packet]))  # type: ignore[misc]

    def copy(self, packet: Any) -> None:
        """Send a copied packet, or count one that cannot be sent; see `mux`."""
        if self._container is None:
            self._gate.shut(lost=1)
        elif self._gate.passes_beside():
            self._send(lambda container: container.copy(packet))

    def finish(self) -> None:
        """End the stream.

        Raises:
            MediaError: The target has never taken anything.
        """
        container, self._container = self._container, None
        if container is None:
            self._drop_publisher()
            if not self.worked:
                raise self._fault or Unreachable(f"{self.name} has taken nothing: there was no time for it")
            return
        try:
            container.finish()
            self.worked = True
        except MediaError:
            container.abort()
            if not self.worked:
                raise

    def leave(self) -> str | None:
        """See `Outlet`."""
        with contextlib.suppress(MediaError):
            self.finish()
        return None

    def abort(self) -> None:
        """End the stream at once. Idempotent, never raises."""
        container, self._container = self._container, None
        if container is not None:
            container.abort()
        self._drop_publisher()

    def _begin(self) -> bool:
        """Start to send; return whether that can be done now."""
        if monotonic() < self._next_at:
            return False
        self._publisher = self._publisher or Publisher(self._order)
        self._publisher.connect()
        self._began = self._began or monotonic()
        try:
            self._container = self._open_container(self._publisher)
        except MediaError as error:
            self._lose(error)
        return self._container is not None

    def _pace(self, packet: Any) -> None:
        """Hold a packet of a recording until it is due."""
        if self.drops or packet.dts is None:
            return
        time_s, now = float(packet.dts * packet.time_base), monotonic()
        if self._clock_offset_s is None:
            self._clock_offset_s = now - time_s
        threading.Event().wait(max(0.0, self._clock_offset_s + time_s - now))

    def _send(self, action: Callable[[ContainerOutlet], None]) -> None:
        container, publisher = self._container, self._publisher
        assert container is not None
        assert publisher is not None
        try:
            action(container)
            publisher.watch()
        except MediaError as error:
            self._lose(publisher.fault or error)
            return
        if publisher.is_ready and (self._lost_at is not None or not self.worked):
            if self._lost_at is not None and self.worked:
                self._incidents.tell(Incident("target back", self.name, f"{self.name} is back"))
            self.worked, self._lost_at, self._told = True, None, ""

    def _lose(self, error: MediaError) -> None:
        """Drop the connection; see whether and when to try again.

        Raises:
            MediaError: The target has never worked, and is given up.
        """
        now = monotonic()
        publisher = self._publisher
        assert publisher is not None
        if publisher.is_ready and publisher.held_s > _HELD_S:
            self._backoff = Backoff()
        self._lost_at = now if self._lost_at is None else self._lost_at
        self._fault = error
        self.abort()
        self._gate.shut()
        refused = not isinstance(error, Unreachable) or (isinstance(error, NotServed) and not self.worked)
        if not (self.worked or self._waits) and (refused or now - self._began > FIRST_TRIES_S):
            raise error
        if str(error) != self._told:
            self._told = str(error)
            self._incidents.tell(Incident("target lost", self.name, f"{error}. It is tried again"))
        self._next_at = now + self._backoff.pause_s(now - self._lost_at, refused=refused)

    def _drop_publisher(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            publisher.discard()
            self._written_bytes += publisher.written_bytes
            self._publishers_lost += publisher.lost


def _unread_bytes(descriptor: int) -> int:
    """Return how much waits in a pipe."""
    return struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))[0]  # type: ignore[no-any-return]


def _enlarge(descriptor: int) -> None:
    """Let a pipe hold more, so that a large keyframe does not wait."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
