"""The types of the real bindings of all TensorRT packages hold for the code that calls them.

The bindings are small and need no GPU, but their libraries are large and not on the index, and two of them
are one module. So each is imported in a process of its own, on libraries of ten lines that do nothing, to
have its stubs written; mypy reads those. `TENSORRT_BINDINGS` names the folder of the bindings: `.ci/run`
fetches them.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pretend_gpu import ROOT
from tests.support.requirements import require

FOLDER = os.environ.get("TENSORRT_BINDINGS", "")
CHECKED = ("tensorrt.py", "tensorrt_library.py", "plans.py", "cuda.py", "cuda_session.py")
LIBRARIES = {
    "libnvinfer.so": "createInferBuilder_INTERNAL createInferRuntime_INTERNAL createInferRefitter_INTERNAL "
    "getBuilderPluginRegistry getPluginRegistry",
    "libnvonnxparser.so": "createNvOnnxParser_INTERNAL createNvOnnxParserRefitter_INTERNAL "
    "getNvOnnxParserVersion",
    "libnvinfer_plugin.so": "initLibNvInferPlugins",
}


def write_stubs(module: str, target: Path, **environment: str) -> None:
    """Have the stubs of a compiled module written."""
    arguments = ["pybind11-stubgen", module, "-o", str(target), "--ignore-all-errors"]
    code = f"import sys; from pybind11_stubgen import main; sys.argv = {arguments}; main()"
    command = [sys.executable, "-c", code]
    environ = {**os.environ, **environment}
    subprocess.run(command, env=environ, check=True, capture_output=True, timeout=240)


def empty_libraries(folder: Path, version: str) -> None:
    """Build libraries that have what the bindings look for, and do nothing."""
    compiler = shutil.which("gcc") or shutil.which("g++")
    require(compiler, "gcc")
    folder.mkdir()
    for name, functions in LIBRARIES.items():
        source = folder / f"{name}.c"
        source.write_text(
            "".join(f"void *{function}(void) {{ return 0; }}\n" for function in functions.split())
        )
        soname = f"{name}.{version}"
        command = [str(compiler), "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-x", "c", str(source)]
        subprocess.run([*command, "-o", str(folder / soname)], check=True)


def as_module(written: Path, target: Path) -> None:
    """Make a stub file that mypy can read of what was written, as the module `tensorrt`.

    Parameters may be called `in`, and may have no default behind one that has: of such functions only the
    name is kept. What the bindings define outside, or by the buffer protocol, is added.
    """
    lines = ["# mypy: ignore-errors", "__version__: str"]
    for line in written.read_text().splitlines():
        found = re.match(r"(\s*)def (\w+)\((.*)\)( -> .*)?:$", line)
        if found and not _parses(line):
            indent, name, parameters, result = found.groups()
            owner = "self, " if parameters.startswith("self") else ""
            line = f"{indent}def {name}({owner}*args: Any, **kwargs: Any){result or ''}:"
        lines.append(line)
        if line.startswith("class IHostMemory"):
            lines.append("    def __buffer__(self, flags: int, /) -> memoryview: ...")
    text = "\n".join(lines).replace("from __future__ import annotations", "")
    package = target / "tensorrt"
    package.mkdir(parents=True)
    (package / "__init__.pyi").write_text(f"from typing import Any\n{text}\n")


def _parses(line: str) -> bool:
    try:
        compile(f"{line.strip()} ...", "stub", "exec")
    except SyntaxError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("package", ["rtx", "10", "11"])
def test_the_calls_fit_the_real_bindings(package: str, tmp_path: Path) -> None:
    require(importlib.util.find_spec("pybind11_stubgen"), "pybind11-stubgen (pip install -e .[dev])")
    written = tmp_path / "written"
    if package == "rtx":
        require(importlib.util.find_spec("tensorrt_rtx_bindings"), "tensorrt_rtx (pip install -e .[rtx])")
        write_stubs("tensorrt_rtx_bindings.tensorrt_rtx", written)
    else:
        bindings = Path(FOLDER) / package
        require(FOLDER and bindings.is_dir(), f"TENSORRT_BINDINGS with tensorrt-cu13-bindings {package}")
        libraries = tmp_path / "libraries"
        empty_libraries(libraries, package)
        paths = {"PYTHONPATH": str(bindings), "LD_LIBRARY_PATH": str(libraries)}
        write_stubs("tensorrt_bindings.tensorrt", written, **paths)
    as_module(next(written.rglob("tensorrt*.pyi")), tmp_path / "stubs")
    files = [str(ROOT / "streamderain" / "runtime" / name) for name in CHECKED]
    said = checked(files, tmp_path)
    assert "Success" in said, said
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import tensorrt as trt\ntrt.Runtime(5).compute()\n")
    assert "Found 2 errors" in checked([str(wrong)], tmp_path)


def checked(files: list[str], folder: Path) -> str:
    """Return what mypy says of files, the stubs in a folder at hand."""
    options = ["--strict", "--explicit-package-bases", "--ignore-missing-imports", "--follow-imports=silent"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", *options, f"--cache-dir={folder / 'cache'}", *files],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(folder / "stubs")},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    return done.stdout
