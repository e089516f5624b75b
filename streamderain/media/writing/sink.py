"""Sinks for the bytes of a target: a partial file beside its place, or standard output.

The muxers write through these objects and not to a path of their own, because FFmpeg keeps some write
errors to itself (a fragmented mp4 on a full disk looks well until it is closed). A sink remembers the first
error, and the outlet asks for it after every packet.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from streamderain.errors import MediaError, OpenError, OutputFull

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_CHUNK_BYTES = 1 << 16
"""So much is written at a time, so that a slow reader of a pipe is seen to make progress."""

_MARK = "user.streamderain.partial"
"""Extended attribute of a partial file that streamderain made: nobody else's is ever removed."""

_PARTIAL = re.compile(r"(.+)\.partial(?:-\d+)?(\.[^.]+)")
"""A name that `_partial_name` made, and which it was made of; not of names that had to be shortened."""

_GAP = 3
"""So many names in a row that are free end the search for earlier partial files."""


class Sink(Protocol):
    """A place for bytes. `write`, `seek` and `tell` are what PyAV asks of a file object.

    Attributes:
        error: The first failed write; None while all is well.
        written_bytes: How much went out so far; grows as long as the target takes data.
    """

    error: OSError | None
    written_bytes: int

    def write(self, data: bytes) -> int:
        """Write all of `data`; return its length."""

    def check(self) -> None:
        """Raise the first error met so far, in words."""

    def keep(self) -> None:
        """Complete the target and give it its name."""

    def leave(self) -> str | None:
        """End the writing of what is not whole; return the name it is kept under, None without one."""

    def discard(self) -> None:
        """Drop what was written. Idempotent, never raises; later writes go nowhere."""


def write_error(error: OSError, *, path: str, where: Path | None) -> MediaError:
    """Return the error of the tree for a failed write.

    Args:
        error: What the system said.
        path: Name of the target, for the message.
        where: Folder whose free space is told; None where the target is no file.
    """
    if error.errno == errno.EPIPE:
        return MediaError(
            f"cannot write to {path}: its reader went away. Check the command that reads this output"
        )
    if error.errno not in FULL:
        return MediaError(
            f"cannot write to {path}: {error.strerror or error}. Choose another place and run again"
        )
    free = ""
    with contextlib.suppress(OSError):
        free = f" ({shutil.disk_usage(where).free:,} bytes free)" if where is not None else ""
    if error.errno == errno.EFBIG:
        advice = "raise the file-size limit (ulimit -f), or choose another file system or a higher --crf"
    else:
        advice = "free some space, choose another disk, or a higher --crf for a smaller file"
    return OutputFull(f"no room to write {path}: {error.strerror}{free}. To go on: {advice}")


class _DescriptorSink:
    """What sinks that write to a file descriptor share.

    Args:
        descriptor: Where the bytes go; closed with the sink.
    """

    def __init__(self, descriptor: int) -> None:
        self.error: OSError | None = None
        self.written_bytes = 0
        self._fd = descriptor
        self._dead = False

    @property
    def closed(self) -> bool:
        """Whether the writing ended. PyAV writes no trailer into a closed file."""
        return self._dead

    def write(self, data: bytes) -> int:
        """Write all of `data`, wait while a reader is slow; return its length.

        Raises:
            OSError: The write failed; the first such error is kept for `check`.
        """
        if self._dead:
            return len(data)
        try:
            for count in _written(self._fd, data):
                self.written_bytes += count
        except OSError as error:
            self.error = self.error or error
            raise
        return len(data)

    def _close(self) -> None:
        self._dead = True
        with contextlib.suppress(OSError):
            os.close(self._fd)


