"""Write a model's card.toml, and MODEL_CARD.md from the same values."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streamderain.errors import ConfigError
from streamderain.models import CARD_NAME, read_card
from trainer.checkpoint import Part
from trainer.config import TRANSLATION, TrainConfig, dump_toml
from trainer.export.kinds import KINDS, UNPAIRED_CONFIG, Kind

_PSEUDO = "Pseudo-pairs too, whose rain a generator made that learned from unpaired, partly real rain."
_REAL = "Rainy video without a clean version, too: what the frames around one agree on, and its streaks."
_FAILURES = "failures.jpg"


def model_card(
    files: Mapping[str, Sequence[Path]],
    kind: Kind,
    config: TrainConfig,
    parts: Sequence[Part],
    *,
    name: str,
    version: str,
    note: str,
) -> dict[str, Any]:
    """Return the card's values, without scores.

    Args:
        files: The model's files by precision (or "weights"), in place, each with those that belong to it.
        kind: What is exported.
        config: Configuration of the last run.
        parts: The runs behind the weights, oldest first.
        name: The model's name.
        version: Version of the weights.
        note: What else must be told of the training; may be empty.
    """
    return {
        "name": name,
        "version": version,
        "summary": kind.summary,
        **kind.facts,
        "licence": "Apache-2.0",
        "attribution": kind.attribution,
        "default_precision": dict(kind.default_precision),
        "files": {key: _file(*paths) for key, paths in files.items()},
        "training": _training(config, parts, note),
    }


def _file(path: Path, *more: Path) -> dict[str, Any]:
    told: dict[str, Any] = {"path": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return told | ({"parts": [_file(part) for part in more]} if more else {})


def _training(config: TrainConfig, parts: Sequence[Part], note: str) -> dict[str, Any]:
    told = {
        "config": config.name,
        "data": _folders(config),
        "steps": sum(part["steps"] for part in parts),
        "seconds": sum(part["seconds"] for part in parts),
        "steps_of_runs": [part["steps"] for part in parts],
        "configs_of_runs": [part["config"] for part in parts],
        "batches_of_runs": [part["batch"] for part in parts],
        "planned_steps_of_last_run": config.steps,
        "batch": config.batch,
        "crop_px": config.unpaired.crop_px if config.method == TRANSLATION else config.data.crop_px,
        "threads": config.threads,
        "pseudo_pairs": config.data.share_pseudo > 0.0,
        "real_video": bool(config.data.real and config.data.share_real > 0.0),
    }
    return told | ({"note": note} if note else {})


def _folders(config: TrainConfig) -> list[str]:
    if config.method == TRANSLATION:
        domains = config.unpaired
        folders = (*domains.rainy, *domains.rained, *domains.clean, *domains.layers)
    else:
        data = config.data
        folders = (*data.clips, *data.stills, *data.pairs, *data.layers, *data.real)
    return list(dict.fromkeys(folders))


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
    rows, kind = card.get("scores", []), KINDS[card["family"]]
    picture = f"![a single picture, before and after]({_FAILURES})\n\n" if pictured else ""
    return f"""# {card["name"]} {card["version"]}

{card["summary"]}

## What it is

{kind.about}

## What it was trained on

{_training_text(card["training"], kind)}

## How well it does

{_score_table(rows, kind) if rows else "Not measured yet."}

## What it does badly

{kind.shortcomings}

{picture}## Licence and attribution

The weights are under {card["licence"]}. {card["attribution"]}
"""


def _training_text(training: Mapping[str, Any], kind: Kind) -> str:
    runs = training["steps_of_runs"]
    configs = training.get("configs_of_runs", [])
    batches = training.get("batches_of_runs", [training["batch"]])
    crops = " or ".join(map(str, sorted(set(batches))))
    lines = [
        f"- {training['steps']} steps of {crops} crops of {training['crop_px']} px, "
        f"{training['seconds'] / 60:.0f} minutes by the clock on {training['threads']} CPU threads.",
        f"- Configuration `{training['config']}`: {kind.lesson}",
        *([f"- {_PSEUDO}"] if training.get("pseudo_pairs") else []),
        *([f"- {_REAL}"] if training.get("real_video") else []),
        *([f"- {kind.unpaired[UNPAIRED_CONFIG in configs]}"] if kind.unpaired else []),
        f"- Folders: {', '.join(f'`{name}`' for name in training['data'])}.",
    ]
    if len(runs) > 1:
        named = configs or [""] * len(runs)
        told = [
            f"{steps} ({config})" if config else str(steps) for steps, config in zip(runs, named, strict=True)
        ]
        lines.append(
            f"- These are the steps of {len(runs)} runs, each begun with the weights of the one before: "
            f"{', '.join(told)}."
        )
    if runs[-1] < training["planned_steps_of_last_run"]:
        lines.append(
            f"- The last run was ended early: {training['planned_steps_of_last_run']} steps were planned."
        )
    if "note" in training:
        lines.append(f"- {training['note']}")
    return "\n".join(lines)


def _score_table(rows: Sequence[Mapping[str, Any]], kind: Kind) -> str:
    commands = "\n".join(sorted({f"    {row['command']}" for row in rows}))
    lines = [
        "| data set | metric | precision | pictures | do nothing | model | 5 % of pictures below | worst |",
        "|---|---|---|---|---|---|---|---|",
        *(_score_line(row) for row in rows),
    ]
    return f"""{kind.judged}

{chr(10).join(lines)}

Measured with:

{commands}"""


def _score_line(row: Mapping[str, Any]) -> str:
    nothing = f"{row['do_nothing']:.3f}" if "do_nothing" in row else "is the target"
    cells = [row["dataset"], row["metric"], row["precision"], row["count"], nothing]
    return (
        f"| {' | '.join(map(str, cells))} | **{row['value']:.3f}** | {row['p5']:.3f} | {row['minimum']:.3f} |"
    )
