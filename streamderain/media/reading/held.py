"""Descriptions of streams that outlive the connection they came by: FFmpeg frees its own with that."""

from __future__ import annotations

from typing import Any

import av

from streamderain.media.reading.file import FileSource


class _Nowhere:
    """A file of which nothing is kept."""

    closed = True  # PyAV writes no trailer into a closed file

    def write(self, data: bytes) -> int:
        return len(data)


class HeldStreams:
    """Holds the parameters, tags and clocks of a connection's streams in a container that is never written.

    Args:
        source: The connection.

    Attributes:
        container: Has the connection's tags.
        copied: Those of the copied streams that could be held.
        warnings: Streams that could not.
    """

    def __init__(self, source: FileSource) -> None:
        self.container = av.open(_Nowhere(), "w", format="nut")
        self.container.metadata.update(source.container.metadata)
        self.warnings: list[str] = []
        self._held: dict[int, Any] = {}
        video = [track.stream for track in source.tracks]
        for stream in sorted((*video, *source.copied), key=lambda one: one.index):
            try:
                held = self.container.add_stream_from_template(stream, opaque=True)
            except (ValueError, TypeError, av.error.FFmpegError):
                self.warnings.append(
                    f"{stream.type} stream {stream.index} is of an unknown kind: it is left out"
                )
                continue
            held.time_base = stream.time_base
            held.metadata.update(stream.metadata)
            held.disposition = stream.disposition
            self._held[stream.index] = held
        wanted = {stream.index for stream in source.copied}
        self.copied = tuple(held for index, held in self._held.items() if index in wanted)
        self._originals = {held.index: index for index, held in self._held.items()}

    def of(self, stream: Any) -> Any:
        """Return the description of a stream of this or a later connection; None where there is none."""
        return self._held.get(stream.index)

    def original_index(self, held_index: int) -> int:
        """Return which stream of the connection a description is of."""
        return self._originals[held_index]

    def close(self) -> None:
        """Free the descriptions. Idempotent."""
        self.container.close()