class PartialFile(_DescriptorSink):
    """A file written as `NAME.partial.EXT` beside its place and renamed when whole.

    The partial file is locked while it is written and marked as streamderain's own. When a target is whole,
    what earlier runs left unfinished of it is removed: marked files that nobody holds a lock on.

    Args:
        path: The name it gets in the end. Its folder must exist.
        overwrite: Whether `keep` may replace a file of that name.

    Attributes:
        partial: Where it is written.

    Raises:
        OpenError: The folder cannot be written to.
        OutputFull: The disk is full already.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.partial, descriptor = _create_beside(path)
        super().__init__(descriptor)
        self.path = path
        self._overwrite = overwrite
        # The lock before the mark: what is marked and not locked is nobody's.
        if _locked(self._fd):
            with contextlib.suppress(OSError):  # a file system without attributes: nothing is removed there
                os.setxattr(self._fd, _MARK, b"1")

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the place of the next write; return it, in bytes."""
        return 0 if self._dead else os.lseek(self._fd, offset, whence)

    def tell(self) -> int:
        """Return the place of the next write, in bytes."""
        return 0 if self._dead else os.lseek(self._fd, 0, os.SEEK_CUR)

    def check(self) -> None:
        """Raise the first error met so far.

        Raises:
            OutputFull: The disk, quota or size limit is full.
            MediaError: Any other failed write.
        """
        if self.error is not None:
            raise write_error(self.error, path=str(self.path), where=self.path.parent) from self.error

    def keep(self) -> None:
        """Bring the bytes to the disk and give the file its name; may be left or discarded after a failure.

        What earlier runs left of this target is removed.

        Raises:
            OutputFull: The disk is full.
            OpenError: A file of that name appeared meanwhile.
        """
        # Before the rename: a crash just after must not leave the name on a file without its bytes.
        self._synchronise()
        self.check()
        self._rename()
        with contextlib.suppress(OSError):
            os.removexattr(self._fd, _MARK)
        self._close()
        remove_dead_partials(self.path)
        sync_folder(self.path.parent)

    def leave(self) -> str | None:
        """End the writing and keep the partial file. Idempotent, never raises.

        Returns:
            Its path; None where it was kept, left or discarded before.
        """
        if self._dead:
            return None
        self._synchronise()
        self._close()
        return str(self.partial)

    def _synchronise(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            # A special file (/dev/full, a pipe) cannot be synchronised, and need not be.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                self.error = self.error or error

    def discard(self) -> None:
        """Remove the partial file. Idempotent, never raises."""
        if self._dead:
            return
        self._close()
        with contextlib.suppress(OSError):
            self.partial.unlink()

    def _rename(self) -> None:
        if self._overwrite:
            self.partial.replace(self.path)
            return
        try:
            # A link fails where the name exists; a rename would replace it.
            os.link(self.partial, self.path)
        except FileExistsError as error:
            raise OpenError(
                f"{self.path} appeared while it was being made, and is not replaced. The result is whole: "
                "move either of the two files"
            ) from error
        except OSError:
            # This file system has no hard links (FAT, some network shares).
            self.partial.rename(self.path)
        else:
            self.partial.unlink()


class StandardOutput(_DescriptorSink):
    """Standard output as a sink; it cannot be sought, and nothing is renamed.

    Args:
        descriptor: File descriptor to write to; a copy of it is used.
    """

    def __init__(self, descriptor: int = 1) -> None:
        super().__init__(os.dup(descriptor))

    def check(self) -> None:
        """Raise the first error met so far.

        Raises:
            OutputFull: What standard output leads to is full.
            MediaError: Its reader went away, or any other failed write.
        """
        if self.error is not None:
            raise write_error(self.error, path="standard output", where=None) from self.error

    def keep(self) -> None:
        """End the writing."""
        self.check()
        self.discard()

    def leave(self) -> str | None:
        """End the writing; there is no file to keep. Idempotent, never raises."""
        self.discard()
        return None

    def discard(self) -> None:
        """End the writing; what went out cannot be taken back. Idempotent, never raises."""
        if not self._dead:
            self._close()


class NullSink:
    """A sink for trials: takes everything, keeps nothing, and can be sought.

    Attributes:
        closed: Set it before closing the container: PyAV then writes no trailer, and FFmpeg < 9 crashes on
            that of a fragmented mp4 without packets.
    """

    def __init__(self) -> None:
        self.closed = False
        self._place = 0

    def write(self, data: bytes) -> int:
        """Forget `data`; return its length."""
        self._place += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Pretend to move; return the place in bytes."""
        self._place = offset if whence == os.SEEK_SET else self._place + offset
        return self._place

    def tell(self) -> int:
        """Return the pretended place, in bytes."""
        return self._place


def _written(descriptor: int, data: bytes) -> Iterator[int]:
    """Write all of `data` in pieces; yield the size of each once it is out."""
    rest = memoryview(data)
    while rest:
        count = os.write(descriptor, rest[:_CHUNK_BYTES])
        yield count
        rest = rest[count:]


def _partial_name(path: Path, number: int) -> Path:
    """Return the name of the partial file of that number, from 1."""
    mark = "partial" if number == 1 else f"partial-{number}"
    # A file name holds at most 255 bytes, and the mark must not make it longer. Names need not be text.
    suffix = os.fsencode(path.suffix)
    room = 250 - len(mark) - 1 - len(suffix)
    stem = os.fsencode(path.stem)[:room]
    if len(stem) == room:
        stem = stem.decode(errors="ignore").encode() or stem  # not in the middle of a character
    return path.with_name(os.fsdecode(stem + f".{mark}".encode() + suffix))


def _locked(descriptor: int) -> bool:
    """Take the lock that says: this file is being written. It ends with the process, whatever ends that."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove_dead_partials(path: Path) -> None:
    """Remove what runs that ended left unfinished of a target; files of living runs and of others stay."""
    missing = 0
    for number in itertools.count(1):
        try:
            descriptor = os.open(_partial_name(path, number), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            missing += 1
            if missing == _GAP:
                return
            continue
        except OSError:
            missing = 0
            continue
        missing = 0
        try:
            if _locked(descriptor):
                os.getxattr(descriptor, _MARK)  # raises where there is none
                _partial_name(path, number).unlink()
        except OSError:
            pass
        finally:
            os.close(descriptor)


def adopt_dead_partials(folder: Path, belongs: Callable[[Path], bool]) -> None:
    """Give the partial files of runs that ended their names: each is as much as there is of it.

    Args:
        folder: Where they lie.
        belongs: Tells whether a name is one of those that are looked for.
    """
    for partial in folder.iterdir():
        match = _PARTIAL.fullmatch(partial.name)
        path = partial.with_name(match[1] + match[2]) if match else None
        if path is None or not belongs(path) or os.path.lexists(path):
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(partial, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if _locked(descriptor):
                    os.getxattr(descriptor, _MARK)  # raises where there is none
                    os.link(partial, path)
                    os.removexattr(partial, _MARK)
                    partial.unlink()
            finally:
                os.close(descriptor)


def _create_beside(path: Path) -> tuple[Path, int]:
    for number in range(1, 1000):
        partial = _partial_name(path, number)
        try:
            # O_EXCL: a partial that is there already belongs to another run.
            return partial, os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno in FULL:
                raise write_error(error, path=str(path), where=path.parent) from error
            raise OpenError(
                f"cannot write into {path.parent}: {error.strerror}. Choose another folder"
            ) from error
    raise OpenError(
        f"{path.parent} holds hundreds of unfinished files of {path.name}: remove *.partial* there"
    )


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where its file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
