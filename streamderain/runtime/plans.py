"""Make the TensorRT plans of a model: from the cache, or compiled and kept."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamderain.errors import ConfigError, EngineUnavailable
from streamderain.events import Building, Observer
from streamderain.frame import Geometry
from streamderain.models import ModelCard
from streamderain.runtime import tensorrt_library as library
from streamderain.runtime.adapters.luma_onnx import Rows, luma_graph, strips_of
from streamderain.runtime.adapters.onnx_graph import load_core
from streamderain.runtime.adapters.rgb_onnx import rgb_graph
from streamderain.runtime.cuda import ALIGNMENT_BYTES, open_device
from streamderain.runtime.plan_cache import PlanCache, PlanKey, StoredPlan

PRECISIONS = ("f16", "f32")

_TELL_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan in memory.

    Attributes:
        stored: Where it lies in the cache, and what is known of it.
        data: The plan.
        rows: Which rows of a frame it computes; None for all.
    """

    stored: StoredPlan
    data: bytes
    rows: Rows | None


class PlanMaker:
    """Makes plans for one model and one kind of card.

    Args:
        model: The model.
        precision: `"auto"` (the card's own choice, else `"f16"`), `"f16"`, `"f32"`, or a precision that the
            card names a graph for.
        capability: Compute capability of the card.
        card: Its name.
        cache: Where plans are kept.
        listener: Receives every line of the builder's log, with its severity.

    Raises:
        EngineUnavailable: TensorRT has no such precision.
        PlanBuildError: The precision's graph is one that TensorRT computes wrongly.
    """

    def __init__(
        self,
        model: ModelCard,
        *,
        precision: str,
        capability: library.Capability,
        card: str,
        cache: PlanCache,
        listener: Callable[[str, str], None] | None = None,
    ) -> None:
        self.model, self.cache = model, cache
        self.precision = model.default_precision.get("tensorrt", "f16") if precision == "auto" else precision
        if self.precision not in PRECISIONS and self.precision not in model.files:
            raise EngineUnavailable(
                f"the tensorrt engine has no precision {self.precision}; use --precision f16 (its default) "
                "or f32"
            )
        self.capability, self.card = capability, card
        self._listener = listener
        name = "f32" if self.precision in PRECISIONS else self.precision
        self._core = load_core(model.file(name), model)

    def strips(
        self, geometry: Geometry, *, count: int = 1, max_size: int = 0, tell: Observer | None = None
    ) -> list[Plan]:
        """Return the plans that together compute a frame.

        Args:
            geometry: What frames look like.
            count: In how many strips of rows; only for tileable models.
            max_size: See `streamderain.options.EngineOptions`.
            tell: Receives `Building` while a plan is compiled.

        Raises:
            PlanBuildError: It does not compile.
            PlanCacheError: It cannot be kept.
        """
        rows: list[Rows] | list[None] = [None]
        if self.model.input == "luma":
            row_bytes = geometry.width * geometry.dtype.itemsize
            # Strips of a result begin where a kernel may be told to write.
            aligned = ALIGNMENT_BYTES // math.gcd(ALIGNMENT_BYTES, row_bytes)
            multiple = math.lcm(self.model.multiple, aligned)
            rows = strips_of(
                self._core, model=self.model, height=geometry.height, count=count, multiple=multiple
            )
        return [self._plan(self._graph(geometry, one, max_size), geometry, one, tell) for one in rows]

    def _graph(self, geometry: Geometry, rows: Rows | None, max_size: int) -> bytes:
        half = self.precision == "f16"
        if rows is None:
            graph = rgb_graph(self._core, model=self.model, geometry=geometry, half=half, max_size=max_size)
        else:
            graph = luma_graph(self._core, model=self.model, geometry=geometry, half=half, rows=rows)
        return bytes(graph.SerializeToString(deterministic=True))

    def _plan(self, graph: bytes, geometry: Geometry, rows: Rows | None, tell: Observer | None) -> Plan:
        key = self._key(geometry, hashlib.sha256(graph).hexdigest())
        found = self.cache.find(key)
        if found is not None:
            return Plan(*found, rows)
        progress = self._progress(geometry, tell)
        with self.cache.building(key, lambda: progress("waiting for another process that compiles it", 0.0)):
            found = self.cache.find(key)  # another process may just have built it
            if found is not None:
                return Plan(*found, rows)
            progress("", 0.0)
            built = library.build_plan(
                graph,
                capability=self.capability,
                exact=self.precision == "f32",
                progress=progress,
                listener=self._listener,
            )
            stored = self.cache.keep(key, built.data, activation_bytes=built.activation_bytes)
        return Plan(stored, built.data, rows)

    def _key(self, geometry: Geometry, graph_sha256: str) -> PlanKey:
        major, minor = self.capability
        return PlanKey(
            model=f"{self.model.name} {self.model.version}",
            graph_sha256=graph_sha256,
            package=library.PACKAGE,
            version=library.version(),
            capability=f"sm{major}{minor}",
            # Plans for RTX fit all cards of a capability; others are tuned to the card they were built on.
            card="" if library.BUILDS_AHEAD else self.card,
            precision=self.precision,
            size=(geometry.width, geometry.height),
            planes=self._planes(geometry),
            flags=("tf32 off",) if self.precision == "f32" else (),
        )

    def _planes(self, geometry: Geometry) -> str:
        read = "luma" if self.model.input == "luma" and not geometry.is_rgb else geometry.chroma
        return f"{read} {geometry.bits}-bit {geometry.range}"

    def _progress(self, geometry: Geometry, tell: Observer | None) -> library.Progress:
        began, last = time.monotonic(), 0.0

        def progress(phase: str, done: float) -> None:
            nonlocal last
            now = time.monotonic()
            if tell is not None and now - last >= _TELL_EVERY_S:
                last = now
                tell(
                    Building(
                        model=self.model.name,
                        engine=library.PACKAGE,
                        device=self.card or "sm{}{}".format(*self.capability),
                        width=geometry.width,
                        height=geometry.height,
                        phase=phase,
                        done=done,
                        elapsed_s=round(now - began, 1),
                    )
                )

        return progress


