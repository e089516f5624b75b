"""Export a run's checkpoint as a model folder: cores, weights and card."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamderain.errors import ConfigError
from streamderain.models import CARD_NAME
from streamderain.nets.export import export_core
from streamderain.nets.fast import FastNet
from streamderain.nets.network import Network
from trainer.checkpoint import Part, all_parts, checkpoint_path, read_checkpoint, save_tensors, tensors_under
from trainer.config import TrainConfig, parse_config
from trainer.data.paired import Batch
from trainer.export.card import FILES, model_card, parts_of_model, write_card
from trainer.export.quantise import quantise_core
from trainer.networks.load import load_network


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
    if network.family != FastNet.family:
        raise ConfigError(
            f"{path} holds the paper's generator, and this command exports the fast network; take the "
            "generator with `python -m trainer weights`, or train `--config student` on its pseudo-pairs"
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
    calibration: Sequence[Batch],
    *,
    name: str,
    version: str,
    summary: str,
    note: str = "",
) -> None:
    """Write cores and weights, and a card without scores.

    Args:
        trained: What to export.
        folder: The model folder; files of the same names are replaced.
        calibration: Training batches that show int8 its ranges.
        name: The model's name.
        version: Version of the weights.
        summary: One sentence.
        note: What else must be told of the training, in sentences.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # All files are made before the first one is replaced: a failure leaves the old model whole.
        made = {key: Path(scratch) / file for key, file in FILES.items()}
        export_core(trained.network, made["f32"])
        quantise_core(made["f32"], made["int8"], calibration, ranges=trained.ranges)
        save_tensors(made["weights"], trained.network.state_dict(), {"family": trained.network.family})
        for key, path in made.items():
            path.replace(folder / FILES[key])
    card = model_card(
        folder, trained.config, trained.parts, name=name, version=version, summary=summary, note=note
    )
    write_card(folder, card)
