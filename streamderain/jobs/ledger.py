"""Keep in a target folder what is done of an archive, so that any number of processes and machines share it.

One small set of files for each source lies in `.streamderain` in the target folder. A process that takes a
source up creates `KEY.claim-N` exclusively (a hard link, which network file systems make atomically) and
touches it as long as it works. Who finds the highest claim untouched for too long creates the next one: of
several who try, one succeeds. Ages are differences of times that the same file server wrote, so no machine's
clock matters. `KEY.done` and `KEY.failed-N` hold the results; each appears at once or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from streamderain.closable import Closable
from streamderain.errors import OpenError
from streamderain.media.writing.sink import write_error

FOLDER = ".streamderain"

LEASE_S = 60.0
"""A claim that was not touched for so long is nobody's."""

_TOUCH_S = LEASE_S / 6
_PLAN = "archive.json"

State = Literal["open", "running", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one source.

    Attributes:
        name: Of its result, relative to the target folder.
        state: Where it stands.
        owner: Who works on it, or did: a process and its machine.
        error: Why it failed, in words.
        exit_code: Of that error.
        bytes: Of the source.
        frames: That were written.
        elapsed_s: That it took.
    """

    name: str
    state: State
    owner: str = ""
    error: str = ""
    exit_code: int = 0
    bytes: int = 0
    frames: int = 0
    elapsed_s: float = 0.0


def is_done_in(archive: Path, name: str, target: str, *, overwrite: bool = False) -> bool:
    """Return whether a source of an archive is done.

    Args:
        archive: The target folder.
        name: Of the result, relative to it.
        target: Where the result lies.
        overwrite: Whether a result that its process had no time to note as done is made anew.
    """
    ledger = archive / FOLDER
    if not os.path.lexists(target):
        return False
    if _path(ledger, name, "done").exists():
        return True
    # What was not there when it was taken up got its name since then, and only whole results get one.
    first = _read(_path(ledger, name, "claim-1"))
    return first is not None and first.get("was_there") is False and not overwrite


def _path(folder: Path, name: str, suffix: str) -> Path:
    key = hashlib.sha256(os.fsencode(name)).hexdigest()[:24]
    return folder / f"{key}.{suffix}"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}  # being filled at this moment
    return found


class Ledger(Closable):
    """The ledger of one target folder.

    Args:
        target: The target folder; it must exist.
        create: Make the ledger where there is none.

    Raises:
        OpenError: There is none, or it cannot be made.
    """

    def __init__(self, target: Path, *, create: bool = True) -> None:
        self._folder = target / FOLDER
        self._process = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": psutil.Process().create_time(),
        }
        self._owner = f"process {os.getpid()} on {socket.gethostname()}"
        self._clock = self._folder / f"{uuid.uuid4().hex}.clock"
        self._held: set[Path] = set()
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._toucher: threading.Thread | None = None
        if not create and not self._folder.is_dir():
            raise OpenError(
                f"{target} holds no archive that is being worked on: it has no folder {FOLDER}. Name the "
                "target folder of a run with --recursive"
            )
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OpenError(
                f"the ledger {self._folder} cannot be made: {error.strerror}. Choose another target folder"
            ) from error

    def close(self) -> None:
        """Let go of what is still held. Idempotent."""
        self._done.set()
        if self._toucher is not None:
            self._toucher.join()
        with self._lock:
            for claim in self._held:
                # Nobody has to wait for a process that ended in good order.
                with contextlib.suppress(OSError):
                    os.utime(claim, (0, 0))
            self._held.clear()
        with contextlib.suppress(OSError):
            self._clock.unlink()

    def note_plan(self, sizes: Mapping[str, int]) -> None:
        """Note all sources of the archive: the names of their results, and their sizes in bytes.

        Raises:
            OutputFull: The disk is full.
        """
        self._replace(self._folder / _PLAN, {"files": dict(sizes)})

    def row(self, name: str) -> Row:
        """Return what is known of a source, by the name of its result."""
        done = _read(self._path(name, "done"))
        if done is not None:
            return Row(name, "done", **done)
        number = self._latest(name)
        if not number:
            return Row(name, "open")
        failed = _read(self._path(name, f"failed-{number}"))
        if failed is not None:
            return Row(name, "failed", **failed)
        claim = self._path(name, f"claim-{number}")
        told = _read(claim) or {}
        running = not self._is_gone(told) and self._is_fresh(claim)
        return Row(name, "running" if running else "open", told.get("owner", ""))

    def claim(self, name: str, target: str, *, retry_failed: bool = False) -> Claim | None:
        """Take a source up; return None where somebody else has it, or it is done or failed.

        What is done is taken up again where the result was removed since then.

        Args:
            name: Of its result.
            target: Where its result lies.
            retry_failed: Take up what failed as well.

        Raises:
            OutputFull: The disk is full.
        """
        was_there = os.path.lexists(target)
        state = self.row(name).state
        if state == "done" and not was_there:
            self._path(name, "done").unlink(missing_ok=True)
            state = "open"
        if state not in ("open", "failed") or (state == "failed" and not retry_failed):
            return None
        number = self._latest(name) + 1
        claim = self._path(name, f"claim-{number}")
        told = {"name": name, "owner": self._owner, **self._process, "was_there": was_there}
        if not self._created(claim, told):
            return None
        with self._lock:
            self._held.add(claim)
        if self._toucher is None:
            self._toucher = threading.Thread(target=self._touch, name="ledger", daemon=True)
            self._toucher.start()
        return Claim(self, name, number, claim)

    def rows(self) -> Iterator[Row]:
        """Yield what is known of every source of the archive.

        Raises:
            OpenError: No run has noted them yet.
        """
        plan = _read(self._folder / _PLAN)
        if plan is None:
            raise OpenError(f"{self._folder} holds no list of files yet; ask again once the run has begun")
        for name, size in plan["files"].items():
            row = self.row(name)
            yield row if row.bytes else Row(**{**asdict(row), "bytes": size})

    def note_done(self, name: str, target: str, size_bytes: int) -> None:
        """Note that a source is done whose process had no time for it; one that still works on it has.

        Raises:
            OutputFull: The disk is full.
        """
        claim = self.claim(name, target, retry_failed=True)
        if claim is not None:
            self.settle(claim, Row(name, "done", bytes=size_bytes))

    def settle(self, claim: Claim, row: Row) -> bool:
        """Note how a claim ended; return whether it was still held."""
        with self._lock:
            self._held.discard(claim.path)
        told = {key: value for key, value in asdict(row).items() if key not in ("name", "state")}
        if self._latest(claim.name) != claim.number:
            return False
        suffix = "done" if row.state == "done" else f"failed-{claim.number}"
        self._replace(self._path(claim.name, suffix), {**told, "owner": self._owner})
        return True

    def release(self, claim: Claim) -> None:
        """Give a source back that was not finished."""
        with self._lock:
            self._held.discard(claim.path)
        with contextlib.suppress(OSError):
            os.utime(claim.path, (0, 0))

    def _path(self, name: str, suffix: str) -> Path:
        return _path(self._folder, name, suffix)

    def _latest(self, name: str) -> int:
        number = 0
        while self._path(name, f"claim-{number + 1}").exists():
            number += 1
        return number

    def _is_gone(self, told: Mapping[str, Any]) -> bool:
        """Return whether a claim's process is known to have ended: only its own machine can tell."""
        if told.get("host") != self._process["host"]:
            return False
        try:
            return bool(psutil.Process(told["pid"]).create_time() != told["started"])
        except (psutil.NoSuchProcess, KeyError):
            return True

    def _is_fresh(self, claim: Path) -> bool:
        try:
            self._clock.touch()
            return self._clock.stat().st_mtime - claim.stat().st_mtime < LEASE_S
        except OSError:
            return False

    def _created(self, path: Path, content: Mapping[str, Any]) -> bool:
        """Create a file with content exclusively; return whether it was not there."""
        new = self._written(content)
        try:
            os.link(new, path)
        except FileExistsError:
            return False
        except OSError:
            # No hard links here (FAT, some network shares): created first, filled right after.
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            except FileExistsError:
                return False
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file)
        finally:
            new.unlink(missing_ok=True)
        return True

    def _replace(self, path: Path, content: Mapping[str, Any]) -> None:
        self._written(content).replace(path)

    def _written(self, content: Mapping[str, Any]) -> Path:
        new = self._folder / f"{uuid.uuid4().hex}.new"
        try:
            with new.open("w", encoding="utf-8") as file:
                json.dump(content, file)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            new.unlink(missing_ok=True)
            raise write_error(error, path=str(new), where=self._folder) from error
        return new

    def _touch(self) -> None:
        while not self._done.wait(_TOUCH_S):
            with self._lock:
                held = list(self._held)
            for claim in held:
                with contextlib.suppress(OSError):
                    claim.touch()


@dataclass(frozen=True, slots=True)
class Claim:
    """A source that this process has taken up.

    Attributes:
        ledger: Where.
        name: Of its result.
        number: How often it was taken up, this time included.
        path: The file that is touched.
    """

    ledger: Ledger
    name: str
    number: int
    path: Path
