"""The command `streamderain doctor`: print the checks of the installation."""

from __future__ import annotations

import dataclasses
import json

from rich.console import Console

from streamderain.cli.outputs import check_reports, write_report
from streamderain.errors import EngineError
from streamderain.measure.doctor import Check, Diagnosis, diagnose

_MARKS = {"ok": ("ok", "green"), "missing": ("missing", "yellow"), "broken": ("broken", "red")}


def doctor_command(*, json_path: str | None, overwrite: bool) -> int:
    """Look at everything; return 0 where a plain run would work, and an engine's exit code elsewhere."""
    check_reports({"--json": json_path}, overwrite=overwrite)
    console = Console(stderr=json_path == "-", highlight=False, soft_wrap=True)
    checks = []
    for check in diagnose():
        checks.append(check)
        _show(console, check)
    diagnosis = Diagnosis(tuple(checks))
    console.print()
    if diagnosis.failed:
        names = ", ".join(check.name for check in diagnosis.failed)
        console.print(f"not ready: {names}", style="red", markup=False)
    else:
        console.print("ready: streamderain run works here", style="green")
    rows = [dataclasses.asdict(check) for check in checks]
    found = {"ready": not diagnosis.failed, "checks": rows}
    write_report(json.dumps(found, indent=2) + "\n", json_path, overwrite=overwrite)
    return EngineError.exit_code if diagnosis.failed else 0


def _show(console: Console, check: Check) -> None:
    word, colour = _MARKS[check.status]
    console.print(f"[{colour}]{word:8}[/] {check.name:18} ", end="")
    console.print(check.found, markup=False)
    if check.fix:
        console.print(f"{'':28}fix: {check.fix}", markup=False)
