"""The training loop, one for every method."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from streamderain.errors import ConfigError, StreamderainError
from streamderain.models import CARD_NAME
from streamderain.nets.deep import DeepNet
from streamderain.nets.generator import Generator
from streamderain.nets.network import Network
from trainer.checkpoint import (
    TrainState,
    all_parts,
    checkpoint_path,
    is_checkpoint,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
    tensors_under,
)
from trainer.config import TrainConfig, dump_toml
from trainer.data.loader import Maker, feed
from trainer.export.card import parts_of_model
from trainer.methods.registry import new_method
from trainer.networks.load import AVERAGE, RAIN_AVERAGE, load_network
from trainer.networks.widen import widened
from trainer.run.progress import TrainingProgress
from trainer.run.record import RunRecord, write_provenance

Validate = Callable[[Network, Path], dict[str, float]]
"""Scores a network by name of the score; may leave a picture at the path."""

_FIRST_LOOK = 100
"""Besides every so many steps, a run is validated here: a mistake shows before an hour is gone."""

_log = logging.getLogger(__name__)


class TrainingDiverged(StreamderainError):
    """The loss is no longer a finite number."""


def one_device(config: TrainConfig) -> Fabric:
    """Return the CPU alone, in the configuration's precision."""
    return Fabric(accelerator="cpu", devices=1, precision=config.precision)  # type: ignore[arg-type]


def train(
    config: TrainConfig,
    maker: Maker[Any],
    run: Path,
    *,
    fabric: Fabric | None = None,
    resume: bool = False,
    start: Path | None = None,
    validate: Validate | None = None,
    stop: threading.Event | None = None,
    stop_after: int | None = None,
    stop_when: Callable[[], bool] | None = None,
    shard_bytes: int = 0,
    on_step: Callable[[TrainState], None] | None = None,
) -> TrainState:
    """Train until the configuration's last step, or until stopped; both leave a checkpoint.

    Args:
        config: The resolved configuration.
        maker: Where batches come from.
        run: The run's folder: config.toml, provenance.json, metrics.csv, tensorboard/, checkpoints/ and
            samples/.
        fabric: Device, precision and the processes that train together; the CPU alone by default.
        resume: Go on from checkpoints/last.safetensors.
        start: Run or checkpoint whose weights to begin with; ignored when resuming.
        validate: Called every `validate_every` steps with the averaged network.
        stop: Once set, the run ends after the step it is in: half a step must not be saved.
        stop_after: Stop (with a checkpoint) after this step.
        stop_when: Asked after every step of a single process whether to stop there, with a checkpoint.
        shard_bytes: Largest size of a checkpoint's files; 0 writes one file each.
        on_step: Called after every step.

    Raises:
        TrainingDiverged: The loss is not finite; the message names the last good checkpoint.
        ConfigError: The folder holds a run already and `resume` is not set, or a checkpoint is another's.
        OutputFull: A checkpoint does not fit on the disk; the one before is whole.
        KeyboardInterrupt: `stop` was set; the checkpoint is written.
    """
    fabric = fabric or one_device(config)
    torch.set_num_threads(config.threads)
    method = new_method(config, fabric)
    state = method.state
    last = checkpoint_path(run)
    _enter(run, last, config, state, resume=resume, start=start)
    end = min(config.steps, stop_after or config.steps)
    first = fabric.is_global_zero

    def save(path: Path) -> None:
        if first:
            save_checkpoint(path, state, config.as_dict(), shard_bytes=shard_bytes)

    batches = feed(
        maker,
        state.step,
        end,
        accumulate=config.accumulate,
        rank=fabric.global_rank,
        ranks=fabric.world_size,
        workers=config.workers,
    )
    began = time.monotonic() - state.seconds
    with contextlib.ExitStack() as open_things:
        record = progress = None
        if first:
            write_provenance(run, str(fabric.device), step=state.step)
            record = open_things.enter_context(RunRecord(run, resume_step=state.step))
            progress = open_things.enter_context(TrainingProgress(state.step, end))
        asked = time.monotonic()
        for parts in batches:
            got = time.monotonic()
            values = _mean(fabric, method.step(parts))
            _require_finite(values, state.step + 1, last)
            state.step += 1
            now = time.monotonic()
            state.seconds = now - began
            if record is not None and progress is not None:
                record.add(state.step, values)
                progress.update(
                    state.step, values, images=config.batch, waited_s=got - asked, took_s=now - asked
                )
                if state.step % config.sample_every == 0:
                    record.picture(state.step, "training", method.sheet(parts[0]))
            if state.step % config.save_every == 0:
                save(last)
            if state.step % config.keep_every == 0:
                save(last.with_name(f"step-{state.step:07d}.safetensors"))
            if _asked_to_stop(fabric, stop):
                save(last)
                _log.warning("interrupted at step %d; resume with --resume", state.step)
                raise KeyboardInterrupt
            due = state.step % config.validate_every == 0 or state.step == _FIRST_LOOK
            if validate is not None and record is not None and due:
                sheet = run / "samples" / f"validation-step-{state.step:07d}.png"
                scores = validate(state.average, sheet)
                record.write(state.step, scores, seconds=state.seconds)
            if on_step is not None:
                on_step(state)
            if stop_when is not None and stop_when():
                break
            asked = time.monotonic()
    save(last)
    return state


