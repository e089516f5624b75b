"""The small RTSP server of tests and benchmarks leaves nothing behind, whoever is just calling."""

from __future__ import annotations

import gc
import socket
import threading
import time
from contextlib import suppress

from benchmarks.rtsp_relay import Relay


def call_until(stop: threading.Event, port: int) -> None:
    while not stop.is_set():
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            pass


def test_a_relay_that_is_closed_while_it_is_called() -> None:
    for _ in range(40):
        relay, stop = Relay(), threading.Event()
        callers = [threading.Thread(target=call_until, args=(stop, relay.port)) for _ in range(2)]
        for caller in callers:
            caller.start()
        time.sleep(0.02)
        relay.close()
        stop.set()
        for caller in callers:
            caller.join()
    # A socket that was left open is told when it is collected, which fails the test.
    gc.collect()
