"""DCD-GAN's step: which term trains which network, how many passes it takes, and that runs resume exactly."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from streamderain.errors import ConfigError, OpenError
from streamderain.nets.generator import Generator
from tests.trainer.support import ALL_TERMS as ALL
from tests.trainer.support import TINY_GAN as TINY
from tests.trainer.support import TINY_LITE as FAST
from tests.trainer.support import scene
from trainer.checkpoint import read_checkpoint
from trainer.config import TrainConfig, load_config, parse_config
from trainer.data.library import open_pseudo
from trainer.data.unpaired import CLEAN, RAINED, RAINY, UnpairedBatch, UnpairedMaker, open_domains
from trainer.methods.translation import Translation, channels_of
from trainer.networks.load import RAIN_AVERAGE, load_network
from trainer.run.loop import begin_with, one_device, train
from trainer.run.pseudo import load_rain, make_pseudo, streaks


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rainy pictures (one unreadable, one smaller than the crop), four clean ones, one layer."""
    root = tmp_path_factory.mktemp("domains")
    for name in ("rainy", "clean", "layers"):
        (root / name).mkdir()
    for index in range(4):
        rgb = np.stack([scene(50, 60, seed=3 * index + channel) for channel in range(3)], axis=2)
        Image.fromarray(rgb).save(root / "clean" / f"{index}.png")
    small = np.stack([scene(40, 20, seed=40 + channel) for channel in range(3)], axis=2)
    Image.fromarray(small).save(root / "rainy" / "small.png")
    (root / "rainy" / "broken.jpg").write_bytes(b"no picture")
    layer = (np.random.default_rng(0).random((60, 70)) > 0.97) * 200
    Image.fromarray(layer.astype(np.uint8)).save(root / "layers" / "1-4.png")
    return root


def made(config: TrainConfig, domains: Path, cache: Path) -> UnpairedMaker:
    library = open_domains(domains, cache, config.unpaired, channels=channels_of(config), seed=config.seed)
    return UnpairedMaker(library, config.unpaired, batch=config.batch, seed=config.seed)


def of_terms(config: TrainConfig, **weights: float) -> TrainConfig:
    return dataclasses.replace(config, phases=(dataclasses.replace(config.phases[0], losses=weights),))


def batch(channels: int = 3, count: int = 2) -> UnpairedBatch:
    rng = np.random.default_rng(1)
    shape = (count, channels, 32, 32)
    return UnpairedBatch(*(rng.uniform(-1, 1, shape).astype(np.float32) for _ in range(2)))


CONTRASTED = {"network", "rain_network", "heads", "rain_heads"}
GENERATORS = {"network", "rain_network"}


@pytest.mark.parametrize("family", [TINY, FAST], ids=["generator", "fast"])
@pytest.mark.parametrize(
    ("weights", "trained"),
    [
        ({"adversarial": 1.0}, GENERATORS),
        ({"identity": 1.0}, GENERATORS),
        ({"contrastive": 1.0}, CONTRASTED),
        ({"cycle": 1.0}, GENERATORS),
        ({"colour": 1.0}, GENERATORS),
        ({"frequency": 1.0}, GENERATORS),
        ({"restoration": 1.0}, {"network"}),
    ],
)
def test_each_term_trains_exactly_its_networks(
    family: dict[str, Any], weights: dict[str, float], trained: set[str]
) -> None:
    """The discriminators learn beside them in any case, from their own loss alone."""
    config = of_terms(parse_config(family, where="test"), **weights)
    method = Translation(config, one_device(config))
    before = {name: copy.deepcopy(module.state_dict()) for name, module in method.state.modules.items()}
    method.step([batch(channels_of(config))])
    moved = {
        name
        for name, module in method.state.modules.items()
        if "average" not in name
        and any(not torch.equal(value, before[name][key]) for key, value in module.state_dict().items())
    }
    assert moved == trained | {"clean_discriminator", "rain_discriminator"}


