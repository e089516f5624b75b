"""The numbers around a core of RGB: matrices, quantisation, resampling."""

from __future__ import annotations

import numpy as np
import pytest

from streamderain.frame import Chroma, Geometry, Matrix, Range
from streamderain.models import load_model
from streamderain.runtime.adapters.rgb import padded_size, resamplings, rgb_scale, working_size


@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("bits", [8, 10, 16])
@pytest.mark.parametrize("full", ["limited", "full"])
def test_there_and_back_is_nothing(matrix: Matrix, bits: int, full: Range) -> None:
    scale = rgb_scale(Geometry(8, 8, bits=bits, matrix=matrix, range=full))
    np.testing.assert_allclose(np.array(scale.from_rgb) @ np.array(scale.to_rgb), np.eye(3), atol=1e-12)


@pytest.mark.parametrize(
    ("geometry", "codes", "rgb"),
    [
        # BT.601-7 and BT.709-6: white, black, and the 100 % colour bars' red and blue, rounded to codes.
        (Geometry(8, 8, matrix="bt601"), (235, 128, 128), (1, 1, 1)),
        (Geometry(8, 8, matrix="bt601"), (16, 128, 128), (0, 0, 0)),
        (Geometry(8, 8, matrix="bt601"), (81, 90, 240), (1, 0, 0)),
        (Geometry(8, 8, matrix="bt709"), (63, 102, 240), (1, 0, 0)),
        (Geometry(8, 8, matrix="bt709"), (32, 240, 118), (0, 0, 1)),
        (Geometry(8, 8, bits=10, matrix="bt709"), (250, 409, 960), (1, 0, 0)),
        # JFIF: full range, BT.601.
        (Geometry(8, 8, matrix="bt601", range="full"), (76, 85, 255), (1, 0, 0)),
        (Geometry(8, 8, chroma="gray", range="full"), (255,), (1, 1, 1)),
        (Geometry(8, 8, chroma="gray"), (16,), (0, 0, 0)),
        (Geometry(8, 8, chroma="rgb", bits=16, range="full"), (65535, 0, 0), (1, 0, 0)),
    ],
    ids=str,
)
def test_known_colours(geometry: Geometry, codes: tuple[int, ...], rgb: tuple[int, ...]) -> None:
    scale = rgb_scale(geometry)
    units = np.array(codes) * np.array(scale.scales) + np.array(scale.offsets)
    np.testing.assert_allclose(np.array(scale.to_rgb) @ units, rgb, atol=0.01)


@pytest.mark.parametrize("chroma", ["420", "422", "444", "440", "411", "410"])
@pytest.mark.parametrize("max_size", [0, 40])
def test_resampling_keeps_what_is_flat_and_what_rises_evenly(chroma: Chroma, max_size: int) -> None:
    geometry = Geometry(95, 61, chroma=chroma)
    width, height = working_size(geometry, max_size)
    for (rows, columns), way in zip(geometry.plane_shapes, resamplings(geometry, max_size), strict=True):
        left = np.eye(rows) if way.rows is None else way.rows
        right = np.eye(columns) if way.columns is None else way.columns
        flat = left @ np.full((rows, columns), 7.0) @ right
        assert flat.shape == (height, width)
        np.testing.assert_allclose(flat, 7.0, atol=1e-4)
        # A ramp keeps its slope in px of the frame, away from the borders: nothing is shifted.
        across = -(-95 // columns)
        ramp = (left @ np.tile((np.arange(columns) + 0.5) * across, (rows, 1)) @ right)[0]
        places = (np.arange(width) + 0.5) * 95 / width
        inner = slice(width // 6, -width // 6)
        # Shrinking by a fraction weighs samples a little unevenly.
        bound = 0.1 * 95 / width if max_size else 1e-3
        np.testing.assert_allclose(ramp[inner], places[inner], atol=bound)


def test_planes_of_the_frames_size_are_left_alone() -> None:
    luma, *chroma = resamplings(Geometry(64, 48), 0)
    assert (luma.rows, luma.columns, luma.rows_back, luma.columns_back) == (None,) * 4
    assert all(way.rows is not None and way.rows.shape == (48, 24) for way in chroma)


def test_working_sizes_keep_the_aspect_and_never_grow() -> None:
    assert working_size(Geometry(1920, 1080), 960) == (960, 540)
    assert working_size(Geometry(1080, 1920), 960) == (540, 960)
    assert working_size(Geometry(640, 360), 960) == (640, 360)
    assert working_size(Geometry(4000, 1), 100) == (100, 1)


def test_the_core_reads_sizes_that_its_model_can() -> None:
    model = load_model("dcd-gan")
    assert padded_size(model, Geometry(1, 1), 0) == (16, 16)
    assert padded_size(model, Geometry(481, 321), 0) == (484, 324)
