"""What the pipeline asks of its parts. Nothing here imports a media library or a runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from streamderain.frame import Frame, Planes, StreamInfo
from streamderain.trace import Trace

Packet = Any
"""A compressed packet, opaque to the pipeline (``av.Packet``)."""


class FrameSource(Protocol):
    """Yields frames and, beside them, the packets of streams that are copied."""

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """The video streams, in order of position."""

    def frames(self, copy: Callable[[Packet], None]) -> Iterator[Frame]:
        """Yields the frames of all video streams as they are decoded; calls ``copy`` with copied packets.

        Runs in the reader thread. Frames of one stream come in presentation order, pts strictly
        increasing. Damage met on the way is counted in the source's own record, not raised.
        """

    def close(self) -> None:
        """Releases the source. Idempotent; may be called while ``frames`` is suspended."""


class Encoder(Protocol):
    """Turns the derained frames of one stream into packets.

    Attributes:
        trace: Receives how long it takes to write planes back; may be set before the first frame.
    """

    trace: Trace | None

    def encode(self, frame: Frame, planes: Planes | None) -> Sequence[Packet]:
        """Writes ``planes`` into a writable copy of the frame and encodes it.

        Args:
            frame: The source frame whose token was popped.
            planes: The derained colour components, the first ones of ``frame.planes`` (a luma model gives
                luma alone); None passes the frame through unchanged. Valid only during the call.

        Returns:
            The packets that became ready, maybe none.
        """

    def flush(self) -> Sequence[Packet]:
        """Returns the packets still inside the encoder. Called once, after the last frame."""


class Outlet(Protocol):
    """Takes packets into one target. ``mux`` and ``copy`` may be called from different threads."""

    def mux(self, packets: Sequence[Packet]) -> None:
        """Writes encoded packets."""

    def copy(self, packet: Packet) -> None:
        """Writes a packet of a copied stream; one this target does not hold is ignored."""

    def finish(self) -> None:
        """Completes the target and gives it its name."""

    def abort(self) -> None:
        """Removes what was written so far. Idempotent, never raises."""


class Output(Protocol):
    """One encode of every stream, fed to one or more targets."""

    @property
    def encoders(self) -> Sequence[Encoder]:
        """One encoder per video stream of the source, in order of position."""

    @property
    def outlets(self) -> Sequence[Outlet]:
        """The targets; each takes every packet of every encoder."""
