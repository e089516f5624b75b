"""Record a run: metrics.csv, TensorBoard events, sample pictures, provenance."""

from __future__ import annotations

import csv
import json
import logging
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamderain.system.files import written_whole
from streamderain.system.machine import commit, version

Codes = NDArray[np.uint8]
_HEADER = ["step", "seconds", "name", "value"]
_log = logging.getLogger(__name__)


class RunRecord:
    """metrics.csv, TensorBoard event files and sample pictures of a run; a context manager.

    metrics.csv has one row per value: step, seconds (of training, at validations), name, value.

    Args:
        run: The run's folder.
        resume_step: The step the run goes on from; what was written of later steps will be written again.
        every: Steps whose values are averaged into one row.
    """

    def __init__(self, run: Path, *, resume_step: int = 0, every: int = 50) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

        self._run, self._every = run, every
        self._sums: dict[str, list[float]] = {}
        self._path = run / "metrics.csv"
        run.mkdir(parents=True, exist_ok=True)
        _cut_back(self._path, resume_step)
        self._events = SummaryWriter(str(run / "tensorboard"), purge_step=resume_step + 1)
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._events.close()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add one step's values; every so many steps their means are written."""
        for name, value in values.items():
            self._sums.setdefault(name, []).append(value)
        if step % self._every == 0:
            means = {name: sum(v) / len(v) for name, v in self._sums.items()}
            count = max(len(v) for v in self._sums.values())
            means["seconds_per_step"] = (time.monotonic() - self._began) / count
            self._sums, self._began = {}, time.monotonic()
            self.write(step, means)

    def write(self, step: int, values: Mapping[str, float], *, seconds: float | None = None) -> None:
        """Write values under a step, at once.

        Args:
            step: The step.
            values: By name.
            seconds: Time spent training so far.
        """
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            for name, value in values.items():
                writer.writerow([step, "" if seconds is None else f"{seconds:.0f}", name, f"{value:.6g}"])
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        _log.info("step %d: %s", step, ", ".join(f"{k} {v:.4g}" for k, v in values.items()))

    def picture(self, step: int, name: str, picture: Codes) -> Path:
        """Write a picture to samples/ and TensorBoard.

        Args:
            step: The step.
            name: What it shows.
            picture: (height, width) or (height, width, 3) uint8.

        Returns:
            The file.
        """
        path = self._run / "samples" / f"{name}-step-{step:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
        form = "HW" if picture.ndim == 2 else "HWC"
        self._events.add_image(name, picture, step, dataformats=form)
        return path


def _cut_back(path: Path, step: int) -> None:
    """Drop the rows of later steps, and a last row that a kill tore off."""
    rows = [_HEADER]
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            rows += [row for row in list(csv.reader(file))[1:] if len(row) == 4 and int(row[0]) <= step]
    with written_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def provenance(device: str) -> dict[str, str]:
    """Return the commit of the checkout, the versions and the device that make a run.

    Args:
        device: torch's name of the device.
    """
    versions = {name: version(name) or "" for name in ("torch", "numpy", "lightning-fabric")}
    return {
        "commit": commit() or "unknown",
        "device": device,
        "python": platform.python_version(),
        **versions,
    }


def write_provenance(run: Path, device: str, *, step: int) -> None:
    """Append to provenance.json what makes the run's steps from one on: a resumed run may have several."""
    path = run / "provenance.json"
    entries: list[dict[str, Any]] = []
    if path.is_file():
        entries = json.loads(path.read_text(encoding="utf-8"))
    entries.append({"from_step": step, **provenance(device)})
    path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
