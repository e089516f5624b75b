"""Scores pinned to other implementations, the generator's files, clips with neighbours, NIQE and reports."""

from __future__ import annotations

import json
import math
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from streamderain.errors import ConfigError, ModelNotFound, OpenError
from streamderain.nets.fast import FastNet
from streamderain.nets.generator import Generator
from tests.support.models import small_generator
from tests.trainer.support import scene
from trainer.checkpoint import save_tensors
from trainer.cli import cli
from trainer.data.layouts import find_sets
from trainer.data.pictures import Codes, luma_codes
from trainer.evaluation.cases import Case, VideoPlan, all_cases, gray_rgb, set_cases
from trainer.evaluation.derainers import load_clean, model_file
from trainer.evaluation.niqe import Niqe
from trainer.evaluation.report import Report, check_targets
from trainer.evaluation.scores import METRICS, PictureScore, pool_scores, score, score_pictures
from trainer.evaluation.validate import Validator, network_clean
from trainer.networks.load import load_network
from trainer.networks.network_weights import holds_weights, load_weights, save_weights


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def colour(height: int, width: int, *, seed: int) -> Codes:
    return np.stack([scene(height, width, seed=seed + k) for k in range(3)], axis=2)


def rgb_case(rainy: Codes, target: Codes, *, dataset: str = "a", name: str = "1") -> Case:
    return Case(dataset, name, (None, rainy, None), target)


def write_set(root: Path, *, count: int = 2, size: tuple[int, int] = (40, 50)) -> Path:
    for side in ("input", "target"):
        (root / side).mkdir(parents=True)
    for index in range(count):
        clean = colour(*size, seed=10 * index)
        Image.fromarray(clean).save(root / "target" / f"{index}.png")
        Image.fromarray(clean + np.uint8(20)).save(root / "input" / f"{index}.png")
    return root


def tiny_generator(seed: int = 0) -> Generator:
    torch.manual_seed(seed)
    return Generator(width=4, blocks=2).eval()


# Scores


def test_figures_are_those_of_scikit_image() -> None:
    rng = np.random.default_rng(0)
    target = colour(40, 52, seed=1)
    rainy = np.clip(target + rng.normal(8, 12, target.shape), 0, 255).astype(np.uint8)
    output = np.clip(target + rng.normal(0, 5, target.shape), 0, 255).astype(np.uint8)
    (found,) = score_pictures([rgb_case(rainy, target)], lambda case: output)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    for values, picture in ((found.values, output), (found.do_nothing, rainy)):
        y, y_target = luma_codes(picture), luma_codes(target)
        assert values["psnr_rgb_db"] == pytest.approx(
            peak_signal_noise_ratio(target, picture, data_range=255)
        )
        assert values["psnr_y_db"] == pytest.approx(peak_signal_noise_ratio(y_target, y, data_range=255))
        assert values["ssim_y"] == pytest.approx(structural_similarity(y_target, y, **options), abs=1e-7)
        expected = structural_similarity(target, picture, channel_axis=2, **options)
        assert values["ssim_rgb"] == pytest.approx(expected, abs=1e-7)
    assert set(found.values) == set(METRICS)


def test_luma_is_that_of_matlab() -> None:
    """By the matrix of BT.601 in full precision, scaled to 219 steps above 16, on every 17th colour."""
    axis = np.arange(0, 256, 17, dtype=np.uint8)
    rgb = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(1, -1, 3)
    expected = 16 + 219 * (rgb @ np.array([0.299, 0.587, 0.114])) / 255
    far_from_half = np.abs(expected % 1 - 0.5) > 0.002  # MATLAB's own constants have six digits
    np.testing.assert_array_equal(luma_codes(rgb)[far_from_half], np.floor(expected + 0.5)[far_from_half])
    named = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    np.testing.assert_array_equal(luma_codes(named), [[235, 16, 81, 145, 41]])


def test_gray_has_the_luma_it_was_made_of() -> None:
    luma = np.arange(256, dtype=np.uint8)[None]
    rgb = gray_rgb(luma)
    assert rgb.shape == (1, 256, 3)
    assert (rgb[0, 16, 0], rgb[0, 235, 0]) == (0, 255)
    np.testing.assert_array_equal(luma_codes(rgb)[0, 16:236], np.arange(16, 236))
    np.testing.assert_array_equal(luma_codes(rgb)[0, [0, 255]], [16, 235])


