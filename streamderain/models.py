"""Find, read and verify models: folders with a card and the files it names.

A *model* is a folder with a `card.toml` and the files it names. Models are looked for in the installed
package, in a checkout's `engines/` folder and in the user's own model folder; a path to a folder works too.
"""

from __future__ import annotations

import hashlib
import math
import os
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from streamderain.errors import ChecksumMismatch, ModelError, ModelNotFound

CARD_NAME = "card.toml"
MODEL_PATH_VARIABLE = "STREAMDERAIN_MODELS"

AUTO = "auto"
"""Not a model's name: the one that suits what is derained."""

VIDEO_MODEL, PICTURE_MODEL = "dcd-lite", "dcd-quality"
"""What `AUTO` stands for: a model that is quick, and one that takes more rain out of single pictures."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model.

    Attributes:
        path: Where it lies.
        sha256: What its content must hash to, in hexadecimal.
        parts: Further files that belong to it: more shards of weights, or those a graph points into.
    """

    path: Path
    sha256: str
    parts: tuple[ModelFile, ...] = ()

    def verified(self) -> tuple[Path, ...]:
        """Return its path and its parts' after comparing the content with the checksums.

        Raises:
            ModelError: The file cannot be read.
            ChecksumMismatch: The content is not what the card describes.
        """
        try:
            found = hashlib.sha256(self.path.read_bytes()).hexdigest()
        except OSError as error:
            raise ModelError(
                f"the model file {self.path} cannot be read ({error.strerror}); "
                "reinstall streamderain, or restore the file the card names"
            ) from error
        if found != self.sha256:
            raise ChecksumMismatch(
                f"the model file {self.path} is not the one its card describes (sha256 {found[:12]}..., "
                f"expected {self.sha256[:12]}...); restore the file or reinstall streamderain"
            )
        return (self.path, *(path for part in self.parts for path in part.verified()))


@dataclass(frozen=True, slots=True)
class Score:
    """One measured figure of a model beside what doing nothing scores.

    Attributes:
        dataset: What it was measured on.
        metric: Name and unit, such as `psnr_y_db`.
        value: The model's figure.
        do_nothing: The untouched input's figure; None where the metric compares with the input itself.
        precision: The precision it was measured at.
    """

    dataset: str
    metric: str
    value: float
    do_nothing: float | None
    precision: str


