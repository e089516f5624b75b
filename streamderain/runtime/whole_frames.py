"""What sessions of models that look at whole frames need: memory."""

from __future__ import annotations

from streamderain.errors import DeviceMemoryError
from streamderain.frame import Geometry
from streamderain.models import ModelCard
from streamderain.runtime.adapters.rgb import padded_size
from streamderain.system.memory import available_bytes


def require_memory(model: ModelCard, geometry: Geometry, *, max_size: int, device: str) -> None:
    """Find out before anything is computed whether a frame fits into this machine's memory.

    A system that promises more memory than it has ends the process where it is used, without a word.

    Args:
        model: Its card says what a pixel takes.
        geometry: What frames look like.
        max_size: See `streamderain.options.EngineOptions`.
        device: For the message.

    Raises:
        DeviceMemoryError: It does not.
    """
    width, height = padded_size(model, geometry, max_size)
    needed, there = width * height * model.bytes_per_px, available_bytes()
    if needed <= there:
        return
    fits = int((there / model.bytes_per_px / (width * height)) ** 0.5 * max(width, height)) // 8 * 8
    raise DeviceMemoryError(
        f"{model.name} looks at whole frames, and one of {width}x{height} needs about "
        f"{needed / 2**30:.1f} GiB of memory on {device}, where {there / 2**30:.1f} GiB are free; let it "
        f"work at a smaller size (--max-size {fits}), or choose a model that can look at parts of a frame "
        "(streamderain models list)"
    )
