"""Work on pieces of a file with a Ray cluster: an actor for each piece under way holds one engine.

Nothing is sent but orders and what became of them: source, model and pieces lie where every node sees them
under the same path. So the manifest is that of a run without a cluster, and either goes on with the other's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RaySystemError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from streamderain.closable import Closable
from streamderain.errors import ConfigError, EngineError, StreamderainError
from streamderain.events import Complete
from streamderain.jobs.manifest import fingerprint
from streamderain.jobs.pool import News, Order, PieceMaker
from streamderain.media.reading.sources import SourceSpec
from streamderain.models import ModelCard, load_model
from streamderain.options import RunOptions
from streamderain.system.machine import version

CORES_AN_ACTOR = 4
"""Processor cores that an actor asks for on nodes without a GPU, or all that the smallest of them has."""

_VERSION = version("streamderain") or ""

_TICK_S = 0.2
_LOOK_EVERY_S = 5.0
"""How often nodes that joined are looked for."""

_ANSWER_S = 120.0
"""How long a node may take for its first answer: it may have to install what is needed (runtime
environments)."""

_PROBE = "probe"

_CURRENT = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
"""Where Ray notes the cluster that was started last on this machine."""

_CONNECT_S = 10.0


class ClusterPool(Closable):
    """Actors of a Ray cluster.

    Args:
        address: `auto` for the cluster this machine belongs to, or `ray://HOST:PORT`.
        spec: The source.
        targets: Of the whole run.
        options: Of the run.
        model: What computes; every node must have the same.
        folder: Where pieces are kept; every node must see it.

    Raises:
        ConfigError: No cluster answers, or a node lacks what is needed: each is named.
    """

    def __init__(
        self,
        address: str,
        spec: SourceSpec,
        targets: Sequence[str],
        options: RunOptions,
        *,
        model: ModelCard,
        folder: Path,
    ) -> None:
        self._spec = replace(spec, paths=tuple(path.absolute() for path in spec.paths))
        self._targets = [str(Path(target).absolute()) for target in targets]
        self._options, self._model, self._folder = options, model, folder
        self._busy: dict[Any, tuple[Any, Order, str]] = {}
        self._free: list[tuple[Any, str]] = []
        self._checked: set[str] = set()
        self._refused: dict[str, str] = {}
        self._looked = 0.0
        try:
            _require_answer(address)
            # Its own log goes to files: the terminal is ours.
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, namespace="streamderain")
        except (OSError, RuntimeError, RayError, ValueError) as error:
            raise ConfigError(
                f"no Ray cluster answers at {address} ({error}); start one with `ray start --head`, or name "
                "it: --cluster ray://HOST:10001"
            ) from error
        try:
            self._look_for_nodes()
        except BaseException:
            self.close()
            raise

    def begin(self, order: Order) -> bool:
        """See `streamderain.jobs.pool.Pool`."""
        if time.monotonic() - self._looked > _LOOK_EVERY_S:
            self._look_for_nodes()
        if not self._free:
            return False
        actor, node = self._free.pop()
        self._busy[actor.make.remote(order)] = (actor, order, node)
        return True

    def news(self) -> Iterator[News]:
        """See `streamderain.jobs.pool.Pool`."""
        done, _ = ray.wait(list(self._busy), num_returns=1, timeout=_TICK_S) if self._busy else ([], [])
        for reference in done:
            actor, order, node = self._busy.pop(reference)
            try:
                result = ray.get(reference)
            except (RayActorError, RaySystemError) as error:
                self._looked = 0.0  # who is left, and who has joined?
                # A process that ended on a node that lives has crashed; one on a node that is gone has not.
                lost = node not in _living()
                yield News(order, crashed=_words(error), lost=lost)
                continue
            self._free.append((actor, node))
            if isinstance(result, Complete):
                yield News(order, frames_out=result.frames_out, complete=result)
            else:
                yield News(order, error=result)

    def notes(self) -> list[str]:
        """See `streamderain.jobs.pool.Pool`."""
        return [f"a node that joined was left out: {fault}" for fault in self._refused.values()]

    def close(self) -> None:
        """See `streamderain.jobs.pool.Pool`; the cluster itself goes on."""
        actors = [actor for actor, _, _ in self._busy.values()] + [actor for actor, _ in self._free]
        for actor in actors:
            with contextlib.suppress(Exception):
                ray.kill(actor)
        self._busy.clear()
        self._free.clear()
        ray.shutdown()

    def _look_for_nodes(self) -> None:
        """Check nodes that were not there before, and start as many actors on each as it holds."""
        self._looked = time.monotonic()
        living = {name: node for name, node in _living().items() if name not in self._refused}
        new = {name: node for name, node in living.items() if name not in self._checked}
        faults = self._faults_of(new)
        if faults and not self._checked:
            raise ConfigError(
                f"the cluster cannot work on {self._spec.name}: {'; '.join(faults.values())}. Every "
                "node needs the same streamderain, and source and target under the same path (a shared file "
                "system)"
            )
        # One that joins later with a fault is no reason to end what the others do.
        self._refused |= faults
        for name in faults:
            del new[name], living[name]
        self._free = [(actor, node) for actor, node in self._free if node in living]
        for name, node in new.items():
            self._checked.add(name)
            for actor in self._actors(name, node["Resources"]):
                self._free.append((actor, name))
        lost = self._checked - set(living)
        self._checked -= lost
        # Of a node whose actors crashed there are fewer than it holds.
        for name, node in living.items():
            there = sum(at == name for _, at in self._free) + sum(
                at == name for *_, at in self._busy.values()
            )
            if name not in new and there < self._room(node["Resources"]):
                self._free.append((self._actor(name, node["Resources"]), name))
        if not (self._free or self._busy):
            raise EngineError(
                "the cluster has no node left that could derain; start one with `ray start --address=...` "
                "and give the command again: finished pieces are kept"
            )

    def _faults_of(self, nodes: dict[str, Any]) -> dict[str, str]:
        """Ask nodes whether they see the files, and have this version and model; return what is wrong."""
        if not nodes:
            return {}
        probe = self._folder / f"{_PROBE}-{time.time_ns()}"
        probe.write_text(_VERSION)
        try:
            asked = {
                name: _look.options(
                    scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False)
                ).remote(str(self._spec.paths[0]), str(probe), self._options.engine.model)
                for name in nodes
            }
            wanted = {
                "source": fingerprint(self._spec.paths[0]),
                "folder": _VERSION,
                "version": _VERSION,
                "model": self._model.sha256,
            }
            found = {name: list(self._faults(reference, wanted)) for name, reference in asked.items()}
        finally:
            probe.unlink(missing_ok=True)
        return {
            name: f"{nodes[name]['NodeManagerHostname']}: {', '.join(faults)}"
            for name, faults in found.items()
            if faults
        }

    def _faults(self, reference: Any, wanted: dict[str, Any]) -> Iterator[str]:
        try:
            found = ray.get(reference, timeout=_ANSWER_S)
        except GetTimeoutError:
            yield f"it did not answer for {_ANSWER_S:g} s"
            return
        except RayError as error:
            yield _words(error)
            return
        if found["version"] != wanted["version"]:
            yield f"it has streamderain {found['version']}, this machine {wanted['version']}"
        if found["model"] != wanted["model"]:
            yield f"its model {self._options.engine.model} is another one ({found['model']})"
        if found["source"] != wanted["source"]:
            yield f"it does not see the source {self._spec.paths[0]}, or another file of that name"
        if found["folder"] != wanted["folder"]:
            yield f"it does not see {self._folder}"

    def _actors(self, node: str, resources: dict[str, float]) -> list[Any]:
        return [self._actor(node, resources) for _ in range(self._room(resources))]

    def _room(self, resources: dict[str, float]) -> int:
        """Return how many actors a node holds."""
        gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
        if gpus:
            return min(gpus, max(1, cores))
        return max(1, cores // CORES_AN_ACTOR) if cores else 0

    def _actor(self, node: str, resources: dict[str, float]) -> Any:
        cores = min(CORES_AN_ACTOR, int(resources.get("CPU", 1)) or 1)
        engine = replace(self._options.engine, threads=self._threads(cores))
        options = replace(self._options, engine=engine)
        kind: Any = _PieceActor
        return kind.options(
            num_cpus=cores,
            num_gpus=1 if resources.get("GPU") else 0,
            max_restarts=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        ).remote(self._spec, self._targets, options)

    def _threads(self, cores: int) -> int:
        # See `streamderain.jobs.segmented.jobs_for`: such models sum in another order with other threads.
        return self._options.engine.threads or (cores if self._model.tileable else 0)


def _require_answer(address: str) -> None:
    """Try to reach a cluster: Ray itself tries a cluster that is gone for minutes, and then ends the process.

    Raises:
        OSError: Nobody answers.
    """
    place = address
    if address == "auto":
        place = os.environ.get("RAY_ADDRESS", "")
        if not place and _CURRENT.is_file():
            place = _CURRENT.read_text().strip()
    host, _, port = place.removeprefix("ray://").partition("/")[0].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()


def _living() -> dict[str, Any]:
    nodes: Any = ray.nodes  # untyped
    return {node["NodeID"]: node for node in nodes() if node["Alive"]}


def _words(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


@ray.remote(num_cpus=0)
def _look(source: str, probe: str, model: str) -> dict[str, Any]:
    """Tell what a node sees."""
    found: dict[str, Any] = {"version": _VERSION, "source": None, "folder": None, "model": ""}
    with contextlib.suppress(OSError):
        found["source"] = fingerprint(Path(source))
    with contextlib.suppress(OSError):
        found["folder"] = Path(probe).read_text()
    try:
        card = load_model(model)
        card.paths("weights")  # are they what the card says?
        found["model"] = card.sha256
    except StreamderainError as error:
        found["model"] = str(error)
    return found


@ray.remote
class _PieceActor:
    """Makes pieces, one after the other, with one engine."""

    def __init__(self, spec: SourceSpec, targets: list[str], options: RunOptions) -> None:
        self._maker = PieceMaker(spec, targets, options)

    def make(self, order: Order) -> Complete | Exception:
        """See `PieceMaker.make`."""
        return self._maker.make(order)
