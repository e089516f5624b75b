"""The training loop: one step reads top to bottom."""

from __future__ import annotations

import copy
import csv
import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from streamderain.errors import ConfigError, StreamderainError
from streamderain.nets.fast import FastNet
from trainer.batches import Batch, BatchMaker, prefetch
from trainer.checkpoint import (
    TrainState,
    all_parts,
    average_weights,
    checkpoint_path,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from trainer.config import TrainConfig, dump_toml
from trainer.losses import LOSSES

Validate = Callable[[FastNet, Path], dict[str, float]]
"""Scores a network by name of the score; may leave a picture at the path."""

_log = logging.getLogger(__name__)


class TrainingDiverged(StreamderainError):
    """The loss is no longer a finite number."""


def new_state(config: TrainConfig) -> TrainState:
    """A network with fresh weights, its average and its optimiser, decided by the configuration."""
    torch.manual_seed(config.seed)
    sizes = config.network
    network = FastNet(
        width=sizes.width, middle_width=sizes.middle_width, middle_layers=sizes.middle_layers
    ).to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).requires_grad_(False).eval()
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
    )
    return TrainState(network, average, optimiser)


def train(
    config: TrainConfig,
    maker: BatchMaker,
    run: Path,
    *,
    resume: bool = False,
    start: Path | None = None,
    validate: Validate | None = None,
    stop: threading.Event | None = None,
    stop_after: int | None = None,
) -> TrainState:
    """Train until the configuration's last step, or until stopped; both leave a checkpoint.

    Args:
        config: The resolved configuration.
        maker: Where batches come from.
        run: The run's folder: config.toml, metrics.csv, checkpoints/, samples/.
        resume: Go on from checkpoints/last.safetensors.
        start: Run or checkpoint whose averaged weights to begin with; ignored when resuming.
        validate: Called every `validate_every` steps with the averaged network.
        stop: Once set, the run ends after the step it is in: half a step must not be saved.
        stop_after: Stop (with a checkpoint) after this step.

    Raises:
        TrainingDiverged: The loss is not finite; the message names the last good checkpoint.
        ConfigError: The folder holds a run already and `resume` is not set, or a checkpoint is another's.
        KeyboardInterrupt: `stop` was set; the checkpoint is written.
    """
    torch.set_num_threads(config.threads)
    state = new_state(config)
    if start is not None and not resume:
        begin_with(state, start)
    last = run / "checkpoints" / "last.safetensors"
    _enter(run, last, config, state, resume=resume)
    end = min(config.steps, stop_after or config.steps)
    log = MetricsLog(run / "metrics.csv")
    began = time.monotonic() - state.seconds
    for batch in prefetch(maker, state.step, end):
        values = train_step(state, batch, config)
        _require_finite(values, state.step + 1, last)
        state.step += 1
        state.seconds = time.monotonic() - began
        log.add(state.step, values)
        if state.step % config.save_every == 0:
            save_checkpoint(last, state, config.as_dict())
        if state.step % config.keep_every == 0:
            save_checkpoint(last.with_name(f"step-{state.step:07d}.safetensors"), state, config.as_dict())
        if stop is not None and stop.is_set():
            save_checkpoint(last, state, config.as_dict())
            _log.warning("interrupted at step %d; resume with --resume", state.step)
            raise KeyboardInterrupt
        if validate is not None and (state.step % config.validate_every == 0 or state.step == 100):
            sheet = run / "samples" / f"step-{state.step:07d}.png"
            assert isinstance(state.average, FastNet)
            log.write(state.step, state.seconds, validate(state.average, sheet))
    save_checkpoint(last, state, config.as_dict())
    return state


def begin_with(state: TrainState, path: Path) -> None:
    """Take the averaged weights of another run's checkpoint, and remember the steps they have behind them.

    Raises:
        OpenError: The file is missing or damaged.
        ConfigError: Its network has other sizes.
    """
    tensors, about = read_checkpoint(checkpoint_path(path))
    weights = average_weights(tensors)
    try:
        state.network.load_state_dict(weights)
        state.average.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(
            f"{path} holds another network than this configuration's ({error}); "
            "begin with a run of the same [network] table"
        ) from error
    state.earlier = all_parts(about)


