"""Several measurements as one row."""

from __future__ import annotations

import pytest

from streamderain.measure.tables import Spread, spread


def test_a_spread() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    with pytest.raises(ValueError, match="median"):
        spread([])
