"""Runs that are ended at random moments, and damaged files; `python -m benchmarks robustness` tries many
more."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.trials import ENDS, disturbed, long_clip, mutant, whole_files

pytestmark = pytest.mark.slow

MUTANTS = 36


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return long_clip(tmp_path_factory.mktemp("long"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return whole_files(tmp_path_factory.mktemp("whole"))


@settings(max_examples=14, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    end=st.sampled_from(ENDS),
    suffix=st.sampled_from(["mp4", "mkv", "ts"]),
    after_s=st.floats(0.02, 3.0),
    there=st.booleans(),
)
def test_whatever_ends_a_run_nothing_whole_is_lost(
    clip: Path, end: str, suffix: str, after_s: float, there: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert disturbed(clip, Path(folder), suffix=suffix, end=end, after_s=after_s, there=there) == []


@pytest.mark.parametrize("number", range(MUTANTS))
def test_a_damaged_file_ends_in_order(files: list[Path], tmp_path: Path, number: int) -> None:
    assert mutant(files[number % len(files)], tmp_path, 1000 + number).faults == []
