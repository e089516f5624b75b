"""Protocols of the pipeline's parts. Imports no media library and no runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from streamderain.frame import Frame, Planes, StreamInfo

Packet = Any
"""A compressed packet, opaque to the pipeline (`av.Packet`)."""


class FrameSource(Protocol):
    """Yields frames and, beside them, the packets of streams that are copied.

    Attributes:
        is_live: Whether it goes on until somebody ends it: what was read until then is the whole of it.
        is_complete: Whether all frames that will be written were yielded: what may follow only helps the last
            ones.
        was_stopped: Whether it gave up at a stop that it was told of by itself: it was not read to its end.
    """

    @property
    def is_live(self) -> bool:
        """See the attributes."""

    @property
    def was_stopped(self) -> bool:
        """See the attributes."""

    @property
    def is_complete(self) -> bool:
        """See the attributes."""

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """The video streams, in order of position."""

    def frames(self, copy: Callable[[Packet], None]) -> Iterator[Frame]:
        """Yield the frames of all video streams as they are decoded; call `copy` with copied packets.

        Runs in the reader thread. Frames of one stream come in presentation order, pts strictly
        increasing. Damage met on the way is counted in the source's own record, not raised.
        """

    def refresh(self) -> bool:
        """Ask a live source to begin anew at the present; return whether that can be done."""

    def end(self) -> bool:
        """End a source that brings nothing more, from another thread; return whether that can be done."""

    def close(self) -> None:
        """Release the source. Idempotent; may be called while `frames` is suspended."""


class Encoder(Protocol):
    """Turns the derained frames of one stream into packets."""

    def encode(self, frame: Frame, planes: Planes | None) -> Sequence[Packet]:
        """Write `planes` into a writable copy of the frame and encode it.

        Args:
            frame: The source frame whose token was popped.
            planes: The derained colour components, the first ones of `frame.planes` (a luma model gives
                luma alone); None passes the frame through unchanged. Valid only during the call.

        Returns:
            The packets that became ready, maybe none.
        """

    def flush(self) -> Sequence[Packet]:
        """Return the packets still inside the encoder. Called once, after the last frame."""

    def close(self) -> None:
        """Release the encoder. Idempotent; its packets must have been written before."""


class Outlet(Protocol):
    """Takes packets into one target. Everything but `duplicate` runs on one thread.

    Attributes:
        name: Of the target, as the user wrote it.
        path: Where it lies, in full; empty for standard output.
        may_pause: Whether it may stand still for as long as it likes: a pipe, whose reader may wait for
            somebody.
        drops: Whether what finds no room is dropped, up to the next keyframe, instead of being waited for.
        stale_after_s: What waited longer than this is dropped as well; None for as long as it takes.
        worked: Whether it has ever taken anything.
        lost: Packets that it left out by itself, while it could not be written to.
        partial: Path of what is written so far where that has another name than the target; None where not.
        written_bytes: Grows as long as the target takes data; may be read from any thread.
    """

    name: str
    path: str
    may_pause: bool
    drops: bool
    stale_after_s: float | None

    @property
    def worked(self) -> bool:
        """See the attributes."""

    @property
    def lost(self) -> int:
        """See the attributes."""

    @property
    def partial(self) -> str | None:
        """See the attributes."""

    @property
    def written_bytes(self) -> int:
        """See the attributes."""

    def duplicate(self, packet: Packet) -> Packet:
        """Return a copy that may be written while another outlet writes the packet."""

    def mux(self, packets: Sequence[Packet]) -> None:
        """Write encoded packets."""

    def copy(self, packet: Packet) -> None:
        """Write a packet of a copied stream; one this target does not hold is ignored."""

    def finish(self) -> None:
        """Complete the target and give it its name."""

    def leave(self) -> str | None:
        """End the target as it is, playable, under its partial name. Idempotent, never raises.

        Returns:
            The path of what is kept; None where nothing is, or where it lies under the target's own name.
        """

    def abort(self) -> None:
        """Remove what was written so far: nothing was begun. Idempotent, never raises."""


class Tap(Protocol):
    """Looks at the frames of the first video stream. Runs on the thread that encodes: it has to be quick."""

    def before(self, frame: Frame) -> None:
        """Look at a frame as it was read."""

    def after(self, frame: Frame) -> None:
        """Look at the same frame once its result is in its picture."""


class Output(Protocol):
    """One encode of every stream, fed to one or more targets."""

    @property
    def encoders(self) -> Sequence[Encoder]:
        """One encoder per video stream of the source, in order of position."""

    @property
    def outlets(self) -> Sequence[Outlet]:
        """The targets; each takes every packet of every encoder."""
