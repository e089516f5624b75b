"""The networks: sizes, gradients, contracts, and that the exported core computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from streamderain.nets import luma as luma_module
from streamderain.nets.deep import DeepNet
from streamderain.nets.export import INPUT_NAMES, OUTPUT_NAMES, export_core
from streamderain.nets.families import load_core
from streamderain.nets.fast import FastNet
from streamderain.nets.generator import (
    FEATURE_LAYERS,
    BlurDown,
    BlurUp,
    Generator,
    ResidualGenerator,
    RgbCore,
)
from streamderain.nets.luma import (
    FAINTEST,
    PARTS,
    PRIOR_BLOCKS,
    LumaNetwork,
    core_window,
    rain_prior,
    residual_planes,
)
from streamderain.runtime.adapters import luma
from trainer.networks.network_weights import save_weights


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.fixture(scope="module")
def fast() -> FastNet:
    torch.manual_seed(3)
    network = FastNet()
    with torch.no_grad():
        # As if trained: a residual that is neither tiny nor all positive.
        network.correction.weight.mul_(20.0)
        network.share.weight.mul_(20.0)
        network.share_of_rest.weight.mul_(20.0)
        network.validity.weight.mul_(5.0)
    return network.eval()


def blocks(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, 16 * PARTS, height, width, generator=torch.Generator().manual_seed(seed))


def no_prior(height: int, width: int) -> torch.Tensor:
    return torch.zeros(1, len(PRIOR_BLOCKS), height, width)


def test_fast_network_keeps_its_budget(fast: FastNet) -> None:
    assert parameters(fast) == 216_086
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        fast(blocks(1, 180, 320), no_prior(180, 320), torch.ones(1, 2))
    assert counter.get_total_flops() == 2 * 4_895_884_864


def test_fast_output_stays_in_range_and_never_brightens(fast: FastNet) -> None:
    window = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    clean = fast.clean_planes(window, torch.ones(2, 2))
    assert clean.shape == (2, 1, 32, 40)
    assert clean.min() >= 0.0
    assert (clean <= window[:, 1:2]).all()
    assert (clean < window[:, 1:2]).any()


def small_deep(spread: float) -> DeepNet:
    """Make a deep network with an answer of its own: a fresh one says what the fast one inside does."""
    network = DeepNet(width=8, blocks=1)
    for tail in (network.correction, network.share, network.share_of_rest):
        torch.nn.init.normal_(tail.weight, std=spread)
    return network


@pytest.mark.parametrize("make", [FastNet, lambda: small_deep(0.01)], ids=["fast", "deep"])
def test_every_parameter_gets_a_gradient(make: Callable[[], LumaNetwork]) -> None:
    torch.manual_seed(0)
    network = make()
    network.residual_slope = 0.2
    window, validity = torch.rand(2, 3, 32, 48), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss = (network.clean_planes(window, validity, bounded=False) - window[:, :1]).square().mean()
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_planes_and_blocks_agree(fast: FastNet) -> None:
    window = torch.rand(1, 3, 16, 24)
    validity = torch.tensor([[1.0, 0.0]])
    before, current, after = (window[:, i : i + 1] for i in range(3))
    excess = (current - torch.maximum(before, after)).clamp(min=0)
    rest = (current - torch.minimum(before, after)).clamp(min=0) - excess
    deficit = (torch.minimum(before, after) - current).clamp(min=0)
    unshuffled = [functional.pixel_unshuffle(plane, 4) for plane in (current, excess, rest, deficit)]
    blocks = torch.cat(unshuffled, dim=1)
    torch.testing.assert_close(core_window(window), blocks)
    with torch.no_grad():
        from_planes = fast.clean_planes(window, validity)
        answer = fast(blocks, rain_prior(blocks), validity)
    share = torch.sigmoid(answer.logits + answer.odds)
    share_of_rest = torch.sigmoid(answer.logits_of_rest + answer.odds_of_rest)
    light = share * unshuffled[1] + share_of_rest * unshuffled[2] + answer.correction
    residual = functional.pixel_shuffle(light, 4)
    torch.testing.assert_close(residual_planes(blocks, answer), residual)
    torch.testing.assert_close(from_planes, (current - residual.clamp(min=0)).clamp(0, 1))


def test_the_prior_weighs_excess_against_deficit() -> None:
    """A plane with rain of its own has excess alone; one that does not fit has both."""
    rng = np.random.default_rng(0)
    texture = torch.from_numpy(rng.random((1, 1, 96, 96), dtype=np.float32)) * 0.5
    rainy = texture.clone()
    rainy[..., ::4] += 0.3
    misfit = torch.from_numpy(rng.random((1, 1, 96, 96), dtype=np.float32)) * 0.5
    still, rain, moved = (
        rain_prior(core_window(torch.cat([texture, current, texture], dim=1)))
        for current in (texture, rainy, misfit)
    )
    assert still.abs().max() == 0
    assert rain.min() > 3.0
    assert moved.mean() < -1.0


def test_the_adapters_use_the_networks_numbers() -> None:
    assert (luma.PRIOR_BLOCKS, luma.PRIOR_FLOOR, luma.PRIOR_LIMIT) == (
        luma_module.PRIOR_BLOCKS,
        luma_module.PRIOR_FLOOR,
        luma_module.PRIOR_LIMIT,
    )


def test_corrections_fainter_than_a_code_are_none(fast: FastNet) -> None:
    """Int8 rounds by as much; while training they keep a slope, so that gradients pass."""
    stages = fast.encode(blocks(1, 64, 64), torch.ones(1, 2))
    with torch.no_grad():
        deployed = fast.decode(stages, no_prior(64, 64), torch.ones(1, 2)).correction
        fast.residual_slope = 1.0
        raw = fast.decode(stages, no_prior(64, 64), torch.ones(1, 2)).correction
        fast.residual_slope = 0.0
    faint = raw.abs() <= FAINTEST
    assert faint.any()
    assert (deployed[faint] == 0).all()
    torch.testing.assert_close(deployed[~faint], (raw - raw.sign() * FAINTEST)[~faint])


def test_block_channels_run_along_rows(fast: FastNet) -> None:
    """The runtimes rely on it: channel = dy * 4 + dx."""
    plane = torch.arange(64.0).reshape(1, 1, 8, 8)
    unshuffled = functional.pixel_unshuffle(plane, 4)
    for dy in range(4):
        for dx in range(4):
            torch.testing.assert_close(unshuffled[0, dy * 4 + dx], plane[0, 0, dy::4, dx::4])


def test_validity_changes_the_result(fast: FastNet) -> None:
    window = blocks(1, 8, 8)
    prior = rain_prior(window)
    with_neighbours, without = (fast(window, prior, valid) for valid in (torch.ones(1, 2), torch.zeros(1, 2)))
    for name in ("logits", "logits_of_rest", "correction"):
        assert not torch.equal(getattr(with_neighbours, name), getattr(without, name)), name


@pytest.mark.parametrize(
    ("name", "height", "width", "cut", "equal"), [("fast", 80, 64, 64, 24), ("deep", 160, 32, 128, 48)]
)
def test_tiles_agree_with_the_whole_beyond_the_receptive_field(
    request: pytest.FixtureRequest, name: str, height: int, width: int, cut: int, equal: int
) -> None:
    """The card says tileable: no statistic spans the frame."""
    network: LumaNetwork = request.getfixturevalue(name)
    window = blocks(1, height, width, seed=5)
    ones = torch.ones(1, 2)
    with torch.no_grad():
        whole = network(window, rain_prior(window), ones)
        tile = network(window[:, :, :cut], rain_prior(window[:, :, :cut]), ones)
    for part, full in zip(tile, whole, strict=True):
        torch.testing.assert_close(part[:, :, :equal], full[:, :, :equal])


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 2, 2), (1, 18, 30), (3, 24, 16)])
def test_exported_core_computes_the_same(
    core_path: Path, fast: FastNet, batch: int, height: int, width: int
) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(core_path), providers=["CPUExecutionProvider"])
    validity = torch.randint(0, 2, (batch, 2), generator=torch.Generator().manual_seed(1)).float()
    window = blocks(batch, height, width, seed=2)
    inputs = [window, rain_prior(window), validity]
    feed = dict(zip(INPUT_NAMES, (i.numpy() for i in inputs), strict=True))
    with torch.no_grad():
        expected = fast(*inputs)
    for exported, tensor in zip(session.run(list(OUTPUT_NAMES), feed), expected, strict=True):
        np.testing.assert_allclose(exported, tensor.numpy(), rtol=1e-5, atol=2e-5)


def test_exported_core_keeps_the_contract(core_path: Path) -> None:
    import onnx

    model = onnx.load(str(core_path))
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "window": ["batch", 64, "rows", "columns"],
        "logits": ["batch", 16, "rows", "columns"],
        "odds": ["batch", 1, "rows", "columns"],
        "logits_of_rest": ["batch", 16, "rows", "columns"],
        "odds_of_rest": ["batch", 1, "rows", "columns"],
        "correction": ["batch", 16, "rows", "columns"],
        "prior": ["batch", 3, "rows", "columns"],
        "validity": ["batch", 2],
    }
    assert model.opset_import[0].version >= 17
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert b".py" not in model.SerializeToString(), "no path of the machine that exported it"


@pytest.fixture(scope="module")
def core_path(fast: FastNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("core") / "core.onnx"
    export_core(fast, path)
    return path


@pytest.fixture(scope="module")
def deep() -> DeepNet:
    torch.manual_seed(4)
    return small_deep(0.2).eval()


def test_the_deep_network_keeps_its_budget() -> None:
    network = DeepNet()
    assert parameters(network) == 3_950_156
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(blocks(1, 184, 320), no_prior(184, 320), torch.ones(1, 2))
    pixels = 16 * 184 * 320
    assert counter.get_total_flops() / 2 / pixels < 45_000  # multiplications and additions for each


def test_a_fresh_deep_network_is_the_fast_one() -> None:
    torch.manual_seed(5)
    network = DeepNet(width=8, blocks=1).eval()
    window, validity = torch.rand(1, 3, 32, 48), torch.ones(1, 2)
    with torch.no_grad():
        clean, fast = (net.clean_planes(window, validity) for net in (network, network.fast))
    assert torch.equal(clean, fast)


def test_the_deep_network_takes_light_and_never_adds_any(deep: DeepNet) -> None:
    window = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    clean = deep.clean_planes(window, torch.ones(2, 2))
    assert clean.shape == (2, 1, 32, 48)
    assert (clean <= window[:, 1:2]).all()
    assert (clean < window[:, 1:2]).any()
    alone = deep.clean_planes(window, torch.zeros(2, 2))
    assert not torch.equal(alone, clean), "it is told that neighbours are missing"


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 4, 4), (2, 36, 20)])
def test_the_deep_core_as_exported_computes_the_same(
    deep: DeepNet, tmp_path: Path, batch: int, height: int, width: int
) -> None:
    import onnxruntime

    halves = save_weights(deep, tmp_path)
    rounded = load_core("deep", halves)
    export_core(rounded, tmp_path / "core.onnx", halves)
    assert (tmp_path / "core.onnx").stat().st_size < 100_000, "its parameters lie in the weights"
    session = onnxruntime.InferenceSession(str(tmp_path / "core.onnx"), providers=["CPUExecutionProvider"])
    validity = torch.randint(0, 2, (batch, 2), generator=torch.Generator().manual_seed(1)).float()
    window = blocks(batch, height, width, seed=2)
    inputs = [window, rain_prior(window), validity]
    feed = dict(zip(INPUT_NAMES, (i.numpy() for i in inputs), strict=True))
    with torch.no_grad():
        expected = rounded(*inputs)
    for exported, tensor in zip(session.run(list(OUTPUT_NAMES), feed), expected, strict=True):
        np.testing.assert_allclose(exported, tensor.numpy(), rtol=1e-5, atol=2e-5)


def test_generator_has_the_papers_size() -> None:
    assert parameters(Generator()) == 11_378_179


def test_the_residual_generator_has_the_same_layers() -> None:
    own, papers = ResidualGenerator(width=8, blocks=3), Generator(width=8, blocks=3)
    assert {k: v.shape for k, v in own.state_dict().items()} == {
        k: v.shape for k, v in papers.state_dict().items()
    }
    assert parameters(ResidualGenerator()) == 11_378_179


@torch.no_grad()
def test_the_residual_generator_follows_brightness_and_contrast() -> None:
    """Its layers cannot see them: what is made of a stretched picture must be the stretched result."""
    torch.manual_seed(0)
    network = ResidualGenerator(width=8, blocks=2).double().eval()
    picture = (torch.rand(1, 3, 32, 48) - 0.5).double()
    offsets = torch.tensor([0.1, -0.2, 0.05], dtype=torch.float64).view(1, 3, 1, 1)
    made, stretched = network(picture), network(1.7 * picture + offsets)
    assert (made - picture).abs().max() > 0.01
    torch.testing.assert_close(stretched, 1.7 * made + offsets, rtol=0, atol=1e-4)
    same = torch.full((1, 3, 32, 32), 0.3, dtype=torch.float64)
    torch.testing.assert_close(network(same), same, rtol=0, atol=1e-5)


def test_the_residual_generator_has_a_gradient_where_a_picture_has_no_contrast() -> None:
    network = ResidualGenerator(width=4, blocks=1)
    flat = torch.zeros(1, 3, 16, 16, requires_grad=True)
    network(network(flat)).square().sum().backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


@torch.no_grad()
def test_the_core_of_rgb_gives_the_change_of_what_the_network_cleans() -> None:
    torch.manual_seed(0)
    for network in (Generator(width=8, blocks=2).eval(), ResidualGenerator(width=8, blocks=2).eval()):
        picture = torch.rand(1, 3, 16, 24)
        cleaned = network.clean(picture[:, None], torch.zeros(1, 2))
        torch.testing.assert_close((picture + RgbCore(network)(picture)).clamp(0.0, 1.0), cleaned)


def test_generator_shapes_and_range() -> None:
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 32, 48) * 2 - 1
    generator = Generator(width=8, blocks=5)
    translated = generator(picture)
    assert translated.shape == picture.shape
    assert translated.abs().max() <= 1.0
    shapes = [tuple(f.shape) for f in generator.features(picture)]
    assert FEATURE_LAYERS == (4, 8, 12, 16)
    assert shapes == [(1, 16, 32, 48), (1, 32, 16, 24), (1, 32, 8, 12), (1, 32, 8, 12)]


def test_features_are_the_layers_of_the_forward_pass() -> None:
    torch.manual_seed(0)
    generator = Generator(width=4, blocks=3)
    picture = torch.rand(1, 3, 16, 16)
    last = len(generator.layers) - 1
    torch.testing.assert_close(generator.features(picture, [last])[0], generator(picture))
    for wrong in ([8, 4], [], [99]):
        with pytest.raises(ValueError, match="ascend"):
            generator.features(picture, wrong)


def test_every_parameter_of_the_generator_gets_a_gradient() -> None:
    torch.manual_seed(0)
    generator = Generator(width=4, blocks=2)
    generator(torch.rand(1, 3, 16, 16)).square().mean().backward()
    assert all(p.grad is not None for p in generator.parameters())
    weights = [m.weight.grad for m in generator.modules() if isinstance(m, nn.Conv2d)]
    assert all(g is not None and g.abs().max() > 0 for g in weights)


def test_resampling_keeps_flat_pictures_flat() -> None:
    flat = torch.full((1, 3, 8, 12), 0.7)
    for layer, size in ((BlurDown(3), (4, 6)), (BlurUp(3), (16, 24))):
        resampled = layer(flat)
        assert tuple(resampled.shape[2:]) == size
        torch.testing.assert_close(resampled, torch.full_like(resampled, 0.7))


def test_shifting_by_two_pixels_shifts_the_halved_picture_by_one() -> None:
    """Anti-aliasing is there for this; strided convolution alone would not blur first."""
    torch.manual_seed(0)
    picture = torch.rand(1, 1, 32, 32)
    layer = BlurDown(1)
    shifted = layer(torch.roll(picture, (2, 2), (2, 3)))
    torch.testing.assert_close(
        shifted[:, :, 2:-1, 2:-1], torch.roll(layer(picture), (1, 1), (2, 3))[:, :, 2:-1, 2:-1]
    )
