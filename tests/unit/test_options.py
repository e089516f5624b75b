from __future__ import annotations

import math

import pytest

from streamderain.errors import ConfigError
from streamderain.options import EncodeOptions, EngineOptions, ReadOptions


@pytest.mark.parametrize(
    "build",
    [
        lambda: ReadOptions(start_s=-1),
        lambda: ReadOptions(start_s=math.nan),
        lambda: ReadOptions(duration_s=0),
        lambda: ReadOptions(image_rate_fps=0),
        lambda: EncodeOptions(crf=64),
        lambda: EngineOptions(strength=1.01),
        lambda: EngineOptions(threads=-1),
    ],
)
def test_values_that_make_no_sense_are_refused_with_the_value_named(build: object) -> None:
    with pytest.raises(ConfigError, match=r"not (-?\d|nan)"):
        build()  # type: ignore[operator]


def test_extra_options_cannot_be_changed_afterwards() -> None:
    extra = {"tune": "film"}
    options = EncodeOptions(extra=extra)
    extra["tune"] = "grain"
    assert options.extra["tune"] == "film"
    with pytest.raises(TypeError):
        options.extra["tune"] = "grain"  # type: ignore[index]


def test_alignment_is_automatic_or_off() -> None:
    assert EngineOptions(alignment="off").alignment == "off"
    with pytest.raises(ConfigError, match="auto or off, not 'sideways'"):
        EngineOptions(alignment="sideways")