@dataclass(frozen=True, slots=True)
class FlowCells:
    """How finely the motion between frames is estimated: one vector for each square cell of pixels.

    Attributes:
        cells: About how many cells a frame has, whatever its size: the larger the frame, the more pixels show
            the same thing.
        fine_cell_px: Edge of a cell for small frames, which can afford more.
        fine_px: Frames of at most so many pixels are small.
    """

    cells: int = 37_000
    fine_cell_px: int = 2
    fine_px: int = 400_000

    def edge_px(self, width: int, height: int) -> int:
        """Return the edge of a cell for frames of a size in pixels."""
        if width * height <= self.fine_px:
            return self.fine_cell_px
        return max(self.fine_cell_px, round(math.sqrt(width * height / self.cells)))


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a model is.

    Attributes:
        name: The name users type.
        version: Version of the weights.
        family: Network family, known to `streamderain.nets`.
        input: `"luma"` or `"rgb"`: what the core reads and writes.
        before: How many earlier frames the core reads.
        after: How many later frames it reads: the look-ahead of a session.
        block: Edge in pixels of the blocks that planes are unshuffled into before the core; 1 for none.
        multiple: Width and height are padded to a multiple of this many pixels.
        least_px: And to at least so many.
        tileable: False where the network's statistics span the frame, so that it must not be cut in tiles.
        bytes_per_px: Memory that a frame takes while it is computed, for each of its pixels; 0 where that
            never matters.
        licence: SPDX identifier of the weights' licence.
        summary: One sentence for `models list`.
        folder: Where the card lies.
        files: Precision (or `"weights"`) to file.
        alignment: "flow" where neighbours are warped onto the current frame before the core reads them.
        flow: How finely, where they are.
        default_precision: Engine name to the precision it uses unless told otherwise.
        training: Data, steps and time of the training, as the card tells them.
        scores: Measured figures with their do-nothing rows.
    """

    name: str
    version: str
    family: str
    input: Literal["luma", "rgb"]
    before: int
    after: int
    block: int
    multiple: int
    least_px: int
    tileable: bool
    bytes_per_px: int
    licence: str
    summary: str
    folder: Path
    files: Mapping[str, ModelFile]
    alignment: Literal["none", "flow"]
    flow: FlowCells
    default_precision: Mapping[str, str]
    training: Mapping[str, Any]
    scores: tuple[Score, ...]

    def file(self, name: str) -> Path:
        """Return the first of `paths`."""
        return self.paths(name)[0]

    def paths(self, name: str) -> tuple[Path, ...]:
        """Return the verified paths of one of the model's files and of the parts that belong to it.

        Args:
            name: A precision (`"f32"`, `"int8"`) or `"weights"`.

        Raises:
            ModelNotFound: The card names no such file.
            ChecksumMismatch: The file is not the one the card describes.
        """
        if name not in self.files:
            raise ModelNotFound(
                f"the model {self.name} has no {name} file; its card ({self.folder / CARD_NAME}) names: "
                + ", ".join(sorted(self.files))
            )
        return self.files[name].verified()

    @property
    def sha256(self) -> str:
        """The checksum of the weights: names the model in reports, whatever precision runs."""
        return self.files["weights"].sha256


def _file(folder: Path, row: Mapping[str, Any]) -> ModelFile:
    parts = tuple(_file(folder, part) for part in row.get("parts", ()))
    return ModelFile(folder / row["path"], row["sha256"], parts)


def _score(row: Mapping[str, Any]) -> Score:
    nothing = row.get("do_nothing")
    return Score(
        dataset=str(row["dataset"]),
        metric=str(row["metric"]),
        value=float(row["value"]),
        do_nothing=None if nothing is None else float(nothing),
        precision=str(row["precision"]),
    )


def _alignment(table: Mapping[str, Any]) -> Literal["none", "flow"]:
    found = table.get("alignment", "none")
    if found not in ("none", "flow"):
        raise ValueError(f"alignment must be none or flow, not {found!r}")
    return "flow" if found == "flow" else "none"


def read_card(folder: Path) -> ModelCard:
    """Read the card of the model in `folder`.

    Raises:
        ModelNotFound: There is no card.
        ModelError: The card is not what a card must be.
    """
    path = folder / CARD_NAME
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return ModelCard(
            name=table["name"],
            version=table["version"],
            family=table["family"],
            input=table["input"],
            before=table["before"],
            after=table["after"],
            block=table["block"],
            multiple=table["multiple"],
            least_px=table.get("least_px", 1),
            tileable=table["tileable"],
            bytes_per_px=table.get("bytes_per_px", 0),
            licence=table["licence"],
            summary=table["summary"],
            folder=folder,
            files={key: _file(folder, row) for key, row in table["files"].items()},
            alignment=_alignment(table),
            flow=FlowCells(**table.get("flow", {})),
            default_precision=table["default_precision"],
            training=table.get("training", {}),
            scores=tuple(_score(row) for row in table.get("scores", [])),
        )
    except FileNotFoundError as error:
        raise ModelNotFound(
            f"{folder} holds no {CARD_NAME}, so it is no model folder; give another folder, "
            "or a name that `streamderain models list` shows"
        ) from error
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"the model card {path} cannot be used: {error!r}; restore the file, or export the model again"
        ) from error


def model_folders() -> Iterator[Path]:
    """Yield the folders that are searched for models, the first found wins."""
    for entry in os.environ.get(MODEL_PATH_VARIABLE, "").split(os.pathsep):
        if entry:
            yield Path(entry)
    package = Path(__file__).parent
    yield package / "engines"
    yield package.parent / "engines"
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    yield Path(home) / "streamderain" / "models"


def _cards_in(place: Path) -> list[Path]:
    """Return the cards in one place; a place that is not there or may not be entered holds none."""
    try:
        return sorted(place.glob(f"*/{CARD_NAME}"))
    except OSError:
        return []


def list_models() -> list[ModelCard]:
    """Return the cards of all models that can be named, sorted by name."""
    found: dict[str, ModelCard] = {}
    for place in model_folders():
        for card in _cards_in(place):
            model = read_card(card.parent)
            found.setdefault(model.name, model)
    return [found[name] for name in sorted(found)]


def chosen_model(name: str, kinds: Collection[str]) -> str:
    """Return the name of the model that is meant.

    Args:
        name: What was asked for; anything but `AUTO` is meant as it is.
        kinds: The kinds of all sources, see `streamderain.media.reading.sources.SourceSpec`.
    """
    if name != AUTO:
        return name
    return PICTURE_MODEL if set(kinds) == {"still"} else VIDEO_MODEL


def load_model(name: str) -> ModelCard:
    """Return the card of a model.

    Args:
        name: A model's name, or the path of a model folder (anything with a path separator, or an existing
            folder with a card). `AUTO` stands for `VIDEO_MODEL`.

    Raises:
        ModelNotFound: No such model.
        ModelError: Its card cannot be used.
    """
    name = VIDEO_MODEL if name == AUTO else name
    folder = Path(name)
    if os.sep in name or (folder / CARD_NAME).is_file():
        return read_card(folder)
    known = list_models()
    for model in known:
        if model.name == name:
            return model
    names = ", ".join(model.name for model in known) or "none"
    raise ModelNotFound(
        f"there is no model named {name!r}; known: {names}. Give one of these, or the path of a model folder"
    )