@pytest.mark.parametrize(
    ("direction", "reached"),
    [
        ("adversarial_clean", {"network"}),
        ("adversarial_rainy", {"rain_network"}),
        ("identity_clean", {"network"}),
        ("identity_rainy", {"rain_network"}),
        ("cycle_rainy", GENERATORS),
        ("cycle_clean", GENERATORS),
        ("contrastive_1", {"network", "rain_network", "rain_heads"}),
        ("contrastive_2", {"network", "rain_network", "heads"}),
        ("contrastive_3", {"network", "rain_network", "heads"}),
        ("contrastive_4", {"network", "rain_network", "rain_heads"}),
    ],
)
def test_gradients_of_each_direction_reach_exactly_its_networks(direction: str, reached: set[str]) -> None:
    """Keys are detached, so a contrast trains the query's heads only; critics are frozen meanwhile."""
    config = parse_config(TINY, where="test")
    method = Translation(config, one_device(config))
    for name in ("clean_discriminator", "rain_discriminator"):
        method.state.modules[name].requires_grad_(False)
    pictures = [torch.from_numpy(a) for a in (batch().rainy, batch().clean)]
    losses, _ = method.generators(*pictures, frozenset(ALL), np.random.default_rng(0))
    losses[direction].backward()
    found = {
        name
        for name, module in method.state.modules.items()
        if any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters())
    }
    assert found == reached


@pytest.mark.parametrize("term", ["adversarial", "identity", "cycle", "colour", "frequency"])
def test_a_term_is_the_sum_of_its_sides(term: str) -> None:
    config = parse_config(TINY, where="test")
    method = Translation(config, one_device(config))
    pictures = [torch.from_numpy(a) for a in (batch().rainy, batch().clean)]
    names = (term, f"{term}_clean", f"{term}_rainy")
    both, clean, rainy = (
        method.generators(*pictures, frozenset({name}), np.random.default_rng(0))[0] for name in names
    )
    assert clean.keys() == {names[1]}
    assert rainy.keys() == {names[2]}
    torch.testing.assert_close(both[term], clean[names[1]] + rainy[names[2]])