def _enter(
    run: Path, last: Path, config: TrainConfig, state: TrainState, *, resume: bool, start: Path | None
) -> None:
    if resume and not last.exists():
        raise ConfigError(f"{run} holds no checkpoint to go on from; leave out --resume to begin the run")
    if resume:
        load_checkpoint(last, state, config.as_dict())
        _log.info("resumed at step %d of %d", state.step, config.steps)
    elif last.exists():
        raise ConfigError(f"{run} holds a run already; add --resume to continue it, or name another folder")
    elif start is not None:
        begin_with(state, start)
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.toml").write_text(dump_toml(config.as_dict()), encoding="utf-8")


def begin_with(state: TrainState, path: Path) -> None:
    """Take the weights of something trained before, and remember the steps that it has behind it.

    Averages begin with its averages, and so do the networks they are averages of; what else has a name in
    both is taken as it is, what is not there stays fresh. A generator may be narrower than the one that
    begins: it is made wider. A fast network begins the one inside a deep network.

    Args:
        state: Changed in place.
        path: Run, checkpoint, or what `trainer.networks.load.load_network` reads.

    Raises:
        OpenError: The file is missing or damaged.
        ModelError: Its weights fit no network.
        ConfigError: Its network has other sizes.
    """
    if is_checkpoint(checkpoint_path(path)):
        tensors, about = read_checkpoint(checkpoint_path(path))
        state.earlier = all_parts(about)
    else:
        tensors = {f"average.{key}": value for key, value in load_network(path).state_dict().items()}
        state.earlier = parts_of_model(path) if (path / CARD_NAME).is_file() else ()
    for which in (AVERAGE, RAIN_AVERAGE):
        wanted = state.modules.get(which)
        if isinstance(wanted, Generator) and tensors_under(tensors, f"{which}."):
            narrow = load_network(path, which=which)
            if isinstance(narrow, Generator) and narrow.width < wanted.width:
                wide = widened(narrow, wanted.width).state_dict()
                tensors |= {f"{which}.{key}": value for key, value in wide.items()}
                _log.info("%s: made %d times as wide", which, wanted.width // narrow.width)
    sources = {"network": AVERAGE, "rain_network": RAIN_AVERAGE}
    for name, module in state.modules.items():
        weights = tensors_under(tensors, f"{sources.get(name, name)}.")
        if not weights:
            _log.warning("%s has no %s; it begins fresh", path, name)
            continue
        begun = module.fast if isinstance(module, DeepNet) and "merge.weight" in weights else module
        try:
            begun.load_state_dict(weights)
        except RuntimeError as error:
            raise ConfigError(
                f"{path} holds another {name} than this configuration's ({error}); "
                "begin with a run of the same [network] and [translation] tables"
            ) from error


def _mean(fabric: Fabric, values: dict[str, float]) -> dict[str, float]:
    """Return the values' means over all processes: every process then decides alike."""
    if fabric.world_size == 1:
        return values
    names = sorted(values)
    means = fabric.all_reduce(torch.tensor([values[name] for name in names], device=fabric.device))
    assert isinstance(means, torch.Tensor)
    return dict(zip(names, means.tolist(), strict=True))


def _asked_to_stop(fabric: Fabric, stop: threading.Event | None) -> bool:
    asked = stop is not None and stop.is_set()
    if fabric.world_size == 1:
        return asked
    # A signal reaches the processes between different steps; they must end after the same one.
    together = fabric.all_reduce(torch.tensor(float(asked), device=fabric.device), reduce_op="sum")
    assert isinstance(together, torch.Tensor)
    return bool(together.item() > 0)


def _require_finite(values: dict[str, float], step: int, last: Path) -> None:
    """Stop before weights that are no numbers can reach a checkpoint."""
    broken = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if not broken:
        return
    good = f"the last good checkpoint is {last}" if last.exists() else "no checkpoint was written yet"
    raise TrainingDiverged(
        f"{' and '.join(broken)} at step {step}; {good}: go on with a lower rate or with clip_norm set"
    )