def plan_maker(
    model: ModelCard,
    *,
    precision: str,
    capability: str | None = None,
    device: str = "auto",
    cache: PlanCache | None = None,
    listener: Callable[[str, str], None] | None = None,
) -> PlanMaker:
    """Return what makes plans for a card that is here, or for another one.

    Args:
        model: See `PlanMaker`.
        precision: See `PlanMaker`.
        capability: Such as `sm89`: builds ahead for such cards. None for the card that is here.
        device: Which card that is: `"auto"`, `"cuda"` or `"cuda:N"`.
        cache: The user's own where None.
        listener: See `PlanMaker`.

    Raises:
        EngineUnavailable: No card is here, or the installed TensorRT does not support it.
        ConfigError: `capability` names none.
    """
    if capability is None:
        card = open_device(device)
        name, found = card.name, tuple(card.compute_capability)
    else:
        name, found = "", _parsed(capability)
        if not library.BUILDS_AHEAD:
            raise EngineUnavailable(
                f"{library.PACKAGE} builds plans only on the card they are for; leave out --for, or install "
                "streamderain[rtx] in an environment of its own"
            )
    require_card(found, name or f"cards of {capability}")
    return PlanMaker(
        model,
        precision=precision,
        capability=found,
        card=name,
        cache=cache or PlanCache(),
        listener=listener,
    )


def require_card(capability: library.Capability, card: str) -> None:
    """Check that the installed TensorRT supports a card.

    Raises:
        EngineUnavailable: It does not; names the extra that does.
    """
    known = library.nameable_capabilities()
    if library.BUILDS_AHEAD and capability not in known:
        names = ", ".join(f"sm{major}{minor}" for major, minor in known)
        raise EngineUnavailable(
            f"TensorRT for RTX supports {names}, and not the {card}; install streamderain[tensorrt] in the "
            "place of streamderain[rtx]"
        )


def _parsed(text: str) -> library.Capability:
    """Return the compute capability that `sm89` or `8.9` names."""
    digits = text.lower().removeprefix("sm").replace(".", "")
    if not digits.isdigit() or not 2 <= len(digits) <= 3:
        raise ConfigError(f"{text!r} is no compute capability; write it as sm89, or 8.9")
    return int(digits[:-1]), int(digits[-1])


def activation_bytes(plans: Sequence[Plan]) -> int:
    """Return the device memory that one computation takes for itself: of the largest of its plans."""
    return max(plan.stored.activation_bytes for plan in plans)
