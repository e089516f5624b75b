"""From a run's checkpoint to a model folder: cores, weights, card and the page that describes them."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamderain.errors import ConfigError
from streamderain.nets.export import export_core
from streamderain.nets.fast import MULTIPLE, FastNet
from trainer.batches import Batch
from trainer.checkpoint import average_weights, read_checkpoint, save_tensors
from trainer.config import TrainConfig, dump_toml, parse_config
from trainer.quantise import quantise_core

FILES = {"f32": "model.onnx", "int8": "model.int8.onnx", "weights": "weights.safetensors"}
PRECISIONS = ("f32", "int8")
_ATTRIBUTION = (
    "Trained on research material under mixed or unstated licences, none of which is shipped: photographs of "
    "BSDS500, CamVid and ImageNet, dashcam clips, rain layers by Garg and Nayar."
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A run's result.

    Attributes:
        network: The averaged network.
        config: The run's configuration.
        step: Steps done.
        seconds: Time spent training, s.
    """

    network: FastNet
    config: TrainConfig
    step: int
    seconds: float


def load_trained(run: Path) -> Trained:
    """Read the averaged network of a run's last checkpoint (or of the checkpoint at the path itself)."""
    path = run if run.is_file() else run / "checkpoints" / "last.safetensors"
    tensors, about = read_checkpoint(path)
    config = parse_config(about["config"], where=str(path))
    sizes = config.network
    network = FastNet(width=sizes.width, middle_width=sizes.middle_width, middle_layers=sizes.middle_layers)
    network.load_state_dict(average_weights(tensors))
    return Trained(network.eval(), config, about["step"], about["seconds"])


def export_model(
    trained: Trained, folder: Path, calibration: Sequence[Batch], *, name: str, version: str, summary: str
) -> None:
    """Write cores and weights, and a card without scores.

    Args:
        trained: What to export.
        folder: The model folder; files of the same names are replaced.
        calibration: Training batches that show int8 its ranges.
        name: The model's name.
        version: Version of the weights.
        summary: One sentence.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # All files are made before the first one is replaced: a failure leaves the old model whole.
        made = {key: Path(scratch) / file for key, file in FILES.items()}
        export_core(trained.network, made["f32"])
        quantise_core(made["f32"], made["int8"], calibration)
        save_tensors(made["weights"], trained.network.state_dict(), {"family": "fast"})
        for key, path in made.items():
            path.replace(folder / FILES[key])
    write_card(folder, _card(trained, folder, name=name, version=version, summary=summary))


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write card.toml, and MODEL_CARD.md from the same values."""
    (folder / "card.toml").write_text(dump_toml(card), encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(model_page(card), encoding="utf-8")


def _card(trained: Trained, folder: Path, *, name: str, version: str, summary: str) -> dict[str, Any]:
    data = trained.config.data
    return {
        "name": name,
        "version": version,
        "summary": summary,
        "family": "fast",
        "input": "luma",
        "before": 1,
        "after": 1,
        "block": 4,
        "multiple": MULTIPLE,
        "tileable": True,
        "licence": "Apache-2.0",
        "attribution": _ATTRIBUTION,
        "default_precision": {"openvino": "int8", "torch": "f32"},
        "files": {
            key: {"path": file, "sha256": hashlib.sha256((folder / file).read_bytes()).hexdigest()}
            for key, file in FILES.items()
        },
        "training": {
            "config": trained.config.name,
            "data": [*data.clips, *data.stills, *data.pairs, *data.layers],
            "steps": trained.step,
            "planned_steps": trained.config.steps,
            "seconds": round(trained.seconds),
            "batch": trained.config.batch,
            "crop_px": data.crop_px,
        },
    }


def model_page(card: Mapping[str, Any]) -> str:
    """MODEL_CARD.md: what the model is for, how it was trained, what it scores and where it falls short."""
    training = card["training"]
    rows = card.get("scores", [])
    return f"""# {card["name"]} {card["version"]}

{card["summary"]}

- Family `{card["family"]}`: reads the luma of the previous, current and next frame, writes the luma of the
  current one; chroma passes through untouched. It only takes light away, never adds any.
- A missing neighbour (still picture, first or last frame, scene cut) is a copy of the current frame with a
  validity of 0.
- Trained for {training["steps"]} steps ({training["seconds"]} s on a CPU) of {training["batch"]} crops of
  {training["crop_px"]} px with the configuration `{training["config"]}`, on rain drawn over rain-free
  footage: it has seen next to no real rain.
- Licence of the weights: {card["licence"]}. {card["attribution"]}

## Scores

Means over pictures, beside what doing nothing scores. `psnr` in dB; 100 stands for equal pictures. Rows named
*rain-free* measure harm: the output against an input without rain.

{_score_table(rows) if rows else "Not measured yet."}

## Where it falls short

- Rain whose streaks cover most of the picture from several directions (Rain100H) is only thinned.
- Single pictures fare worse than video: what differs between frames is the strongest cue.
- Fog, veils, drops on the windscreen and splashes stay: it removes falling streaks.
- Real rain that looks unlike the drawn kind, such as very wide, blurred or dark streaks, may stay.
"""


def _score_table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| data set | metric | precision | n | do nothing | model | 5 % of pictures below |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['dataset']} | {r['metric']} | {r['precision']} | {r['count']} | {r['do_nothing']:.3f} "
        f"| **{r['value']:.3f}** | {r['p5']:.3f} |"
        for r in rows
    ]
    commands = sorted({f"    {r['command']}" for r in rows})
    return "\n".join(lines) + "\n\nReproduce with:\n\n" + "\n".join(commands)


def add_scores(folder: Path, rows: Mapping[str, Sequence[Mapping[str, Any]]], *, command: str) -> None:
    """Put measured scores into a model folder's card and page, in place of those it had.

    Args:
        folder: The model folder.
        rows: Rows of `trainer.scores.Row.as_dict` by precision.
        command: The command that measured them, without paths of this machine; ``{precision}`` is filled in.

    Raises:
        ConfigError: The folder has no card that this exporter wrote.
    """
    import tomllib

    path = folder / "card.toml"
    if not path.is_file():
        raise ConfigError(f"{folder} has no card.toml; export the model first")
    card = tomllib.loads(path.read_text(encoding="utf-8"))
    card["scores"] = [
        {**_rounded(row), "precision": precision, "command": command.format(precision=precision)}
        for precision, measured in rows.items()
        for row in measured
    ]
    write_card(folder, card)


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
