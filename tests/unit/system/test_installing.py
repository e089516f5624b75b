"""The commands that messages advise can be run: pip finds all they name."""

from __future__ import annotations

import shlex
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from streamderain.runtime.registry import ENGINES
from streamderain.system import installing
from streamderain.system.installing import install_command, reinstall_command


def test_packages_come_in_the_versions_that_are_asked_for() -> None:
    assert install_command("openvino") == "pip install 'openvino>=2025.0'"
    assert shlex.split(install_command("torch", "safetensors"))[2:] == ["torch>=2.11", "safetensors>=0.4"]
    assert install_command("unheard-of") == "pip install unheard-of"


def test_no_engine_is_installed_by_a_name_that_pip_may_not_know() -> None:
    for entry in ENGINES.values():
        assert "streamderain" not in entry.install


class Installed:
    """Streamderain's metadata as pip writes it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.requires: list[str] = []

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return f'{{"url": "{self._url}"}}' if self._url else None


@pytest.mark.parametrize("name", ["a checkout", "streamderain-0.1.0-py3-none-any.whl"])
def test_it_is_installed_again_from_where_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place = tmp_path / name

    def found(_: str) -> Any:
        return Installed(place.as_uri())

    monkeypatch.setattr(installing, "distribution", found)
    assert reinstall_command() == "pip install --force-reinstall streamderain", "the place is gone"
    place.mkdir()
    assert shlex.split(reinstall_command())[-1] == str(place)
    monkeypatch.setattr(installing, "distribution", lambda _: Installed(""))
    assert reinstall_command() == "pip install --force-reinstall streamderain"


def test_nothing_breaks_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> Any:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(installing, "distribution", missing)
    assert install_command("torch") == "pip install torch"
    assert reinstall_command() == "pip install --force-reinstall streamderain"
