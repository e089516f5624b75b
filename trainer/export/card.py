"""Write a model's card.toml, and MODEL_CARD.md from the same values."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from streamderain.errors import ConfigError
from streamderain.models import CARD_NAME, FlowCells, read_card
from streamderain.nets.fast import BLOCK, MULTIPLE, FastNet
from trainer.checkpoint import Part
from trainer.config import TrainConfig, dump_toml

FILES = {"f32": "model.onnx", "int8": "model.int8.onnx", "weights": "weights.safetensors"}
PRECISIONS = ("f32", "int8")
_FAILURES = "failures.jpg"
_ATTRIBUTION = (
    "Trained on research material under mixed or unstated licences, none of which is shipped: photographs of "
    "BSDS500, CamVid and ImageNet, dashcam clips, rainy pairs like those of Rain1400, Rain800 and Rain100H, "
    "rain layers by Garg and Nayar. The problem and the name follow DCD-GAN (Chen et al., CVPR 2022); its "
    "code and weights are not used."
)


def model_card(
    folder: Path,
    config: TrainConfig,
    parts: Sequence[Part],
    *,
    name: str,
    version: str,
    summary: str,
    note: str,
) -> dict[str, Any]:
    """Return the card's values, without scores.

    Args:
        folder: The model folder, with its files in place.
        config: Configuration of the last run.
        parts: The runs behind the weights, oldest first.
        name: The model's name.
        version: Version of the weights.
        summary: One sentence.
        note: What else must be told of the training; may be empty.
    """
    return {
        "name": name,
        "version": version,
        "summary": summary,
        "family": "fast",
        "input": "luma",
        "before": 1,
        "after": 1,
        "block": BLOCK,
        "multiple": MULTIPLE,
        "tileable": True,
        "alignment": FastNet.alignment,
        "flow": asdict(FlowCells()),
        "licence": "Apache-2.0",
        "attribution": _ATTRIBUTION,
        "default_precision": {"openvino": "int8", "torch": "f32"},
        "files": {
            key: {"path": file, "sha256": hashlib.sha256((folder / file).read_bytes()).hexdigest()}
            for key, file in FILES.items()
        },
        "training": _training(config, parts, note),
    }


def _training(config: TrainConfig, parts: Sequence[Part], note: str) -> dict[str, Any]:
    data = config.data
    told = {
        "config": config.name,
        "data": [*data.clips, *data.stills, *data.pairs, *data.layers],
        "steps": sum(part["steps"] for part in parts),
        "seconds": sum(part["seconds"] for part in parts),
        "steps_of_runs": [part["steps"] for part in parts],
        "planned_steps_of_last_run": config.steps,
        "batch": config.batch,
        "crop_px": data.crop_px,
        "threads": config.threads,
        "pseudo_pairs": config.data.share_pseudo > 0.0,
    }
    return told | ({"note": note} if note else {})


def parts_of_model(folder: Path) -> tuple[Part, ...]:
    """Return the training behind a model folder, as one run's share."""
    card = read_card(folder)
    told = card.training
    part = Part(
        config=f"{card.name} {card.version}",
        steps=told["steps"],
        seconds=told["seconds"],
        batch=told["batch"],
    )
    return (part,)


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write card.toml, and MODEL_CARD.md from the same values."""
    (folder / CARD_NAME).write_text(dump_toml(card), encoding="utf-8")
    page = model_page(card, pictured=(folder / _FAILURES).is_file())
    (folder / "MODEL_CARD.md").write_text(page, encoding="utf-8")


def add_scores(folder: Path, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Put measured scores into a model folder's card and page, in place of those it had.

    Args:
        folder: The model folder.
        rows: Rows of `trainer.evaluation.scores.Row.as_dict` by precision.

    Raises:
        ConfigError: The folder has no card.
    """
    path = folder / CARD_NAME
    if not path.is_file():
        raise ConfigError(f"{folder} has no {CARD_NAME}; export the model first")
    card = tomllib.loads(path.read_text(encoding="utf-8"))
    command = f"python -m trainer evaluate --model {card['name']} --dataset VALIDATION --precision "
    card["scores"] = [
        {**_rounded(row), "precision": precision, "command": command + precision}
        for precision, measured in rows.items()
        for row in measured
    ]
    write_card(folder, card)


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}


