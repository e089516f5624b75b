"""Keep compiled plans on disk, and give back none that does not match.

A plan belongs to one graph, one version of one package, one kind of card. Beside each lies a sidecar that
says all of that, with the plan's own checksum: TensorRT does not notice a flipped bit. Whatever differs is
built again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from streamderain.errors import PlanCacheError
from streamderain.system.files import written_whole

LIMIT_BYTES = 8 << 30
"""What all plans together may take; the longest unused go first."""

LIMIT_VARIABLE = "STREAMDERAIN_PLANS_LIMIT_GIB"

_WAIT_S = 0.2


@dataclass(frozen=True, slots=True)
class PlanKey:
    """All that a plan depends on.

    Attributes:
        model: Name and version of the model, for people.
        graph_sha256: Of the graph with its adapter and weights.
        package: `tensorrt` or `tensorrt_rtx`.
        version: Of the package.
        capability: `sm89`.
        card: Name of the card where plans are tuned to one; empty where they fit its whole kind.
        precision: `f16` or `f32`.
        size: Width and height, px.
        planes: Chroma layout, depth and range of the frames.
        flags: Whatever else changes the plan.
    """

    model: str
    graph_sha256: str
    package: str
    version: str
    capability: str
    card: str
    precision: str
    size: tuple[int, int]
    planes: str
    flags: tuple[str, ...]

    @property
    def name(self) -> str:
        """A name for files: no two keys have the same one."""
        told = json.dumps(asdict(self), sort_keys=True)
        return f"{self.model.split()[0]}-{hashlib.sha256(told.encode()).hexdigest()[:24]}"


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """A plan in the cache.

    Attributes:
        key: What it was built for.
        path: Of the plan; the sidecar ends in `.json`, the runtime's own cache in `.runtime`.
        sha256: Of the plan.
        size_bytes: Of the plan.
        activation_bytes: Device memory that one computation takes for itself.
        used_s: When it was used last, seconds since 1970.
    """

    key: PlanKey
    path: Path
    sha256: str
    size_bytes: int
    activation_bytes: int
    used_s: float

    @property
    def runtime_cache(self) -> Path:
        """Where the runtime keeps what it compiles from the plan on the card."""
        return self.path.with_suffix(".runtime")


class PlanCache:
    """Plans in a folder.

    Args:
        folder: Where; made when the first plan is kept.
        limit_bytes: What all plans together may take.
    """

    def __init__(self, folder: Path | None = None, *, limit_bytes: int | None = None) -> None:
        self.folder = folder or _default_folder()
        self.limit_bytes = _limit_bytes() if limit_bytes is None else limit_bytes

    def find(self, key: PlanKey) -> tuple[StoredPlan, bytes] | None:
        """Return a plan, or None where there is none that matches in every respect and is whole."""
        plan = self._read(self._path(key).with_suffix(".json"))
        if plan is None or plan.key != key:
            return None
        try:
            data = plan.path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() != plan.sha256:
            return None
        with contextlib.suppress(OSError):  # a folder that may only be read still serves
            os.utime(plan.path)
        return plan, data

    def keep(self, key: PlanKey, data: bytes, *, activation_bytes: int) -> StoredPlan:
        """Write a plan and its sidecar, and make room where there are too many.

        Raises:
            PlanCacheError: The folder cannot be written, or is full.
        """
        path = self._path(key)
        sidecar = {
            "key": asdict(key),
            "sha256": hashlib.sha256(data).hexdigest(),
            "activation_bytes": activation_bytes,
        }
        with self._writing():
            # The plan first: a sidecar that is there speaks of a plan that is there.
            path.with_suffix(".json").unlink(missing_ok=True)
            path.with_suffix(".runtime").unlink(missing_ok=True)
            for place, content in ((path, data), (path.with_suffix(".json"), json.dumps(sidecar).encode())):
                with written_whole(place) as partial:
                    partial.write_bytes(content)
        self.prune(self.limit_bytes, spare=path)
        found = self._read(path.with_suffix(".json"))
        assert found is not None
        return found

    def keep_runtime_cache(self, plan: StoredPlan, data: bytes) -> None:
        """Write what the runtime compiled beside the plan; without it the next start only takes longer."""
        with contextlib.suppress(OSError), written_whole(plan.runtime_cache) as partial:
            partial.write_bytes(data)

    def plans(self) -> list[StoredPlan]:
        """Return all plans, the latest used first; what cannot be read is none."""
        found = [self._read(sidecar) for sidecar in self.folder.glob("*.json")]
        return sorted((plan for plan in found if plan is not None), key=lambda plan: -plan.used_s)

    def prune(self, limit_bytes: int, *, spare: Path | None = None) -> list[StoredPlan]:
        """Remove the longest unused plans until the others take no more than `limit_bytes`.

        Args:
            limit_bytes: 0 removes all.
            spare: A plan that stays.

        Returns:
            Those that were removed.

        Raises:
            PlanCacheError: The folder cannot be written.
        """
        removed, total = [], 0
        for plan in self.plans():
            total += plan.size_bytes
            if total <= limit_bytes or plan.path == spare:
                continue
            total -= plan.size_bytes
            with self._writing():
                for place in (plan.path.with_suffix(".json"), plan.path, plan.runtime_cache):
                    place.unlink(missing_ok=True)
            removed.append(plan)
        return removed

    @contextmanager
    def building(self, key: PlanKey, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the right to build a plan; others who want the same one wait, and may find it then.

        Args:
            key: Of the plan.
            waiting: Called again and again while another process builds it.

        Raises:
            PlanCacheError: The folder cannot be written.
        """
        with self._writing():
            # Locks are tiny and stay: one that is removed could be held by two.
            lock = self._path(key).with_suffix(".lock").open("w")
        with lock:
            while not _locked(lock.fileno()):
                waiting()
                time.sleep(_WAIT_S)
            yield

    def _path(self, key: PlanKey) -> Path:
        return self.folder / f"{key.name}.plan"

    def _read(self, sidecar: Path) -> StoredPlan | None:
        path = sidecar.with_suffix(".plan")
        try:
            told = json.loads(sidecar.read_bytes())
            table = told["key"]
            key = PlanKey(**{**table, "size": tuple(table["size"]), "flags": tuple(table["flags"])})
            state = path.stat()
            return StoredPlan(
                key, path, str(told["sha256"]), state.st_size, int(told["activation_bytes"]), state.st_mtime
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            what = (
                "is full" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "cannot be written"
            )
            raise PlanCacheError(
                f"the folder of compiled plans, {self.folder}, {what} ({error.strerror}); make room "
                "(streamderain engine prune), or set XDG_CACHE_HOME to a folder that you may write to"
            ) from error


def _default_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "streamderain" / "plans"


def _limit_bytes() -> int:
    told = os.environ.get(LIMIT_VARIABLE)
    try:
        return LIMIT_BYTES if told is None else int(float(told) * 2**30)
    except ValueError as error:
        raise PlanCacheError(f"{LIMIT_VARIABLE} must be a number of GiB, not {told!r}") from error


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
