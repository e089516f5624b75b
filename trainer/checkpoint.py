"""Save and load checkpoints: everything a run needs to resume exactly, in safetensors files.

Tensors carry the numbers, one JSON text in the file's metadata the rest; nothing is pickled. A file appears
under its name only when it is whole (written beside it, synced, renamed), so a kill at any moment leaves
the previous one in place. On request a checkpoint is cut into shards of a largest size: then the name is a
small JSON index of them, replaced last, and shards that no index names any more are removed after it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from streamderain.errors import ConfigError, OpenError, OutputFull
from streamderain.nets.network import Network
from streamderain.system.files import written_whole
from trainer.config import MAY_CHANGE, TrainConfig

_INDEX_LIMIT = 1 << 20
_FULL = ("os error 28", "os error 27", "os error 122", "Errno 28", "Errno 27", "Errno 122")
"""How safetensors and Python name a full disk, a file too large and an exhausted quota."""


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
        modules: What is trained, by name, and averages (EMA) of what is exported. "network" takes rain away;
            "average" is its average, which is judged and exported.
        optimisers: The optimisers by name.
        extra: Other tensors that belong to the run, by name, such as the ranges of int8.
        step: Steps done.
        seconds: Time spent training, over all resumed parts, s.
        earlier: The runs whose weights this one began with, oldest first; see `Part`.
    """

    modules: dict[str, nn.Module]
    optimisers: dict[str, torch.optim.Optimizer]
    extra: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0
    earlier: tuple[Part, ...] = ()

    @property
    def average(self) -> Network:
        """The averaged network that takes rain away."""
        module = self.modules["average"]
        assert isinstance(module, Network)
        return module


