"""Write scores as a JSON document and a Markdown table, with the versions that made them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import streamderain
from streamderain.errors import OpenError
from streamderain.system.files import is_text, written_whole
from trainer.evaluation.scores import PictureScore, Row, pool_scores


@dataclass(frozen=True)
class Report:
    """The scores of one model or method on one data set.

    Attributes:
        model: Name of what was judged.
        precision: What ran of it, or "results" for pictures that were made elsewhere.
        dataset: Name of the data set's folder.
        pictures: The figures of every picture.
        tools: Versions of further tools by name, such as NIQE's.
    """

    model: str
    precision: str
    dataset: str
    pictures: Sequence[PictureScore]
    tools: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> list[Row]:
        """Pooled by data set and metric."""
        return pool_scores(self.pictures)

    @property
    def versions(self) -> dict[str, str]:
        """Whose figures these are."""
        return {"streamderain": streamderain.__version__, "numpy": np.__version__, **self.tools}

    def as_dict(self, *, per_image: bool = False) -> dict[str, Any]:
        """Return the document; `per_image` adds the figures of every picture."""
        document = {
            "model": self.model,
            "precision": self.precision,
            "dataset": self.dataset,
            "versions": self.versions,
            "rows": [row.as_dict() for row in self.rows],
        }
        return document | ({"pictures": [p.as_dict() for p in self.pictures]} if per_image else {})

    def markdown(self, *, per_image: bool = False) -> str:
        """Write the same as tables; every value beside doing nothing."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        parts = [
            f"# {self.model}, {self.precision}, on {self.dataset}",
            _rows_table(self.rows),
            "Y is that of MATLAB's rgb2ycbcr in 8 bits; no border crop. Values are the mean over pictures, "
            f"the 5th percentile and the least. Made with {versions}.",
        ]
        if per_image:
            parts.insert(2, _pictures_table(self.pictures))
        return "\n\n".join(parts) + "\n"


def check_targets(*paths: Path | None) -> None:
    """Find out before the work whether files can be written after it.

    Raises:
        OpenError: The folder of a file is not there, or something lies there that is no report.
    """
    for path in filter(None, paths):
        if not path.parent.is_dir():
            raise OpenError(f"{path} cannot be written: no folder {path.parent}; make it first")
        if path.exists() and not is_text(path):
            raise OpenError(f"{path} exists and is no text, so that no report replaces it; name another file")


def write_report(
    report: Report, *, json_path: Path | None, markdown_path: Path | None, per_image: bool
) -> None:
    """Write a report to the files that are wanted.

    Raises:
        OpenError: A file cannot be written.
    """
    texts = {}
    if json_path is not None:
        texts[json_path] = json.dumps(report.as_dict(per_image=per_image), indent=1, allow_nan=False) + "\n"
    if markdown_path is not None:
        texts[markdown_path] = report.markdown(per_image=per_image)
    for path, text in texts.items():
        try:
            with written_whole(path) as partial:
                partial.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OpenError(f"{path} cannot be written ({error.strerror}); choose another path") from error


def _rows_table(rows: Sequence[Row]) -> str:
    lines = [_line("data set", "metric", "pictures", "do nothing", "value", "p5", "min"), _line(*["---"] * 7)]
    for row in rows:
        nothing = "is the target" if row.do_nothing is None else _figure(row.do_nothing, row.metric)
        values = (_figure(value, row.metric) for value in (row.value, row.p5, row.minimum))
        lines.append(_line(row.dataset, row.metric, str(row.count), nothing, *values))
    return "\n".join(lines)


def _pictures_table(pictures: Sequence[PictureScore]) -> str:
    lines = [_line("data set", "picture", "metric", "do nothing", "value"), _line(*["---"] * 5)]
    for picture in pictures:
        for metric, value in picture.values.items():
            figures = (_figure(picture.do_nothing[metric], metric), _figure(value, metric))
            lines.append(_line(picture.dataset, picture.name, metric, *figures))
    return "\n".join(lines)


def _figure(value: float, metric: str) -> str:
    return f"{min(value, 100.0):.4f}" if metric.startswith("ssim") else f"{min(value, 100.0):.2f}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
