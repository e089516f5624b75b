"""Kinds of sources times containers, read back by FFmpeg's own commands.

`python -m benchmarks robustness` tries all of them; here every source goes into the three that most people
use, two sources go everywhere, and pairs that were wrong once stay.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.judge import faults
from tests.support.kinds import CONTAINERS, SOURCES
from tests.support.writing import same_luma, write_through

pytestmark = pytest.mark.slow

USUAL = ("mp4", "mkv", "ts")
EVERYWHERE = ("h264-aac.mp4", "h264-ac3-text.mkv")
ONCE_WRONG = (
    ("late.ts", "avi"),
    ("late.ts", "flv"),
    ("vfr.mp4", "avi"),
    ("vfr.mp4", "ogv"),
    ("vfr.mp4", "ogg"),
    ("ntsc.mp4", "gif"),
    ("hevc10.mkv", "flv"),
)
PAIRS = [(source, suffix) for source in SOURCES for suffix in USUAL]
PAIRS += [(source, suffix) for source in EVERYWHERE for suffix in CONTAINERS if suffix not in USUAL]
PAIRS += ONCE_WRONG


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {name: write(folder / name) for name, write in SOURCES.items()}


@pytest.mark.parametrize(("name", "suffix"), PAIRS)
def test_a_result_is_whole(sources: dict[str, Path], tmp_path: Path, name: str, suffix: str) -> None:
    target = tmp_path / f"out.{suffix}"
    warnings = write_through(sources[name], target, change=same_luma)
    assert faults(sources[name], target, warnings) == [], warnings
