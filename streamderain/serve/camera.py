"""The process of one camera: runs it, and tells the supervisor what happens.

It is started by `serve.supervisor`, reads a line of JSON with its orders, and then a line for each preview
that somebody wants. MPEG-TS goes to standard output; events, as lines of JSON, and previews to two pipes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import struct
import sys
import threading
from collections.abc import Mapping
from time import monotonic
from typing import Any

from setproctitle import setproctitle

from streamderain.api import run
from streamderain.errors import StreamderainError
from streamderain.events import Event, Incident, Progress
from streamderain.frame import Frame
from streamderain.media.preview import jpeg, removed_light, small
from streamderain.options import EncodeOptions, EngineOptions, ReadOptions, RunOptions
from streamderain.system.allocator import share_arenas
from streamderain.system.process import die_with_parent, leave_no_core_file

PREVIEW_PX = 640
RAIN_EVERY_S = 1.0
"""How often it is measured how much rain is taken away."""

PREVIEW_HEADER = struct.Struct(">II")
"""Before each preview: bytes of the picture before, and of that after."""


def to_orders(name: str, source: str, targets: tuple[str, ...], options: RunOptions) -> bytes:
    """Return what the process is told, as a line of JSON."""
    told = {
        "name": name,
        "source": source,
        "targets": targets,
        "read": dataclasses.asdict(options.read),
        "encode": {**_plain(options.encode), "extra": dict(options.encode.extra)},
        "engine": dataclasses.asdict(options.engine),
    }
    return json.dumps(told).encode() + b"\n"


def _plain(options: EncodeOptions) -> dict[str, Any]:
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}


class Tap:
    """Looks at frames before and after: for previews that are wanted, and to see how much it rains.

    Args:
        previews: File descriptor that previews go to.
        events: Where lines of JSON go.
    """

    def __init__(self, previews: int, events: _Lines) -> None:
        self._previews, self._events = previews, events
        self._wanted = threading.Event()
        self._before: Any = None
        self._measured_at = 0.0

    def want(self) -> None:
        """Have the next frame shown."""
        self._wanted.set()

    def before(self, frame: Frame) -> None:
        """Look at a frame as it came."""
        due = monotonic() - self._measured_at > RAIN_EVERY_S
        self._before = small(frame.picture, width=PREVIEW_PX) if due or self._wanted.is_set() else None

    def after(self, frame: Frame) -> None:
        """Look at the same frame as it goes out."""
        before, self._before = self._before, None
        if before is None:
            return
        after = small(frame.picture, width=PREVIEW_PX)
        self._measured_at = monotonic()
        self._events.write({"kind": "Rain", "light": round(removed_light(before, after), 3)})
        if self._wanted.is_set():
            self._wanted.clear()
            pictures = jpeg(before), jpeg(after)
            data = PREVIEW_HEADER.pack(*map(len, pictures)) + b"".join(pictures)
            while data:
                data = data[os.write(self._previews, data) :]


class _Lines:
    """Writes lines of JSON from several threads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def write(self, values: Mapping[str, Any]) -> None:
        with self._lock:
            os.write(self._descriptor, json.dumps(values).encode() + b"\n")


def main() -> None:
    """Run the camera until the supervisor ends it; exit with the code of the run."""
    die_with_parent(int(sys.argv[1]))
    leave_no_core_file()
    share_arenas()
    events, previews = _Lines(int(sys.argv[2])), int(sys.argv[3])
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    orders = json.loads(sys.stdin.readline())
    setproctitle(f"streamderain camera {orders['name']}")
    options = RunOptions(
        read=ReadOptions(**orders["read"]),
        encode=EncodeOptions(**{**orders["encode"], "container": "mpegts"}),
        engine=EngineOptions(**orders["engine"]),
    )
    tap = Tap(previews, events)

    def listen() -> None:
        for _ in sys.stdin:
            tap.want()
        stop.set()  # the supervisor let go

    threading.Thread(target=listen, name="orders", daemon=True).start()
    try:
        report = run(
            orders["source"],
            "-",
            *orders["targets"],
            options=options,
            observer=lambda event: events.write(_told(event)),
            stop=stop,
            tap=tap,
        )
    except StreamderainError as error:
        events.write({"kind": "Failed", "message": str(error), "exit_code": error.exit_code})
        os._exit(error.exit_code)
    os._exit(report.exit_code)


def _told(event: Event) -> dict[str, Any]:
    """Return what the supervisor is told of an event."""
    if isinstance(event, Progress):
        names = ("frames_in", "frames_out", "fps", "dropped", "passed", "lag_s", "latency_s", "elapsed_s")
        return {"kind": "Progress", **{name: getattr(event, name) for name in names}}
    told = dataclasses.asdict(event)
    if isinstance(event, Incident):
        told["what"] = told.pop("kind")
    return {"kind": type(event).__name__, **told}


if __name__ == "__main__":
    main()
