"""Views of colour components, checked against swscale's own unpacking of the same frame."""

from __future__ import annotations

import av
import numpy as np
import pytest

from streamderain.errors import UnsupportedFormat
from streamderain.frame import Geometry
from streamderain.media.pixels import component_planes, geometry_of, working_format
from tests.support.media import picture

HARDWARE = {
    "cuda",
    "vaapi",
    "vulkan",
    "qsv",
    "vdpau",
    "opencl",
    "drm_prime",
    "mediacodec",
    "mmal",
    "amf",
    "ohcodec",
}
HARDWARE |= {name for name in av.video.format.names if name.startswith(("d3d1", "dxva2", "videotoolbox"))}
SOFTWARE = sorted(set(av.video.format.names) - HARDWARE)

NOT_READ = {"rgb4", "bgr4", "x2rgb10be", "x2bgr10be", "v30xbe", "xv30be"}  # swscale does not read these
NOT_READ |= {
    f"{name}{order}"
    for name in ("gray32", "gbrap32", "rgb96", "rgba128", "rgbaf32")
    for order in ("le", "be")
}
NOT_READ |= {"yaf32le", "yaf32be"}  # FFmpeg 8.1's swscale aborts the process on these


NOT_WRITTEN = {"y210be", "y212be", "y216be"}  # read by swscale, not written

READ = sorted(set(SOFTWARE) - NOT_READ)
USED_AS_IS = [name for name in READ if working_format(name) is None]
CONVERTED = [name for name in READ if working_format(name)]
PLANAR_RGBA = [name for name in USED_AS_IS if name.startswith("gbrap")]


def blank(pix_fmt: str, width: int = 36, height: int = 20) -> av.VideoFrame:
    """A frame of random bytes: every format can be made that way, whatever swscale can write."""
    frame = av.VideoFrame(width, height, pix_fmt)
    rng = np.random.default_rng(3)
    for plane in frame.planes:
        codes = np.frombuffer(plane, np.uint8)
        codes[:] = rng.integers(0, 256, codes.size, dtype=np.uint8)
    return frame


def canonical(geometry: Geometry) -> str:
    """The planar little-endian format with the same depth and chroma."""
    depth = "" if geometry.bits == 8 else f"{geometry.bits}le"
    if geometry.chroma == "gray":
        return f"gray{depth}"
    if geometry.is_rgb:
        return f"gbrp{depth}"
    return f"yuv{geometry.chroma}p{depth}"


@pytest.mark.parametrize("pix_fmt", READ)
def test_every_format_that_is_read_is_used_or_converted_to_one_that_is(pix_fmt: str) -> None:
    target = working_format(pix_fmt)
    assert target is None or working_format(target) is None


@pytest.mark.parametrize("pix_fmt", sorted(HARDWARE | NOT_READ))
def test_frames_in_device_memory_and_unknown_layouts_are_refused_by_name(pix_fmt: str) -> None:
    with pytest.raises(UnsupportedFormat, match=pix_fmt):
        working_format(pix_fmt)


@pytest.mark.parametrize("pix_fmt", sorted(set(USED_AS_IS) - set(PLANAR_RGBA) - NOT_WRITTEN))
def test_components_are_what_swscale_unpacks(pix_fmt: str) -> None:
    frame = picture(0, 36, 20, pix_fmt)
    geometry = geometry_of(frame)
    expected = frame
    if not pix_fmt.startswith("yuvj"):
        expected = frame.reformat(format=canonical(geometry), threads=1)
    order = (2, 0, 1) if geometry.is_rgb else (0, 1, 2)
    views = component_planes(frame)
    assert len(views) == (1 if geometry.chroma == "gray" else 3)
    for number, view in enumerate(views):
        plane = expected.planes[order[number] if len(views) == 3 else 0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size).view(geometry.dtype)
        want = rows[: plane.height, : plane.width].astype(np.int32)
        got = (view.astype(np.int32)) >> geometry.shift
        assert got.shape == want.shape
        assert np.abs(got - want).max() <= 1, f"component {number} of {pix_fmt}"


@pytest.mark.parametrize("pix_fmt", PLANAR_RGBA)
def test_planar_rgb_with_alpha_is_unpacked_like_packed(pix_fmt: str) -> None:
    """Not compared with gbrp as the others are: FFmpeg 8.1's gbrap to gbrp spoils the last row at 16 bits."""
    frame = picture(0, 36, 20, pix_fmt)
    packed = frame.reformat(format="rgba64le", threads=1)
    shift = 16 - geometry_of(frame).bits
    for view, want in zip(component_planes(frame), component_planes(packed), strict=True):
        assert np.abs(view.astype(np.int32) - (want >> shift)).max() <= 1


WRITABLE_BY_SWSCALE = [
    "monow",
    "monob",
    "rgb4_byte",
    "bgr4_byte",
    "rgb8",
    "bgr8",
    "pal8",
    "xyz12le",
    "xyz12be",
]
WRITABLE_BY_SWSCALE += [
    f"{o}{bits}{e}" for o in ("rgb", "bgr") for bits in (444, 555, 565) for e in ("le", "be")
]
WRITABLE_BY_SWSCALE += ["x2rgb10le", "x2bgr10le", "v30xle", "xv30le"]
WRITABLE_BY_SWSCALE += ["grayf32le", "grayf32be", "gbrpf32le", "gbrpf32be", "gbrapf32le", "gbrapf32be"]


