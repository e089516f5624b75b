"""Turn the results of a bench into tables and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from streamderain.measure.bench import Bench, Result, flicker, pooled
from streamderain.measure.quality import METRIC_NAMES, METRICS, Quality, finite
from streamderain.measure.tables import Rows, Spread, Table, markdown_table, spread_text
from streamderain.measure.trial import STAGES

_MB = 1e6


def tables(bench: Bench) -> list[Table]:
    """Return the tables of a bench, for terminal, Markdown and page alike; none without rows."""
    found = [_speed(bench.results), _stages(bench.results), _quality(bench), _flicker(bench)]
    return [table for table in found if table.rows]


def facts(bench: Bench) -> Table:
    """Return machine, versions, models and settings, so that the figures mean something tomorrow."""
    rows: Rows = [(name, _plain(value)) for name, value in bench.machine.items() if value]
    for label, opened in {r.label: r.opened for r in bench.results if r.opened}.items():
        how = f"{opened.engine} {opened.precision} on {opened.device} ({opened.engine_reason})"
        rows.append((label, f"{how}; version {opened.model_version}, sha256 {opened.model_sha256}"))
    rows += [(name, _plain(value)) for name, value in bench.settings.items() if value not in (None, False)]
    return Table("Machine and settings", ("what", "value"), rows)


def markdown(bench: Bench) -> str:
    """Return the whole bench as Markdown."""
    return "\n".join(["# streamderain bench", "", *map(markdown_table, [*tables(bench), facts(bench)])])


def to_json(bench: Bench) -> dict[str, Any]:
    """Return the whole bench as JSON-able values."""
    return {
        "machine": bench.machine,
        "settings": bench.settings,
        "quality_measured_on": bench.kind,
        "results": [result_json(result) for result in bench.results],
    }


def _speed(results: Sequence[Result]) -> Table:
    header = (
        "clip",
        "setup",
        "frames/s",
        "x real time",
        "frame ms p50/p95/p99",
        "cores",
        "MB",
        "GPU",
        "limited by",
    )
    rows = [_speed_row(result, len(header)) for result in results]
    note = (
        "From file to file: the median of the repeats, least and most in brackets. A frame's time is from "
        "its decoding to its encoding, waiting included. Limited by: the stage that is slowest alone."
    )
    return Table("Speed", header, rows, note)


def _speed_row(result: Result, columns: int) -> tuple[str, ...]:
    if not result.repeats:
        return (result.clip, f"left out: {result.left_out}", *[""] * (columns - 2))
    factor = result.real_time_factor
    return (
        result.clip,
        result.label,
        spread_text(result.fps),
        "" if factor is None else f"{factor:.2f}",
        "/".join(f"{value.median:.0f}" for value in _latencies(result).values()),
        f"{result.of(lambda repeat: repeat.cpu_cores).median:.2f}",
        f"{result.peak_memory_bytes / _MB:.0f}",
        _gpu(result),
        result.limited_by or "",
    )


def _latencies(result: Result) -> dict[str, Spread]:
    return {
        "p50_ms": result.of(lambda repeat: repeat.latency.p50_ms),
        "p95_ms": result.of(lambda repeat: repeat.latency.p95_ms),
        "p99_ms": result.of(lambda repeat: repeat.latency.p99_ms),
    }


def _gpu(result: Result) -> str:
    uses = [use for repeat in result.repeats for use in repeat.gpu]
    if not uses:
        return "none"
    memory = max(use.memory_bytes for use in uses) / _MB
    return f"{max(use.busy_percent for use in uses)} %, {memory:.0f} MB"


def _stages(results: Sequence[Result]) -> Table:
    rows: Rows = [
        (
            result.clip,
            result.label,
            name,
            spread_text(result.stage(name, lambda cost: cost.fps), 0),
            spread_text(result.stage(name, lambda cost: cost.cpu_ms), 2),
            "/".join(f"{value.median:.1f}" for value in _stage_figures(result, name)[2:]),
        )
        for result in results
        if result.stages
        for name in STAGES
    ]
    note = (
        "Each stage with the machine to itself. Decoder, network and encoder work on several frames at a "
        "time, so that a frame takes longer than the speed suggests."
    )
    header = ("clip", "setup", "stage", "frames/s", "processor ms a frame", "ms p50/p95/p99")
    return Table("Stages alone", header, rows, note)


def _stage_figures(result: Result, name: str) -> list[Spread]:
    """Return speed, processor time, and the three percentiles."""
    return [
        result.stage(name, lambda cost: cost.fps),
        result.stage(name, lambda cost: cost.cpu_ms),
        result.stage(name, lambda cost: cost.latency.p50_ms),
        result.stage(name, lambda cost: cost.latency.p95_ms),
        result.stage(name, lambda cost: cost.latency.p99_ms),
    ]


def _quality(bench: Bench) -> Table:
    rows = []
    for result in _judged(bench):
        assert result.quality is not None
        for metric in METRICS:
            sides = pooled(result.quality)[metric]
            digits = 2 if metric.startswith("psnr") else 4
            figures = [
                f"{getattr(sides[side], name):.{digits}f}"
                for name in ("mean", "p5", "minimum")
                for side in ("before", "after")
            ]
            rows.append((result.clip, result.label, METRIC_NAMES[metric], *figures))
    header = (
        "clip",
        "setup",
        "metric",
        "mean, do nothing",
        "mean",
        "p5, do nothing",
        "p5",
        "min, do nothing",
        "min",
    )
    return Table(f"Quality, by {bench.kind}", header, rows, _quality_note(bench))


def _quality_note(bench: Bench) -> str:
    judged = [result.quality for result in _judged(bench) if result.quality is not None]
    frames = len(judged[0].frames) if judged else 0
    note = (
        f"{frames} frames, before they are encoded; Y is MATLAB's luma, equal frames count as 100 dB, "
        "SSIM 11x11 Gaussian."
    )
    unmatched = max((quality.unmatched for quality in judged), default=0)
    note += f" {unmatched} frames have no partner in the reference." if unmatched else ""
    suspicion = next((quality.suspicion for quality in judged if quality.suspicion), "")
    return note + (f" Warning: {suspicion}." if suspicion else "")


def _flicker(bench: Bench) -> Table:
    rows = []
    for result in _judged(bench):
        assert result.quality is not None
        values = flicker(result.quality)
        if values:
            figures = (f"{values[name]:.3f}" for name in ("before", "after", "reference"))
            rows.append((result.clip, result.label, *figures))
    note = (
        "Mean difference between a frame and the next after the reference's motion is undone, in codes of "
        "luma. Blurring lowers it too: the result should come near the reference, not below."
    )
    return Table("Flicker", ("clip", "setup", "do nothing", "result", "reference"), rows, note)


def _judged(bench: Bench) -> list[Result]:
    return [result for result in bench.results if result.quality is not None]


def result_json(result: Result) -> dict[str, Any]:
    """Return one setup on one clip as JSON-able values."""
    if result.opened is None:
        return {"label": result.label, "clip": result.clip, "left_out": result.left_out}
    keys = ("fps", "cpu_ms_per_frame", "p50_ms", "p95_ms", "p99_ms")
    return {
        "label": result.label,
        "clip": result.clip,
        **asdict(result.opened),
        "frames": result.repeats[0].frames,
        "fps": asdict(result.fps),
        "real_time_factor": result.real_time_factor,
        "limited_by": result.limited_by,
        "frame_latency": {name: asdict(value) for name, value in _latencies(result).items()},
        "cpu_cores": asdict(result.of(lambda repeat: repeat.cpu_cores)),
        "cpu_ms_per_frame": asdict(result.of(lambda repeat: repeat.cpu_ms)),
        "peak_memory_mb": round(result.peak_memory_bytes / _MB, 1),
        "gpu": [[asdict(use) for use in repeat.gpu] for repeat in result.repeats],
        "stages": {
            name: dict(zip(keys, map(asdict, _stage_figures(result, name)), strict=True))
            for name in (STAGES if result.stages else ())
        },
        "quality": None if result.quality is None else _quality_json(result.quality),
    }


def _quality_json(quality: Quality) -> dict[str, Any]:
    return {
        "pooled": {
            metric: {side: asdict(value) for side, value in sides.items()}
            for metric, sides in pooled(quality).items()
        },
        "flicker": flicker(quality),
        "unmatched": quality.unmatched,
        "suspicion": quality.suspicion,
        "worst_frames": [triple.index for triple in quality.worst],
        "frames": [
            {
                "index": frame.index,
                "time_s": round(frame.time_s, 6),
                "after": finite(frame.after),
                "before": finite(frame.before),
                "flicker": frame.flicker,
            }
            for frame in quality.frames
        ],
    }


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return (
            ", ".join(f"{k} {_plain(v)}" for k, v in value.items() if v not in (None, {}, False)) or "default"
        )
    if isinstance(value, list | tuple):
        return ", ".join(_plain(part) for part in value)
    return str(value)
