"""How much memory a process may still take."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from streamderain.system import memory


def test_a_containers_limit_counts_where_it_is_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    free = psutil.virtual_memory().available
    assert abs(memory.available_bytes() - free) < 0.2 * free
    (tmp_path / "memory.current").write_text("40000\n")
    (tmp_path / "memory.max").write_text("100000\n")
    assert memory.available_bytes() == 60_000
    (tmp_path / "memory.max").write_text("30000\n")
    assert memory.available_bytes() == 0
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes() > 60_000
