"""The command `streamderain status`: what is done of an archive, and how long the rest takes."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from streamderain.cli.outputs import check_reports, write_report
from streamderain.cli.tables import duration_text, print_table
from streamderain.jobs.ledger import Ledger, Row
from streamderain.measure.tables import Table

SHOWN_AT_MOST = 20
"""So many failed and running files are named; the rest is counted."""


def status_command(*, target: str, json_path: str | None, overwrite: bool, quiet: bool) -> int:
    """Run the command and return its exit code."""
    check_reports({"--json": json_path}, overwrite=overwrite)
    with Ledger(Path(target), create=False) as ledger:
        rows = list(ledger.rows())
    left_s = time_left_s(rows)
    if not quiet:
        print_table(_table(rows, left_s), to_stderr=json_path == "-")
    counts = Counter(row.state for row in rows)
    whole = {
        "files": len(rows),
        "counts": {state: counts[state] for state in ("done", "running", "failed", "open")},
        "left_s": left_s,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    write_report(json.dumps(whole, indent=2) + "\n", json_path, overwrite=overwrite)
    return 0


def time_left_s(rows: Sequence[Row]) -> float | None:
    """Return how long the rest takes at the speed of what is done, in seconds; None while nobody knows."""
    # Of a process that was killed right after it had named a result, nobody knows how long it took.
    done = [row for row in rows if row.state == "done" and row.elapsed_s]
    took_s, worked = sum(row.elapsed_s for row in done), sum(row.bytes for row in done)
    running = sum(row.state == "running" for row in rows)
    left = sum(row.bytes for row in rows if row.state in ("open", "running"))
    if not left:
        return 0.0
    if not worked or not running:
        return None
    return round(left * took_s / worked / running, 1)


def _table(rows: Sequence[Row], left_s: float | None) -> Table:
    counts = Counter(row.state for row in rows)
    frames = sum(row.frames for row in rows)
    parts = [f"{counts['done']} of {len(rows)} files done, {frames} frames"]
    parts += [f"{counts['running']} being worked on"] if counts["running"] else []
    parts += [f"{counts['failed']} failed (--retry-failed takes them up again)"] if counts["failed"] else []
    parts += [f"{counts['open']} to do"] if counts["open"] else []
    if left_s is None:
        parts.append(
            "nobody works on them" if not counts["running"] else "how long they take is not known yet"
        )
    elif left_s:
        parts.append(f"{duration_text(left_s)} left")
    told = [row for row in rows if row.state in ("failed", "running")]
    shown: list[tuple[str, ...]] = [
        (row.name, row.state, row.error or row.owner) for row in told[:SHOWN_AT_MOST]
    ]
    if len(told) > SHOWN_AT_MOST:
        shown.append((f"and {len(told) - SHOWN_AT_MOST} more", "", ""))
    return Table("Archive", ("file", "state", "what is known"), shown, "; ".join(parts))
