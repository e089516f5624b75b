"""Save and load networks of free width and depth: safetensors in one file, or in shards.

Each file tells in its metadata the family, the sizes of the network and which set of shards it belongs to, so
that a lost shard, or one of another training, is found before anything is computed with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from streamderain.errors import ConfigError, OpenError
from streamderain.nets.deep import DeepNet
from streamderain.nets.generator import Generator, ResidualGenerator
from trainer.checkpoint import save_tensors, split

SizedNetwork = DeepNet | Generator

_FAMILIES = {family.family: family for family in (DeepNet, Generator, ResidualGenerator)}
_PATTERN = "weights*.safetensors"


def save_weights(
    network: SizedNetwork, folder: Path, *, max_bytes: int = 15 * 2**20, dtype: torch.dtype = torch.float16
) -> list[Path]:
    """Write a network's weights as `weights.safetensors`, or `weights-00001-of-00002.safetensors` etc.

    Args:
        network: The network.
        folder: Target; each file appears whole or not at all, and those of an earlier save are removed last.
        max_bytes: Most bytes per file.
        dtype: How weights are stored; loading gives float32 again.

    Returns:
        The files, in order.

    Raises:
        ConfigError: A single tensor is larger than a file may be.
    """
    tensors = {key: value.detach().cpu().to(dtype) for key, value in network.state_dict().items()}
    for key, tensor in tensors.items():
        if tensor.nbytes > max_bytes:
            raise ConfigError(
                f"{key} has {tensor.nbytes} bytes: too many for files of {max_bytes}; allow larger files"
            )
    shards = split(tensors, max_bytes)
    common = {"family": network.family, **_sizes(network), "set": _digest(tensors)}
    paths = []
    for number, shard in enumerate(shards, 1):
        path = folder / _file_name(number, len(shards))
        save_tensors(path, shard, common)
        paths.append(path)
    for stale in set(folder.glob(_PATTERN)) - set(paths):
        stale.unlink()
    return paths


def holds_weights(path: Path) -> bool:
    """Return whether a file, or a file of a folder, says that it holds weights of such a network."""
    files = sorted(path.glob(_PATTERN)) if path.is_dir() else [path] if path.is_file() else []
    try:
        return any(_metadata(file).get("family") in _FAMILIES for file in files)
    except OpenError:
        return False


def load_weights(path: Path) -> SizedNetwork:
    """Read a network's weights, of any sizes.

    Args:
        path: One file, or a folder with one file or all shards.

    Returns:
        The network, float32, on the CPU, in evaluation mode.

    Raises:
        OpenError: A file is missing or damaged, or the weights are not those of such a network.
    """
    files = _files(path)
    about = [_metadata(file) for file in files]
    for file, found in zip(files, about, strict=True):
        if found.get("family") not in _FAMILIES:
            raise OpenError(
                f"{file} holds no weights of a network of free sizes; name another file or folder"
            )
        if found != about[0]:
            raise OpenError(f"{file} and {files[0]} come from two savings; copy all shards of one again")
    try:
        family = _FAMILIES[about[0]["family"]]
        network = family(width=int(about[0]["width"]), blocks=int(about[0]["blocks"]))
        network.load_state_dict({key: t.float() for file in files for key, t in _tensors(file).items()})
    except (KeyError, ValueError, RuntimeError) as error:
        raise OpenError(f"{path} does not hold a whole network ({error}); copy or save it again") from error
    return network.eval()


def _files(path: Path) -> list[Path]:
    """Return the one file, or all shards, of which none may be missing."""
    if path.is_file() and "-of-" not in path.stem:
        return [path]
    folder = path if path.is_dir() else path.parent
    found = sorted(folder.glob(_PATTERN))
    if not found:
        raise OpenError(f"{path} holds no {_PATTERN}; name a file of weights or the folder of its shards")
    count = found[0].stem.partition("-of-")[2]
    total = int(count) if count.isdigit() else 1
    wanted = [folder / _file_name(number, total) for number in range(1, total + 1)]
    lost = [file.name for file in wanted if file not in found]
    if lost:
        raise OpenError(f"{folder} lacks {', '.join(lost)}; copy every shard of the network there")
    if len(found) > total:
        extra = ", ".join(file.name for file in found if file not in wanted)
        raise OpenError(f"{folder} holds shards of two savings; remove those that do not belong: {extra}")
    return wanted


def _file_name(number: int, count: int) -> str:
    return "weights.safetensors" if count == 1 else f"weights-{number:05d}-of-{count:05d}.safetensors"


def _sizes(network: SizedNetwork) -> dict[str, str]:
    return {"width": str(network.width), "blocks": str(network.blocks)}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for key, tensor in tensors.items():
        total.update(key.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]


def _metadata(file: Path) -> dict[str, str]:
    try:
        with safe_open(file, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise OpenError(f"{file} cannot be read as weights ({error}); copy it again") from error


def _tensors(file: Path) -> dict[str, Tensor]:
    with safe_open(file, framework="pt") as opened:
        return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (no dict)
