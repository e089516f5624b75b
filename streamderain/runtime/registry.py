"""Choose and open engines, each imported on first use."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from streamderain.errors import ConfigError, EngineUnavailable
from streamderain.models import ModelCard, load_model
from streamderain.options import EngineOptions
from streamderain.runtime.base import Engine
from streamderain.system.gpu import gpus, has_driver
from streamderain.system.installing import install_command


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """Where an engine's class is found and what must be installed for it.

    Attributes:
        location: `module:class`.
        needs: Modules it needs; of those parted by a bar one is enough.
        packages: Tells what pip installs for it; nothing where it needs nothing.
        summary: One sentence for people.
    """

    location: str
    needs: tuple[str, ...]
    packages: Callable[[], tuple[str, ...]]
    summary: str

    @property
    def install(self) -> str:
        """The command that installs what it needs."""
        return install_command(*self.packages())

    @property
    def installed(self) -> bool:
        """Whether what it needs can be found; nothing of it is imported."""
        return all(any(_is_there(name) for name in names.split("|")) for names in self.needs)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False


RTX_PACKAGES = ("tensorrt-rtx-cu13", "cuda-core", "cuda-bindings", "onnx")
TENSORRT_PACKAGES = ("tensorrt", "cuda-core", "cuda-bindings", "onnx")


def tensorrt_packages() -> tuple[str, ...]:
    """Return what pip installs for TensorRT on the card that is here; that for RTX where none is."""
    return TENSORRT_PACKAGES if any(not gpu.suits_rtx for gpu in gpus()) else RTX_PACKAGES


ENGINES: Mapping[str, EngineEntry] = MappingProxyType(
    {
        "tensorrt": EngineEntry(
            "streamderain.runtime.tensorrt:TensorRtEngine",
            ("tensorrt|tensorrt_rtx", "cuda.core", "onnx"),
            tensorrt_packages,
            "TensorRT on NVIDIA GPUs",
        ),
        "openvino": EngineEntry(
            "streamderain.runtime.openvino:OpenVinoEngine",
            ("openvino",),
            lambda: ("openvino",),
            "OpenVINO on ordinary processors",
        ),
        "torch": EngineEntry(
            "streamderain.runtime.torch:TorchEngine",
            ("torch", "safetensors"),
            lambda: ("torch", "torchvision", "safetensors", "cuda-core"),
            "torch on CPU or CUDA, the reference",
        ),
        "identity": EngineEntry(
            "streamderain.runtime.identity:IdentityEngine",
            (),
            tuple,
            "hands frames back unchanged, for tests",
        ),
    }
)

AUTO_ORDER = ("openvino", "torch")
"""The first of these that is installed is what `auto` means where no GPU can be used."""

GPU_ORDER = ("tensorrt", "torch")
"""The first of these that works on a CUDA device is what `auto` means where there is one."""

_GPU_PRECISIONS = ("auto", "f16", "f32")


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
    model = check_engine(options)
    if options.engine == "auto":
        return _automatic(model, options)
    engine = _opened(options.engine, model, options)
    engine.reason = "asked for"
    return engine


def check_engine(options: EngineOptions) -> ModelCard:
    """Check what can be known of an engine before it is opened.

    Returns:
        The model.

    Raises:
        ConfigError: No engine of that name, or a largest size for a model that needs none.
        EngineUnavailable: It is not installed.
        ModelError: The model is not there, or its card cannot be used.
    """
    if options.engine not in ("auto", *ENGINES):
        raise ConfigError(f"there is no engine {options.engine!r}; choose from auto, {', '.join(ENGINES)}")
    if options.engine != "auto" and not ENGINES[options.engine].installed:
        install = ENGINES[options.engine].install
        raise EngineUnavailable(f"the {options.engine} engine is not installed: {install}")
    model = load_model(options.model)
    require_max_size_fits(model, options.max_size)
    return model


def require_max_size_fits(model: ModelCard, max_size: int) -> None:
    """Check that a largest size is asked for only where a model has a use for it.

    Raises:
        ConfigError: The model takes frames of any size.
    """
    if max_size and model.tileable:
        raise ConfigError(
            f"the model {model.name} takes frames of any size as they are; leave out --max-size, which is "
            "for models that look at whole frames at once, such as dcd-gan"
        )


def _automatic(model: ModelCard, options: EngineOptions) -> Engine:
    """Open the engine that `auto` stands for: one on a GPU that works, else the first for processors."""
    cuda = re.fullmatch(r"cuda(:\d+)?", options.device) is not None
    failures = []
    if cuda or (options.device == "auto" and has_driver() and options.precision in _GPU_PRECISIONS):
        for name in GPU_ORDER:
            if not ENGINES[name].installed:
                continue
            try:
                engine = _opened(name, model, options if cuda else replace(options, device="cuda"))
            except EngineUnavailable as error:
                failures.append(f"{name}: {error}")
                continue
            engine.reason = f"auto: {name} is the first of {', '.join(GPU_ORDER)} that works on this GPU"
            return engine
        if cuda:
            why = "; ".join(failures) or f"{ENGINES[GPU_ORDER[0]].install} brings one"
            raise EngineUnavailable(f"no engine can use the device {options.device}: {why}")
    for name in AUTO_ORDER:
        if ENGINES[name].installed:
            engine = _opened(name, model, options)
            engine.reason = f"auto: the first of {', '.join(AUTO_ORDER)} that is installed"
            if failures:
                engine.reason += f", since the GPU cannot be used ({'; '.join(failures)})"
            return engine
    raise EngineUnavailable(f"no engine is installed; {ENGINES[AUTO_ORDER[0]].install} brings one")


def _opened(name: str, model: ModelCard, options: EngineOptions) -> Engine:
    module, _, class_name = ENGINES[name].location.partition(":")
    try:
        engine_class = getattr(importlib.import_module(module), class_name)
    except (ImportError, OSError) as error:
        raise EngineUnavailable(
            f"the {name} engine is installed but does not load: {error}; reinstall it: "
            f"{ENGINES[name].install}"
        ) from error
    engine: Engine = engine_class(
        model, device=options.device, precision=options.precision, threads=options.threads
    )
    return engine
