"""Write image files: one still, a numbered run, or files named like their sources."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av

from streamderain.errors import EncodeError, OpenError
from streamderain.media.writing.jpeg_tags import with_jpeg_tags
from streamderain.media.writing.packets import duplicate
from streamderain.media.writing.sink import PartialFile, write_error


class ImageOutlet:
    """Writes every packet into a file of its own, each whole before it gets its name.

    Args:
        place: Gives the path of a picture from its number, from 0, and its pts.
        limit: How many pictures the target holds; None for any number.
        overwrite: Whether existing files may be replaced.
        name: Name of the target, for messages.
        folder: Folder to make first, where it does not exist yet; None where it does.
        tags: Gives from a pts the JPEG segments its source had; None for other kinds.

    Raises:
        OpenError: The folder cannot be made.
    """

    def __init__(
        self,
        place: Callable[[int, int], Path],
        *,
        limit: int | None,
        overwrite: bool,
        name: str,
        folder: Path | None = None,
        tags: Callable[[int], bytes] | None = None,
    ) -> None:
        self.name = name
        self.path = str(Path(name).absolute())
        self.may_pause = self.drops = False
        self.lost = 0
        self.stale_after_s: float | None = None
        self.partial: str | None = None
        self.written_bytes = 0
        self._tags = tags
        self._place = place
        self._limit = limit
        self._overwrite = overwrite
        self._lock = threading.Lock()
        self._written: list[Path] = []
        self._times: deque[int] = deque()
        self._done = False
        self._folder = _made(folder, name)

    @property
    def worked(self) -> bool:
        """Whether any picture was written."""
        return bool(self._written)

    def note(self, pts: int) -> None:
        """Take the pts of a frame before its packet comes."""
        self._times.append(pts)

    def mux(self, packets: Sequence[av.Packet[Any]]) -> None:
        """Write encoded pictures.

        Raises:
            OutputFull: The disk, quota or size limit is full.
            EncodeError: More pictures than the target holds.
            OpenError: A file of that name exists, or the folder cannot be written to.
            MediaError: The write failed otherwise.
        """
        with self._lock:
            for packet in packets:
                self._write(bytes(packet))

    def copy(self, packet: av.Packet[Any]) -> None:
        """Ignore the packet: images hold no other streams."""

    def finish(self) -> None:
        """Nothing is left to do: every file is whole already.

        Raises:
            EncodeError: No picture came.
        """
        with self._lock:
            self._done = True
            if not self._written:
                raise EncodeError(f"{self.name}: no picture to write; the source gave none")

    def duplicate(self, packet: av.Packet[Any]) -> av.Packet[Any]:
        """See `media.writing.packets.duplicate`."""
        return duplicate(packet)

    def leave(self) -> str | None:
        """Nothing is left to do: every picture that was written is whole and has its name."""
        with self._lock:
            self._done = True
            self._remove_empty_folder()
        return None

    def abort(self) -> None:
        """Remove the files of this run. Idempotent, never raises."""
        with self._lock:
            if self._done:
                return
            self._done = True
            for path in self._written:
                with contextlib.suppress(OSError):
                    path.unlink()
            self._remove_empty_folder()

    def _remove_empty_folder(self) -> None:
        """Remove the folder that was made for the pictures where it holds none."""
        if self._folder is not None:
            with contextlib.suppress(OSError):
                self._folder.rmdir()

    def _write(self, data: bytes) -> None:
        number = len(self._written)
        if self._limit is not None and number >= self._limit:
            raise EncodeError(
                f"{self.name} holds one picture and the source has more; "
                "name a folder (frames/), a pattern (frames/%06d.png) or a video file"
            )
        pts = self._times.popleft()
        path = self._place(number, pts)
        if self._tags is not None:
            data = with_jpeg_tags(data, self._tags(pts))
        file = PartialFile(path, overwrite=self._overwrite)
        try:
            try:
                file.write(data)
            except OSError as error:
                raise write_error(error, path=str(path), where=path.parent) from error
            file.keep()
        except BaseException:
            file.discard()
            raise
        self._written.append(path)
        self.written_bytes += len(data)


def _made(folder: Path | None, name: str) -> Path | None:
    if folder is None or folder.is_dir():
        return None
    try:
        folder.mkdir()
    except OSError as error:
        raise OpenError(f"{name}: cannot make the folder {folder}: {error.strerror}") from error
    return folder
