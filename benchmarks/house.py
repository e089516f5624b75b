"""Draw the packages of streamderain from their imports, for CONTRIBUTING.md."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent
_GROUND = ("frame", "trace", "errors", "closable", "addresses", "models", "options", "events")
"""What every package may use; named once instead of in each line."""


def packages() -> str:
    """Return a table of packages from top to bottom: what each does, and which it imports directly."""
    graph = grimp.build_graph("streamderain")
    lines = ["| package | what it does | imports |", "|---|---|---|"]
    for layer in _layers():
        for name in layer:
            used = [other for row in _layers() for other in row if _imports(graph, name, other)]
            ground = [other for other in used if other in _GROUND]
            shown = [f"`{other}`" for other in used if other not in _GROUND]
            if ground and name not in _GROUND:
                shown.append("ground")
            lines.append(f"| `{name}` | {_opening(name)} | {' '.join(shown) or '-'} |")
    lines.append("")
    lines.append(f"*ground*: {', '.join(f'`{name}`' for name in _GROUND)}.")
    return "\n".join(lines)


def _layers() -> list[list[str]]:
    """Return the layers of the import contract, the highest first."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = table["tool"]["importlinter"]["contracts"]
    (layers,) = (one["layers"] for one in contracts if one.get("containers") == ["streamderain"])
    return [[name.strip() for name in layer.split("|")] for layer in layers]


def _imports(graph: grimp.ImportGraph, name: str, other: str) -> bool:
    if name == other:
        return False
    importer, imported = f"streamderain.{name}", f"streamderain.{other}"
    return graph.direct_import_exists(importer=importer, imported=imported, as_packages=True)


def _opening(name: str) -> str:
    """Return the first line of a module's or package's docstring."""
    path = ROOT / "streamderain" / f"{name}.py"
    path = path if path.exists() else ROOT / "streamderain" / name / "__init__.py"
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