def test_rgb_networks_see_gray_where_there_is_only_luma() -> None:
    luma = scene(20, 24)
    case = Case("a", "1", (luma, luma, luma), luma)
    seen: list[Codes] = []

    def clean(case: Case) -> Codes:
        seen.append(case.rgb)
        return case.rgb

    (found,) = score_pictures([case], clean)
    np.testing.assert_array_equal(seen[0], gray_rgb(luma))
    assert found.values == {"psnr_y_db": math.inf, "ssim_y": pytest.approx(1.0)}  # and no RGB to compare with


def test_pooling_keeps_pictures_apart_and_the_old_rows_as_they_were() -> None:
    targets = [colour(16, 16, seed=k) for k in range(3)]
    cases = [
        rgb_case(t + np.uint8(10), t, dataset=d, name=str(k))
        for k, (t, d) in enumerate(zip(targets, "aab", strict=True))
    ]
    pictures = list(score_pictures(cases, lambda case: case.rgb - np.uint8(6)))
    assert [(p.dataset, p.name) for p in pictures] == [("a", "0"), ("a", "1"), ("b", "2")]
    rows = {(row.dataset, row.metric): row for row in pool_scores(pictures)}
    mean = np.mean([p.values["psnr_y_db"] for p in pictures[:2]])
    assert rows["a", "psnr_y_db"].value == pytest.approx(mean)
    assert rows["a", "psnr_y_db"].minimum == min(p.values["psnr_y_db"] for p in pictures[:2])
    assert rows["b", "psnr_rgb_db"].value == pytest.approx(20 * math.log10(255 / 4))
    assert rows["b", "psnr_rgb_db"].do_nothing == pytest.approx(20 * math.log10(255 / 10))
    assert {row.metric for row in score(cases, lambda case: case.rgb)} == set(METRICS) - {"ssim_rgb"}
    fast = score(cases, lambda case: case.rgb, with_ssim=False)
    assert {row.metric for row in fast} == {"psnr_rgb_db", "psnr_y_db"}


# Clips


def test_frames_of_a_data_set_have_their_neighbours(tmp_path: Path) -> None:
    """Two scenes in one clip: nothing is seen across the cut, nor beyond the ends, nor in another clip."""
    for clip in ("a1", "b1"):
        for side, light in (("Rain", 25), ("GT", 0)):
            (tmp_path / f"{clip}_{side}").mkdir()
            for t in range(5):
                frame = scene(24, 32, shift=t) if t < 3 else 255 - scene(24, 32, seed=4, shift=t) // 2
                picture = Image.fromarray(frame + np.uint8(light)).convert("RGB")
                picture.save(tmp_path / f"{clip}_{side}" / f"{t + 1:05d}.png")
    cases = list(all_cases(tmp_path, VideoPlan()))
    assert [(c.dataset, c.name) for c in cases[4:6]] == [("a1_Rain", "00005.png"), ("b1_Rain", "00001.png")]
    validity = [case.validity for case in cases[:5]]
    assert validity == [(False, True), (True, True), (True, False), (False, True), (True, False)]
    lumas = [case.window[1] for case in cases]
    np.testing.assert_array_equal(cases[1].window, np.stack(lumas[0:3]))
    np.testing.assert_array_equal(cases[3].window, np.stack([lumas[3], lumas[3], lumas[4]]))
    rainy, clean = find_sets(tmp_path)[0].pairs[1].read_rgb()
    np.testing.assert_array_equal(cases[1].rgb, rainy)
    np.testing.assert_array_equal(cases[1].target, luma_codes(clean))


def test_stills_have_no_neighbours_and_stop_at_the_limit(tmp_path: Path) -> None:
    write_set(tmp_path / "set", count=3)
    cases = list(all_cases(tmp_path / "set", VideoPlan(), stills=2))
    assert [(c.dataset, c.name, c.validity) for c in cases] == [
        ("set", "0.png", (False, False)),
        ("set", "1.png", (False, False)),
    ]
    np.testing.assert_array_equal(cases[1].window[0], cases[1].window[1])


# The generator


def test_a_generator_comes_back_from_its_shards(tmp_path: Path) -> None:
    generator = tiny_generator()
    largest = max(value.nbytes for value in generator.state_dict().values())
    paths = save_weights(generator, tmp_path, max_bytes=2**16 + largest, dtype=torch.float32)
    count = len(paths)
    assert count > 2
    assert [path.name for path in paths] == [
        f"weights-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)
    ]
    keys = [key for path in paths for key in load_file(path)]
    assert sorted(keys) == sorted(generator.state_dict())
    loaded = load_weights(tmp_path)
    for key, value in generator.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, rtol=0, atol=0)
    assert not loaded.training
    assert holds_weights(tmp_path)
    assert load_weights(paths[1]).state_dict().keys() == loaded.state_dict().keys()