@pytest.mark.parametrize("pix_fmt", WRITABLE_BY_SWSCALE)
def test_conversion_keeps_the_picture(pix_fmt: str) -> None:
    frame = picture(0, 36, 20, pix_fmt)
    converted = frame.reformat(format=working_format(pix_fmt), threads=1)
    got = np.stack(component_planes(converted.reformat(format="rgb24", threads=1))).astype(np.int32)
    want = np.stack(component_planes(frame.reformat(format="rgb24", threads=1))).astype(np.int32)
    assert geometry_of(converted).bits >= min(16, max(c.bits for c in frame.format.components))
    assert np.abs(got - want).max() <= 2


@pytest.mark.parametrize("pix_fmt", CONVERTED)
def test_every_conversion_is_one_that_swscale_can_do(pix_fmt: str) -> None:
    frame = av.VideoFrame(36, 20, pix_fmt)
    for plane in frame.planes:
        np.frombuffer(plane, np.uint8)[:] = 0
    assert frame.reformat(format=working_format(pix_fmt), threads=1).format.name == working_format(pix_fmt)


@pytest.mark.parametrize("pix_fmt", USED_AS_IS)
@pytest.mark.parametrize("size", [(1, 1), (37, 21)], ids=str)
def test_odd_sizes_have_chroma_rounded_up_and_views_are_writable(pix_fmt: str, size: tuple[int, int]) -> None:
    frame = av.VideoFrame(*size, pix_fmt)
    geometry = geometry_of(frame)
    across, down = {"420": (2, 2), "422": (2, 1), "440": (1, 2), "411": (4, 1), "410": (4, 4)}.get(
        geometry.chroma, (1, 1)
    )
    luma, *chroma = component_planes(frame)
    assert luma.shape == (size[1], size[0])
    for view in chroma:
        assert view.shape == (-(-size[1] // down), -(-size[0] // across))
    for number, view in enumerate((luma, *chroma)):
        view[...] = number + 1
    assert [int(view[-1, -1]) for view in component_planes(frame)] == list(range(1, 2 + len(chroma)))


@pytest.mark.parametrize(
    ("pix_fmt", "alpha"),
    [("yuva420p", 3), ("gbrap", 3), ("rgba", 0), ("ya8", 0), ("ayuv64le", 0), ("argb", 0)],
)
def test_alpha_is_never_touched(pix_fmt: str, alpha: int) -> None:
    frame = blank(pix_fmt)
    before = np.frombuffer(frame.planes[alpha], np.uint8).copy()
    for view in component_planes(frame):
        view[...] = ~view
    after = np.frombuffer(frame.planes[alpha], np.uint8)
    same = before == after
    assert same.all() if alpha else 0 < same.sum() < same.size


def test_rows_of_a_padded_line_are_the_picture_only() -> None:
    frame = blank("yuv420p", width=33)
    assert frame.planes[0].line_size > 33
    assert component_planes(frame)[0].shape == (20, 33)


def test_a_view_keeps_its_frame_alive() -> None:
    view = component_planes(blank("gray"))[0]
    copy = view.copy()
    for _ in range(50):
        blank("gray")
    assert (view == copy).all()


@pytest.mark.parametrize(
    ("pix_fmt", "bits", "shift", "chroma"),
    [
        ("yuv420p", 8, 0, "420"),
        ("nv12", 8, 0, "420"),
        ("p010le", 10, 6, "420"),
        ("p416be", 16, 0, "444"),
        ("yuv422p10be", 10, 0, "422"),
        ("y210le", 10, 6, "422"),
        ("yuv444p12msble", 12, 4, "444"),
        ("gbrp10msble", 10, 6, "rgb"),
        ("xv36le", 12, 4, "444"),
        ("gray9le", 9, 0, "gray"),
        ("ya16be", 16, 0, "gray"),
        ("yuv410p", 8, 0, "410"),
        ("bgr0", 8, 0, "rgb"),
    ],
)
def test_depth_shift_and_chroma(pix_fmt: str, bits: int, shift: int, chroma: str) -> None:
    geometry = geometry_of(av.VideoFrame(64, 64, pix_fmt))
    assert (geometry.bits, geometry.shift, geometry.chroma) == (bits, shift, chroma)


@pytest.mark.parametrize(
    ("pix_fmt", "tag", "expected"),
    [
        ("yuv420p", 0, "limited"),
        ("yuv420p", 1, "limited"),
        ("yuv420p", 2, "full"),
        ("yuvj420p", 0, "full"),
        ("gray", 0, "full"),
        ("gray", 1, "limited"),
        ("rgb24", 0, "full"),
        ("gbrp", 1, "full"),
    ],
)
def test_range_follows_the_tag_then_the_format(pix_fmt: str, tag: int, expected: str) -> None:
    frame = av.VideoFrame(64, 64, pix_fmt)
    frame.color_range = tag
    assert geometry_of(frame).range == expected


@pytest.mark.parametrize(
    ("tag", "height", "expected"),
    [
        (1, 64, "bt709"),
        (5, 1080, "bt601"),
        (6, 64, "bt601"),
        (9, 64, "bt2020"),
        (2, 720, "bt709"),
        (2, 576, "bt601"),
    ],
)
def test_matrix_follows_the_tag_then_the_height(tag: int, height: int, expected: str) -> None:
    frame = av.VideoFrame(64, height, "yuv420p")
    frame.colorspace = tag
    assert geometry_of(frame).matrix == expected


@pytest.mark.parametrize("pix_fmt", ["pal8", "monow", "rgb565le", "gbrpf32le", "bayer_rggb8"])
def test_what_must_be_converted_first_says_so(pix_fmt: str) -> None:
    with pytest.raises(UnsupportedFormat, match=f"{pix_fmt}.*Convert"):
        geometry_of(av.VideoFrame(16, 16, pix_fmt))
