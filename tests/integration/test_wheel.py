"""What is installed: one package, with the model and the demo clip inside."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return next(folder.glob("*.whl"))


def test_only_the_package_is_in_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"streamderain"}
    assert "streamderain/engines/dcd-lite/card.toml" in names
    assert "streamderain/assets/demo.mp4" in names
    assert "streamderain/measure/templates/bench.html.j2" in names
    assert "streamderain/py.typed" in names
    assert any(name.endswith("licenses/NOTICE") for name in names)
    assert not any(name.startswith("streamderain/engines/") and name.endswith(".py") for name in names)


def test_the_installed_package_finds_its_model(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "from streamderain.models import load_model; card = load_model('dcd-lite');"
        "[card.file(name) for name in card.files]; print(card.folder)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert Path(done.stdout.strip()) == tmp_path / "streamderain" / "engines" / "dcd-lite"
