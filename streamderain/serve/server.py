"""Run a site until a signal ends it: cameras, page, reload on SIGHUP, systemd's notifications."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from pathlib import Path

import uvicorn

from streamderain.errors import ConfigError, StreamderainError
from streamderain.serve.config import check_site, read_site, readable_by_others
from streamderain.serve.connection import Connection
from streamderain.serve.site import RunningSite
from streamderain.serve.web import application

_LOG = logging.getLogger("streamderain.serve")

CONNECTIONS_AT_MOST = 200
GRACE_S = 3
_SECOND_US = 1_000_000


def serve(path: Path) -> None:
    """Run the site of a file.

    Raises:
        ConfigError: The file is wrong, or its address cannot be listened on.
    """
    asyncio.run(_serve(path))


async def _serve(path: Path) -> None:
    site = RunningSite(read_site(path))
    if readable_by_others(path):
        _LOG.warning("%s holds secrets and can be read by others: chmod 600 it, or use ${NAME}", path)
    listening = _listening(site.site.host, site.site.port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.create_task(_reload(site, path))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    server = _Server(
        uvicorn.Config(
            application(site),
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=CONNECTIONS_AT_MOST,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=GRACE_S,
            h11_max_incomplete_event_size=16_384,
            lifespan="off",
            http=Connection,
        )
    )
    await site.start()
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    watching = asyncio.create_task(_notify_systemd())
    _LOG.info("listening on http://%s:%d", site.site.host, listening.getsockname()[1])
    await asyncio.wait([asyncio.create_task(stop.wait()), serving], return_when=asyncio.FIRST_COMPLETED)
    _tell_systemd("STOPPING=1")
    watching.cancel()
    await site.stop()
    server.should_exit = True
    await serving


class _Server(uvicorn.Server):
    """Leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


async def _reload(site: RunningSite, path: Path) -> None:
    try:
        wanted = read_site(path)
        check_site(wanted)
    except StreamderainError as error:
        _LOG.error("the file was not taken over, all cameras go on as they were: %s", error)
        return
    if wanted.listen != site.site.listen:
        _LOG.warning("listen: %s is taken over at the next start, not before", wanted.listen)
    changed = await site.reload(wanted)
    _LOG.info("the file was taken over; changed cameras: %s", ", ".join(changed) or "none")


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"listen: {host}:{port} cannot be listened on: {error.strerror}; choose another port"
        ) from error
    return listening


async def _notify_systemd() -> None:
    """Tell systemd (Type=notify) that we run, and again as often as its watchdog wants."""
    _tell_systemd("READY=1")
    every_us = int(os.environ.get("WATCHDOG_USEC", 0))
    while every_us:
        await asyncio.sleep(every_us / _SECOND_US / 2)
        _tell_systemd("WATCHDOG=1")


def _tell_systemd(message: str) -> None:
    place = os.environ.get("NOTIFY_SOCKET")
    if place:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaking, contextlib.suppress(OSError):
            speaking.connect(place.replace("@", "\0", 1) if place.startswith("@") else place)
            speaking.send(message.encode())
