"""Planes into blocks and back."""

from __future__ import annotations

import numpy as np
import pytest

from streamderain.runtime.blocks import block_means, extended, from_blocks, to_blocks


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("block", [2, 4, 8])
def test_blocks_lie_beside_each_other_row_by_row(dtype: type, block: int) -> None:
    rng = np.random.default_rng(0)
    planes = [rng.integers(0, 255, (3 * block, 5 * block)).astype(dtype) for _ in range(3)]
    target = np.empty((3, 5, 3 * block**2), dtype)
    to_blocks(planes, target, block=block)
    for number, plane in enumerate(planes):
        expected = plane.reshape(3, block, 5, block).swapaxes(1, 2).reshape(3, 5, block**2)
        np.testing.assert_array_equal(target[..., number * block**2 :][..., : block**2], expected)
        back = from_blocks(np.ascontiguousarray(expected), block=block, width=5 * block - 1, height=3 * block)
        np.testing.assert_array_equal(back, plane[:, :-1])
    means = block_means(target[..., block**2 : 2 * block**2])
    np.testing.assert_allclose(means, target[..., block**2 : 2 * block**2].mean(-1), rtol=1e-6)


def test_what_is_beyond_a_plane_repeats_its_edge() -> None:
    plane = np.arange(15, dtype=np.uint16).reshape(3, 5)
    whole = extended(plane, 4)
    np.testing.assert_array_equal(whole, np.pad(plane, ((0, 1), (0, 3)), mode="edge"))
    assert extended(whole, 4) is whole


def test_shifted_codes_are_shifted_back() -> None:
    blocks = np.arange(32, dtype=np.uint16).reshape(1, 2, 16)
    assert from_blocks(blocks, block=4, width=8, height=4, shift=6)[0, 1] == 1 << 6
