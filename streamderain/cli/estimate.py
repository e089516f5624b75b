"""The command `streamderain estimate`: print time, memory and output size of a run."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from streamderain.cli.outputs import check_reports, write_report
from streamderain.cli.run import run_options
from streamderain.cli.tables import duration_text, print_table, telling
from streamderain.cli.text import rate_text
from streamderain.measure.estimate import Estimate, estimate
from streamderain.measure.tables import Table


def estimate_command(
    *, source: str, json_path: str | None, overwrite: bool, quiet: bool, **arguments: Any
) -> int:
    """Run the command and return its exit code."""
    check_reports({"--json": json_path}, sources=[source], overwrite=overwrite)
    with telling(quiet=quiet) as tell:
        found = estimate(source, run_options(arguments), tell)
    if not quiet:
        print_table(_table(found), to_stderr=json_path == "-")
    files = [dataclasses.asdict(one) for one in found]
    whole = {"files": files, "time_s": sum(one.time_s for one in found)}
    write_report(json.dumps(whole, indent=2) + "\n", json_path, overwrite=overwrite)
    return 0


def _table(found: list[Estimate]) -> Table:
    rows = [
        (
            one.source,
            str(one.frames),
            f"{rate_text(one.fps)} ({rate_text(one.fps_low)}–{rate_text(one.fps_high)})",
            duration_text(one.time_s),
            _mb(one.memory_bytes),
            f"{_mb(one.output_bytes)} ({_mb(one.output_low_bytes)}–{_mb(one.output_high_bytes)})",
        )
        for one in found
    ]
    if len(found) > 1:
        size = _mb(sum(one.output_bytes for one in found))
        memory = _mb(max(one.memory_bytes for one in found))
        frames = sum(one.frames for one in found)
        time_s = sum(one.time_s for one in found)
        rows.append(("together", str(frames), "", duration_text(time_s), memory, size))
    header = ("source", "frames", "frames/s", "time", "memory MB", "output MB")
    device = max((one.device_bytes or 0 for one in found), default=0)
    on_device = f" It takes about {_mb(device)} MB of the GPU's own memory." if device else ""
    most = max(one.jobs for one in found)
    at_once = f", {most} pieces of a file at once" if most > 1 else ""
    note = (
        f"{found[0].model} on {found[0].engine}{at_once}; from pieces spread over each file. In brackets: "
        "the slowest and fastest piece, and the 90 % interval of the size. Other work on this machine costs "
        "time." + on_device
    )
    return Table("Estimate", header, [*rows], note)


def _mb(count: int) -> str:
    return f"{count / 1e6:.3g}"
