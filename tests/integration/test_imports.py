"""Importing the package and asking for help need nothing but click."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import click
import pytest

import streamderain

HEAVY = ("torch", "openvino", "tensorrt", "av", "numpy", "rich")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter whose environment holds streamderain and click, and nothing else."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(folder, symlinks=True, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    for package in (streamderain, click):
        home = Path(package.__file__).parent
        (site / home.name).symlink_to(home)
    return folder / "bin" / "python"


def run(python: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-I", "-c", code], capture_output=True, text=True, env={}, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "code",
    [
        "import streamderain; assert streamderain.__version__",
        "import sys; sys.argv[1:] = ['--help']; from streamderain.cli.main import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code",
        "import sys; sys.argv[1:] = ['run', '--help']; from streamderain.cli.main import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code",
        "from streamderain import RunOptions, list_models; assert RunOptions()",
    ],
)
def test_nothing_heavy_is_imported(python: Path, code: str) -> None:
    check = f"\nimport sys; assert not set({HEAVY!r}) & set(sys.modules), sorted(sys.modules)"
    result = run(python, code + check)
    assert result.returncode == 0, result.stderr


def test_the_empty_environment_is_empty(python: Path) -> None:
    for name in HEAVY:
        assert run(python, f"import {name}").returncode != 0


def test_every_public_name_can_be_loaded() -> None:
    for name in streamderain.__all__:
        assert getattr(streamderain, name) is not None
    assert set(streamderain.__all__) <= set(dir(streamderain))
    with pytest.raises(AttributeError):
        _ = streamderain.no_such_name  # type: ignore[attr-defined]


def test_this_environment_can_import_the_heavy_ones() -> None:
    """Otherwise the tests above would pass for the wrong reason."""
    for name in ("openvino", "av", "numpy", "rich"):
        result = subprocess.run([sys.executable, "-c", f"import {name}"], timeout=120, check=False)
        assert result.returncode == 0


def test_opening_an_engine_reports_to_nobody() -> None:
    """OpenVINO's telemetry forks the process and speaks to a server of others; a stand-in takes its place."""
    program = (
        "import os, sys, time\n"
        "forks = []\n"
        "os.register_at_fork(before=lambda: forks.append(1))\n"
        "from streamderain.options import EngineOptions\n"
        "from streamderain.runtime.registry import open_engine\n"
        "open_engine(EngineOptions(engine='openvino')).close()\n"
        "time.sleep(1)\n"
        "assert not forks\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], timeout=120, check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
