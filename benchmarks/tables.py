"""Write the tables of README and docs from the committed results, and the one of the packages."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks.house import packages
from benchmarks.results_file import read

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/benchmarks.md", "docs/cluster.md")

_MARKED = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- /table -->)", re.DOTALL)

_CLIPS = {
    "kartikey_dashcam rain": "dashcam, moving, rain",
    "kartikey_dashcam rain, H.264": "the same after H.264",
    "kartikey_dashcam, every 3. rain": "three times as fast",
    "kartikey_dashcam rain-free": "rain-free dashcam, from the input",
    "kartikey_dashcam, every 3. rain-free": "three times as fast",
    "devx96_traffic rain": "street, fixed camera, rain",
    "devx96_traffic rain, H.264": "the same after H.264",
    "devx96_traffic rain-free": "rain-free street, from the input",
    "derf_tractor rain": "pan over fine texture, rain",
    "derf_tractor rain, H.264": "the same after H.264",
    "derf_tractor, every 3. rain": "three times as fast",
    "derf_tractor rain-free": "rain-free pan, from the input",
    "derf_tractor, every 3. rain-free": "three times as fast",
    "lights at night rain-free": "rain-free lights at night, drawn, from the input",
    "poles and marks rain-free": "rain-free poles that rush past, drawn, from the input",
    "rain100L": "stills, Rain100L",
    "rain100H": "stills, Rain100H",
}


_SCENES = {"drawn": "drawn scene", "filmed": "filmed", "pan": "filmed, panning"}


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; fail where a document is out of date.")
def tables(check: bool) -> None:
    """Write the tables of README and docs from benchmarks/results."""
    stale = False
    for name in DOCUMENTS:
        path = ROOT / name
        old = path.read_text(encoding="utf-8")
        new = renewed(old)
        if check:
            stale = stale or new != old
            sys.stdout.writelines(
                difflib.unified_diff(old.splitlines(True), new.splitlines(True), name, "made")
            )
        else:
            path.write_text(new, encoding="utf-8")
    if stale:
        raise click.ClickException("documents differ from the results; run: python -m benchmarks tables")


def renewed(document: str) -> str:
    """Return a document with every marked table made anew.

    Raises:
        KeyError: A table that nobody makes.
    """
    return _MARKED.sub(lambda match: f"{match[1]}{TABLES[match['name']]()}\n{match[3]}", document)


def _machine(result: dict[str, Any]) -> str:
    about = result["machine"]
    gpu = about["gpus"][0]["name"] if about.get("gpus") else "no GPU"
    sets = ", ".join(about.get("instructions", ()))
    return (
        f"{about['processor']}{f' ({sets})' if sets else ''}, {about['cores']} cores of a shared machine, "
        f"{gpu}, commit {about['commit']}"
    )


def _rows(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _spread(value: dict[str, float], digits: int = 1) -> str:
    return f"{value['median']:.{digits}f} ({value['min']:.{digits}f} to {value['max']:.{digits}f})"


def _throughput() -> str:
    result = read("throughput")
    bare = {_run(row): row["cpu_ms_per_frame"]["median"] for row in result["rows"] if _is_bare(row)}
    measured = [row for row in result["rows"] if not _is_bare(row)]
    rows = []
    for row in measured:
        stages = row["stages"]
        shown = ("decode", "align", "network", "encode")
        costs = [stages[name]["cpu_ms_per_frame"]["median"] for name in shown]
        copies = sum(stages[name]["cpu_ms_per_frame"]["median"] for name in ("copy", "write-back"))
        rows.append(
            (
                f"{row['width']}x{row['height']}, {_SCENES[row['scene']]}, `--preset {row['preset']}`",
                _spread(row["fps"]),
                " + ".join(f"{cost:.1f}" for cost in (*costs, copies)),
                f"{row['cpu_ms_per_frame']['median'] / bare[_run(row)]:.2f}",
                f"{row['cpu_cores']['median']:.2f}",
                f"{row['peak_memory_mb']:.0f}",
            )
        )
    header = (
        "clip",
        "frames/s",
        "processor ms a frame: decode + alignment + network + encode + copies",
        "processor time, times that of a run without network",
        "cores busy",
        "peak memory, MB",
    )
    return (
        f"{_rows(header, rows)}\n\n{_machine(result)}: the median of {result['repeats']} runs with the least "
        f"and the most; {measured[0]['engine']} {measured[0]['precision']}."
    )


def _is_bare(row: dict[str, Any]) -> bool:
    return bool(row["engine"] == "identity")


def _run(row: dict[str, Any]) -> tuple[str, int, str]:
    """Name what a run with and one without a network have in common."""
    return row["scene"], row["width"], row["preset"]


def _live() -> str:
    result = read("live")
    names = {
        "look-ahead": "one frame of look-ahead (default)",
        "causal": "`--causal`",
        "identity": "without network",
    }
    rows = []
    for name, shown in names.items():
        row = result[name]
        late = (f"{row['beyond_look_ahead_ms'][place]:.0f}" for place in ("p50", "p90", "p99", "max"))
        first_s = f"{row['keyframe_to_first_frame_s']:.2f} ({row['process_to_first_frame_s']:.2f})"
        rows.append((shown, *late, first_s))
    first = "s from the first keyframe (from the command) to the first frame"
    over = result["overload"]
    told = (
        f"Overload: of a camera with {over['camera_fps']:.0f} frames/s {over['clean_fps']:.1f} come out, "
        f"{over['behind_s']['early']:.2f} s late at first and {over['behind_s']['late']:.2f} s at the end."
    )
    header = ("", "ms, median", "90 %", "99 %", "most", first)
    return f"{_rows(header, rows)}\n\n{told}\n\n{_machine(result)}."


def _live_soak() -> str:
    result = read("soak")
    names = {
        "rss_bytes": ("memory of all its processes, MB", 1e-6),
        "descriptors": ("file descriptors", 1),
        "threads": ("threads", 1),
        "processes": ("processes", 1),
        "latency_s": ("latency, ms", 1000),
    }
    rows = []
    for name, (shown, unit) in names.items():
        row = result[name]
        rows.append((shown, f"{unit * row['early']:.1f}", f"{unit * row['late']:.1f}", f"{row['ratio']:.3f}"))
    header = ("", "second quarter", "last quarter", "ratio")
    spent = f"{result['minutes']} minutes of the stream, {result['losses']} losses of the source"
    return f"{_rows(header, rows)}\n\n{spent}. {_machine(result)}."


def _segments() -> str:
    result = read("segments")
    rows = [
        (name, f"{way['seconds']:.1f}", f"{way['of_one_go']:.3f}") for name, way in result["ways"].items()
    ]
    manifest = " and ".join(f"{ms:.1f} ms of {count}" for count, ms in result["manifest_ms"].items())
    told = (
        f"A killed run has its next new frame {result['restart_s']:.2f} s after it is given again. To note "
        f"that one piece is finished takes {manifest} pieces; to take up a file of an archive and note its "
        f"end {result['ledger_ms']:.1f} ms."
    )
    clip = f"{result['seconds']:.0f} s of 1280x720 at 25 frames/s, pieces of 20 s"
    made = f"{clip}, medians of {result['repeats']} runs in turns; {_machine(result)}"
    return f"{_rows(('', 'seconds', 'times one go'), rows)}\n\n{told}\n\n{made}."


def _startup() -> str:
    result = read("startup")
    names = {
        "python_s": "bare Python",
        "import_s": "`import streamderain`",
        "help_s": "`streamderain --help`",
        "first_frame_s": "process start to first derained frame",
    }
    rows = [
        (text, _spread({key: 1000 * value for key, value in result[name].items()}, 0))
        for name, text in names.items()
    ]
    return f"{_rows(('wait', 'milliseconds'), rows)}\n\n{_machine(result)}."


def _quality() -> str:
    result = read("quality")
    (scores,) = result["reports"]
    found = {(row["dataset"], row["metric"]): row for row in scores["rows"]}
    rows = []
    for dataset, text in _CLIPS.items():
        psnr, ssim = found[dataset, "psnr_y_db"], found[dataset, "ssim_y"]
        rows.append((text, *_beside(psnr, 1), f"{psnr['minimum']:.1f}", *_beside(ssim, 3)))
    model = scores["model"]
    header = ("", "do nothing, dB", f"{model}, dB", "worst picture", "do nothing, SSIM", f"{model}, SSIM")
    return _rows(header, rows)


def _beside(row: dict[str, Any], digits: int) -> tuple[str, str]:
    nothing = row.get("do_nothing")
    return ("" if nothing is None else f"{nothing:.{digits}f}", f"{row['value']:.{digits}f}")


def _frame_size() -> str:
    result = read("scaling")
    rows = [
        (
            f"{row['width']}x{row['height']}",
            _spread(row["fps"]),
            _spread(row["cpu_ms_per_mpx"]),
            f"{row['peak_memory_mb']:.0f}",
        )
        for row in result["frame-size"]
    ]
    header = ("frames", "frames/s", "processor ms a megapixel, all stages", "peak memory, MB")
    return f"{_rows(header, rows)}\n\n{_machine(result)}: median of {result['repeats']}, least and most."


def _clip_length() -> str:
    rows = [
        (str(row["frames"]), _spread(row["ms_per_frame"], 2), f"{row['peak_memory_mb']['median']:.0f}")
        for row in read("scaling")["clip-length"]
    ]
    return _rows(("frames of 640x360", "ms a frame", "peak memory, MB"), rows)


def _streams() -> str:
    rows = [
        (str(row["streams"]), _spread(row["fps"]), f"{row['peak_memory_mb']['median']:.0f}")
        for row in read("scaling")["streams"]
    ]
    return _rows(("video streams of 640x360", "frames/s together", "peak memory, MB"), rows)


def _soak() -> str:
    result = read("soak")
    soak = result["soak"]
    memory = soak["memory_mb"]
    return (
        f"One run of {soak['minutes']:.0f} minutes, {soak['frames']} frames of {soak['size']}: "
        f"{soak['first_tenth_mb']:.0f} MB of memory after the first tenth of the time and "
        f"{soak['last_tenth_mb']:.0f} MB in the last one, never below {memory['min']:.0f} or above "
        f"{memory['max']:.0f}; a straight line through it rises by {soak['growth_mb_per_hour']:.1f} MB an "
        f"hour. {_machine(result)}."
    )


def _training() -> str:
    result = read("training-cpu")
    rows = [
        ("pictures of each domain a second", _spread(result["images_per_s"], 3)),
        ("seconds a step", _spread(result["seconds_per_step"])),
        ("share of time spent waiting for data", _spread(result["data_wait_share"], 3)),
        ("share of the rate of bare convolutions", _spread(result["share_of_convolution_rate"], 2)),
    ]
    about = result["machine"]
    what = f"`{result['config']}`, batch {result['batch']}, {result['crop_px']} px, {result['precision']}"
    return f"{_rows(('', what), rows)}\n\n{about['processor']}, {about['cores']} cores, {result['device']}."


TABLES: dict[str, Callable[[], str]] = {
    "throughput": _throughput,
    "startup": _startup,
    "quality": _quality,
    "frame-size": _frame_size,
    "clip-length": _clip_length,
    "streams": _streams,
    "soak": _soak,
    "live": _live,
    "live-soak": _live_soak,
    "segments": _segments,
    "training": _training,
    "packages": packages,
}
"""What makes each table, by the name in its marker."""
