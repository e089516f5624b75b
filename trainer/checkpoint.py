"""Checkpoints: everything a run needs to go on as if it had never stopped, in one safetensors file.

Tensors carry the numbers, one JSON text in the file's metadata the rest; nothing is pickled. A file appears
under its name only when it is whole (written beside it, synced, renamed), so a kill at any moment leaves
the previous one in place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from streamderain.errors import ConfigError, OpenError

_RANDOM_STATE = "random_state"


class Part(TypedDict):
    """One run's share of a training that went on from run to run.

    Attributes:
        config: Name of its configuration.
        steps: Steps done.
        seconds: Time they took, s.
        batch: Crops per step.
    """

    config: str
    steps: int
    seconds: int
    batch: int


@dataclass
class TrainState:
    """What changes while a run goes on.

    Attributes:
        network: The network being trained.
        average: The same network with averaged weights (EMA); this one is exported.
        optimiser: The optimiser.
        step: Steps done.
        seconds: Time spent training, over all resumed parts, s.
        earlier: The runs whose weights this one began with, oldest first; see `Part`.
    """

    network: nn.Module
    average: nn.Module
    optimiser: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    earlier: tuple[Part, ...] = ()


def save_checkpoint(path: Path, state: TrainState, config: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: Target; replaced in one step.
        state: What to save, with torch's random state.
        config: The run's configuration as plain values.
    """
    tensors = {f"network.{key}": value for key, value in state.network.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in state.average.state_dict().items()}
    optimiser = state.optimiser.state_dict()
    for index, slots in optimiser["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in slots.items()}
    tensors[_RANDOM_STATE] = torch.get_rng_state()
    about = {
        "step": state.step,
        "seconds": state.seconds,
        "config": dict(config),
        "param_groups": optimiser["param_groups"],
        "earlier": list(state.earlier),
    }
    save_tensors(path, tensors, {"streamderain": json.dumps(about)})


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    contiguous = {key: value.detach().contiguous() for key, value in tensors.items()}
    save_file(contiguous, partial, metadata=dict(metadata))
    partial.chmod(0o644)  # the library writes files that only their owner can read
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def load_checkpoint(path: Path, state: TrainState, config: Mapping[str, Any]) -> None:
    """Fill a state from a checkpoint, torch's random state included.

    The number of steps may differ from the checkpoint's configuration: a run may be made longer or shorter,
    and its learning rate follows. Everything else must be equal, or the run would be neither the old nor a
    new one.

    Raises:
        OpenError: The file is missing or damaged.
        ConfigError: It was written with another configuration.
    """
    tensors, about = read_checkpoint(path)
    differing = _differing(about["config"], dict(config))
    if differing:
        raise ConfigError(
            f"{path} was written with another configuration (differs in {', '.join(differing)}); "
            "resume with the config.toml of its run folder, or start a new run in another folder"
        )
    state.network.load_state_dict(_under(tensors, "network."))
    state.average.load_state_dict(_under(tensors, "average."))
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in _under(tensors, "optimiser.").items():
        index, name = key.split(".", 1)
        slots.setdefault(int(index), {})[name] = value
    state.optimiser.load_state_dict({"state": slots, "param_groups": about["param_groups"]})
    torch.set_rng_state(tensors[_RANDOM_STATE])
    state.step, state.seconds = about["step"], about["seconds"]
    state.earlier = earlier_parts(about)


def checkpoint_path(run: Path) -> Path:
    """The last checkpoint of a run's folder, or the path itself where it is a file."""
    return run if run.is_file() else run / "checkpoints" / "last.safetensors"


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint's tensors and its description (step, seconds, config, param_groups).

    Raises:
        OpenError: The file is missing, damaged, or no checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["streamderain"])
            return {key: file.get_tensor(key) for key in file.keys()}, about  # noqa: SIM118 (no dict)
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise OpenError(f"{path} is not a readable checkpoint ({error}); use an earlier one") from error


def earlier_parts(about: Mapping[str, Any]) -> tuple[Part, ...]:
    """The runs before a checkpoint's own; checkpoints written before they were recorded name none."""
    return tuple(about.get("earlier", ()))


def all_parts(about: Mapping[str, Any]) -> tuple[Part, ...]:
    """The runs before a checkpoint's own, and its own."""
    config = about["config"]
    own = Part(
        config=config["name"], steps=about["step"], seconds=round(about["seconds"]), batch=config["batch"]
    )
    return (*earlier_parts(about), own)


def average_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The averaged weights among a checkpoint's tensors: what is evaluated and exported."""
    return _under(tensors, "average.")


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _differing(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    keys = sorted((set(saved) | set(wanted)) - {"steps"})
    return [key for key in keys if saved.get(key) != wanted.get(key)]