def test_half_precision_is_stored_and_computed_in_single(tmp_path: Path) -> None:
    generator = tiny_generator()
    (path,) = save_weights(generator, tmp_path)
    assert path.name == "weights.safetensors"
    assert {value.dtype for value in load_file(path).values()} == {torch.float16}
    loaded = load_weights(path)
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
    for key, value in generator.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value.half().float(), rtol=0, atol=0)


def test_the_papers_generator_fits_in_two_files(tmp_path: Path) -> None:
    paths = save_weights(Generator(), tmp_path)
    assert len(paths) == 2
    assert all(path.stat().st_size <= 15 * 2**20 for path in paths)


def test_saving_again_leaves_no_old_shard(tmp_path: Path) -> None:
    generator = tiny_generator()
    save_weights(generator, tmp_path, max_bytes=80_000, dtype=torch.float32)
    assert len(list(tmp_path.iterdir())) > 1
    save_weights(generator, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_a_lost_shard_is_named(tmp_path: Path) -> None:
    paths = save_weights(tiny_generator(), tmp_path, max_bytes=80_000, dtype=torch.float32)
    paths[1].unlink()
    with pytest.raises(OpenError, match=f"lacks {paths[1].name}; copy every shard"):
        load_weights(tmp_path)
    with pytest.raises(OpenError, match=f"lacks {paths[1].name}"):
        load_clean(tmp_path)


def test_shards_of_two_trainings_are_not_mixed(tmp_path: Path) -> None:
    for seed in (0, 1):
        save_weights(tiny_generator(seed), tmp_path / str(seed), max_bytes=80_000, dtype=torch.float32)
    name = sorted(path.name for path in (tmp_path / "0").iterdir())[0]
    (tmp_path / "1" / name).replace(tmp_path / "0" / name)
    with pytest.raises(OpenError, match="come from two savings"):
        load_weights(tmp_path / "0")
    (tmp_path / "0" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(OpenError, match=r"remove those that do not belong: weights\.safetensors"):
        load_weights(tmp_path / "0")


def test_what_is_no_generator_is_named(tmp_path: Path) -> None:
    with pytest.raises(OpenError, match="name a file of weights"):
        load_weights(tmp_path)
    save_tensors(tmp_path / "weights.safetensors", FastNet().state_dict(), {})
    assert not holds_weights(tmp_path)
    with pytest.raises(OpenError, match="holds no weights of a network of free sizes"):
        load_weights(tmp_path)
    about = {"family": "generator", "width": "4", "blocks": "2"}
    save_tensors(tmp_path / "weights.safetensors", FastNet().state_dict(), about)
    with pytest.raises(OpenError, match="does not hold a whole network"):
        load_weights(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(OpenError, match="cannot be read as weights"):
        load_weights(tmp_path / "weights.safetensors")
    with pytest.raises(ConfigError, match="allow larger files"):
        save_weights(tiny_generator(), tmp_path / "small", max_bytes=100)


@pytest.mark.parametrize("size", [(24, 32), (21, 35), (10, 9)])
def test_the_generator_runs_on_rgb_extended_at_its_edges(size: tuple[int, int]) -> None:
    generator = tiny_generator()
    rgb = colour(*size, seed=2)
    output = network_clean(generator)(rgb_case(rgb, rgb))
    height, width = size
    rows, columns = (max(16, -(-length // 4) * 4) - length for length in size)
    padded = np.stack([np.pad(rgb[..., k], ((0, rows), (0, columns)), mode="edge") for k in range(3)])
    with torch.no_grad():
        expected = generator(torch.from_numpy(padded)[None].float() / 255.0 * 2.0 - 1.0)[0]
    codes = np.clip(np.rint((expected.numpy() / 2.0 + 0.5) * 255.0), 0, 255)[:, :height, :width]
    assert output.shape == (*size, 3)
    assert output.dtype == np.uint8
    np.testing.assert_allclose(output, codes.transpose(1, 2, 0), atol=1)
    assert np.mean(output != codes.transpose(1, 2, 0)) < 0.01


def test_generators_are_evaluated_from_folders_cards_and_files(tmp_path: Path) -> None:
    dataset = write_set(tmp_path / "set")
    save_weights(tiny_generator(), tmp_path / "gen", max_bytes=80_000, dtype=torch.float32)
    case = next(iter(all_cases(dataset, VideoPlan())))
    expected = network_clean(tiny_generator())(case)
    np.testing.assert_array_equal(load_clean(tmp_path / "gen")(case), expected)
    assert model_file(tmp_path / "gen", None) == (tmp_path / "gen", "weights")
    with pytest.raises(ConfigError, match="leave out the precision int8"):
        model_file(tmp_path / "gen", "int8")
    model = small_generator(tmp_path / "model")
    assert model_file(model, None) == (model, "f32")
    of_weights = network_clean(load_network(model))(case).astype(int)
    for precision in ("f32", "weights"):  # by OpenVINO and by torch
        assert np.abs(load_clean(model, precision=precision)(case) - of_weights).max() <= 1
    (path,) = save_weights(tiny_generator(), tmp_path / "one", dtype=torch.float32)
    np.testing.assert_array_equal(load_clean(path)(case), expected)
    with pytest.raises(ModelNotFound, match="no model at"):
        load_clean(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="choose cpu or cuda"):
        load_clean(path, device="moon")


def test_the_validator_judges_generators_too(validation: Path, tmp_path: Path) -> None:
    values = Validator(validation)(tiny_generator(), tmp_path / "sheet.png")
    assert len(values) == 14  # the clip at two speeds, seven drawn scenes, the stills
    assert (tmp_path / "sheet.png").is_file()


# NIQE, with a stand-in of pyiqa's call shape


class FakePyiqa(types.ModuleType):
    __version__ = "0.1.99"

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__("pyiqa")
        self.asked: list[tuple[str, object]] = []
        self.seen: list[torch.Tensor] = []
        self.fails = fails

    def create_metric(
        self, metric_name: str, as_loss: bool = False, device: object = None, **kwargs: object
    ) -> torch.nn.Module:
        assert metric_name == "niqe"
        assert not as_loss
        if self.fails:
            raise OSError("no route to host")
        self.asked.append((str(device), kwargs.get("pretrained_model_path")))
        return _Metric(self.seen)


class _Metric(torch.nn.Module):
    def __init__(self, seen: list[torch.Tensor]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, target: torch.Tensor) -> torch.Tensor:
        assert target.ndim == 4
        assert target.shape[1] == 3
        assert 0 <= target.min() <= target.max() <= 1
        self.seen.append(target)
        return target.double().mean() * (torch.nan if target.min() == target.max() else 10)


@pytest.fixture
def pyiqa(monkeypatch: pytest.MonkeyPatch) -> FakePyiqa:
    fake = FakePyiqa()
    monkeypatch.setitem(sys.modules, "pyiqa", fake)
    return fake


def test_niqe_names_its_tool_and_hands_pictures_over(pyiqa: FakePyiqa, tmp_path: Path) -> None:
    parameters = tmp_path / "niqe_modelparameters.mat"
    parameters.write_bytes(b"")
    niqe = Niqe(parameters)
    assert niqe.name == "niqe (pyiqa 0.1.99)"
    assert pyiqa.asked == [("cpu", str(parameters))]
    rgb = colour(100, 200, seed=3)
    assert niqe(rgb) == pytest.approx(rgb.mean() / 25.5)
    np.testing.assert_allclose(pyiqa.seen[0][0, 2].numpy() * 255, rgb[:, :, 2], atol=1e-3)
    Niqe()
    assert pyiqa.asked[1] == ("cpu", None)


def test_niqe_says_what_it_needs(pyiqa: FakePyiqa, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(OpenError, match="two blocks of 96 px, which a picture of 150x100 px has not"):
        Niqe()(colour(100, 150, seed=1))
    with pytest.raises(OpenError, match="too plain"):
        Niqe()(np.full((100, 200, 3), 9, np.uint8))
    with pytest.raises(OpenError, match="no NIQE parameters at"):
        Niqe(tmp_path / "nothing.mat")
    pyiqa.fails = True
    with pytest.raises(OpenError, match=r"could not be fetched \(no route to host\).*--niqe-parameters"):
        Niqe()
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(ConfigError, match=r"pip install 'pyiqa>="):
        Niqe()


def test_niqe_stands_beside_doing_nothing(pyiqa: FakePyiqa) -> None:
    target = colour(100, 200, seed=1)
    niqe = Niqe()
    (found,) = score_pictures(
        [rgb_case(target + np.uint8(20), target)], lambda case: target, blind={niqe.name: niqe}
    )
    assert found.values[niqe.name] == pytest.approx(target.mean() / 25.5)
    assert found.do_nothing[niqe.name] == pytest.approx((target.mean() + 20) / 25.5)
    row = pool_scores([found])[-1]
    assert (row.metric, row.do_nothing) == (niqe.name, found.do_nothing[niqe.name])


# Reports


def test_reports_are_plain_json_and_tables(tmp_path: Path) -> None:
    pictures = [
        PictureScore(
            "a|b", "1.png", {"psnr_y_db": math.inf, "ssim_y": 1.0}, {"psnr_y_db": 20.0, "ssim_y": 0.5}
        ),
        PictureScore("a|b", "2.png", {"psnr_y_db": 30.0, "ssim_y": 0.9}, {"psnr_y_db": 22.0, "ssim_y": 0.7}),
    ]
    report = Report("model", "int8", "set", pictures, {"niqe": "pyiqa 9"})
    document = json.loads(json.dumps(report.as_dict(per_image=True), allow_nan=False))
    assert document["versions"].keys() == {"streamderain", "numpy", "niqe"}
    assert document["versions"]["numpy"] == np.__version__
    assert document["pictures"][0] == {
        "dataset": "a|b",
        "name": "1.png",
        "values": {"psnr_y_db": 100.0, "ssim_y": 1.0},
        "do_nothing": {"psnr_y_db": 20.0, "ssim_y": 0.5},
    }
    assert "pictures" not in report.as_dict()
    page = report.markdown(per_image=True)
    assert "| a/b | psnr_y_db | 2 | 21.00 | 65.00 | 33.50 | 30.00 |" in page
    assert "| a/b | ssim_y | 2 | 0.6000 | 0.9500 | 0.9050 | 0.9000 |" in page
    assert "| a/b | 2.png | ssim_y | 0.7000 | 0.9000 |" in page
    assert f"numpy {np.__version__}, niqe pyiqa 9" in page
    assert "2.png" not in report.markdown()
    with pytest.raises(OpenError, match="make it first"):
        check_targets(None, Path("nowhere/at/all.json"))
    media = tmp_path / "weights.safetensors"
    media.write_bytes(b"\0\1\2")
    with pytest.raises(OpenError, match="no text"):
        check_targets(media)
    earlier = tmp_path / "scores.json"
    earlier.write_text("{}")
    check_targets(earlier)


def test_the_command_writes_what_it_prints(tmp_path: Path, pyiqa: FakePyiqa) -> None:
    dataset = write_set(tmp_path / "root" / "test" / "Rain", size=(100, 200))
    write_set(tmp_path / "root" / "train", size=(30, 40))
    save_weights(tiny_generator(), tmp_path / "gen")
    command = ["evaluate", "--model", str(tmp_path / "gen"), "--dataset", str(tmp_path / "root")]
    files = ["--json", str(tmp_path / "r.json"), "--markdown", str(tmp_path / "r.md")]
    runner = CliRunner()
    options = ["--split", "test", "--per-image", "--niqe"]
    done = runner.invoke(cli, [*command, *options, *files], catch_exceptions=False)
    assert done.exit_code == 0
    document = json.loads((tmp_path / "r.json").read_text())
    assert (document["model"], document["precision"], document["dataset"]) == ("gen", "weights", "root")
    assert {row["metric"] for row in document["rows"]} == {*METRICS, "niqe (pyiqa 0.1.99)"}
    assert {row["dataset"] for row in document["rows"]} == {"Rain"}
    assert [picture["name"] for picture in document["pictures"]] == ["0.png", "1.png"]
    psnr_y = next(row for row in document["rows"] if row["metric"] == "psnr_y_db")
    assert f"{psnr_y['do_nothing']:.3f}" in done.output
    assert "| Rain | niqe (pyiqa 0.1.99) | 2 |" in (tmp_path / "r.md").read_text()
    plain = runner.invoke(cli, [*command[:3], "--dataset", str(dataset), *files], catch_exceptions=False)
    assert plain.exit_code == 0
    assert "pictures" not in json.loads((tmp_path / "r.json").read_text())
    with pytest.raises(OpenError, match="holds the splits test, train"):
        runner.invoke(cli, command, catch_exceptions=False)


def test_sets_are_read_one_picture_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is read once, and late: data sets need not fit in memory."""
    from trainer.data import pairing
    from trainer.data.layouts import find_sets

    read: list[str] = []
    original = pairing.read_rgb
    monkeypatch.setattr(pairing, "read_rgb", lambda path: (read.append(path.stem), original(path))[1])
    (found,) = find_sets(write_set(tmp_path / "set", count=4))
    cases = set_cases(found)
    next(cases)
    assert read == ["0", "0", "1", "1"]
    list(cases)
    assert read == [str(k) for k in (0, 0, 1, 1, 2, 2, 3, 3)]
