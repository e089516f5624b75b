"""Options and report of the two scoring commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from trainer.evaluation.scores import Clean

F = TypeVar("F", bound=Callable[..., Any])


def scoring_options(command: F) -> F:
    """Add the options of `run_scoring` to a command."""
    path = click.Path(path_type=Path)
    for option in reversed(
        (
            click.option(
                "--dataset", type=click.Path(path_type=Path, exists=True), required=True, help="Known pairs."
            ),
            click.option(
                "--split", type=click.Choice(["train", "test", "val"]), help="Which part of the data set."
            ),
            click.option("--json", "json_path", type=path, help="Write the scores here too."),
            click.option("--markdown", "markdown_path", type=path, help="Write them here as tables."),
            click.option("--per-image", is_flag=True, help="Add every picture's figures to both files."),
            click.option("--niqe", is_flag=True, help="NIQE too; needs pyiqa (the extra niqe)."),
            click.option("--niqe-parameters", type=path, help="NIQE's parameters [fetched by pyiqa]."),
        )
    ):
        command = option(command)
    return command


def run_scoring(
    clean: Clean,
    *,
    model: str,
    precision: str,
    dataset: Path,
    split: str | None,
    json_path: Path | None,
    markdown_path: Path | None,
    per_image: bool,
    niqe: bool,
    niqe_parameters: Path | None,
) -> None:
    """Score, print the table and write the files."""
    from trainer.evaluation.cases import VideoPlan, all_cases
    from trainer.evaluation.niqe import Niqe
    from trainer.evaluation.report import Report, check_targets, write_report
    from trainer.evaluation.scores import score_pictures, table

    check_targets(json_path, markdown_path)
    judge = Niqe(niqe_parameters) if niqe or niqe_parameters is not None else None
    blind = {} if judge is None else {judge.name: judge}
    cases = all_cases(dataset, VideoPlan(), split=split)
    pictures = list(score_pictures(cases, clean, blind=blind))
    tools = {} if judge is None else {"niqe": judge.tool}
    report = Report(model, precision, dataset.resolve().name, pictures, tools)
    click.echo(f"{model}, {precision}\n{table(report.rows)}")
    write_report(report, json_path=json_path, markdown_path=markdown_path, per_image=per_image)
