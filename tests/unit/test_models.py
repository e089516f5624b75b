from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from streamderain.errors import ChecksumMismatch, ModelError, ModelNotFound
from streamderain.models import MODEL_PATH_VARIABLE, list_models, load_model, read_card

CARD = """
name = "tiny"
version = "1"
family = "fast"
input = "luma"
before = 1
after = 1
block = 4
multiple = 8
tileable = true
licence = "Apache-2.0"
summary = "A test."
[default_precision]
openvino = "f32"
[files.f32]
path = "model.onnx"
sha256 = "{sha256}"
[[scores]]
dataset = "clip"
metric = "psnr_y_db"
value = 33.0
do_nothing = 29.7
precision = "f32"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "tiny"
    model.mkdir()
    (model / "model.onnx").write_bytes(b"graph")
    (model / "card.toml").write_text(CARD.format(sha256=hashlib.sha256(b"graph").hexdigest()))
    return model


def test_a_card_is_read_whole(folder: Path) -> None:
    card = read_card(folder)
    assert (card.name, card.before, card.block, card.multiple) == ("tiny", 1, 4, 8)
    assert card.file("f32") == folder / "model.onnx"
    assert card.scores[0].value - (card.scores[0].do_nothing or 0) == pytest.approx(3.3)


def test_a_changed_file_is_refused(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(ChecksumMismatch, match="restore"):
        read_card(folder).file("f32")


def test_parts_of_a_file_are_verified_too(folder: Path) -> None:
    (folder / "shard").write_bytes(b"weights")
    part = f'[[files.f32.parts]]\npath = "shard"\nsha256 = "{hashlib.sha256(b"weights").hexdigest()}"\n'
    card = folder / "card.toml"
    card.write_text(card.read_text().replace("[[scores]]", f"{part}[[scores]]"))
    assert read_card(folder).paths("f32") == (folder / "model.onnx", folder / "shard")
    (folder / "shard").write_bytes(b"others")
    with pytest.raises(ChecksumMismatch, match="shard"):
        read_card(folder).file("f32")


def test_a_missing_file_and_a_missing_precision_are_named(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx"):
        read_card(folder).file("f32")
    with pytest.raises(ModelNotFound, match="names: f32"):
        read_card(folder).file("int8")


@pytest.mark.parametrize("text", ["name = ", "name = 'only'", "\x00"])
def test_a_broken_card_is_refused_with_its_path(folder: Path, text: str) -> None:
    (folder / "card.toml").write_text(text)
    with pytest.raises(ModelError, match=r"card\.toml"):
        read_card(folder)


def test_models_are_found_by_name_and_by_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODEL_PATH_VARIABLE, str(folder.parent))
    assert load_model("tiny").folder == folder
    assert load_model(str(folder)).name == "tiny"
    assert {"tiny", "dcd-lite"} <= {card.name for card in list_models()}


def test_an_unknown_model_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="dcd-lite"):
        load_model("no-such-model")
    with pytest.raises(ModelNotFound, match="no model folder"):
        load_model(str(tmp_path / "nowhere"))


def test_the_shipped_model_is_whole_and_tells_its_scores() -> None:
    card = load_model("dcd-lite")
    for name in card.files:
        assert card.file(name).is_file()
    assert card.scores
    assert all(score.precision in card.files for score in card.scores)
    assert card.training


def test_models_say_whether_their_neighbours_are_aligned(folder: Path) -> None:
    assert read_card(folder).alignment == "none"
    card, told = folder / "card.toml", (folder / "card.toml").read_text()
    card.write_text('alignment = "flow"\nflow = { cells = 1000, fine_cell_px = 3, fine_px = 100 }\n' + told)
    flow = read_card(folder).flow
    assert read_card(folder).alignment == "flow"
    assert (flow.edge_px(10, 10), flow.edge_px(11, 10), flow.edge_px(200, 500)) == (3, 3, 10)
    card.write_text('alignment = "sideways"\n' + told)
    with pytest.raises(ModelError, match="must be none or flow"):
        read_card(folder)