def _require_finite(values: dict[str, float], step: int, last: Path) -> None:
    """Stop before weights that are no numbers can reach a checkpoint."""
    broken = [f"{name} is {values[name]}" for name in ("loss", "norm") if not math.isfinite(values[name])]
    if not broken:
        return
    good = f"the last good checkpoint is {last}" if last.exists() else "no checkpoint was written yet"
    raise TrainingDiverged(
        f"{' and '.join(broken)} at step {step}; {good}: go on with a lower rate or with clip_norm set"
    )


def train_step(state: TrainState, batch: Batch, config: TrainConfig) -> dict[str, float]:
    """One optimiser step: forward, losses, backward, update, average.

    Weights are left alone where the loss or the gradient is not finite.

    Returns:
        Each loss by name, "loss" (their weighted sum), "rate", and "norm" (of the gradient, before clipping).
    """
    network = state.network
    assert isinstance(network, FastNet)
    phase = config.phase(state.step)
    rate = learning_rate(config, state.step)
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    network.residual_slope = phase.residual_slope
    window, validity, target = (torch.from_numpy(a) for a in (batch.window, batch.validity, batch.target))

    output = network.clean_planes(window, validity, bounded=False)
    losses = {name: LOSSES[name](output, target) for name in phase.losses}
    loss = torch.stack([weight * losses[name] for name, weight in phase.losses.items()]).sum()
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm or math.inf)
    if torch.isfinite(loss) and torch.isfinite(norm):
        state.optimiser.step()
        _average(state, config.ema)
    values = {"loss": float(loss.detach()), "rate": rate, "norm": float(norm)}
    return values | {name: float(value.detach()) for name, value in losses.items()}


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to `last_rate` at the last step.

    Args:
        config: The configuration.
        step: Steps done, from 0.
    """
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    progress = min(1.0, step / max(1, config.steps))
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    return warmup * (config.last_rate + (config.rate - config.last_rate) * cosine)


@torch.no_grad()
def _average(state: TrainState, decay: float) -> None:
    # Early on the average must forget the random start sooner: its memory grows with the run.
    decay = min(decay, (1.0 + state.step) / (10.0 + state.step))
    averaged: list[Tensor] = list(state.average.parameters())
    current: list[Tensor] = [p.detach() for p in state.network.parameters()]
    torch._foreach_lerp_(averaged, current, 1.0 - decay)


def _enter(run: Path, last: Path, config: TrainConfig, state: TrainState, *, resume: bool) -> None:
    if resume:
        load_checkpoint(last, state, config.as_dict())
        _log.info("resumed at step %d of %d", state.step, config.steps)
    elif last.exists():
        raise ConfigError(f"{run} holds a run already; add --resume to continue it, or name another folder")
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.toml").write_text(dump_toml(config.as_dict()), encoding="utf-8")


class MetricsLog:
    """metrics.csv: one row per value (step, seconds, name, value), losses averaged between rows."""

    def __init__(self, path: Path, *, every: int = 50) -> None:
        self._path, self._every = path, every
        self._sums: dict[str, list[float]] = {}
        self._began = time.monotonic()

    def add(self, step: int, values: dict[str, float]) -> None:
        """Add one step's values; every so many steps their means are written."""
        for name, value in values.items():
            self._sums.setdefault(name, []).append(value)
        if step % self._every == 0:
            means = {name: sum(v) / len(v) for name, v in self._sums.items()}
            means["seconds_per_step"] = (time.monotonic() - self._began) / self._every
            self._sums, self._began = {}, time.monotonic()
            self.write(step, None, means)

    def write(self, step: int, seconds: float | None, values: dict[str, Any]) -> None:
        """Append values under a step."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not self._path.exists()
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(["step", "seconds", "name", "value"])
            for name, value in values.items():
                writer.writerow([step, "" if seconds is None else f"{seconds:.0f}", name, f"{value:.6g}"])
        _log.info("step %d: %s", step, ", ".join(f"{k} {v:.4g}" for k, v in values.items()))
