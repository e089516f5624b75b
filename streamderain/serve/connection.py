"""A connection of HTTP that nobody can hold on to: requests come soon, and answers are taken.

uvicorn bounds what a request holds and how many connections there are, but not how long a client may take
over its request or leave an answer unread: with as many such clients everybody else would be refused.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 10.0
"""How long a request may take to come, from its connection or first byte on."""

UNREAD_S = 15.0
"""How long an answer may wait for a client that takes nothing of it."""


class Connection(H11Protocol):
    """Hangs up on a client that sends or takes too slowly."""

    _awaiting: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._awaiting = self.loop.call_later(REQUEST_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Take what came; the next request of a connection that is kept has its own time."""
        if self._awaiting is None and not self._is_answering:
            self._awaiting = self.loop.call_later(REQUEST_S, self.transport.abort)
        super().data_received(data)
        if self._is_answering and self._awaiting is not None:
            self._awaiting.cancel()
            self._awaiting = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        for waiting in (self._awaiting, self._unread):
            if waiting is not None:
                waiting.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin to wait for a client to take what is there."""
        super().pause_writing()
        self._unread = self._unread or self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Note that the client took what was there."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete
