"""Render self-contained HTML pages with Plotly charts."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from streamderain.measure.bench import Bench, Result
from streamderain.measure.compare import Comparison, summary
from streamderain.measure.quality import FrameQuality, Quality
from streamderain.measure.summary import facts, tables
from streamderain.measure.trial import STAGES
from streamderain.media.arrays import jpeg_bytes

_TOP_DB = 100.0
"""Equal frames have an infinite PSNR; they are drawn here."""

_LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "height": 340,
    "margin": {"l": 60, "r": 20, "t": 10, "b": 50},
    "legend": {"orientation": "h", "y": 1.12},
}

_CONFIG = {"displaylogo": False, "responsive": True}


def render(template: str, **values: Any) -> str:
    """Return a page of `templates/`; text is escaped.

    Args:
        template: Name of the file.
        values: What the template names.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("streamderain.measure"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(template).render(plotly=get_plotlyjs(), **values)


def bench_page(bench: Bench) -> str:
    """Return a bench as a page: charts, tables, the curve of every frame's PSNR, the worst frames."""
    speeds = [result for result in bench.results if result.repeats]
    judged = [result for result in bench.results if result.quality is not None]
    return render(
        "bench.html.j2",
        title="streamderain bench",
        subtitle=f"{bench.settings['source']}, {bench.machine['processor']}, {bench.settings['date']}",
        charts=[
            {"title": "Frames per second", "html": _html(_speed_chart(speeds))},
            {"title": "Processor time of a frame, by stage", "html": _html(_stage_chart(speeds))},
        ],
        tables=tables(bench),
        facts=facts(bench),
        curve=_html(_psnr_chart(judged)) if judged else "",
        worst=[_worst(result) for result in judged],
    )


Curve = tuple[Sequence[float], Sequence[float]]
"""Seconds and values."""


def psnr_curves(curves: Mapping[str, Curve], *, title: str) -> go.Figure:
    """Return a chart of values over time.

    Args:
        curves: Seconds and values by name.
        title: Of the values.
    """
    figure = go.Figure()
    for name, (times, values) in curves.items():
        figure.add_scatter(x=list(times), y=[min(v, _TOP_DB) for v in values], name=name, mode="lines")
    figure.update_layout(**_LAYOUT, xaxis_title="seconds", yaxis_title=title)
    figure.update_layout(hovermode="x unified", hoverdistance=-1)  # between the points of short clips, too
    return figure


def compare_page(found: Comparison, video: bytes) -> str:
    """Return a comparison as a page: the pictures with a divider to drag, and every frame's PSNR as a curve.

    Args:
        found: From `compare.stacked`.
        video: Its video, MP4.
    """
    curves = {
        name: (found.times_s, [frame["psnr_y_db"] for frame in frames])
        for name, frames in found.metrics.items()
    }
    return render(
        "compare.html.j2",
        title=" | ".join(found.names),
        names=found.names,
        shrunk=found.shrunk,
        count=len(found.times_s),
        video=_uri(video, "video/mp4"),
        data={"names": found.names, "times": found.times_s, "rate": float(found.rate_fps)},
        curve=_html(psnr_curves(curves, title="Y-PSNR, dB"), "curve"),
        summary=summary(found),
    )


def picture_uri(picture: NDArray[np.uint8]) -> str:
    """Return a picture, (height, width, 3) uint8 RGB, as a data URI."""
    return _uri(jpeg_bytes(picture), "image/jpeg")


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _html(figure: go.Figure, name: str | None = None) -> str:
    html: str = figure.to_html(full_html=False, include_plotlyjs=False, config=_CONFIG, div_id=name)
    return html


def _speed_chart(results: Sequence[Result]) -> go.Figure:
    figure = go.Figure()
    for label in dict.fromkeys(result.label for result in results):
        own = [result for result in results if result.label == label]
        figure.add_bar(
            name=label,
            x=[result.clip for result in own],
            y=[result.fps.median for result in own],
            error_y={
                "array": [result.fps.max - result.fps.median for result in own],
                "arrayminus": [result.fps.median - result.fps.min for result in own],
            },
        )
    for rate in {r.opened.rate_fps for r in results if r.opened and r.opened.rate_fps}:
        figure.add_hline(y=rate, line_dash="dot", annotation_text=f"real time, {rate:.4g} frames/s")
    figure.update_layout(**_LAYOUT, yaxis_title="frames/s, median, least and most", showlegend=True)
    figure.update_layout(bargap=0.5)
    return figure


def _stage_chart(results: Sequence[Result]) -> go.Figure:
    figure = go.Figure()
    several = len({result.label for result in results}) > 1
    names = [f"{r.clip}<br>{r.label}" if several else r.clip for r in results]
    for stage in STAGES:
        figure.add_bar(
            name=stage, x=names, y=[r.stage(stage, lambda cost: cost.cpu_ms).median for r in results]
        )
    figure.update_layout(**_LAYOUT, barmode="stack", bargap=0.5, yaxis_title="processor ms a frame")
    return figure


def _psnr_chart(judged: Sequence[Result]) -> go.Figure:
    curves: dict[str, Curve] = {}
    for result in judged:
        frames = _quality(result).frames
        times = [frame.time_s for frame in frames]
        curves.setdefault("do nothing", (times, [frame.before["psnr_y_db"] for frame in frames]))
        curves[result.label] = (times, [frame.after["psnr_y_db"] for frame in frames])
    return psnr_curves(curves, title="Y-PSNR, dB")


def _worst(result: Result) -> dict[str, Any]:
    quality = _quality(result)
    by_index = {frame.index: frame for frame in quality.frames}
    return {
        "label": result.label,
        "frames": [
            {
                "index": triple.index,
                "time_s": triple.time_s,
                "pictures": [
                    ("before", picture_uri(triple.before)),
                    ("after", picture_uri(triple.after)),
                    ("reference", picture_uri(triple.reference)),
                ],
                "figures": _figures(by_index[triple.index]),
            }
            for triple in quality.worst
        ],
    }


def _figures(frame: FrameQuality) -> dict[str, str]:
    return {
        "before": f": {frame.before['psnr_y_db']:.2f} dB",
        "after": f": {frame.after['psnr_y_db']:.2f} dB",
        "reference": "",
    }


def _quality(result: Result) -> Quality:
    assert result.quality is not None, "only judged results are drawn"
    return result.quality
