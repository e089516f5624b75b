"""streamderain takes the rain out of video.

Importing the package imports no runtime, no media library and no torch; each is loaded on first use.

    >>> import streamderain
    >>> report = streamderain.run("dashcam.mp4", "clean.mp4")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from streamderain.api import RunReport, run
    from streamderain.derainer import DerainedFrame, Derainer, frames
    from streamderain.models import list_models, load_model
    from streamderain.options import EncodeOptions, EngineOptions, ReadOptions, RunOptions, WorkOptions

_HOMES = {
    "RunReport": "api",
    "run": "api",
    "DerainedFrame": "derainer",
    "Derainer": "derainer",
    "frames": "derainer",
    "list_models": "models",
    "load_model": "models",
    "EncodeOptions": "options",
    "EngineOptions": "options",
    "ReadOptions": "options",
    "RunOptions": "options",
    "WorkOptions": "options",
}

__all__ = [
    "DerainedFrame",
    "Derainer",
    "EncodeOptions",
    "EngineOptions",
    "ReadOptions",
    "RunOptions",
    "RunReport",
    "WorkOptions",
    "__version__",
    "frames",
    "list_models",
    "load_model",
    "run",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
