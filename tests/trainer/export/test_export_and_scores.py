"""From a run to a model folder, int8 included, and the scores that go into its card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from streamderain.cli.main import cli as streamderain_cli
from streamderain.errors import ConfigError, ModelNotFound, OpenError
from streamderain.measure.metrics import psnr, ssim
from streamderain.measure.rain import RainParameters, RainSequence
from streamderain.models import read_card
from streamderain.nets.fast import FastNet
from tests.trainer.support import scene
from trainer.cli import cli
from trainer.config import TrainConfig
from trainer.data.paired import BatchMaker
from trainer.data.pictures import luma_codes
from trainer.evaluation.cases import Case, VideoPlan, all_cases
from trainer.evaluation.derainers import evaluate, load_clean
from trainer.evaluation.scores import Codes, add_luma_residual, score, table
from trainer.evaluation.validate import Validator, network_clean
from trainer.export.card import add_scores
from trainer.export.model_folder import load_trained
from trainer.export.quantise import calibration_items, float_nodes, set_input_scale

DRY_SCENES = (
    "flat",
    "flat, noisy",
    "gradient",
    "sky",
    "lights at night",
    "poles and marks",
    "text over a pan",
)
PLAN = VideoPlan(frames=12, every=3, strides=(1, 2))


def test_the_card_describes_the_files(folder: Path) -> None:
    card = read_card(folder)
    assert (card.name, card.version, card.family, card.input) == ("dcd-test", "1.2.3", "fast", "luma")
    assert (card.before, card.after, card.block, card.multiple, card.tileable) == (1, 1, 4, 8, True)
    assert set(card.files) == {"f32", "int8", "weights"}
    assert card.default_precision == {"openvino": "int8", "torch": "f32"}
    assert card.training["steps"] == 2045
    assert card.training["seconds"] == 540
    assert card.training["note"] == "Once more."
    for key in card.files:
        assert card.file(key).is_file()
    assert {path.name for path in folder.iterdir()} == {
        "MODEL_CARD.md",
        "card.toml",
        "model.int8.onnx",
        "model.onnx",
        "weights.safetensors",
    }


def test_the_page_tells_of_all_steps_and_of_the_early_end(folder: Path) -> None:
    page = (folder / "MODEL_CARD.md").read_text()
    assert "2045 steps of 8 crops of 32 px, 9 minutes" in page
    assert "2 runs, each begun with the weights of the one before: 2000 (u), 45 (t)" in page
    assert "ended early: 60 steps were planned" in page
    assert "Once more." in page


def rainy_window(seed: int = 4) -> Codes:
    rain = RainSequence(RainParameters(peak=0.3), seed, 160, 96)
    frames = [rain.apply_to_codes(scene(96, 160, seed=seed, shift=2 * t), t) for t in range(3)]
    return np.stack(frames).astype(np.uint8)


def case_of(window: Codes, validity: tuple[bool, bool] = (True, True)) -> Case:
    before, current, after = window
    return Case("a", "1", (before if validity[0] else None, current, after if validity[1] else None), current)


def test_all_three_files_compute_the_same(folder: Path) -> None:
    window = rainy_window()
    outputs = {
        key: load_clean(folder, precision=key)(case_of(window, (True, False)))
        for key in ("weights", "f32", "int8")
    }
    assert psnr(outputs["weights"], window[1]) < 50  # something is taken away
    assert np.abs(outputs["f32"].astype(int) - outputs["weights"]).max() <= 1  # rounding
    assert psnr(outputs["int8"], outputs["f32"]) > 46


def test_int8_needs_no_more_light_than_it_was_shown(folder: Path) -> None:
    """A downpour has larger activations than most samples: they must not be clipped."""
    rain = RainSequence(RainParameters(peak=0.8, density_per_mpx=9000.0), 1, 160, 96)
    downpour = np.stack([rain.apply_to_codes(scene(96, 160), t) for t in range(3)]).astype(np.uint8)
    int8, f32 = (load_clean(folder, precision=p)(case_of(downpour)) for p in ("int8", "f32"))
    assert psnr(int8, f32) > 40


def test_int8_computes_every_convolution_in_int8(folder: Path) -> None:
    import openvino

    model = openvino.Core().read_model(folder / "model.int8.onnx")
    model.reshape({"window": [1, 64, 8, 8], "prior": [1, 3, 8, 8], "validity": [1, 2]})
    settings = {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    window, prior = np.full((1, 64, 8, 8), 0.5, np.float32), np.ones((1, 3, 8, 8), np.float32)
    request.infer({"window": window, "prior": prior, "validity": np.ones((1, 2), np.float32)})
    ran = [(info.node_type, info.exec_type) for info in request.get_profiling_info()]
    # The prior's two are of one value each, and stay float.
    convolutions = [kind for node, kind in ran if node == "Convolution" and "_1x1" not in kind]
    transposed = [kind for node, kind in ran if node in ("Deconvolution", "ConvolutionBackpropData")]
    assert convolutions
    assert len(convolutions) <= 10  # OpenVINO may join those that read the same
    assert len(transposed) == 1
    assert all(kind.endswith("I8") for kind in convolutions + transposed), ran


def test_int8_takes_8_bit_frames_without_loss(folder: Path) -> None:
    graph = onnx.load(str(folder / "model.int8.onnx")).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    first = next(node for node in graph.node if node.op_type == "Conv" and "prior" not in node.input)
    dequantise = producers[first.input[0]]
    for node in (dequantise, producers[dequantise.input[0]]):
        assert node.op_type in ("QuantizeLinear", "DequantizeLinear")
        assert constants[node.input[1]] == np.float32(1 / 255)
        assert constants[node.input[2]] == 0
        assert constants[node.input[2]].dtype == np.uint8


def test_what_is_added_and_the_residual_stay_float(folder: Path) -> None:
    graph = onnx.load(str(folder / "model.int8.onnx")).graph
    producers = {output: node.op_type for node in graph.node for output in node.output}
    readers = [n.op_type for n in graph.node for i in n.input if producers.get(i) == "ConvTranspose"]
    assert readers == ["Add"]
    assert {producers[name] for name in ("logits", "logits_of_rest")} == {"Conv"}
    assert producers["correction"] == "Sub"
    quantised = {producers.get(n.input[0], "input") for n in graph.node if n.op_type == "QuantizeLinear"}
    assert quantised <= {"input", "Concat", "Relu"}


def test_only_convolutions_and_what_lies_between_is_quantised(folder: Path) -> None:
    model = onnx.load(str(folder / "model.onnx"))
    kinds = {node.name: node.op_type for node in model.graph.node}
    left = [kinds[name] for name in float_nodes(model)]
    assert not {"Conv", "ConvTranspose"} & set(left)
    assert {"Gemm", "Unsqueeze", "Add"} <= set(left)


def test_an_input_without_a_quantiser_is_an_error(folder: Path) -> None:
    with pytest.raises(ValueError, match="through no quantiser"):
        set_input_scale(onnx.load(str(folder / "model.onnx")))


def test_calibration_shows_every_sample(maker: BatchMaker) -> None:
    batch = maker.batch(0)
    items = list(calibration_items([batch]))
    assert len(items) == 4
    assert items[1]["window"].shape == (1, 64, 8, 8)
    np.testing.assert_array_equal(items[1]["window"][0, 6], batch.window[1, 1, 1::4, 2::4])
    np.testing.assert_array_equal(items[2]["validity"][0], batch.validity[2])


def test_scores_stand_beside_doing_nothing() -> None:
    clean = scene(32, 40)
    rainy = np.clip(clean.astype(int) + 8, 0, 255).astype(np.uint8)
    rgb = np.repeat(rainy[:, :, None], 3, axis=2)
    cases = [
        Case("a", "1", (rainy, rainy, rainy), clean),
        Case("b", "2", (None, rgb, None), rgb),
    ]
    rows = score(cases, lambda case: case.window[1] - np.uint8(4) if case.validity[0] else case.window[1])
    found = {(row.dataset, row.metric): (row.value, row.do_nothing) for row in rows}
    assert found["a", "psnr_y_db"] == pytest.approx((psnr(clean + np.uint8(4), clean), psnr(rainy, clean)))
    assert found["a", "ssim_y"] == pytest.approx((ssim(clean + np.uint8(4), clean), ssim(rainy, clean)))
    assert found["b", "psnr_y_db"] == (100.0, None)  # nothing to gain: the value measures harm
    assert found["b", "ssim_y"] == (pytest.approx(1.0), None)
    assert found["b", "psnr_rgb_db"] == (100.0, None)
    assert len(found) == 5
    assert "is target" in table(rows)
    assert "do_nothing" not in rows[-1].as_dict()


def test_stills_are_judged_by_the_rgb_that_users_get() -> None:
    """Blue is clipped at 0, so less luma goes than the network asked for."""
    target = np.full((16, 16, 3), (100, 60, 0), np.uint8)
    rainy = np.full((16, 16, 3), (120, 80, 5), np.uint8)
    window = np.stack([luma_codes(rainy)] * 3)
    case = Case("a", "1", (None, rainy, None), target)
    rows = score([case], lambda case: luma_codes(target))
    values = {row.metric: row.value for row in rows}
    expected = add_luma_residual(rainy, luma_codes(target), window[1])
    assert expected[0, 0, 2] == 0
    assert values["psnr_y_db"] == pytest.approx(psnr(luma_codes(expected), luma_codes(target)))
    assert values["psnr_rgb_db"] == pytest.approx(psnr(expected, target))
    assert values["psnr_y_db"] < 100.0


def test_the_luma_residual_goes_to_every_channel() -> None:
    rgb = np.array([[[100, 150, 200]]], np.uint8)
    result = add_luma_residual(rgb, np.array([[58]], np.uint8), np.array([[100]], np.uint8))
    np.testing.assert_array_equal(result, [[[51, 101, 151]]])  # 42 studio steps are 48.9 of full range


def test_cases_cover_the_folder(validation: Path) -> None:
    cases = list(all_cases(validation, PLAN))
    count = {name: sum(case.dataset == name for case in cases) for name in {case.dataset for case in cases}}
    drawn = {name: count.pop(f"{name} rain-free") for name in DRY_SCENES}
    assert set(drawn.values()) == {16}
    clip = {f"street{kind}": 4 for kind in (" rain", " rain, H.264", " rain-free")}
    faster = {f"street, every 2.{kind}": 2 for kind in (" rain", " rain, H.264", " rain-free")}
    assert count == {**clip, **faster, "stills": 1}
    dry = [case for case in cases if case.dataset == "street rain-free"]
    assert all(np.array_equal(case.window[1], case.target) for case in dry)
    wet = [case for case in cases if case.dataset == "street rain"]
    assert all(15 < psnr(case.window[1], case.target) < 40 for case in wet)


def test_windows_end_at_cuts(validation: Path) -> None:
    dry = [c for c in all_cases(validation, VideoPlan(frames=12, every=1)) if c.dataset == "street rain-free"]
    validity = [case.validity for case in dry]
    assert validity[0] == (False, True)
    assert validity[5] == (True, False)
    assert validity[6] == (False, True)
    assert validity[11] == (True, False)
    assert validity[3] == (True, True)
    np.testing.assert_array_equal(dry[6].window[0], dry[6].window[1])


def test_cases_are_the_same_every_time(validation: Path) -> None:
    """But for what x264 makes of them: its macroblock tree chooses now so, now so for pictures this small."""
    first, second = (list(all_cases(validation, PLAN)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert (a.dataset, a.name) == (b.dataset, b.name)
        np.testing.assert_array_equal(a.target, b.target)
        if "H.264" not in a.dataset:
            np.testing.assert_array_equal(a.window, b.window)


def test_odd_sizes_are_padded_and_cropped(folder: Path) -> None:
    window = np.stack([scene(37, 51)] * 3)
    assert load_clean(folder)(case_of(window, (False, False))).shape == (37, 51)
    assert network_clean(FastNet().eval())(case_of(window)).shape == (37, 51)


def test_scores_go_into_the_card(folder: Path, validation: Path) -> None:
    rows = {
        p: [row.as_dict() for row in evaluate(folder, validation, precision=p, plan=PLAN)]
        for p in ("f32", "int8")
    }
    add_scores(folder, rows)
    card = read_card(folder)
    assert len(card.scores) == 2 * len(rows["f32"])
    assert {found.precision for found in card.scores} == {"f32", "int8"}
    for found in card.scores:
        assert (found.do_nothing is None) == found.dataset.endswith("rain-free"), found
    page = (folder / "MODEL_CARD.md").read_text()
    assert "| street rain | psnr_y_db | int8 | 4 |" in page
    assert "| street rain-free | psnr_y_db | f32 | 4 | is the target |" in page
    assert "| worst |" in page
    assert "python -m trainer evaluate --model dcd-test --dataset VALIDATION --precision int8" in page
    shown = CliRunner().invoke(streamderain_cli, ["models", "show", str(folder)])
    assert "street rain, H.264" in shown.output


def test_the_validator_scores_and_draws(validation: Path, tmp_path: Path) -> None:
    values = Validator(validation)(FastNet().eval(), tmp_path / "sheets" / "a.png")
    assert len(values) == 7 + len(DRY_SCENES)
    assert all("nothing" in name for name in values)
    assert (tmp_path / "sheets" / "a.png").stat().st_size > 1000


def test_what_cannot_be_run_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelNotFound, match="no model at"):
        load_clean(tmp_path / "nothing.onnx")
    with pytest.raises(ConfigError, match="neither"):
        load_clean(folder / "card.toml")
    with pytest.raises(ConfigError, match="export the model first"):
        add_scores(tmp_path, {})
    with pytest.raises(ConfigError, match="leave out the precision int8"):
        load_clean(folder / "model.onnx", precision="int8")
    with pytest.raises(OpenError, match="clean_video/ "):
        list(all_cases(tmp_path, PLAN))


def test_commands_train_export_and_evaluate(
    data: Path, validation: Path, tmp_path: Path, tiny_toml: Path
) -> None:
    runner = CliRunner()
    run, cache = tmp_path / "run", tmp_path / "cache"
    common = ["--data", str(data), "--cache", str(cache)]
    train = ["train", "--config", str(tiny_toml), "--run", str(run), *common]
    dry = runner.invoke(cli, [*train, "--dry-run"], catch_exceptions=False)
    assert "# samples, clip: 1" in dry.output
    assert not run.exists()
    runner.invoke(cli, [*train, "--steps", "2"], catch_exceptions=False)
    assert (run / "checkpoints" / "last.safetensors").is_file()
    resumed = runner.invoke(cli, [*train, "--steps", "3", "--resume"], catch_exceptions=False)
    assert resumed.exit_code == 0
    model, report = tmp_path / "model", tmp_path / "report.json"
    earlier = ["--earlier", str(run), "--note", "A word more.", "--validation", str(validation)]
    exported = runner.invoke(
        cli, ["export", "--run", str(run), "--to", str(model), *common, *earlier], catch_exceptions=False
    )
    assert exported.exit_code == 0
    card = read_card(model)
    assert card.training["steps_of_runs"] == [3, 3]
    again = load_trained(run, earlier=[model])
    assert [(part["config"], part["steps"]) for part in again.parts] == [("dcd-lite 0.1.0", 6), ("tiny", 3)]
    assert {(found.dataset, found.precision) for found in card.scores} >= {
        ("stills", "f32"),
        ("street rain, H.264", "int8"),
    }
    scored = ["evaluate", "--model", str(model), "--dataset", str(validation), "--json", str(report)]
    assert "street rain-free" in runner.invoke(cli, scored, catch_exceptions=False).output
    document = json.loads(report.read_text())
    assert document["precision"] == "int8"
    assert {row["metric"] for row in document["rows"]} == {"psnr_y_db", "ssim_y", "psnr_rgb_db", "ssim_rgb"}
    pairs = ["evaluate", "--model", str(model / "model.onnx"), "--dataset", str(validation / "stills")]
    output = runner.invoke(cli, pairs, catch_exceptions=False).output
    assert "model.onnx" in output
    assert "psnr_rgb_db" in output
    assert "street" not in output


@pytest.fixture
def tiny_toml(config: TrainConfig, tmp_path: Path) -> Path:
    from trainer.config import dump_toml

    path = tmp_path / "tiny.toml"
    path.write_text(dump_toml(config.as_dict()))
    return path
