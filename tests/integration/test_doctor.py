"""`streamderain doctor`: what is found, what is missing, what crashes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamderain.errors import EngineError
from streamderain.measure import doctor
from streamderain.measure.doctor import Check, Diagnosis, try_engine
from streamderain.models import load_model
from streamderain.runtime.registry import EngineEntry
from streamderain.system.gpu import has_driver
from streamderain.system.process import Crashed
from tests.support.command import streamderain


def by_name(checks: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in checks}


def test_this_machine_is_ready(tmp_path: Path) -> None:
    outcome = streamderain("doctor", f"--json={tmp_path}/doctor.json", cwd=tmp_path)
    assert outcome.code == 0, outcome.out
    found = json.loads((tmp_path / "doctor.json").read_text())
    assert found["ready"] is True
    checks = by_name(found["checks"])
    assert checks["libx264"]["status"] == "ok"
    assert "int8 on CPU" in checks["engine openvino"]["found"]
    assert checks["engine torch"]["status"] == "ok"
    assert "undoes a pan" in checks["alignment"]["found"]
    assert {"FFmpeg", "decoders", "NVIDIA GPU", "disk, this folder", "fonts", "machine"} <= set(checks)
    assert "ready: streamderain run works here" in outcome.out.decode()


def test_json_goes_to_standard_output_alone(tmp_path: Path) -> None:
    outcome = streamderain("doctor", "--json", cwd=tmp_path)
    assert outcome.summary["ready"] is True
    assert "engine openvino" in outcome.err


def test_a_broken_model_is_found_and_mended(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "dcd-lite"
    shutil.copytree(load_model("dcd-lite").folder, folder)
    (folder / "model.int8.onnx").write_bytes(b"damaged")
    outcome = streamderain("doctor", "--json", env={"STREAMDERAIN_MODELS": str(tmp_path / "models")})
    assert outcome.code == 5
    checks = by_name(outcome.summary["checks"])
    assert checks["model dcd-lite"]["status"] == "broken"
    assert checks["model dcd-lite"]["fix"].startswith("pip install")
    assert checks["engine openvino"]["status"] == "broken"
    assert "not ready: model dcd-lite, engine openvino" in outcome.err


def collected(checks: Iterator[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_a_missing_engine_comes_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EngineEntry("nowhere:Nothing", ("no_such_package",), lambda: ("no-such-package",), "a dream")
    monkeypatch.setattr(doctor, "ENGINES", {"openvino": entry})
    check = collected(doctor._engines())["engine openvino"]
    assert (check.status, check.fix, check.needed) == ("missing", "pip install no-such-package", True)
    assert Diagnosis((check,)).failed == [check]


def test_a_crash_in_native_code_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, doing: str) -> None:
        raise Crashed("SIGFPE", doing=doing)

    monkeypatch.setattr(doctor, "isolated", crash)
    checks = collected(doctor._engines())
    assert {check.status for check in checks.values()} == {"broken"}
    assert "SIGFPE" in checks["engine openvino"].found
    assert "--engine" in checks["engine openvino"].fix
    assert doctor._encoder("libx264", "H.264").status == "broken"


@pytest.mark.parametrize("name", ["openvino", "torch", pytest.param("tensorrt", marks=pytest.mark.gpu)])
def test_an_engine_is_really_tried(name: str) -> None:
    if name == "tensorrt" and not has_driver():
        pytest.skip("needs a CUDA GPU")
    (said,) = try_engine(name, "f32")
    assert said.startswith("f32 on")


def test_an_engine_that_does_nothing_is_found_out() -> None:
    with pytest.raises(doctor.EngineError, match=r"wrong: known rain goes from .* report this"):
        list(try_engine("identity", "auto"))


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 5}))
    check = collected(doctor._disks())["disk, this folder"]
    assert (check.status, check.needed) == ("broken", True)
    assert "free some space" in check.fix


def test_a_folder_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    monkeypatch.setattr(doctor.Path, "cwd", lambda: tmp_path)
    check = collected(doctor._disks())["disk, this folder"]
    assert check.status == "broken"
    assert "No such file" in check.found


def test_alignment_that_does_not_align_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamderain.motion.align", lambda window, *, cell: window)
    with pytest.raises(EngineError, match="a pan of 6 px is not undone"):
        next(doctor.try_alignment())