def model_page(card: Mapping[str, Any], *, pictured: bool = False) -> str:
    """Return MODEL_CARD.md: what it is for, its training, its scores and where it falls short.

    Args:
        card: The card's values.
        pictured: Whether there is a picture of where it falls short beside it.
    """
    rows = card.get("scores", [])
    picture = f"![a single picture, before and after]({_FAILURES})\n\n" if pictured else ""
    return f"""# {card["name"]} {card["version"]}

{card["summary"]}

## What it is

- Family `{card["family"]}` (`streamderain/nets/fast.py`): sees the luma of a frame and by how much it is
  brighter or darker than the previous and the next one, which are first aligned with it by optical flow,
  and tells what light to take away. None is ever added; chroma passes untouched.
- A missing neighbour (still picture, first or last frame, scene cut) is a copy of the current frame with a
  validity of 0.
- `{FILES["f32"]}` computes in float32, `{FILES["int8"]}` in int8 (for CPUs), `{FILES["weights"]}` holds the
  parameters.

## What it was trained on

{_training_text(card["training"])}

## How well it does

{_score_table(rows) if rows else "Not measured yet."}

## What it does badly

- Single pictures fare much worse than video: what differs between frames is its strongest cue.
- Rain whose streaks cover most of the picture from several directions (Rain100H) is hardly thinned.
- Where the scene rushes past (leaves beside a fast car) neighbours do not fit, and rain stays rather than
  texture goes.
- Drops on the windscreen or lens, splashes, fog and veils stay: it removes falling streaks.
- Streaks that look unlike the drawn kind, such as very wide, blurred or dark ones, may stay.

{picture}## Licence and attribution

The weights are under {card["licence"]}. {card["attribution"]}
"""


def _training_text(training: Mapping[str, Any]) -> str:
    runs = training["steps_of_runs"]
    pseudo = "pseudo-pairs whose rain a generator made that learned from unpaired, partly real rain, "
    lines = [
        f"- {training['steps']} steps of {training['batch']} crops of {training['crop_px']} px, "
        f"{training['seconds'] / 60:.0f} minutes by the clock on {training['threads']} CPU threads.",
        f"- Configuration `{training['config']}`: rain drawn over rain-free clips and photographs, "
        f"{pseudo if training.get('pseudo_pairs') else ''}and a few pairs from elsewhere. No pairs of real "
        "rain.",
        f"- Folders: {', '.join(f'`{name}`' for name in training['data'])}.",
    ]
    if len(runs) > 1:
        lines.append(
            f"- These are the steps of {len(runs)} runs, each begun with the weights of the one before: "
            f"{', '.join(map(str, runs))}."
        )
    if runs[-1] < training["planned_steps_of_last_run"]:
        lines.append(
            f"- The last run was ended early: {training['planned_steps_of_last_run']} steps were planned."
        )
    if "note" in training:
        lines.append(f"- {training['note']}")
    return "\n".join(lines)


def _score_table(rows: Sequence[Mapping[str, Any]]) -> str:
    commands = "\n".join(sorted({f"    {row['command']}" for row in rows}))
    lines = [
        "| data set | metric | precision | pictures | do nothing | model | 5 % of pictures below | worst |",
        "|---|---|---|---|---|---|---|---|",
        *(_score_line(row) for row in rows),
    ]
    return f"""Means over pictures, beside the score of the untouched input. On *rain-free* rows the input
is the target, and the score measures harm; 100 dB stands for equal pictures. *Every 3.* means that only every
third frame is taken: motion three times as fast. Clips: rain drawn on them, as it
is and after H.264 (CRF 23), luma plane. Stills: luma of MATLAB's rgb2ycbcr, no neighbours. These sets were
watched while the training was set up: they are no unseen test.

{chr(10).join(lines)}

Measured with:

{commands}"""


def _score_line(row: Mapping[str, Any]) -> str:
    nothing = f"{row['do_nothing']:.3f}" if "do_nothing" in row else "is the target"
    cells = [row["dataset"], row["metric"], row["precision"], row["count"], nothing]
    return (
        f"| {' | '.join(map(str, cells))} | **{row['value']:.3f}** | {row['p5']:.3f} | {row['minimum']:.3f} |"
    )
