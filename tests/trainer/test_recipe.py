"""Recipes: every step once and in order, from pictures to a model, whatever interrupts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from streamderain.errors import ConfigError
from streamderain.models import read_card
from tests.trainer.support import TINY, TINY_LITE
from trainer.cli import cli
from trainer.config import dump_toml, load_config
from trainer.recipe import RECIPES, Recipe, Settings, Step, arguments, follow_recipe, load_recipe

UNPAIRED = {"rainy": ["pairs/input"], "rained": [], "clean": ["stills"], "layers": [], "crop_px": 32}


def test_every_recipe_is_readable_and_its_configurations_exist() -> None:
    names = [path.stem for path in RECIPES.glob("*.toml")]
    assert {"lite", "paper", "dcd-gan"} <= set(names)
    of_luma = ["gan", "pseudo", "paired", "student", "motion", "int8", "export"]
    for name in names:
        recipe = load_recipe(name)
        wanted = ["narrow", "pairs", "unpaired", "export"] if name == "dcd-gan" else of_luma
        assert [step.name for step in recipe.steps] == wanted
        for step in recipe.steps:
            if "--config" in step.command:
                load_config(step.command[step.command.index("--config") + 1])


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Every kind of step, at toy size."""
    pairs: dict[str, Any] = {**TINY, "steps": 3, "save_every": 1}
    pseudo = {**TINY["data"], "share_pseudo": 0.3}
    configs: dict[str, dict[str, Any]] = {
        "gan": {**TINY_LITE, "steps": 2, "save_every": 1, "unpaired": UNPAIRED},
        "student": {**pairs, "data": pseudo, "phases": [{"until": 1.0, "losses": {"distillation": 1.0}}]},
        "int8": {**pairs, "phases": [{"until": 1.0, "losses": {"squared": 1.0}, "int8": True}]},
        "paired": pairs,
        "motion": pairs,
    }
    for name, values in configs.items():
        (tmp_path / f"{name}.toml").write_text(dump_toml(values))
    text = (RECIPES / "lite.toml").read_text()
    names = ("paired", "student", "motion", "int8")
    for asked, given in (("lite", "gan"), *zip(names, names, strict=True)):
        assert f'"{asked}"' in text
        text = text.replace(f'"--config", "{asked}"', f'"--config", "{tmp_path / given}.toml"')
    for folder in ("clean_bsds", "clean_camvid_train", "clean_imagenet"):
        assert folder in text
        text = text.replace(folder, "stills")
    path = tmp_path / "tiny.toml"
    path.write_text(text)
    return path


def test_the_whole_road_ends_in_a_model_and_is_gone_once(recipe: Path, data: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    order = ["recipe", str(recipe), "--data", str(data), "--work", str(work), "--accelerator", "cpu"]
    runner = CliRunner()
    done = runner.invoke(cli, order, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    card = read_card(work / "model")
    assert card.training["steps_of_runs"] == [3, 3, 3, 3]  # paired, student, motion, int8
    assert "[4/7] student: python -m trainer train --config" in done.output
    again = runner.invoke(cli, order, catch_exceptions=False)
    assert again.output.count("done before") == 7


def test_an_interrupted_recipe_goes_on_where_it_stopped(tmp_path: Path) -> None:
    recipe = Recipe("r", "s", tuple(Step(n, ("train", "--run", f"{{work}}/{n}")) for n in ("a", "b", "c")))
    settings = Settings(tmp_path / "data", tmp_path / "work", tmp_path / "cache")
    ran: list[list[str]] = []

    def run(typed: Sequence[str]) -> None:
        ran.append(list(typed))
        if len(ran) == 2:
            checkpoint = settings.work / "b" / "checkpoints" / "last.safetensors"
            checkpoint.parent.mkdir(parents=True)
            checkpoint.write_bytes(b"half way")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow_recipe(recipe, settings, run, lambda _: None)
    follow_recipe(recipe, settings, run, lambda _: None)
    names = [Path(typed[2]).name for typed in ran]
    assert names == ["a", "b", "b", "c"]
    assert ["--resume" in typed for typed in ran] == [False, False, True, False]
    with pytest.raises(ConfigError, match="another recipe"):
        follow_recipe(Recipe("other", "s", recipe.steps), settings, run, lambda _: None)


def test_each_step_is_given_what_its_command_takes(tmp_path: Path) -> None:
    settings = Settings(Path("D"), Path("W"), Path("C"), Path("V"), "cuda", 2)
    typed = arguments(Step("x", ("train", "--config", "lite", "--run", "{work}/gan")), settings)
    assert typed == [
        "train",
        "--config",
        "lite",
        "--run",
        "W/gan",
        "--data",
        "D",
        "--cache",
        "C",
        "--validation",
        "V",
        "--accelerator",
        "cuda",
        "--devices",
        "2",
    ]
    assert arguments(Step("x", ("pseudo", "--clean", "{data}/a")), settings) == ["pseudo", "--clean", "D/a"]
    typed = arguments(Step("x", ("export", "--run", "{work}/r", "--to", "{work}/m")), settings)
    assert typed == [
        "export",
        "--run",
        "W/r",
        "--to",
        "W/m",
        "--data",
        "D",
        "--cache",
        "C",
        "--validation",
        "V",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("summary = ", "is no recipe"),
        ("summary = 'a'", "is no recipe"),
        ("summary = 'a'\n[[steps]]\nname = 'x'\ncommand = ['dance']", "not so: x"),
        ("summary = 'a'\n" + "[[steps]]\nname = 'x'\ncommand = ['pseudo']\n" * 2, "once each"),
    ],
)
def test_a_bad_recipe_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        load_recipe(str(path))


def test_an_unknown_recipe_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"one of: dcd-gan, lite, paper"):
        load_recipe("dinner")
