"""Choose and open engines, each imported on first use."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from streamderain.errors import ConfigError, EngineUnavailable
from streamderain.models import load_model
from streamderain.options import EngineOptions
from streamderain.runtime.base import Engine
from streamderain.system.installing import install_command


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """Where an engine's class is found and what must be installed for it.

    Attributes:
        location: `module:class`.
        needs: Name of the package it needs; None for none.
        packages: What pip installs for it; none where it needs nothing.
        summary: One sentence for people.
    """

    location: str
    needs: str | None
    packages: tuple[str, ...]
    summary: str

    @property
    def install(self) -> str:
        """The command that installs what it needs."""
        return install_command(*self.packages)

    @property
    def installed(self) -> bool:
        """Whether the package it needs can be found; nothing is imported."""
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


ENGINES: Mapping[str, EngineEntry] = MappingProxyType(
    {
        "openvino": EngineEntry(
            "streamderain.runtime.openvino:OpenVinoEngine",
            "openvino",
            ("openvino",),
            "OpenVINO on ordinary processors",
        ),
        "torch": EngineEntry(
            "streamderain.runtime.torch:TorchEngine",
            "torch",
            ("torch", "torchvision", "safetensors"),
            "torch on CPU or CUDA, the reference",
        ),
        "identity": EngineEntry(
            "streamderain.runtime.identity:IdentityEngine",
            None,
            (),
            "hands frames back unchanged, for tests",
        ),
    }
)

AUTO_ORDER = ("openvino", "torch")
"""The first of these that is installed is what `auto` means."""


def open_engine(options: EngineOptions | None = None) -> Engine:
    """Open an engine with a model.

    Args:
        options: The model, the engine (one that is named never falls back to another), its device, precision
            and threads; the defaults where None.

    Returns:
        The engine, whose `reason` says why it was chosen.

    Raises:
        ConfigError: No engine of that name, or a largest size for a model that needs none.
        EngineUnavailable: It is not installed, or has no such device.
        ModelError: The model is not there, or its files cannot be used.
    """
    options = options or EngineOptions()
    chosen, reason = _choose(options.engine)
    model = load_model(options.model)
    if options.max_size and model.tileable:
        raise ConfigError(
            f"the model {model.name} takes frames of any size as they are; leave out --max-size, which is "
            "for models that look at whole frames at once, such as dcd-gan"
        )
    module, _, class_name = ENGINES[chosen].location.partition(":")
    try:
        engine_class = getattr(importlib.import_module(module), class_name)
    except (ImportError, OSError) as error:
        raise EngineUnavailable(
            f"the {chosen} engine is installed but does not load: {error}; reinstall it: "
            f"{ENGINES[chosen].install}"
        ) from error
    engine: Engine = engine_class(
        model, device=options.device, precision=options.precision, threads=options.threads
    )
    engine.reason = reason
    return engine


def _choose(name: str) -> tuple[str, str]:
    """Return the engine that a name stands for, and why."""
    if name == "auto":
        for candidate in AUTO_ORDER:
            if ENGINES[candidate].installed:
                return candidate, f"auto: the first of {', '.join(AUTO_ORDER)} that is installed"
        raise EngineUnavailable(f"no engine is installed; {ENGINES[AUTO_ORDER[0]].install} brings one")
    if name not in ENGINES:
        raise ConfigError(f"there is no engine {name!r}; choose from auto, {', '.join(ENGINES)}")
    if not ENGINES[name].installed:
        raise EngineUnavailable(f"the {name} engine is not installed: {ENGINES[name].install}")
    return name, "asked for"
