"""Geometry, planes, frames and stream descriptions, shared by every package.

Arrays are numpy. A *plane* is one component of a picture as a 2-D array (height, width) of `uint8` or
`uint16` codes; it may be a strided view into a packed or padded buffer.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Chroma = Literal["420", "422", "444", "440", "411", "410", "gray", "rgb"]
Range = Literal["limited", "full"]

_CHROMA_STEPS: dict[Chroma, tuple[int, int]] = {
    "420": (2, 2),
    "422": (2, 1),
    "444": (1, 1),
    "440": (1, 2),
    "411": (4, 1),
    "410": (4, 4),
    "rgb": (1, 1),
}
"""Luma samples per sample of the second and third component, across and down."""

Plane = NDArray[Any]
"""One component, (height, width), `uint8` where bits are 8, else `uint16` in either byte order."""

Planes = tuple[Plane, ...]
"""The colour components in order: (Y, U, V), (Y,) for gray, or (R, G, B). Alpha is never among them."""


Matrix = Literal["bt601", "bt709", "bt2020"]

_LUMA_WEIGHTS: dict[Matrix, tuple[float, float, float]] = {
    "bt601": (0.299, 0.587, 0.114),
    "bt709": (0.2126, 0.7152, 0.0722),
    "bt2020": (0.2627, 0.6780, 0.0593),
}

_HD_LINES = 720


def luma_weights(matrix: Matrix) -> tuple[float, float, float]:
    """Return the shares of R, G and B in luma (ITU-R BT.601-7, BT.709-6, BT.2020-2)."""
    return _LUMA_WEIGHTS[matrix]


def customary_matrix(height: int) -> Matrix:
    """Return the luma coefficients of pictures that name none: BT.709 from 720 lines on, BT.601 below."""
    return "bt709" if height >= _HD_LINES else "bt601"


@dataclass(frozen=True, slots=True)
class Geometry:
    """All an engine must know of a frame's shape and meaning.

    Attributes:
        width: Luma width in pixels, as coded (before rotation and aspect ratio).
        height: Luma height in pixels, as coded.
        bits: Significant bits of a code, 8 to 16.
        shift: How far codes are shifted left inside their 16-bit word (6 for P010), else 0.
        chroma: Chroma layout, `"gray"` for luma alone, `"rgb"` for R, G, B components.
        matrix: Luma coefficients: `"bt709"`, `"bt601"` or `"bt2020"`.
        range: `"limited"` (studio) or `"full"`. RGB is always full.
    """

    width: int
    height: int
    bits: int = 8
    shift: int = 0
    chroma: Chroma = "420"
    matrix: Matrix = "bt709"
    range: Range = "limited"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type of planes in native byte order: `uint8` or `uint16`."""
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)

    @property
    def is_rgb(self) -> bool:
        """Whether the planes are R, G, B rather than luma first."""
        return self.chroma == "rgb"

    @property
    def luma_planes(self) -> int:
        """How many of the first planes make up the luma: the luma plane alone, or R, G and B."""
        return 3 if self.is_rgb else 1

    @property
    def plane_shapes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of every colour component."""
        whole = (self.height, self.width)
        if self.chroma == "gray":
            return (whole,)
        across, down = _CHROMA_STEPS[self.chroma]
        chroma = (-(-self.height // down), -(-self.width // across))
        return (whole, chroma, chroma)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One video stream of a source.

    Attributes:
        position: Its place among the source's *video* streams, from 0.
        codec: Decoder name, as FFmpeg calls it.
        pix_fmt: Pixel format of its frames, as FFmpeg calls it.
        geometry: Shape of its frames.
        time_base: Seconds per pts unit.
        rate_fps: Average frames per second, where the container says; None for a still image.
        frames: How many frames are expected; None when unknown. An estimate, never a promise.
        duration_s: Length in seconds; None when unknown.
    """

    position: int
    codec: str
    pix_fmt: str
    geometry: Geometry
    time_base: Fraction
    rate_fps: Fraction | None
    frames: int | None
    duration_s: float | None


@dataclass(frozen=True, slots=True)
class Lead:
    """How many frames outside a piece decide the frames inside it.

    Attributes:
        before: Frames before the piece that are read and not written.
        after: Frames behind it, likewise; a source that ends has none.
    """

    before: int = 0
    after: int = 0


NO_LEAD = Lead()


@dataclass(slots=True)
class Frame:
    """A decoded picture on its way through the pipeline.

    Attributes:
        picture: The decoder's own frame (`av.VideoFrame`), opaque outside `media`. Read-only until its
            token left the session.
        planes: Views of its colour components.
        stream: Position of its video stream in the source.
        index: Number of the frame in its stream, from 0, counting every decoded frame.
        pts: Presentation timestamp in units of `time_base`; never None after the source.
        time_base: Seconds per pts unit.
        cut: True when the frame does not follow the one before it (after a gap or a lost frame), so that
            no temporal window may span the two.
        emit: False for lead-in and lead-out: the frame feeds the temporal window and is not written.
    """

    picture: Any
    planes: Planes
    stream: int
    index: int
    pts: int
    time_base: Fraction
    cut: bool = False
    emit: bool = True

    @property
    def time_s(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)