def save_checkpoint(
    path: Path, state: TrainState, config: Mapping[str, Any], *, shard_bytes: int = 0
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: Target; replaced in one step.
        state: What to save.
        config: The run's configuration as plain values.
        shard_bytes: Largest size of a file; 0 writes one file.

    Raises:
        OutputFull: The disk is full; the checkpoint before is untouched.
    """
    tensors = {
        f"{name}.{key}": value
        for name, module in state.modules.items()
        for key, value in module.state_dict().items()
    }
    groups = {}
    for name, optimiser in state.optimisers.items():
        saved = optimiser.state_dict()
        groups[name] = saved["param_groups"]
        for index, slots in saved["state"].items():
            tensors |= {f"{name}.{index}.{slot}": value for slot, value in slots.items()}
    tensors |= {f"extra.{key}": value for key, value in state.extra.items()}
    metadata = _metadata_of(state, config, groups)
    if shard_bytes:
        _save_shards(path, tensors, metadata, shard_bytes)
    else:
        save_tensors(path, tensors, metadata)
        _remove_shards(path, keep=())


def save_weights(
    path: Path, state: TrainState, config: Mapping[str, Any], *, modules: Collection[str], shard_bytes: int
) -> None:
    """Write networks alone, in half precision: what a run needs to begin where another ended.

    The file reads like a checkpoint wherever weights are read (`trainer.networks.load.load_network`, a run's
    start), but no run resumes from it: that needs the optimisers.

    Args:
        path: Target; a small index of files beside it.
        state: What to save of.
        config: The run's configuration as plain values.
        modules: Names of the networks.
        shard_bytes: Largest size of a file.

    Raises:
        OutputFull: The disk is full; the files before are untouched.
    """
    tensors = {
        f"{name}.{key}": value.half()
        for name in modules
        for key, value in state.modules[name].state_dict().items()
    }
    _save_shards(path, tensors, _metadata_of(state, config, {}), shard_bytes)


def _metadata_of(
    state: TrainState, config: Mapping[str, Any], param_groups: Mapping[str, Any]
) -> dict[str, str]:
    about = {
        "step": state.step,
        "seconds": state.seconds,
        "config": dict(config),
        "param_groups": param_groups,
        "earlier": list(state.earlier),
    }
    return {"streamderain": json.dumps(about)}


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        OutputFull: The disk is full; a file that had the name is untouched.
        OpenError: The file cannot be written for another reason.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    try:
        with written_whole(path) as partial:
            save_file(contiguous, partial, metadata=dict(metadata))
            partial.chmod(0o644)  # the library writes files that only their owner can read
    except (OSError, SafetensorError) as error:
        kind = OutputFull if any(text in str(error) for text in _FULL) else OpenError
        raise kind(
            f"{path} could not be written ({error}); make room or choose another folder, and go on from the "
            "checkpoint before with --resume"
        ) from error


def split(tensors: Mapping[str, Tensor], shard_bytes: int) -> list[dict[str, Tensor]]:
    """Deal tensors out, in order, to as few shards as fit the size; a larger tensor gets its own.

    Args:
        tensors: By name.
        shard_bytes: Largest size of a shard, with room left for its header.
    """
    room = shard_bytes - (64 << 10)
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for key, value in tensors.items():
        size = value.numel() * value.element_size()
        if shards[-1] and filled + size > room:
            shards.append({})
            filled = 0
        shards[-1][key] = value
        filled += size
    return shards


def _save_shards(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], shard_bytes: int
) -> None:
    shards = split(tensors, shard_bytes)
    step = json.loads(metadata["streamderain"])["step"]
    names = [
        f"{path.stem}-{step:07d}-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)
    ]
    for name, shard in zip(names, shards, strict=True):
        save_tensors(path.with_name(name), shard, metadata)
    with written_whole(path) as partial:
        partial.write_text(json.dumps({"shards": names}), encoding="utf-8")
    _remove_shards(path, keep=names)


def _remove_shards(path: Path, *, keep: Sequence[str]) -> None:
    for old in path.parent.glob(f"{path.stem}-*-of-*.safetensors"):
        if old.name not in keep:
            old.unlink()


def load_checkpoint(path: Path, state: TrainState, config: Mapping[str, Any]) -> None:
    """Fill a state from a checkpoint.

    What `trainer.config.MAY_CHANGE` names may differ from the checkpoint's configuration: a run may be made
    longer or shorter, and its learning rate follows. Everything else must be equal, or the run would be
    neither the old nor a new one.

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
    if about["param_groups"].keys() != state.optimisers.keys():
        raise ConfigError(
            f"{path} holds weights without what the optimisers know; begin a new run with them (--start)"
        )
    for name, module in state.modules.items():
        module.load_state_dict(tensors_under(tensors, f"{name}."))
    for name, optimiser in state.optimisers.items():
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors_under(tensors, f"{name}.").items():
            index, slot = key.split(".", 1)
            slots.setdefault(int(index), {})[slot] = value
        optimiser.load_state_dict({"state": slots, "param_groups": about["param_groups"][name]})
    state.extra.clear()
    state.extra.update(tensors_under(tensors, "extra."))
    state.step, state.seconds = about["step"], about["seconds"]
    state.earlier = earlier_parts(about)


def checkpoint_path(run: Path) -> Path:
    """Return the last checkpoint of a run's folder, or the path itself where it is a file."""
    return run if run.is_file() else run / "checkpoints" / "last.safetensors"


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint's tensors and its description (step, seconds, config, param_groups, earlier).

    Raises:
        OpenError: The file is missing, damaged, or no checkpoint.
    """
    tensors: dict[str, Tensor] = {}
    about: dict[str, Any] = {}
    try:
        for file_path in _files_of(path):
            with safe_open(file_path, framework="pt") as file:
                about = json.loads(file.metadata()["streamderain"])
                tensors |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no dict)
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise OpenError(f"{path} is not a readable checkpoint ({error}); use an earlier one") from error
    return tensors, about


def _files_of(path: Path) -> Iterator[Path]:
    """Yield the checkpoint's file, or the shards that its index names."""
    with path.open("rb") as file:
        # An index begins as JSON does; a safetensors file begins with the length of its header.
        is_index = file.read(1) == b"{" and path.stat().st_size < _INDEX_LIMIT
    if not is_index:
        yield path
        return
    for name in json.loads(path.read_text(encoding="utf-8"))["shards"]:
        yield path.with_name(name)


def is_checkpoint(path: Path) -> bool:
    """Return whether a file is a checkpoint (or the index of its shards) rather than bare weights."""
    try:
        read = [_metadata(file) for file in _files_of(path)]
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError):
        return False
    return bool(read) and all("param_groups" in about for about in read)


def _metadata(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        about: dict[str, Any] = json.loads(file.metadata()["streamderain"])
        return about


def earlier_parts(about: Mapping[str, Any]) -> tuple[Part, ...]:
    """Return the runs before a checkpoint's own; checkpoints written before they were recorded name none."""
    return tuple(about.get("earlier", ()))


def all_parts(about: Mapping[str, Any]) -> tuple[Part, ...]:
    """Return the runs before a checkpoint's own, and its own."""
    config = about["config"]
    own = Part(
        config=config["name"], steps=about["step"], seconds=round(about["seconds"]), batch=config["batch"]
    )
    return (*earlier_parts(about), own)


def tensors_under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _differing(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    keys = sorted((set(saved) | set(wanted)) - MAY_CHANGE)
    defaults = TrainConfig(name="").as_dict()
    return [key for key in keys if _filled(saved, key, defaults) != _filled(wanted, key, defaults)]


def _filled(config: Mapping[str, Any], key: str, defaults: Mapping[str, Any]) -> Any:
    """Return a value; what a table does not name, since it came later than the run, has its default."""
    value, default = config.get(key, defaults.get(key)), defaults.get(key)
    return {**default, **value} if isinstance(default, dict) and isinstance(value, dict) else value
