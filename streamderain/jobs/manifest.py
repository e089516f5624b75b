"""Keep what is finished of a file beside its target, so that the same command goes on after whatever ends it.

A folder `NAME.pieces` holds the packets of finished pieces and `manifest.json`, which says of which source,
options and model they are, how the file was parted, and which are whole. It is replaced at once or not at
all. The folder is locked by the run that works on it, and removed once the target is whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from streamderain.closable import Closable
from streamderain.errors import ConfigError, OpenError
from streamderain.media.reading.piece import Piece
from streamderain.media.reading.trim import TimeRange
from streamderain.media.writing.outputs import packet_path
from streamderain.media.writing.sink import sync_folder, write_error
from streamderain.models import ModelCard
from streamderain.options import RunOptions
from streamderain.system.files import written_whole

VERSION = 1

_NAME = "manifest.json"
_LOCK = "lock"
_HELD = ".held"
_SAMPLES, _SAMPLE_BYTES = 16, 1 << 16

_FREE = {"threads", "device", "hwaccel", "overwrite", "skip_existing"}
"""Options that may change between a run and the one that goes on with it."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What is known of a piece that is whole.

    Attributes:
        frames: Frames that were written, over all streams.
        bytes: Of its packets, over all encodes.
        skipped: Frames that were damaged or lost in the source.
        damage: What was damaged and where, in words.
        warnings: What was said while it was made.
        passed: Frames that were let through unprocessed.
    """

    frames: int
    bytes: int
    skipped: int = 0
    damage: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    passed: int = 0


def fingerprint(path: Path) -> dict[str, Any]:
    """Return what tells a file from others: its size, and a hash of its ends and of places between."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for number in range(_SAMPLES + 1):
            file.seek(max(0, (size - _SAMPLE_BYTES) * number // _SAMPLES))
            digest.update(file.read(_SAMPLE_BYTES))
    return {"bytes": size, "sha256": digest.hexdigest()}


def identity(source: Path, targets: Sequence[Path], options: RunOptions, model: ModelCard) -> dict[str, Any]:
    """Return all that decides what the pieces of a run hold, as JSON has it."""
    of_run = {
        "read": dataclasses.asdict(options.read),
        "encode": dataclasses.asdict(options.encode),
        "engine": dataclasses.asdict(options.engine),
    }
    kept = {part: {k: v for k, v in of.items() if k not in _FREE} for part, of in of_run.items()}
    told = {
        "source": fingerprint(source),
        "targets": [path.name for path in targets],
        "model": {"name": model.name, "version": model.version, "sha256": model.sha256},
        "options": {**kept, "segment_length_s": options.work.segment_length_s},
    }
    whole: dict[str, Any] = json.loads(json.dumps(told, default=_plain))
    return whole


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)


def folder_of(target: Path) -> Path:
    """Return the folder that holds the pieces of a run with this first target, as long as it is not whole."""
    return target.with_name(f"{target.name}.pieces")


class Manifest(Closable):
    """The pieces of one target: which there are, and which are whole.

    Args:
        target: The first target of the run.

    Attributes:
        folder: Where the pieces lie.
        pieces: All pieces, in order; empty before `begin`.

    Raises:
        ConfigError: Another run works on this target.
        OpenError: The folder cannot be made or read.
    """

    def __init__(self, target: Path) -> None:
        self.folder = folder_of(target)
        self._target = target
        self.pieces: tuple[Piece, ...] = ()
        self._groups = 1
        self._finished: dict[int, Finished] = {}
        self._identity: dict[str, Any] = {}
        try:
            self._lock = self._opened_lock()
            while os.fstat(self._lock).st_nlink == 0:  # a run that ended removed it at this moment
                os.close(self._lock)
                self._lock = self._opened_lock()
        except OSError as error:
            raise OpenError(
                f"the folder {self.folder} for unfinished pieces cannot be written to: {error.strerror}. "
                "Choose a target in another folder"
            ) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def _opened_lock(self) -> int:
        """Return the descriptor of the lock, which is held until it is closed or the process ends."""
        self.folder.mkdir(exist_ok=True)
        lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(lock)
            raise ConfigError(
                f"{self._target} is being written by {owner}; wait for it, end it, or choose another target"
            ) from None
        return lock

    def close(self) -> None:
        """Let another run have the target. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def finished(self) -> Mapping[int, Finished]:
        """The pieces that are whole, by number."""
        return self._finished

    @property
    def open_pieces(self) -> Iterator[Piece]:
        """The pieces that are still to be made."""
        return (piece for piece in self.pieces if piece.number not in self._finished)

    def path(self, piece: Piece) -> Path:
        """Return where a piece lies; see `streamderain.media.writing.outputs.packet_path`."""
        return self.folder / f"{piece.number:05d}"

    def resume(self, wanted: Mapping[str, Any], *, restart: bool) -> bool:
        """Take up what an earlier run left; return whether there was anything.

        Args:
            wanted: See `identity`.
            restart: Throw away what is there.

        Raises:
            ConfigError: What is there is of another source, other options or another model.
        """
        self._identity = dict(wanted)
        if restart:
            self._clear()
            return False
        try:
            told = json.loads((self.folder / _NAME).read_text(encoding="utf-8"))
            if told["streamderain manifest"] != VERSION:
                raise ConfigError(
                    f"{self.folder} was begun by another version of streamderain; go on with that one, or "
                    "throw its pieces away with --restart"
                )
            pieces = tuple(map(_piece_of, told["pieces"]))
            finished = {int(number): _finished_of(row) for number, row in told["finished"].items()}
            groups, before = int(told["groups"]), told["identity"]
        except FileNotFoundError:
            self._clear()
            return False
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self.folder / _NAME} cannot be read ({error!r}); begin anew with --restart"
            ) from error
        changes = list(differences(before, self._identity))
        if changes:
            raise ConfigError(
                f"{self.folder} holds pieces of another run: {'; '.join(changes)}. Give the command as it "
                "was to go on, or --restart to throw the pieces away"
            )
        self.pieces, self._groups = pieces, groups
        self._finished = {
            number: row
            for number, row in finished.items()
            if number < len(pieces) and row.bytes == self._bytes(pieces[number])
        }
        return True

    def begin(self, pieces: Sequence[Piece], *, groups: int) -> None:
        """Note how the file is parted.

        Args:
            pieces: All of them.
            groups: How many encodes each has; see `streamderain.media.writing.outputs.packet_path`.

        Raises:
            OutputFull: The disk is full.
        """
        self.pieces, self._groups = tuple(pieces), groups
        self._write()

    def finish(self, piece: Piece, row: Finished) -> None:
        """Note that a piece is whole and on the disk.

        Raises:
            OutputFull: The disk is full.
        """
        self._finished[piece.number] = dataclasses.replace(row, bytes=self._bytes(piece))
        self._write()

    def forget(self, number: int) -> None:
        """Note that a piece is not whole after all."""
        self._finished.pop(number, None)
        self._write()

    def hold(self, partial: str) -> None:
        """Keep a second name of what a target will be, which tells `named` later on; call it right before.

        Without hard links (FAT, some network shares) nothing is kept, and a run that is killed at this moment
        leaves its folder behind.
        """
        with contextlib.suppress(OSError):
            os.link(partial, self.folder / f"{len(list(self._held()))}{_HELD}")
            sync_folder(self.folder)

    def named(self, targets: Sequence[Path]) -> list[Path]:
        """Return which targets a run that was killed then had given their names: they are what it held."""
        held = [path.stat() for path in self._held()]
        return [
            target
            for target in targets
            if target.exists() and any(os.path.samestat(target.stat(), one) for one in held)
        ]

    def release(self) -> None:
        """Forget what was held. Idempotent."""
        for path in self._held():
            path.unlink(missing_ok=True)

    def _held(self) -> Iterator[Path]:
        return self.folder.glob(f"*{_HELD}")

    def remove(self) -> None:
        """Remove the folder: the target is whole, or nothing was begun. Idempotent."""
        if not self.folder.is_dir():
            return
        self._clear()
        with contextlib.suppress(OSError):
            (self.folder / _LOCK).unlink()
            self.folder.rmdir()

    def _bytes(self, piece: Piece) -> int:
        total = 0
        for group in range(self._groups):
            with contextlib.suppress(OSError):
                total += packet_path(self.path(piece), group).stat().st_size
        return total

    def _clear(self) -> None:
        self.pieces, self._finished = (), {}
        for path in self.folder.iterdir():
            if path.name != _LOCK and (path.suffix == ".packets" or path.name.startswith(_NAME)):
                path.unlink(missing_ok=True)
        self.release()  # at the very end: until then it can be told whose the targets are

    def _write(self) -> None:
        told = {
            "streamderain manifest": VERSION,
            "identity": self._identity,
            "groups": self._groups,
            "pieces": [_piece_row(piece) for piece in self.pieces],
            "finished": {str(number): dataclasses.asdict(row) for number, row in self._finished.items()},
        }
        try:
            with written_whole(self.folder / _NAME) as partial:
                partial.write_text(json.dumps(told), encoding="utf-8")
        except OSError as error:
            raise write_error(error, path=str(self.folder / _NAME), where=self.folder) from error


def _piece_row(piece: Piece) -> dict[str, Any]:
    start_s, end_s = piece.time_range.start_s, piece.time_range.end_s
    return {
        "start_s": None if start_s is None else str(start_s),
        "end_s": None if end_s is None else str(end_s),
        "offset_s": str(piece.offset_s),
        "keys": piece.keys,
        "frames": piece.frames,
    } | {"number": piece.number}


def _piece_of(row: Mapping[str, Any]) -> Piece:
    start_s, end_s = (None if row[side] is None else Fraction(row[side]) for side in ("start_s", "end_s"))
    return Piece(
        int(row["number"]),
        TimeRange(start_s, end_s),
        Fraction(row["offset_s"]),
        tuple(row["keys"]),
        tuple(row["frames"]),
    )


def _finished_of(row: Mapping[str, Any]) -> Finished:
    return Finished(**{**row, "damage": tuple(row["damage"]), "warnings": tuple(row["warnings"])})


def differences(before: Mapping[str, Any], now: Mapping[str, Any], *, of: str = "") -> Iterator[str]:
    """Yield in words where two nested tables differ."""
    for name in sorted({*before, *now}):
        was, is_now = before.get(name), now.get(name)
        place = f"{of}{name.replace('_', ' ')}"
        if isinstance(was, Mapping) and isinstance(is_now, Mapping):
            yield from differences(was, is_now, of=f"{place}, ")
        elif was != is_now:
            yield f"{place} was {_shown(was)}, is now {_shown(is_now)}"


def _shown(value: Any) -> str:
    text = "the default" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
