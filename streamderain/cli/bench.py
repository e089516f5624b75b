"""The command `streamderain bench`: measure speed and quality, and print or write the results."""

from __future__ import annotations

import json
from typing import Any

from streamderain.cli.outputs import check_reports, write_report
from streamderain.cli.run import run_options
from streamderain.cli.tables import print_table, telling
from streamderain.measure.bench import BenchOptions, bench
from streamderain.measure.summary import facts, markdown, tables, to_json

DEFAULT_S = 10.0
"""So much of a user's clip is measured unless -t says more."""


def bench_command(
    *,
    source: str | None,
    reference: str | None,
    synth_rain: bool,
    engine: str,
    model: str,
    sizes: str,
    repeats: int,
    json_path: str | None,
    markdown_path: str | None,
    html_path: str | None,
    overwrite: bool,
    quiet: bool,
    **arguments: Any,
) -> int:
    """Run the command and return its exit code."""
    reports = {"--json": json_path, "--markdown": markdown_path, "--html": html_path}
    check_reports(reports, sources=[*filter(None, (source, reference))], overwrite=overwrite)
    arguments["duration_s"] = arguments["duration_s"] or DEFAULT_S
    options = BenchOptions(
        source=source,
        reference=reference,
        synth_rain=synth_rain,
        run=run_options(arguments),
        engines=_names(engine),
        models=_names(model),
        scenes=_names(sizes),
        repeats=repeats,
    )
    with telling(quiet=quiet) as tell:
        found = bench(options, tell)
    to_stderr = "-" in (json_path, markdown_path, html_path)
    for table in [] if quiet else [*tables(found), facts(found)]:
        print_table(table, to_stderr=to_stderr)
    write_report(json.dumps(to_json(found), indent=1) + "\n", json_path, overwrite=overwrite)
    write_report(markdown(found), markdown_path, overwrite=overwrite)
    if html_path is not None:
        from streamderain.measure.pages import bench_page  # slow to import

        write_report(bench_page(found), html_path, overwrite=overwrite)
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
