"""The discriminator and the projection heads against their specification."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamderain.nets.generator import FEATURE_LAYERS, Generator
from trainer.networks.discriminator import Discriminator, detail
from trainer.networks.initialise import initialise
from trainer.networks.projection import ProjectionHeads, draw_places


def test_the_discriminator_has_the_published_size() -> None:
    assert sum(p.numel() for p in Discriminator().parameters()) == 2_764_737
    assert Discriminator(1, width=16)(torch.zeros(2, 1, 64, 48)).shape == (2, 1, 6, 4)


def test_a_score_sees_a_patch_of_its_own() -> None:
    """The reach of one score: 70 px for strided convolutions; the blurs before each halving add to it.

    4x4 convolutions at steps of 1, 2, 4, 8 and 8 px reach 1 + 3 (1 + 2 + 4 + 8 + 8) = 70 px, the 3x3 blurs at
    1, 2 and 4 px another 2 (1 + 2 + 4) = 14. Instance norms, which see everything, are taken out.
    """
    network = Discriminator(1, width=2)
    layers = [layer for layer in network.layers if not isinstance(layer, torch.nn.InstanceNorm2d)]
    for layer in layers:
        for parameter in layer.parameters():
            torch.nn.init.constant_(parameter, 0.1)
    picture = torch.zeros(1, 1, 200, 200, requires_grad=True)
    scores = torch.nn.Sequential(*layers)(picture)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    assert picture.grad is not None
    rows, columns = (picture.grad[0, 0].abs().sum(dim=axis).nonzero() for axis in (1, 0))
    assert int(rows.max() - rows.min()) + 1 == 84
    assert int(columns.max() - columns.min()) + 1 == 84


@pytest.mark.parametrize("size", [(23, 64), (64, 16)])
def test_too_small_pictures_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 24 px"):
        Discriminator(width=2)(torch.zeros(1, 3, *size))
    assert Discriminator(width=2)(torch.zeros(1, 3, 24, 24)).numel() == 1


def test_fresh_weights_are_small() -> None:
    torch.manual_seed(0)
    for module in (Discriminator(width=16), Generator(width=8, blocks=1), ProjectionHeads([8])):
        initialise(module)
        weights = torch.cat([p.flatten() for name, p in module.named_parameters() if name.endswith("weight")])
        assert float(weights.detach().std()) == pytest.approx(0.02, rel=0.05)
        assert all(not p.any() for name, p in module.named_parameters() if name.endswith("bias"))


def test_the_heads_are_made_at_once() -> None:
    heads = ProjectionHeads((128, 256, 256, 256))
    sizes = [sum(p.numel() for p in head.parameters()) for head in heads.heads]
    assert sizes == [128 * 256 + 256 + 256 * 256 + 256] + [2 * (256 * 256 + 256)] * 3


def test_heads_project_the_named_places() -> None:
    torch.manual_seed(0)
    heads = ProjectionHeads((3, 5), width=4)
    features = [torch.randn(2, 3, 6, 7).to(memory_format=torch.channels_last), torch.randn(2, 5, 3, 4)]
    places = [torch.tensor([0, 8, 41]), torch.tensor([11, 2])]
    found = heads(features, places)
    assert [f.shape for f in found] == [(2, 3, 4), (2, 2, 4)]
    for layer, index, place in ((0, 1, 8), (0, 2, 41), (1, 0, 11)):
        width = features[layer].shape[3]
        patch = features[layer][1, :, place // width, place % width]
        first, _, second = heads.heads[layer]
        expected = second(torch.relu(first(patch)))
        torch.testing.assert_close(found[layer][1, index], expected / expected.norm())


def test_as_many_layers_as_heads() -> None:
    with pytest.raises(ValueError, match="2 heads want as many layers, not 1"):
        ProjectionHeads((3, 5), width=4)([torch.zeros(1, 3, 4, 4)], [torch.tensor([0])])


def test_places_are_different_and_repeat_with_the_seed() -> None:
    sizes = [(256, 256), (64, 64), (4, 4)]
    drawn = draw_places(sizes, patches=256, rng=np.random.default_rng(4))
    assert [len(p) for p in drawn] == [256, 256, 16]
    assert all(len(set(p)) == len(p) for p in drawn)
    assert all(p.min() >= 0 and p.max() < h * w for p, (h, w) in zip(drawn, sizes, strict=True))
    again = draw_places(sizes, patches=256, rng=np.random.default_rng(4))
    assert all(np.array_equal(one, other) for one, other in zip(drawn, again, strict=True))


def test_the_feature_layers_of_the_generator() -> None:
    features = Generator(width=4, blocks=9).features(torch.zeros(1, 3, 32, 32))
    assert FEATURE_LAYERS == (4, 8, 12, 16)
    assert [tuple(f.shape[1:]) for f in features] == [(8, 32, 32), (16, 16, 16), (16, 8, 8), (16, 8, 8)]


def test_translating_gives_output_and_features_of_one_pass() -> None:
    torch.manual_seed(0)
    network = Generator(width=4, blocks=2).eval()
    picture = torch.randn(1, 3, 32, 32)
    output, features = network.translate(picture, (4, 8))
    torch.testing.assert_close(output, network(picture))
    torch.testing.assert_close(features, network.features(picture, (4, 8)))


def test_detail_is_the_picture_less_its_local_mean() -> None:
    rng = np.random.default_rng(0)
    picture = rng.uniform(-1.0, 1.0, (9, 12)).astype(np.float32)
    padded = np.pad(picture, 2, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
    expected = 4.0 * (picture - np.nanmean(windows, axis=(2, 3)))
    found = detail(torch.from_numpy(picture)[None, None], 5)[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_discriminator_of_details_does_not_see_brightness() -> None:
    torch.manual_seed(0)
    network = Discriminator(1, width=4, detail_px=5)
    picture = torch.rand(1, 1, 32, 32) * 0.5
    torch.testing.assert_close(network(picture), network(picture + 0.3), atol=1e-3, rtol=1e-3)
    plain = Discriminator(1, width=4)
    assert not torch.allclose(plain(picture), plain(picture + 0.3), atol=1e-3)


def test_a_spectral_critic_changes_its_score_no_more_than_its_picture_changes() -> None:
    torch.manual_seed(0)
    for norm, bounded in (("spectral", True), ("instance", False)):
        network = Discriminator(1, width=8, norm=norm)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(5.0)  # however large its weights have grown
        picture = torch.rand(1, 1, 48, 48) * 0.1
        for _ in range(30):
            network(picture)  # each forward sharpens the estimate of the gain
        nearby = picture + 1e-2 * torch.randn_like(picture)
        with torch.no_grad():
            moved = float((network(picture) - network(nearby)).norm() / (picture - nearby).norm())
        assert (moved < 1.5) == bounded, (norm, moved)
