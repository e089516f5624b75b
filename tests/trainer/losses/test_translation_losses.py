"""DCD-GAN's terms against slow versions in NumPy, written from the equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from streamderain.errors import ConfigError
from trainer.losses import adversarial
from trainer.losses.colour import colour
from trainer.losses.contrastive import patch_nce
from trainer.losses.cycle import cycle
from trainer.losses.frequency import frequency
from trainer.losses.identity import identity
from trainer.losses.restoration import restoration

Array = NDArray[np.float64]


def drawn(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32))


def unit_length(features: Array) -> Array:
    return features / np.sqrt((features**2).sum(axis=-1, keepdims=True))


def slow_nce(query: Array, key: Array, temperature: float) -> float:
    total = 0.0
    pictures, places, _ = query.shape
    for n in range(pictures):
        for p in range(places):
            scores = [float(query[n, p] @ key[n, j]) / temperature for j in range(places)]
            total -= scores[p] - np.log(sum(np.exp(s) for s in scores))
    return total / (pictures * places)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_patch_contrast(temperature: float) -> None:
    query, key = unit_length(drawn(2, 7, 5)), unit_length(drawn(2, 7, 5, seed=1))
    found = patch_nce(tensor(query), tensor(key), temperature=temperature)
    assert float(found) == pytest.approx(slow_nce(query, key, temperature), rel=1e-5)


def test_patch_contrast_at_known_points() -> None:
    """Orthogonal features: the positive stands out by 1 / t; equal ones say nothing, which costs log P."""
    basis = torch.eye(4)[None]
    assert float(patch_nce(basis, basis)) == pytest.approx(np.log(1 + 3 * np.exp(-1 / 0.07)), abs=1e-6)
    same = torch.ones(1, 4, 1)
    assert float(patch_nce(same, same)) == pytest.approx(np.log(4))


def test_patch_contrast_does_not_mind_the_order_of_places() -> None:
    query, key = (tensor(unit_length(drawn(1, 6, 3, seed=seed))) for seed in (2, 3))
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(patch_nce(query[:, order], key[:, order]), patch_nce(query, key))
    assert not torch.isclose(patch_nce(query[:, order], key), patch_nce(query, key))


def test_keys_get_no_gradient() -> None:
    query, key = (tensor(unit_length(drawn(1, 4, 3, seed=seed))).requires_grad_() for seed in (2, 3))
    patch_nce(query, key).backward()
    assert query.grad is not None
    assert key.grad is None


def test_adversaries() -> None:
    real, fake = drawn(2, 1, 3, 3), drawn(2, 1, 3, 3, seed=1)
    hinge = 0.5 * (np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean())
    squares = 0.5 * (((real - 1) ** 2).mean() + (fake**2).mean())
    assert float(adversarial.discriminator_loss(tensor(real), tensor(fake), "hinge")) == pytest.approx(hinge)
    assert float(adversarial.discriminator_loss(tensor(real), tensor(fake), "lsgan")) == pytest.approx(
        squares
    )
    found = float(adversarial.generator_loss(tensor(fake), "hinge"))
    assert found == pytest.approx(np.maximum(0, 1 - fake).mean())
    assert float(adversarial.generator_loss(tensor(fake), "lsgan")) == pytest.approx(((fake - 1) ** 2).mean())


@pytest.mark.parametrize("kind", adversarial.KINDS)
def test_adversaries_pull_apart(kind: str) -> None:
    """The discriminator wants real up and fake down, the generator wants fake up."""
    real, fake, own = (torch.zeros(3, requires_grad=True) for _ in range(3))
    adversarial.discriminator_loss(real, fake, kind).backward()
    adversarial.generator_loss(own, kind).backward()
    assert real.grad is not None
    assert own.grad is not None
    assert (real.grad < 0).all()
    assert (own.grad < 0).all()
    assert fake.grad is not None
    assert (fake.grad >= 0).all()


def test_an_unknown_adversary_is_named() -> None:
    with pytest.raises(ConfigError, match="'wasserstein'; choose one of hinge, lsgan"):
        adversarial.generator_loss(torch.zeros(1), "wasserstein")
    with pytest.raises(ConfigError, match="wasserstein"):
        adversarial.discriminator_loss(torch.zeros(1), torch.zeros(1), "wasserstein")


def test_consistencies() -> None:
    again, picture = drawn(2, 3, 6, 5), drawn(2, 3, 6, 5, seed=1)
    absolute = np.mean([abs(a - p) for a, p in zip(again.ravel(), picture.ravel(), strict=True)])
    assert float(cycle(tensor(again), tensor(picture))) == pytest.approx(absolute)
    assert float(identity(tensor(again), tensor(picture))) == pytest.approx(absolute)
    squares = np.mean([(a - p) ** 2 for a, p in zip(again.ravel(), picture.ravel(), strict=True)])
    assert float(restoration(tensor(again), tensor(picture))) == pytest.approx(squares)
    channels = sum(np.mean(np.abs(again[:, c] - picture[:, c])) for c in range(3))
    assert float(colour(tensor(again), tensor(picture))) == pytest.approx(channels)


def slow_amplitudes(plane: Array) -> Array:
    """The discrete Fourier transform by its definition, scaled to keep energy."""
    height, width = plane.shape
    y, x = np.mgrid[0:height, 0:width]
    found = np.zeros((height, width))
    for v in range(height):
        for u in range(width):
            wave = np.exp(-2j * np.pi * (v * y / height + u * x / width))
            found[v, u] = abs((plane * wave).sum()) / np.sqrt(height * width)
    return found


def test_frequency() -> None:
    again, picture = drawn(2, 3, 5, 4), drawn(2, 3, 5, 4, seed=1)
    expected = np.mean(
        [
            np.abs(slow_amplitudes(again[n, c]) - slow_amplitudes(picture[n, c])).mean()
            for n in range(2)
            for c in range(3)
        ]
    )
    assert float(frequency(tensor(again), tensor(picture))) == pytest.approx(expected, rel=1e-5)


def test_frequency_does_not_mind_where_things_are() -> None:
    picture = tensor(drawn(1, 1, 8, 8))
    assert float(frequency(picture.roll((2, 3), (2, 3)), picture)) == pytest.approx(0.0, abs=1e-6)
    assert float(cycle(picture.roll((2, 3), (2, 3)), picture)) > 0.5


@pytest.mark.parametrize("loss", [cycle, identity, colour, frequency, restoration])
def test_equal_pictures_cost_nothing_in_any_precision(loss: object) -> None:
    picture = tensor(drawn(1, 3, 4, 4)).bfloat16()
    assert callable(loss)
    value = loss(picture, picture.clone())
    assert value.dtype is torch.float32
    assert float(value) == 0.0
