"""Train within a time limit: from packed data to weights small enough to carry.

A lent machine is bare, keeps nothing and may be taken away at any moment. So every minute the networks go in
half precision into the folder that travels back (`KEPT`), each file under the size limit, and the next
session begins with them. The optimisers' moments, as large again twice over, stay behind: Adam finds them
anew within some hundred steps.

PyAV and OpenVINO are not needed.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from PIL import Image

from streamderain.errors import ConfigError
from trainer.checkpoint import TrainState, save_weights
from trainer.config import TRANSLATION, TrainConfig
from trainer.data.loader import Maker, feed
from trainer.data.packing import unpack
from trainer.evaluation.cases import Case, VideoPlan, all_cases
from trainer.evaluation.report import Report, write_report
from trainer.evaluation.scores import Clean, add_luma_residual, score_pictures, table
from trainer.evaluation.validate import network_clean
from trainer.methods.registry import new_method, open_maker
from trainer.run.loop import train

Codes = NDArray[np.uint8]
KEPT = "kept.safetensors"
"""The index of the networks' files in the folder that travels back."""

SHARD_BYTES = 15 << 20
_KEPT_MODULES = (
    "average",
    "rain_average",
    "heads",
    "rain_heads",
    "clean_discriminator",
    "rain_discriminator",
)
_KEEP_EVERY_S = 60.0
_WARM_UP_STEPS, _TIMED_STEPS = 4, 12
_SHOWN = 6
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SessionPlan:
    """What a session is given.

    Attributes:
        packed: What `trainer.data.packing.pack` wrote.
        out: Folder that travels back: `KEPT` and its shards, scores.json, samples.png, metrics.csv.
        scratch: Folder that does not: unpacked data, the library, the run.
        minutes: From now until everything must lie in `out`.
        evaluation_minutes: Of these, kept for judging at the end.
        start: `KEPT` of an earlier session, a run or a checkpoint.
        steps: Replaces the number of steps that the time allows.
    """

    packed: Path
    out: Path
    scratch: Path
    minutes: float
    evaluation_minutes: float = 1.0
    start: Path | None = None
    steps: int | None = None


def run_session(plan: SessionPlan, config: TrainConfig, fabric: Fabric) -> str:
    """Train for as long as the session lasts, judge, and leave what matters in the folder that travels back.

    Args:
        plan: Data, folders and time.
        config: An unpaired configuration; its steps are set to what the time allows.
        fabric: Device and precision.

    Returns:
        The table of scores.

    Raises:
        ConfigError: The configuration is not an unpaired one, or the time is too short for any step.
        OpenError: The packed data or the start cannot be read.
    """
    began = time.monotonic()
    if config.method != TRANSLATION:
        raise ConfigError(f"a session trains an unpaired configuration, not {config.name}; try paper")
    data, validation = unpack(plan.packed, plan.scratch / "data")
    maker = open_maker(config, data, plan.scratch / "cache")
    deadline = began + 60.0 * (plan.minutes - plan.evaluation_minutes)
    steps = plan.steps or steps_until(deadline, config, maker, fabric)
    config = dataclasses.replace(config, steps=steps)
    _log.info("%d steps, %.1f minutes", steps, plan.minutes)
    run = plan.scratch / "run"
    keep = _Keeper(plan.out, config, run / "metrics.csv", deadline)
    state = train(config, maker, run, fabric=fabric, start=plan.start, on_step=keep, stop_when=keep.is_time)
    keep.now(state)
    report, samples = judge(network_clean(state.average), validation, config.name)
    write_report(report, json_path=plan.out / "scores.json", markdown_path=None, per_image=True)
    Image.fromarray(samples).save(plan.out / "samples.png")
    return table(report.rows)


def steps_until(deadline: float, config: TrainConfig, maker: Maker[Any], fabric: Fabric) -> int:
    """Return how many steps fit until a time, measured on some of them with fresh weights.

    Args:
        deadline: On `time.monotonic`'s clock, s.
        config: The configuration.
        maker: Makes its batches.
        fabric: Device and precision.

    Raises:
        ConfigError: Not one does.
    """
    torch.set_num_threads(config.threads)
    method = new_method(config, fabric)
    timed = _WARM_UP_STEPS + _TIMED_STEPS
    began = 0.0
    batches = feed(maker, 0, timed, accumulate=config.accumulate, workers=config.workers)
    for number, parts in enumerate(batches):
        if number == _WARM_UP_STEPS:
            began = time.monotonic()
        method.step(parts)  # gives floats, which waits for the device
    per_step = (time.monotonic() - began) / _TIMED_STEPS
    left = deadline - time.monotonic()
    if left < per_step:
        raise ConfigError(
            f"a step takes {per_step:.2f} s and {left:.0f} s are left; give the session more minutes"
        )
    # A tenth for what steps wait for besides: checkpoints, pictures, a slower moment.
    return max(1, int(0.9 * left / per_step))


def judge(clean: Clean, validation: Path, model: str) -> tuple[Report, Codes]:
    """Score a network on the pairs of a folder, and draw a few of them: rainy | output | clean."""
    shown: list[tuple[Case, Codes]] = []

    def seen(case: Case) -> Codes:
        output = clean(case)
        shown.append((case, output))
        return output

    cases = list(all_cases(validation, VideoPlan()))
    pictures = list(score_pictures(cases, seen))
    chosen = shown[:: max(1, len(shown) // _SHOWN)][:_SHOWN]
    return Report(model, "checkpoint", validation.name, pictures), _sheet(chosen)


def _sheet(shown: Sequence[tuple[Case, Codes]]) -> Codes:
    """Return rows of rainy | output | clean, (height, width, 3) uint8, padded to one width."""
    rows = []
    for case, output in shown:
        rgb = output if output.ndim == 3 else add_luma_residual(case.rgb, output, case.window[1])
        rows.append(np.concatenate([case.rgb, rgb, case.target_rgb], axis=1))
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


class _Keeper:
    """Writes the networks into the folder that travels back, every minute."""

    def __init__(self, out: Path, config: TrainConfig, metrics: Path, deadline: float) -> None:
        self._out, self._config, self._metrics, self._deadline = out, config, metrics, deadline
        self._last = time.monotonic()
        out.mkdir(parents=True, exist_ok=True)

    def __call__(self, state: TrainState) -> None:
        if time.monotonic() - self._last >= _KEEP_EVERY_S:
            self.now(state)

    def is_time(self) -> bool:
        return time.monotonic() >= self._deadline

    def now(self, state: TrainState) -> None:
        path, config = self._out / KEPT, self._config.as_dict()
        save_weights(path, state, config, modules=_KEPT_MODULES, shard_bytes=SHARD_BYTES)
        if self._metrics.exists():
            shutil.copyfile(self._metrics, self._out / "metrics.csv")
        self._last = time.monotonic()
