"""Pixel formats: geometry of a frame, views of its colour components, conversions.

Four kinds of layout are used as they are, without a copy:

- *planar*: one component per plane (`yuv420p10le`, `gbrp`, `gray16be`);
- *semi-planar*: luma alone, chroma interleaved (`nv12`, `p010le`);
- *packed* with whole bytes or words (`rgb24`, `bgra`, `yuyv422`, `y210le`, `ayuv64le`);
- *gray with alpha* (`ya8`, `ya16be`).

Anything else (palettes, single bits, 5-6-5 colours, floats, mosaics) is first converted to the format that
`working_format` names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from streamderain.errors import ConfigError, EncodeError, UnsupportedFormat
from streamderain.frame import Chroma, Geometry, Planes, customary_matrix

_FLOAT = re.compile(r"f(16|32)(le|be)$")

_CHROMA_BY_SUBSAMPLING: dict[tuple[int, int], Chroma] = {
    (1, 1): "444",
    (2, 1): "422",
    (2, 2): "420",
    (1, 2): "440",
    (4, 1): "411",
    (4, 4): "410",
}

_INTERLEAVED: dict[str, tuple[str, int]] = {  # name without byte order -> (order of chroma, left shift)
    "nv12": ("uv", 0),
    "nv21": ("vu", 0),
    "nv16": ("uv", 0),
    "nv24": ("uv", 0),
    "nv42": ("vu", 0),
    "nv20": ("uv", 0),
    **{f"p{chroma}{depth}": ("uv", 16 - depth) for chroma in "024" for depth in (10, 12, 16)},
}

_PACKED: dict[str, tuple[str, int]] = {  # name without byte order -> (samples in memory, left shift)
    "rgb24": ("RGB", 0),
    "bgr24": ("BGR", 0),
    "rgba": ("RGBA", 0),
    "bgra": ("BGRA", 0),
    "argb": ("ARGB", 0),
    "abgr": ("ABGR", 0),
    "rgb0": ("RGBx", 0),
    "bgr0": ("BGRx", 0),
    "0rgb": ("xRGB", 0),
    "0bgr": ("xBGR", 0),
    "rgb48": ("RGB", 0),
    "bgr48": ("BGR", 0),
    "rgba64": ("RGBA", 0),
    "bgra64": ("BGRA", 0),
    "ya8": ("YA", 0),
    "ya16": ("YA", 0),
    "yuyv422": ("YUYV", 0),
    "yvyu422": ("YVYU", 0),
    "uyvy422": ("UYVY", 0),
    "y210": ("YUYV", 6),
    "y212": ("YUYV", 4),
    "y216": ("YUYV", 0),
    "ayuv": ("AYUV", 0),
    "ayuv64": ("AYUV", 0),
    "vuya": ("VUYA", 0),
    "vuyx": ("VUYx", 0),
    "uyva": ("UYVA", 0),
    "vyu444": ("VYU", 0),
    "xv36": ("UYVx", 4),
    "xv48": ("UYVx", 0),
}

_CONVERTED: dict[str, str] = {  # name without byte order -> what its frames are converted to
    "pal8": "rgba",
    "monow": "gray",
    "monob": "gray",
    **dict.fromkeys(("rgb4_byte", "bgr4_byte", "rgb8", "bgr8"), "rgb24"),
    **{f"{order}{bits}": "rgb24" for order in ("rgb", "bgr") for bits in (444, 555, 565)},
    "uyyvyy411": "yuv411p",
    "xyz12": "rgb48le",
    **dict.fromkeys(("grayf16", "grayf32"), "gray16le"),
    "yaf16": "ya16le",
    **dict.fromkeys(("gbrpf16", "gbrpf32", "rgbf16", "rgbf32"), "gbrp16le"),
    **dict.fromkeys(("gbrapf16", "gbrapf32", "rgbaf16"), "gbrap16le"),
    **{f"bayer_{order}8": "rgb24" for order in ("bggr", "rggb", "gbrg", "grbg")},
    **{f"bayer_{order}16": "rgb48le" for order in ("bggr", "rggb", "gbrg", "grbg")},
}

_CONVERTED_LITTLE_ENDIAN: dict[str, str] = {  # swscale reads these in one byte order only
    **dict.fromkeys(("x2rgb10le", "x2bgr10le"), "gbrp10le"),
    **dict.fromkeys(("v30xle", "xv30le"), "yuv444p10le"),
}

_MATRIX: dict[int, Literal["bt601", "bt709", "bt2020"]] = {
    1: "bt709",
    4: "bt601",  # FCC: the same luma but for the third decimal
    5: "bt601",
    6: "bt601",
    7: "bt709",  # SMPTE 240M: nearest
    9: "bt2020",
    10: "bt2020",
}
"""FFmpeg's AVColorSpace to luma coefficients. Others are treated as unspecified."""