def test_the_discriminators_learn_from_their_own_loss_alone() -> None:
    config = parse_config(TINY, where="test")
    method = Translation(config, one_device(config))
    method.step([batch()])
    grads = {
        name: [p.grad.clone() for p in method.state.modules[name].parameters() if p.grad is not None]
        for name in ("clean_discriminator", "rain_discriminator")
    }
    # The same pictures through critics as they were, computed apart.
    other = Translation(config, one_device(config))
    pictures = [torch.from_numpy(a) for a in (batch().rainy, batch().clean)]
    with torch.no_grad():
        derained = other.state.modules["network"](pictures[0])
        rained = other.state.modules["rain_network"](pictures[1])
    for name, real, fake in (
        ("clean_discriminator", pictures[1], derained),
        ("rain_discriminator", pictures[0], rained),
    ):
        critic = other.state.modules[name]
        loss = 0.5 * (torch.relu(1 - critic(real)).mean() + torch.relu(1 + critic(fake)).mean())
        loss.backward()
        expected = [p.grad for p in critic.parameters() if p.grad is not None]
        torch.testing.assert_close(grads[name], expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("contrasts", "weights", "whole", "encoders"),
    [
        (4, ALL, 6, 2),
        (4, {"adversarial": 1.0, "contrastive": 1.0, "identity": 1.0}, 6, 2),
        (2, {"adversarial": 1.0, "contrastive": 1.0, "identity": 1.0}, 4, 2),
        (2, {"adversarial": 1.0, "contrastive": 1.0}, 2, 2),
        (2, {"adversarial": 1.0}, 2, 0),
        (2, {"adversarial": 1.0, "cycle": 1.0}, 4, 0),
        (2, {"adversarial": 1.0, "cycle_clean": 1.0}, 3, 0),
        (2, {"adversarial_rainy": 1.0, "identity_clean": 1.0}, 3, 0),
        (2, {"adversarial": 1.0, "contrastive": 1.0, "cycle_clean": 1.0}, 3, 1),
        (2, {"adversarial": 1.0, "restoration": 1.0}, 3, 0),
    ],
)
def test_no_pass_is_wasted(
    contrasts: int, weights: dict[str, float], whole: int, encoders: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures that go through whole generators, and through encoders alone, in one step at batch 1."""
    config = of_terms(parse_config(TINY, where="test"), **weights)
    table = dataclasses.replace(config.translation, contrasts=contrasts)
    method = Translation(dataclasses.replace(config, translation=table), one_device(config))
    passes: Counter[str] = Counter()
    translate, features = Generator.translate, Generator.features

    def counted_translate(self: Generator, picture: torch.Tensor, layers: Any, **direction: bool) -> Any:
        passes["whole"] += len(picture)
        return translate(self, picture, layers, **direction)

    def counted_features(self: Generator, picture: torch.Tensor, layers: Any, **direction: bool) -> Any:
        passes["encoder"] += len(picture)
        return features(self, picture, layers, **direction)

    monkeypatch.setattr(Generator, "translate", counted_translate)
    monkeypatch.setattr(Generator, "features", counted_features)
    method.step([batch(count=1)])
    assert (passes["whole"], passes["encoder"]) == (whole, encoders)


@pytest.mark.parametrize("family", [TINY, FAST], ids=["generator", "fast"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    family: dict[str, Any], domains: Path, tmp_path: Path
) -> None:
    config = parse_config(family, where="test")
    maker = made(config, domains, tmp_path / "cache")
    train(config, maker, tmp_path / "whole")
    train(config, maker, tmp_path / "parts", stop_after=3)
    torch.manual_seed(999)  # whatever happened in between
    train(config, maker, tmp_path / "parts", resume=True)
    whole, parts = (
        read_checkpoint(tmp_path / name / "checkpoints" / "last.safetensors")[0]
        for name in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    assert {name.split(".")[0] for name in whole} == {
        *("network", "rain_network", "heads", "rain_heads", "clean_discriminator", "rain_discriminator"),
        *("average", "rain_average", "optimiser", "critic_optimiser"),
    }
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name
    assert (tmp_path / "parts" / "samples" / "training-step-0000003.png").is_file()


def test_heads_are_known_to_the_optimiser_from_the_start() -> None:
    config = parse_config(TINY, where="test")
    method = Translation(config, one_device(config))
    known = {id(p) for group in method.state.optimisers["optimiser"].param_groups for p in group["params"]}
    for name in ("heads", "rain_heads"):
        assert {id(p) for p in method.state.modules[name].parameters()} <= known


def test_without_contrast_the_optimiser_leaves_the_heads_alone() -> None:
    config = of_terms(parse_config(TINY, where="test"), adversarial=1.0)
    method = Translation(config, one_device(config))
    known = {id(p) for group in method.state.optimisers["optimiser"].param_groups for p in group["params"]}
    assert not {id(p) for p in method.state.modules["heads"].parameters()} & known


@pytest.mark.parametrize("name", ["paper", "authors", "consistent"])
def test_the_papers_sizes(name: str) -> None:
    config = load_config(name)
    method = Translation(config, one_device(config))
    counts = {key: sum(p.numel() for p in m.parameters()) for key, m in method.state.modules.items()}
    assert counts["network"] == counts["rain_network"] == 11_378_179
    assert counts["clean_discriminator"] == counts["rain_discriminator"] == 2_764_737
    assert counts["heads"] == (128 + 1) * 256 + 3 * (256 + 1) * 256 + 4 * (256 + 1) * 256
    assert config.translation.feature_layers == (4, 8, 12, 16)
    assert (config.translation.patches, config.translation.temperature) == (256, 0.07)
    assert config.translation.contrasts == (2 if name == "authors" else 4)
    assert config.uses("colour", "frequency") == (name == "consistent")
    assert config.uses("cycle") == (name != "authors")


def test_both_domains_hold_different_scenes(domains: Path, tmp_path: Path) -> None:
    config = parse_config(TINY, where="test")
    library = made(config, domains, tmp_path)._library
    names = {kind: {entry.name for entry in library.of_kind(kind)} for kind in (RAINY, RAINED, CLEAN)}
    assert names == {RAINY: {"small.png"}, RAINED: {"0.png", "2.png"}, CLEAN: {"1.png", "3.png"}}


def test_broken_and_small_pictures_are_named_and_counted(
    domains: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = parse_config(TINY, where="test")
    with caplog.at_level(logging.WARNING):
        maker = made(config, domains, tmp_path)
    assert "skipped" in caplog.text
    assert "broken.jpg" in caplog.text
    assert "1 of 2 pictures (domain rainy) are smaller than the crop of 32 px" in caplog.text
    assert maker.batch(0).rainy.shape == (2, 3, 32, 32)


@pytest.mark.parametrize("empty", ["rainy", "clean"])
def test_an_empty_domain_is_named(empty: str, tmp_path: Path) -> None:
    config = parse_config({**TINY, "unpaired": {**TINY["unpaired"], "rained": []}}, where="test")
    for name in ("rainy", "clean"):
        (tmp_path / name).mkdir()
        content = b"no picture" if name == empty else None
        if content is not None:
            (tmp_path / name / "a.png").write_bytes(content)
        else:
            Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / name / "a.png")
    with pytest.raises(OpenError, match=f"no readable picture for the domain {empty}"):
        made(config, tmp_path, tmp_path / "cache")
    (tmp_path / empty / "a.png").unlink()
    with pytest.raises(OpenError, match="expects this tree"):
        made(config, tmp_path, tmp_path / "cache")


def test_crops_are_cut_not_squeezed(tmp_path: Path) -> None:
    """Every crop is found in its picture, code for code, perhaps mirrored."""
    config = parse_config({**TINY, "unpaired": {**TINY["unpaired"], "rained": []}}, where="test")
    codes = np.random.default_rng(3).integers(0, 256, (40, 70, 3), np.uint8)
    for name in ("rainy", "clean"):
        (tmp_path / name).mkdir()
        Image.fromarray(codes).save(tmp_path / name / "a.png")
    maker = made(config, tmp_path, tmp_path / "cache")
    windows = np.lib.stride_tricks.sliding_window_view(codes, (32, 32), axis=(0, 1)).reshape(-1, 3, 32, 32)
    known = {window.tobytes() for window in windows} | {window[..., ::-1].tobytes() for window in windows}
    for step in range(4):
        for crop in maker.batch(step).rainy:
            assert np.rint((crop + 1) * 127.5).astype(np.uint8).tobytes() in known


def test_a_start_takes_the_generators_averages_and_the_rest(domains: Path, tmp_path: Path) -> None:
    config = parse_config(TINY, where="test")
    given = train(config, made(config, domains, tmp_path / "cache"), tmp_path / "run", stop_after=2)
    state = Translation(dataclasses.replace(config, seed=99), one_device(config)).state
    begin_with(state, tmp_path / "run")
    for name, source in (
        ("network", "average"),
        ("rain_network", "rain_average"),
        ("clean_discriminator", "clean_discriminator"),
        ("heads", "heads"),
    ):
        torch.testing.assert_close(state.modules[name].state_dict(), given.modules[source].state_dict())
    assert [part["steps"] for part in state.earlier] == [2]


@pytest.mark.parametrize("family", [TINY, FAST], ids=["generator", "fast"])
def test_pseudo_pairs_are_pictures_with_more_light(
    family: dict[str, Any], domains: Path, tmp_path: Path
) -> None:
    config = parse_config(family, where="test")
    train(config, made(config, domains, tmp_path / "cache"), tmp_path / "run", stop_after=2)
    rain = load_rain(tmp_path / "run")
    assert make_pseudo(rain, [domains / "clean"], tmp_path / "pseudo", variants=2) == 8
    clean, rainy, layer = (
        np.asarray(Image.open(tmp_path / "pseudo" / kind / "clean-1-2.png"))
        for kind in ("target", "input", "layers")
    )
    assert np.array_equal(clean, np.asarray(Image.open(domains / "clean" / "1.png")))
    assert rainy.shape == clean.shape
    assert np.array_equal(layer, streaks(rainy, clean))
    if family is FAST:
        assert (rainy.astype(int) - clean >= -1).all()
    library = open_pseudo(tmp_path / "pseudo", tmp_path / "cache")
    assert library.counts() == {"target": 8, "rainy": 8, "layer": 8}


def test_runs_on_pairs_make_no_rain(domains: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no network that makes rain"):
        load_network(domains / "clean" / "0.png", which=RAIN_AVERAGE)


def test_discriminators_may_learn_at_their_own_rate() -> None:
    table = {**FAST["translation"], "discriminator_rate": 2.5}
    config = parse_config({**FAST, "translation": table}, where="test")
    method = Translation(config, one_device(config))
    method.step([batch(1)])
    rates = {name: o.param_groups[0]["lr"] for name, o in method.state.optimisers.items()}
    assert rates == {"optimiser": 1e-3, "critic_optimiser": 2.5e-3}
