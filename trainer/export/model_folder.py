"""Export a run's checkpoint as a model folder: cores, weights and card."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamderain.errors import ConfigError
from streamderain.models import CARD_NAME
from streamderain.nets.export import export_core, export_rgb_core
from streamderain.nets.fast import FastNet
from streamderain.nets.generator import Generator
from streamderain.nets.network import Network
from trainer.checkpoint import Part, all_parts, checkpoint_path, read_checkpoint, save_tensors, tensors_under
from trainer.config import TrainConfig, parse_config
from trainer.data.paired import Batch
from trainer.export.card import model_card, parts_of_model, write_card
from trainer.export.kinds import KINDS, kind_of
from trainer.export.quantise import quantise_core
from trainer.networks.load import load_network
from trainer.networks.network_weights import SizedNetwork, load_weights, save_weights


@dataclass(frozen=True)
class Trained:
    """A run's result.

    Attributes:
        network: The averaged network.
        config: The run's configuration.
        parts: The runs behind these weights, oldest first, the run itself last.
        ranges: Largest activations by name, where the run ended in int8; see
            `trainer.networks.quantisation_aware`.
    """

    network: Network
    config: TrainConfig
    parts: tuple[Part, ...]
    ranges: Mapping[str, float] | None = None


def load_trained(run: Path, *, earlier: Sequence[Path] = ()) -> Trained:
    """Read the averaged network of a run's last checkpoint (or of the checkpoint at the path itself).

    Args:
        run: Run folder or checkpoint.
        earlier: Runs, checkpoints or models before it that its own history does not name, oldest first.
    """
    path = checkpoint_path(run)
    before = [part for p in earlier for part in _parts(p)]
    tensors, about = read_checkpoint(path)
    network = load_network(path)
    if network.family not in KINDS:
        raise ConfigError(
            f"{path} holds a {network.family}, of which no model is made ({', '.join(KINDS)}); take it with "
            "`python -m trainer weights`, or train `--config student` on its pseudo-pairs"
        )
    ranges = {name: float(value) for name, value in tensors_under(tensors, "extra.").items()}
    config = parse_config(about["config"], where=str(path))
    parts = [part for part in (*before, *all_parts(about)) if part["steps"]]
    return Trained(network, config, tuple(parts), ranges or None)


def _parts(path: Path) -> tuple[Part, ...]:
    if (path / CARD_NAME).is_file():
        return parts_of_model(path)
    return all_parts(read_checkpoint(checkpoint_path(path))[1])


def export_model(
    trained: Trained,
    folder: Path,
    calibration: Sequence[Batch] = (),
    *,
    name: str,
    version: str,
    note: str = "",
) -> None:
    """Write cores and weights, and a card without scores.

    Args:
        trained: What to export.
        folder: The model folder; files of the same names are replaced.
        calibration: Training batches that show int8 its ranges, where there is int8.
        name: The model's name.
        version: Version of the weights.
        note: What else must be told of the training, in sentences.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # All files are made before the first one is replaced: a failure leaves the old model whole.
        made = _exported(trained, Path(scratch), calibration)
        files = {key: [folder / path.name for path in paths] for key, paths in made.items()}
        for path in {path for paths in made.values() for path in paths}:
            path.replace(folder / path.name)
    kind = kind_of(trained.network)
    card = model_card(files, kind, trained.config, trained.parts, name=name, version=version, note=note)
    write_card(folder, card)


def _exported(trained: Trained, folder: Path, calibration: Sequence[Batch]) -> dict[str, list[Path]]:
    """Write a model's files; return them by precision, each with those that belong to it."""
    network, core, weights = trained.network, folder / "model.onnx", folder / "weights.safetensors"
    if isinstance(network, SizedNetwork):
        shards = save_weights(network, folder)
        saved = load_weights(folder)
        if isinstance(saved, Generator):
            export_rgb_core(saved, core, shards)
        else:
            export_core(saved, core, shards)
        return {"f32": [core, *shards], "weights": shards}
    assert isinstance(network, FastNet)
    rounded = folder / "model.int8.onnx"
    export_core(network, core)
    quantise_core(core, rounded, calibration, ranges=trained.ranges)
    save_tensors(weights, network.state_dict(), {"family": network.family})
    return {"f32": [core], "int8": [rounded], "weights": [weights]}
