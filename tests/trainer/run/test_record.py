"""What a run writes down and shows."""

from __future__ import annotations

import csv
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from trainer.run.progress import TrainingProgress
from trainer.run.record import RunRecord, write_provenance


def rows(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


def test_values_are_averaged_between_rows(tmp_path: Path) -> None:
    with RunRecord(tmp_path, every=2) as record:
        for step, loss in ((1, 1.0), (2, 3.0), (3, 9.0)):
            record.add(step, {"loss": loss})
    found = [row for row in rows(tmp_path) if row["name"] == "loss"]
    assert found == [{"step": "2", "seconds": "", "name": "loss", "value": "2"}]


def test_a_resumed_run_forgets_what_it_will_do_again(tmp_path: Path) -> None:
    with RunRecord(tmp_path) as record:
        for step in (10, 20, 30):
            record.write(step, {"score": step / 10}, seconds=1.6)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("40,2,sco")  # a kill tore the row off
    with RunRecord(tmp_path, resume_step=20) as record:
        record.write(30, {"score": 7.0})
    assert [(row["step"], row["value"]) for row in rows(tmp_path)] == [("10", "1"), ("20", "2"), ("30", "7")]


def test_tensorboard_reads_values_and_pictures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with RunRecord(tmp_path) as record:
        record.write(5, {"score": 2.5})
        path = record.picture(5, "training", np.full((6, 9, 3), 77, np.uint8))
        record.picture(5, "gray", np.full((6, 9), 77, np.uint8))
    assert path == tmp_path / "samples" / "training-step-0000005.png"
    assert np.asarray(Image.open(path)).shape == (6, 9, 3)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("score")] == [(5, 2.5)]
    assert set(events.Tags()["images"]) == {"training", "gray"}


def test_every_part_of_a_run_tells_what_made_it(tmp_path: Path) -> None:
    write_provenance(tmp_path, "cpu", step=0)
    write_provenance(tmp_path, "cuda:0", step=120)
    entries = json.loads((tmp_path / "provenance.json").read_text())
    assert [(entry["from_step"], entry["device"]) for entry in entries] == [(0, "cpu"), (120, "cuda:0")]
    assert all(entry["commit"] and entry["torch"] and entry["python"] for entry in entries)


def test_the_display_tells_speed_waiting_and_losses() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system=None)
    with TrainingProgress(10, 110, console=console) as progress:
        for step in range(11, 15):
            progress.update(step, {"loss": 0.5, "cycle": 0.25}, images=8, waited_s=0.1, took_s=0.4)
        logging.getLogger("test").warning("a line above the bar")
    shown = screen.getvalue()
    for text in ("14/110", "20 images/s", "25% data", "loss 0.5", "cycle 0.25", "a line above the bar"):
        assert text in shown, text
    assert max(len(line) for line in shown.replace("\r", "\n").splitlines() if "\x1b" not in line) <= 80
    assert progress.images_per_s == pytest.approx(20.0)
    assert progress.waiting == pytest.approx(0.25)


def test_no_display_without_a_terminal() -> None:
    screen = io.StringIO()
    handlers = logging.getLogger().handlers[:]
    with TrainingProgress(0, 5, console=Console(file=screen)) as progress:
        progress.update(1, {"loss": 0.5}, images=8, waited_s=0.1, took_s=0.4)
        assert logging.getLogger().handlers == handlers
    assert screen.getvalue() == ""
