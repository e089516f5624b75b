"""Recordings: files one after the other, by time and where one cannot go on, and how long they are kept."""

from __future__ import annotations

import contextlib
import os
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from time import monotonic, time
from typing import Any

from streamderain.errors import MediaError, OpenError
from streamderain.events import Incident, Incidents
from streamderain.media.writing.container import ContainerOutlet
from streamderain.media.writing.packets import duplicate
from streamderain.media.writing.sink import adopt_dead_partials
from streamderain.pacing import Backoff, KeyframeGate

DEFAULT_SPLIT_S = 60.0
"""Length of the files of a name with a time in it, unless another was asked for."""

STAMP = "-%Y%m%d-%H%M%S"
"""What is put into a name that has no time in it."""

REMOVED_AT_MOST = 100
"""Files of a run that never worked that are removed: those of its first seconds."""

HELD_BYTES_AT_MOST = 32 << 20
"""Packets of sound that wait for the pictures of their time."""

_DIRECTIVES = {
    "Y": r"\d{4}",
    "y": r"\d\d",
    "m": r"\d\d",
    "d": r"\d\d",
    "H": r"\d\d",
    "M": r"\d\d",
    "S": r"\d\d",
    "j": r"\d{3}",
    "s": r"\d+",
    "F": r"\d{4}-\d\d-\d\d",
    "T": r"\d\d:\d\d:\d\d",
}
_DIRECTIVE = re.compile(f"%([{''.join(_DIRECTIVES)}])")
_AGAIN = r"(?:-\d+)?"
"""What a name has at its end where another file had it before."""

_KEEP = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d|w|MB|GB|TB)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12}


def holds_time(name: str) -> bool:
    """Return whether a name has places for a date or time in it, such as `%Y%m%d-%H%M%S`."""
    return _DIRECTIVE.search(name) is not None


@dataclass(frozen=True, slots=True)
class Keep:
    """How much of a recording is kept.

    Attributes:
        seconds: Files that were last written to longer ago are removed; None keeps them.
        size_bytes: The oldest are removed until the others have no more than this; None keeps them.
    """

    seconds: float | None = None
    size_bytes: int | None = None

    @classmethod
    def parse(cls, text: str) -> Keep:
        """Read `7d`, `12h`, `50GB` and the like.

        Raises:
            ValueError: It is nothing of that kind.
        """
        match = _KEEP.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is neither a time (12h, 7d) nor a size (500MB, 50GB)")
        number, unit = float(match[1]), match[2]
        if unit in _SECONDS:
            return cls(seconds=number * _SECONDS[unit])
        return cls(size_bytes=round(number * _BYTES[unit]))


class RecordingNames:
    """Names the files of a recording; no name is given twice, and none that is taken.

    Args:
        path: As the user wrote it; may hold directives of `strftime`, also in folders.
        splits: Whether a new file begins every now and then: a name without a time gets one then.
        overwrite: Whether the first file may replace one of its name.
    """

    def __init__(self, path: Path, *, splits: bool, overwrite: bool) -> None:
        timed = path.with_name(f"{path.stem}{STAMP}{path.suffix}") if splits else path
        self.pattern = path if holds_time(str(path)) else timed
        self.is_timed = holds_time(str(self.pattern))
        self._may_replace = overwrite and not self.is_timed
        self._given: Path | None = None

    def next(self) -> tuple[Path, bool]:
        """Return the next path, and whether a file of that name may be replaced; its folder is made.

        Raises:
            OpenError: The folder cannot be made.
        """
        path = (
            Path(datetime.now().astimezone().strftime(str(self.pattern))) if self.is_timed else self.pattern
        )
        may_replace = self._may_replace and self._given is None
        number, wanted = 1, path
        while not may_replace and (os.path.lexists(path) or path == self._given):
            number += 1
            path = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OpenError(f"the folder {path.parent} cannot be made: {error.strerror}") from error
        self._given = path
        return path, may_replace

    def adopt(self) -> None:
        """Give what runs that were killed left behind its name: it cannot be recorded again."""
        for folder in _folders(self.pattern):
            adopt_dead_partials(folder, self._is_one)

    def remove_old(self, keep: Keep) -> None:
        """Remove the oldest files until what is kept agrees with `keep`; the one being written stays."""
        found: list[tuple[float, int, Path]] = []
        for folder in _folders(self.pattern):
            for path in folder.iterdir():
                with contextlib.suppress(OSError):
                    if self._is_one(path) and path.is_file() and not path.is_symlink():
                        status = path.stat()
                        found.append((status.st_mtime, status.st_size, path))
        found.sort()
        total = sum(size for _, size, _ in found)
        for modified_s, size, path in found:
            too_old = keep.seconds is not None and time() - modified_s > keep.seconds
            too_much = keep.size_bytes is not None and total > keep.size_bytes
            if not (too_old or too_much):
                break
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size

    def _is_one(self, path: Path) -> bool:
        """Return whether a path could be a name of this recording."""
        return _expression(self.pattern).fullmatch(str(path)) is not None


