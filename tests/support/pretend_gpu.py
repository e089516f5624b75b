"""Run Python on a pretend GPU: the real cuda-core on a driver of our own, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.requirements import require

ROOT = Path(__file__).parents[2]
_SOURCE = Path(__file__).with_name("pretend_cuda.cpp")


def require_rtx() -> None:
    """Skip where TensorRT for RTX or what it needs is not installed."""
    for package in ("tensorrt_rtx", "cuda", "onnx", "onnxruntime"):
        require(importlib.util.find_spec(package), f"{package} (pip install -e .[train,rtx])")


@pytest.fixture(scope="session")
def pretend_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pretend CUDA driver, built on the spot."""
    require_rtx()
    compiler = shutil.which("g++")
    require(compiler, "g++")
    folder = tmp_path_factory.mktemp("driver")
    command = [str(compiler), "-shared", "-fPIC", "-O1", "-pthread", "-o", str(folder / "libcuda.so.1")]
    subprocess.run([*command, str(_SOURCE)], check=True)
    return folder


class PretendGpu:
    """A machine with pretend GPUs.

    Args:
        driver: Folder of the driver.
        home: Where plans are kept.
        settings: What the driver reads from the environment, without its prefix.
    """

    def __init__(self, driver: Path, home: Path, **settings: object) -> None:
        self.environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(driver),
            "XDG_CACHE_HOME": str(home),
            **{f"PRETEND_CUDA_{name.upper()}": str(value) for name, value in settings.items()},
        }

    def scenario(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Run a function of `tests.support.pretend_scenarios`; return what it returns."""
        command = [sys.executable, "-m", "tests.support.pretend_scenarios", name, json.dumps(arguments)]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def streamderain(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run the command, with its tensorrt engine on the pretend GPU."""
        code = (
            "from tests.support import pretend_program; pretend_program.install();"
            "from streamderain.__main__ import main; main()"
        )
        return self.python(code, *arguments)

    def python(self, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run Python code on the machine."""
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=240, check=False
        )