UNSPECIFIED = 2
"""FFmpeg's number of a matrix that is not told, for which PyAV has no name."""

_SWS_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
"""FFmpeg's AVColorSpace to the numbers of swscale, which knows no other matrices."""

_FULL_RANGE, _LIMITED_RANGE = ColorRange.JPEG, ColorRange.MPEG

_ACCURATE = int(
    Interpolation.BILINEAR
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
"""Without these flags swscale makes RGB of subsampled video one code too dark on average, and up to three."""


@dataclass(frozen=True)
class _Component:
    """Where the samples of one component lie: plane, first sample and step, both in samples."""

    plane: int
    offset: int
    step: int


@dataclass(frozen=True)
class _Layout:
    """How a pixel format stores its colour components (alpha left out)."""

    components: tuple[_Component, ...]
    chroma: Chroma
    bits: int
    shift: int
    dtype: np.dtype[Any]


def geometry_of(frame: av.VideoFrame) -> Geometry:
    """Return the shape and meaning of a frame's planes.

    The matrix is the frame's own tag; where it has none, BT.709 from 720 lines on and BT.601 below. Range is
    the frame's tag; where it has none, full for RGB, gray and the `yuvj` formats, limited for the rest.

    Raises:
        UnsupportedFormat: The pixel format is not used as it is: see `working_format`.
    """
    layout = _layout(frame.format.name)
    return Geometry(
        width=frame.width,
        height=frame.height,
        bits=layout.bits,
        shift=layout.shift,
        chroma=layout.chroma,
        matrix=_MATRIX.get(frame.colorspace, customary_matrix(frame.height)),
        range="full" if _is_full_range(frame, layout.chroma) else "limited",
    )


def geometry_of_format(width: int, height: int, pix_fmt: str) -> Geometry:
    """Return the geometry that frames of a size and pixel format have where they carry no colour tags.

    Args:
        width: In px.
        height: In px.
        pix_fmt: As FFmpeg calls it.

    Raises:
        ConfigError: FFmpeg knows no such format.
        UnsupportedFormat: It cannot be derained.
    """
    try:
        form = av.VideoFormat(pix_fmt, width, height)
    except ValueError as error:
        raise ConfigError(f"FFmpeg knows no pixel format {pix_fmt!r}; yuv420p is the usual one") from error
    return geometry_of(av.VideoFrame(width, height, working_format(form.name) or form.name))


def component_planes(frame: av.VideoFrame) -> Planes:
    """Return views of a frame's colour components, without a copy.

    Returns:
        (Y, U, V), (Y,) or (R, G, B), each (height, width) of its plane, `uint8` or `uint16` in the
        frame's byte order, writable where the frame is. Rows keep the decoder's line size; packed and
        interleaved formats give strided views. A view keeps its frame alive.

    Raises:
        UnsupportedFormat: The pixel format is not used as it is: see `working_format`.
    """
    layout = _layout(frame.format.name)
    rows = [_rows(plane, layout.dtype) for plane in frame.planes]
    views = []
    for number, component in enumerate(layout.components):
        subsampled = number > 0 and layout.chroma not in ("gray", "rgb")
        width, height = _component_size(frame, layout.chroma) if subsampled else (frame.width, frame.height)
        end = component.offset + (width - 1) * component.step + 1
        views.append(rows[component.plane][:height, component.offset : end : component.step])
    return tuple(views)


def working_format(pix_fmt: str) -> str | None:
    """Return the format that frames of `pix_fmt` are converted to first; None where they are used as is.

    No code is lost, but for samples of more than 16 bits: floats are clipped to 0..1 and rounded to 16 bits.
    The mosaic of a raw (Bayer) picture is resolved into RGB.

    Raises:
        UnsupportedFormat: Frames of that format cannot be used, as those that live in a device's memory.
    """
    target = _CONVERTED_LITTLE_ENDIAN.get(pix_fmt) or _CONVERTED.get(_split(pix_fmt)[0])
    if target is None:
        _layout(pix_fmt)
    return target


def converted(
    frame: av.VideoFrame,
    pix_fmt: str,
    *,
    matrix: int = UNSPECIFIED,
    color_range: int = 0,
    reformatter: VideoReformatter | None = None,
    threads: int = 0,
) -> av.VideoFrame:
    """Convert a frame to another pixel format, each code within rounding of what BT.601, 709 and 2020 say.

    Args:
        frame: In any format; not changed. Where it has no tags, they are those of `geometry_of`.
        pix_fmt: The format to convert to.
        matrix: Of the result where that is YCbCr, as FFmpeg numbers it; unspecified (2) keeps the frame's
            own.
        color_range: Of the result where that is YCbCr: 1 limited, 2 full, 0 keeps the frame's own.
        reformatter: One to use again, for frames that come one after the other; None for a new one.
        threads: How many to use; 0 leaves it to FFmpeg.

    Returns:
        A new frame with the times and side data of the frame, tagged with the wanted matrix and range; the
        frame itself where nothing is to be done.
    """
    own_range = _FULL_RANGE if _is_full_range(frame, _chroma_of(frame)) else _LIMITED_RANGE
    is_rgb = av.VideoFormat(pix_fmt).is_rgb
    wanted = _FULL_RANGE if is_rgb or pix_fmt.startswith("yuvj") else color_range or own_range
    own = _sws_matrix(frame.colorspace, frame.height)
    return (reformatter or VideoReformatter()).reformat(
        frame,
        format=pix_fmt,
        src_colorspace=own,
        dst_colorspace=own if matrix == UNSPECIFIED else _sws_matrix(matrix, frame.height),
        src_color_range=own_range,
        dst_color_range=wanted,
        interpolation=_ACCURATE,
        threads=threads,
    )


def _chroma_of(frame: av.VideoFrame) -> Chroma:
    if frame.format.is_rgb or frame.format.has_palette:
        return "rgb"
    return "gray" if len([c for c in frame.format.components if not c.is_alpha]) == 1 else "444"


def _sws_matrix(tag: int, height: int) -> int:
    """Return the matrix as swscale numbers it; what is untagged follows the custom of its height."""
    own = Colorspace.ITU709 if customary_matrix(height) == "bt709" else Colorspace.ITU601
    return _SWS_MATRIX.get(tag) or own


def _is_full_range(frame: av.VideoFrame, chroma: Chroma) -> bool:
    if chroma == "rgb" or frame.format.name.startswith("yuvj"):
        return True
    if frame.color_range in (_LIMITED_RANGE, _FULL_RANGE):
        return frame.color_range == _FULL_RANGE
    return chroma == "gray"


def _component_size(frame: av.VideoFrame, chroma: Chroma) -> tuple[int, int]:
    """Return width and height of the chroma components; odd sizes round up."""
    across, down = next(key for key, value in _CHROMA_BY_SUBSAMPLING.items() if value == chroma)
    return -(-frame.width // across), -(-frame.height // down)


def _rows(plane: av.video.plane.VideoPlane, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return a plane as (rows, samples per line); negative line sizes put the last row first."""
    line_bytes = abs(plane.line_size)
    rows = np.frombuffer(cast(Any, plane), np.uint8)
    if line_bytes == 0:  # the palette has no lines, and is no component
        return rows[None]
    lines = rows.reshape(-1, line_bytes)[:, : line_bytes - line_bytes % dtype.itemsize].view(dtype)
    return lines[::-1] if plane.line_size < 0 else lines


def _split(pix_fmt: str) -> tuple[str, str]:
    """Return a format's name without its byte order, and numpy's sign for that order."""
    if pix_fmt.endswith("be"):
        return pix_fmt[:-2], ">"
    return pix_fmt.removesuffix("le"), "<"


@cache
def _layout(pix_fmt: str) -> _Layout:
    """Return how a format stores its components; cached, as it is asked for with every frame."""
    name, order = _split(pix_fmt)
    try:
        form = av.VideoFormat(pix_fmt, 64, 64)
    except ValueError as error:
        raise _unsupported(pix_fmt) from error
    if name in _CONVERTED or not form.components or _FLOAT.search(pix_fmt):
        raise _unsupported(pix_fmt)
    bits = form.components[0].bits
    if name in _PACKED:
        samples, shift = _PACKED[name]
        components, chroma = _packed_components(samples)
    elif name in _INTERLEAVED:
        second, shift = _INTERLEAVED[name]
        components = (_Component(0, 0, 1), *(_Component(1, second.index(c), 2) for c in "uv"))
        chroma = _subsampling(form)
    else:
        components, chroma = _planar_components(form)
        shift = 16 - bits if name.endswith("msb") else 0
    if not 8 <= bits <= 16:
        raise _unsupported(pix_fmt)
    return _Layout(components, chroma, bits, shift, np.dtype(np.uint8 if bits == 8 else f"{order}u2"))


def _packed_components(samples: str) -> tuple[tuple[_Component, ...], Chroma]:
    if "R" in samples:
        return tuple(_Component(0, samples.index(c), len(samples)) for c in "RGB"), "rgb"
    luma = _Component(0, samples.index("Y"), len(samples) // samples.count("Y"))
    if "U" not in samples:
        return (luma,), "gray"
    colours = tuple(_Component(0, samples.index(c), len(samples)) for c in "UV")
    return (luma, *colours), "422" if samples.count("Y") == 2 else "444"


def _planar_components(form: av.VideoFormat) -> tuple[tuple[_Component, ...], Chroma]:
    colours = [component for component in form.components if not component.is_alpha]
    if len({component.plane for component in colours}) != len(colours) or form.is_bit_stream:
        raise _unsupported(form.name)
    planes = tuple(_Component(component.plane, 0, 1) for component in colours)
    if form.is_rgb:
        return planes, "rgb"
    return planes, "gray" if len(planes) == 1 else _subsampling(form)


def _subsampling(form: av.VideoFormat) -> Chroma:
    chroma = form.components[1]
    return _CHROMA_BY_SUBSAMPLING[form.width // chroma.width, form.height // chroma.height]


def _unsupported(pix_fmt: str) -> UnsupportedFormat:
    return UnsupportedFormat(
        f"pictures of the pixel format {pix_fmt!r} cannot be used. "
        "Convert the file first, for example with: ffmpeg -i INPUT -pix_fmt yuv420p -c:a copy OUTPUT"
    )


def write_planes(picture: av.VideoFrame, planes: Planes) -> None:
    """Write planes over the first colour components of a writable picture.

    Args:
        picture: Made writable before; its other components, alpha and side data stay as they are.
        planes: (height, width) each, in the picture's own code range.

    Raises:
        EncodeError: A plane has another size than its component.
    """
    views = component_planes(picture)
    for view, plane in zip(views, planes, strict=False):
        if view.shape != plane.shape:
            raise EncodeError(f"derained plane of {plane.shape} does not fit the picture's {view.shape}")
        np.copyto(view, plane, casting="same_kind")