class RecordingOutlet:
    """Writes a stream into files; each counts its time from zero.

    Sound waits for the pictures of its time, so that files part both at the same moment.

    Args:
        names: Tells the files' names.
        open_file: Opens a file: path, and whether one of that name may be replaced.
        split_s: A new file begins with the first keyframe after so many seconds; None for one file.
        keep: How much is kept; None for all.
        first_video: The encoder's stream whose keyframes part the files.
        incidents: Is told where a file cannot be written, and when it goes on; None where that ends it.
        name: Of the target, for messages.

    Raises:
        MediaError: The first file cannot be opened.
    """

    may_pause = False
    stale_after_s: float | None = None
    worked = True

    def __init__(
        self,
        names: RecordingNames,
        open_file: Callable[[Path, bool], ContainerOutlet],
        *,
        split_s: float | None,
        keep: Keep | None,
        first_video: Any,
        incidents: Incidents | None,
        name: str,
    ) -> None:
        self.name = name
        self.files = 0
        self.drops = incidents is not None
        self._names, self._open_file = names, open_file
        self._split_s, self._keep = split_s, keep
        self._first_video = first_video
        self._incidents = incidents
        self._held: deque[Any] = deque()
        self._held_bytes = self._done_bytes = 0
        self._gate = KeyframeGate()
        self._began_s: Fraction | None = None
        self._backoff = Backoff()
        self._lost_at: float | None = None
        self._next_at = 0.0
        self._kept: str | None = None
        self._made: deque[Path] = deque(maxlen=REMOVED_AT_MOST)
        names.adopt()
        self._file: ContainerOutlet | None = self._opened()
        self.path = self._file.path

    @property
    def partial(self) -> str | None:
        """See `Outlet`."""
        return None if self._file is None else self._file.partial

    @property
    def written_bytes(self) -> int:
        """See `Outlet`."""
        return self._done_bytes + (0 if self._file is None else self._file.written_bytes)

    @property
    def lost(self) -> int:
        """Packets that could not be written."""
        return self._gate.lost

    def duplicate(self, packet: Any) -> Any:
        """See `media.writing.packets.duplicate`."""
        return duplicate(packet)

    def mux(self, packets: Sequence[Any]) -> None:
        """Write encoded packets; begin the next file where it is time.

        Raises:
            MediaError: A file cannot be written, and that ends the recording.
        """
        for packet in packets:
            self._mux(packet)

    def copy(self, packet: Any) -> None:
        """Take a copied packet; it is written beside the pictures of its time."""
        self._held.append(packet)
        self._held_bytes += packet.size
        while self._held_bytes > HELD_BYTES_AT_MOST:
            self._write_held()

    def finish(self) -> None:
        """Complete the last file.

        Raises:
            MediaError: It cannot be completed.
        """
        while self._held:
            self._write_held()
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.finish()
        except MediaError as error:
            kept = file.leave()
            if self._incidents is None or self.files == 1:
                self._kept = kept
                raise
            self._tell_lost(error)
        self._remove_old()

    def leave(self) -> str | None:
        """See `Outlet`: files before the last are whole."""
        file, self._file = self._file, None
        kept, self._kept = self._kept, None
        return kept if file is None else file.leave()

    def abort(self) -> None:
        """Remove what was written. Idempotent, never raises."""
        file, self._file = self._file, None
        if file is not None:
            file.abort()
        while self._made:
            with contextlib.suppress(OSError):
                self._made.pop().unlink()

    def _mux(self, packet: Any) -> None:
        time_s = None if packet.dts is None else packet.dts * packet.time_base
        parts = packet.is_keyframe and packet.stream == self._first_video
        if parts and time_s is not None and self._is_time(time_s):
            self._write_held_before(time_s)
            self._close_file()
        if self._file is None and not (parts and self._try_to_open()):
            self._gate.shut(lost=1)
            return
        if not self._gate.passes(packet.stream_index, is_keyframe=packet.is_keyframe):
            return
        file = self._file
        assert file is not None
        if self._began_s is None and time_s is not None:
            self._begin(file, time_s)
        if time_s is not None:
            self._write_held_before(time_s)
        if self._file is file:  # which the sound may have ended: its disk is full
            self._attempt(lambda: file.mux([packet]))

    def _begin(self, file: ContainerOutlet, time_s: Fraction) -> None:
        self._began_s = time_s
        if self._incidents is not None or self.files > 1:
            file.origin_s = time_s
        if self._incidents is not None:
            # Sound from before the first picture belongs to nothing that is shown.
            while self._held and _time_s(self._held[0]) < time_s:
                self._drop_held()

    def _is_time(self, time_s: Fraction) -> bool:
        began_s = self._began_s
        return self._split_s is not None and began_s is not None and time_s - began_s >= self._split_s

    def _write_held_before(self, time_s: Fraction) -> None:
        while self._held and _time_s(self._held[0]) < time_s:
            self._write_held()

    def _write_held(self) -> None:
        file, packet = self._file, self._drop_held()
        if file is not None:
            self._attempt(lambda: file.copy(packet))

    def _drop_held(self) -> Any:
        packet = self._held.popleft()
        self._held_bytes -= packet.size
        return packet

    def _close_file(self) -> None:
        file, self._file = self._file, None
        self._began_s = None
        if file is None:
            return
        try:
            file.finish()
            self._made.append(Path(file.path))
        except MediaError as error:
            file.leave()
            self._tell_lost(error)
        self._done_bytes += file.written_bytes
        self._remove_old()

    def _attempt(self, action: Callable[[], None]) -> None:
        """Write; where that fails, end the file and go on with another one later."""
        try:
            action()
        except MediaError as error:
            if self._incidents is None:
                raise
            file, self._file = self._file, None
            assert file is not None
            self._done_bytes += file.written_bytes
            file.leave()
            path = Path(file.path)
            adopt_dead_partials(path.parent, lambda one: one == path)
            self._began_s = None
            self._gate.shut()
            self._tell_lost(error)

    def _tell_lost(self, error: MediaError) -> None:
        """Have the next attempt wait.

        Raises:
            MediaError: The error, where it ends the recording.
        """
        if self._incidents is None:
            raise error
        now = monotonic()
        if self._lost_at is None:
            self._lost_at, self._backoff = now, Backoff()
            self._incidents.tell(Incident("target lost", self.name, f"{error}. The next file is tried"))
        self._next_at = now + self._backoff.pause_s(now - self._lost_at)

    def _try_to_open(self) -> bool:
        if monotonic() < self._next_at:
            return False
        try:
            self._file = self._opened()
        except MediaError as error:
            self._tell_lost(error)
            return False
        if self._lost_at is not None and self._incidents is not None:
            self._lost_at = None
            self._incidents.tell(Incident("target back", self.name, f"{self.name} goes on: {self.path}"))
        return True

    def _opened(self) -> ContainerOutlet:
        self._remove_old()
        file = self._open_file(*self._names.next())
        self.files += 1
        self.path = file.path
        return file

    def _remove_old(self) -> None:
        if self._keep is not None:
            self._names.remove_old(self._keep)


def _time_s(packet: Any) -> Fraction:
    stamp = packet.dts if packet.dts is not None else packet.pts
    return Fraction(0) if stamp is None or not packet.time_base else stamp * packet.time_base


def _expression(pattern: Path) -> re.Pattern[str]:
    """Return what matches the paths of a pattern, also those with a number at their end."""
    stem = str(pattern.with_suffix(""))
    parts, place = [], 0
    for match in _DIRECTIVE.finditer(stem):
        parts += [re.escape(stem[place : match.start()]), _DIRECTIVES[match[1]]]
        place = match.end()
    return re.compile("".join([*parts, re.escape(stem[place:]), _AGAIN, re.escape(pattern.suffix)]))


def _folders(pattern: Path) -> list[Path]:
    """Return the folders in which files of a pattern can lie."""
    fixed = pattern.parent
    while holds_time(str(fixed)):
        fixed = fixed.parent
    depth = len(pattern.parent.parts) - len(fixed.parts)
    folders = [fixed] if fixed.is_dir() else []
    for _ in range(depth):
        folders = [place for folder in folders for place in folder.iterdir() if place.is_dir()]
    return folders
