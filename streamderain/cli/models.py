"""The command `streamderain models`: list model cards and show one."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from streamderain.models import ModelCard, list_models, load_model


def list_command(*, as_json: bool) -> None:
    """Print every model that can be named."""
    cards = list_models()
    if as_json:
        click.echo(json.dumps([_plain(card) for card in cards], indent=2))
        return
    table = Table("model", "version", "reads", "precisions", "what it is", box=None, pad_edge=False)
    for card in cards:
        precisions = ", ".join(sorted(name for name in card.files if name != "weights"))
        table.add_row(card.name, card.version, card.input, precisions, card.summary)
    Console(soft_wrap=True).print(table)


def show_command(name: str, *, as_json: bool) -> None:
    """Print one model's card."""
    card = load_model(name)
    if as_json:
        click.echo(json.dumps(_plain(card), indent=2))
        return
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{card.name} {card.version}: {card.summary}", markup=False)
    window = f"{card.before} frame(s) before, {card.after} after"
    console.print(f"reads {card.input}, {window}; licence {card.licence}; in {card.folder}", markup=False)
    for label, file in card.files.items():
        default = [engine for engine, choice in card.default_precision.items() if choice == label]
        use = f" (default of {', '.join(default)})" if default else ""
        console.print(f"  {label}: {file.path.name}{use}, sha256 {file.sha256[:16]}...", markup=False)
    for key, value in card.training.items():
        console.print(f"  trained: {key} = {value}", markup=False)
    table = Table(
        "measured on", "metric", "precision", "this model", "doing nothing", box=None, pad_edge=False
    )
    for score in card.scores:
        nothing = "" if score.do_nothing is None else f"{score.do_nothing:.2f}"
        table.add_row(score.dataset, score.metric, score.precision, f"{score.value:.2f}", nothing)
    console.print(table)


def _plain(card: ModelCard) -> dict[str, Any]:
    plain = dataclasses.asdict(card)
    plain["folder"] = str(card.folder)
    plain["files"] = {
        name: {"path": str(file.path), "sha256": file.sha256} for name, file in card.files.items()
    }
    return plain
