"""Recipes: the trainer's commands in order, from folders of pictures to a model folder.

A recipe is a TOML file in trainer/recipes: a summary, and steps with a name and the arguments of one command.
What is the same for every step (data, cache, validation, devices) is added here. A step that is done is not
done again: an interrupted recipe goes on where it stopped, inside a training run at its last checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamderain.errors import ConfigError
from streamderain.system.files import written_whole
from trainer.checkpoint import checkpoint_path

RECIPES = Path(__file__).parent / "recipes"
_TAKES = {
    "train": ("data", "cache", "validation", "accelerator", "devices"),
    "pseudo": (),
    "export": ("data", "cache", "validation"),
}
"""Which of the recipe's own settings each command takes as options."""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: Unique in its recipe.
        command: The command and its arguments; `{work}` and `{data}` stand for the recipe's folders.
    """

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """Steps in order.

    Attributes:
        name: The file's.
        summary: One line.
        steps: The steps.
    """

    name: str
    summary: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Settings:
    """What is the same for every step.

    Attributes:
        data: Folder of the training data.
        work: Where runs, pseudo-pairs and the model go.
        cache: Where decoded data is kept.
        validation: Folder of validation data, if any.
        accelerator: See `trainer.run.devices.open_fabric`.
        devices: See there.
    """

    data: Path
    work: Path
    cache: Path
    validation: Path | None = None
    accelerator: str = "auto"
    devices: int = 1


def load_recipe(name_or_path: str) -> Recipe:
    """Read a recipe by name or path.

    Raises:
        ConfigError: There is none, or it is not what it should be.
    """
    path = Path(name_or_path) if name_or_path.endswith(".toml") else RECIPES / f"{name_or_path}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise ConfigError(f"no recipe {str(path)!r}; give a .toml file or one of: {known}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        steps = tuple(Step(str(s["name"]), tuple(map(str, s["command"]))) for s in values["steps"])
        recipe = Recipe(path.stem, str(values["summary"]), steps)
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is no recipe ({error!r}); it needs a summary and [[steps]] with name and command"
        ) from error
    unknown = [s.name for s in steps if not s.command or s.command[0] not in _TAKES]
    if unknown or not steps or len({s.name for s in steps}) < len(steps):
        raise ConfigError(
            f"{path}: steps must be named once each and be one of {', '.join(_TAKES)}"
            + (f"; not so: {', '.join(unknown)}" if unknown else "")
        )
    return recipe


def arguments(step: Step, settings: Settings) -> list[str]:
    """Return the step as typed after `python -m trainer`, `--resume` included where its run has begun."""
    places = {"work": str(settings.work), "data": str(settings.data)}
    typed = [argument.format(**places) for argument in step.command]
    for name in _TAKES[step.command[0]]:
        value = getattr(settings, name)
        if value is not None:
            typed += [f"--{name}", str(value)]
    if typed[0] == "train" and checkpoint_path(Path(typed[typed.index("--run") + 1])).exists():
        typed.append("--resume")
    return typed


def follow_recipe(
    recipe: Recipe, settings: Settings, run: Callable[[Sequence[str]], None], say: Callable[[str], None]
) -> None:
    """Run every step that is not done yet.

    Args:
        recipe: The recipe.
        settings: What its steps share.
        run: Runs one command of the trainer.
        say: Tells the user what is run.

    Raises:
        ConfigError: The work folder holds another recipe's steps.
        Exception: What a step raised; those before it stay done.
    """
    settings.work.mkdir(parents=True, exist_ok=True)
    diary = settings.work / "recipe.json"
    wanted = json.loads(json.dumps(dataclasses.asdict(recipe)))
    told = json.loads(diary.read_text(encoding="utf-8")) if diary.exists() else {"recipe": wanted, "done": []}
    if told["recipe"] != wanted:
        raise ConfigError(
            f"{settings.work} holds the steps of another recipe ({told['recipe']['name']}, or an older "
            "version of this one); name another folder with --work"
        )
    for number, step in enumerate(recipe.steps, 1):
        heading = f"[{number}/{len(recipe.steps)}] {step.name}"
        if step.name in told["done"]:
            say(f"{heading}: done before")
            continue
        typed = arguments(step, settings)
        say(f"{heading}: python -m trainer {' '.join(typed)}")
        run(typed)
        told["done"].append(step.name)
        with written_whole(diary) as partial:
            partial.write_text(json.dumps(told, indent=1), encoding="utf-8")
