"""The commands `streamderain engine`: build, list, show and remove compiled plans."""

from __future__ import annotations

import dataclasses
import json
import re
from time import localtime, strftime
from typing import Any

import click

from streamderain.cli.outputs import check_reports, write_report
from streamderain.cli.tables import print_table
from streamderain.cli.view import View
from streamderain.errors import ConfigError, EngineUnavailable
from streamderain.frame import Geometry
from streamderain.measure.tables import Table
from streamderain.media.pixels import geometry_of_format
from streamderain.media.reading.sources import find_sources, open_source
from streamderain.models import load_model
from streamderain.options import ReadOptions
from streamderain.runtime.plan_cache import PlanCache, StoredPlan
from streamderain.runtime.registry import ENGINES, require_max_size_fits


def build_command(
    *,
    model: str,
    size: str | None,
    pix_fmt: str,
    like: str | None,
    capability: str | None,
    device: str,
    precision: str,
    max_size: int,
    log_path: str | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Build the plan for one model and one size, or find it in the cache."""
    if not ENGINES["tensorrt"].installed:
        raise EngineUnavailable(f"TensorRT is not installed: {ENGINES['tensorrt'].install}")
    check_reports({"--log": log_path}, overwrite=overwrite)
    geometry = _geometry(size, pix_fmt, like)
    lines: list[str] = []

    def listen(severity: str, line: str) -> None:
        lines.append(f"{severity}: {line}\n")

    # Both need what the extra brings.
    from streamderain.runtime.cuda_session import session_bytes
    from streamderain.runtime.plans import plan_maker

    card = load_model(model)
    require_max_size_fits(card, max_size)
    listener = listen if log_path else None
    with View(quiet=quiet) as view:
        maker = plan_maker(card, precision=precision, capability=capability, device=device, listener=listener)
        plan = maker.strips(geometry, max_size=max_size, tell=view.show)[0].stored
    needed = plan.activation_bytes + plan.size_bytes + session_bytes(card, geometry)
    write_report("".join(lines), log_path, overwrite=overwrite)
    if not quiet:
        key = plan.key
        click.echo(
            f"{key.model}, {_size(key.size)} {key.planes}, {key.precision} for {_card(plan)}: "
            f"{_mb(plan.size_bytes)} in {plan.path}\n"
            f"a session needs about {_mb(needed)} of device memory, {_mb(plan.activation_bytes)} of it to "
            "compute in"
        )


def list_command(*, as_json: bool) -> None:
    """Print every plan in the cache, the latest used first."""
    cache = PlanCache()
    plans = cache.plans()
    if as_json:
        click.echo(json.dumps([_plain(plan) for plan in plans], indent=2))
        return
    if not plans:
        click.echo(f"no plans in {cache.folder}")
        return
    rows: list[tuple[str, ...]] = []
    for plan in plans:
        key = plan.key
        used = strftime("%Y-%m-%d %H:%M", localtime(plan.used_s))
        rows.append(
            (
                plan.path.stem.rpartition("-")[2][:8],
                key.model,
                _size(key.size),
                key.planes,
                _card(plan),
                key.precision,
                f"{plan.size_bytes / 1e6:.1f}",
                f"{plan.activation_bytes / 1e6:.0f}",
                used,
            )
        )
    header = ("plan", "model", "size", "planes", "card", "precision", "MB", "memory MB", "used")
    total = sum(plan.size_bytes for plan in plans)
    note = (
        f"{len(plans)} plans, {_mb(total)} of at most {cache.limit_bytes / 2**30:.3g} GiB, in {cache.folder}"
    )
    print_table(Table("Plans", header, rows, note))


def show_command(name: str, *, as_json: bool) -> None:
    """Print all that is known of one plan."""
    matching = [plan for plan in PlanCache().plans() if name in plan.path.stem]
    if len(matching) != 1:
        found = "no plan" if not matching else f"{len(matching)} plans"
        raise ConfigError(
            f"{found} in the cache have {name!r} in their name; `streamderain engine list` shows them"
        )
    plain = _plain(matching[0])
    if as_json:
        click.echo(json.dumps(plain, indent=2))
        return
    for label, value in plain.items():
        click.echo(f"{label}: {value}")


def prune_command(*, everything: bool, limit_gib: float | None) -> None:
    """Remove plans, the longest unused first."""
    cache = PlanCache()
    limit = 0 if everything else cache.limit_bytes if limit_gib is None else int(limit_gib * 2**30)
    removed = cache.prune(limit)
    click.echo(
        f"removed {len(removed)} plans, {_mb(sum(plan.size_bytes for plan in removed))}; "
        f"{len(cache.plans())} remain in {cache.folder}"
    )


def _geometry(size: str | None, pix_fmt: str, like: str | None) -> Geometry:
    if (size is None) == (like is None):
        raise ConfigError("say for which frames: give --size WIDTHxHEIGHT, or --like VIDEO")
    if like is not None:
        (spec, *_) = find_sources(like, ReadOptions())
        with open_source(spec, ReadOptions()) as source:
            return source.streams[0].geometry
    matched = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size or "")
    if matched is None or not (int(matched[1]) and int(matched[2])):
        raise ConfigError(f"--size must be WIDTHxHEIGHT, such as 1280x720, not {size!r}")
    return geometry_of_format(int(matched[1]), int(matched[2]), pix_fmt)


def _plain(plan: StoredPlan) -> dict[str, Any]:
    key = dataclasses.asdict(plan.key)
    key["size"] = _size(plan.key.size)
    return {
        "name": plan.path.stem,
        **key,
        "bytes": plan.size_bytes,
        "activation_bytes": plan.activation_bytes,
        "sha256": plan.sha256,
        "path": str(plan.path),
        "runtime_cache": str(plan.runtime_cache) if plan.runtime_cache.is_file() else None,
    }


def _card(plan: StoredPlan) -> str:
    return plan.key.card or plan.key.capability


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _mb(count: int) -> str:
    return f"{count / 1e6:.3g} MB"
