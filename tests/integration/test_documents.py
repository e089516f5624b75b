"""The Python in the README and the guide runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import media

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def examples() -> list[Any]:
    found = []
    for name in ("README.md", "docs/guide.md"):
        blocks = BLOCK.findall((ROOT / name).read_text())
        found += [pytest.param(block, id=f"{name}-{number}") for number, block in enumerate(blocks)]
    return found


@pytest.mark.parametrize("code", examples())
def test_example_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    media.write(tmp_path / "dashcam.mp4", media.Video(frames=40), audio=[media.Sound(seconds=1.6)])
    rainy = np.full((48, 64, 3), 90, np.uint8)
    names = {"rainy": rainy, "list_of_frames": [rainy, rainy]}
    exec(compile(code, "example", "exec"), names)


def test_there_are_examples() -> None:
    assert len(examples()) >= 5


def test_every_command_in_the_readme_is_one_the_program_has() -> None:
    from streamderain.cli.main import cli

    lines = re.findall(r"^streamderain (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert lines
    assert set(lines) <= set(cli.commands)
