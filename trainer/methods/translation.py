"""DCD-GAN's training step: both translations, both cycles, patch contrast (Chen et al., CVPR 2022, sec. 3).

R is a rainy picture, N a rain-free one of another scene. The bidirectional branch makes N_R = G_R2N(R) and
R* = G_N2R(N_R), R_N = G_N2R(N) and N* = G_R2N(R_N); the contrastive branch compares patches of both sides of
each arrow. No pass is made twice: pictures that go through the same generator go together (instance norm
looks at one picture at a time), features are taken where a picture passes anyway, and the discriminators
judge the pictures that the generators' own step made. For the paper's four pairs with cycles that is three
passes through each generator and one through each encoder, for one picture of each domain.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from streamderain.nets.families import FAMILIES
from streamderain.nets.network import Network
from trainer.checkpoint import TrainState
from trainer.config import TrainConfig, TranslationConfig
from trainer.data.unpaired import UnpairedBatch
from trainer.methods.optimise import follow, learning_rate, set_rate, update, weighted_sum
from trainer.methods.translation_sides import CriticSide, GeneratorSide, Translated
from trainer.networks.discriminator import Discriminator
from trainer.networks.initialise import initialise
from trainer.networks.projection import ProjectionHeads
from trainer.networks.translators import derainer, new_network, rainer

Codes = NDArray[np.uint8]
_PROBE_PX = 64


class Translation:
    """The method "translation".

    Args:
        config: The run's configuration.
        fabric: Device, precision and the processes that train together.
    """

    def __init__(self, config: TrainConfig, fabric: Fabric) -> None:
        torch.manual_seed(config.seed)
        self._config, self._fabric = config, fabric
        channels = channels_of(config)
        network, rain = new_network(config.network), new_network(config.network)
        heads, rain_heads = (new_heads(network, config.translation, channels) for _ in range(2))
        clean_critic, rain_critic = (new_discriminator(config.translation, channels) for _ in range(2))
        modules: dict[str, nn.Module] = {
            "network": network,
            "rain_network": rain,
            "heads": heads,
            "rain_heads": rain_heads,
            "clean_discriminator": clean_critic,
            "rain_discriminator": rain_critic,
        }
        for module in modules.values():
            if config.translation.initial_std:
                initialise(module, config.translation.initial_std)
            module.to(memory_format=torch.channels_last)
        self._networks = (network, rain)
        self._averages = averages = {
            name: copy.deepcopy(module).requires_grad_(False).eval().to(fabric.device)
            for name, module in (("average", network), ("rain_average", rain))
        }
        contrasted = config.uses("contrastive")
        self.generators = GeneratorSide(
            network, rain, heads, rain_heads, clean_critic, rain_critic, config.translation
        )
        if not contrasted:
            # What no loss reaches must not be handed to an optimiser or to other processes.
            self.generators.without_heads()
        critics = CriticSide(clean_critic, rain_critic, config.translation.adversarial)
        self._sides: dict[str, nn.Module] = {}
        self.state = TrainState({**modules, **averages}, {})
        for name, side in (("optimiser", self.generators), ("critic_optimiser", critics)):
            optimiser = torch.optim.AdamW(
                side.parameters(), lr=config.rate, betas=config.betas, weight_decay=config.weight_decay
            )
            self.state.optimisers[name] = optimiser
            self._sides[name], _ = fabric.setup(side, optimiser)
        self._critics = (clean_critic, rain_critic)

    def step(self, parts: Sequence[UnpairedBatch]) -> dict[str, float]:
        """Make a step of the generators with their heads, then one of the discriminators on what they made.

        Args:
            parts: The step's batch in the parts it is worked through in.

        Returns:
            Each term by name and direction, the terms' sums, "loss" (the generators' weighted sum),
            "discriminator_clean" and "discriminator_rainy", "rate", and the gradients' norms.
        """
        config, state = self._config, self.state
        weights = config.phase(state.step).losses
        self._begin(state.step)
        sums: dict[str, Tensor] = {}
        made = []
        for index, batch in enumerate(parts):
            pictures = self._pictures(batch)
            losses, translated = self._generator_pass(pictures, weights, state.step, index, len(parts))
            made.append((pictures, translated))
            _add(sums, losses, len(parts))
        norm = update(state.optimisers["optimiser"], config.clip_norm)
        for index, (pictures, translated) in enumerate(made):
            _add(sums, self._critic_pass(pictures, translated, index, len(parts)), len(parts))
        critic_norm = update(state.optimisers["critic_optimiser"], config.clip_norm)
        for average, network in (("average", "network"), ("rain_average", "rain_network")):
            follow(state.modules[average], state.modules[network], decay=config.ema, step=state.step)
        values = {name: float(value) for name, value in sums.items()}
        rate = state.optimisers["optimiser"].param_groups[0]["lr"]
        return values | {"rate": rate, "norm": float(norm), "critic_norm": float(critic_norm)}

    @torch.no_grad()
    def sheet(self, batch: UnpairedBatch) -> Codes:
        """Draw a picture to look at: R | N_R | R*, and below N | R_N | N*, of the averaged generators."""
        rainy, clean = (picture[:1] for picture in self._pictures(batch))
        derain, rain = derainer(self._averages["average"]), rainer(self._averages["rain_average"])
        rows = []
        for picture, first, back in ((rainy, derain, rain), (clean, rain, derain)):
            other, _ = first.translate(picture, ())
            again, _ = back.translate(other, ())
            rows.append(torch.cat([picture, other, again], dim=3))
        whole = torch.cat(rows, dim=2)[0].clamp(-1.0, 1.0).permute(1, 2, 0)
        codes: Codes = ((whole + 1.0) * 127.5).round().to(torch.uint8).cpu().numpy()
        return codes if codes.shape[2] == 3 else codes[:, :, 0]

    def _begin(self, step: int) -> None:
        config = self._config
        rate = learning_rate(config, step)
        for name, factor in (("optimiser", 1.0), ("critic_optimiser", config.translation.discriminator_rate)):
            set_rate(self.state.optimisers[name], factor * rate)
            self.state.optimisers[name].zero_grad(set_to_none=True)
        for network in self._networks:
            network.residual_slope = config.phase(step).residual_slope

    def _pictures(self, batch: UnpairedBatch) -> tuple[Tensor, Tensor]:
        device = self._fabric.device
        rainy, clean = (
            torch.from_numpy(a).to(device, memory_format=torch.channels_last, non_blocking=True)
            for a in (batch.rainy, batch.clean)
        )
        return rainy, clean

    def _generator_pass(
        self, pictures: tuple[Tensor, Tensor], weights: Mapping[str, float], step: int, part: int, parts: int
    ) -> tuple[dict[str, Tensor], Translated]:
        active = frozenset(name for name, weight in weights.items() if weight)
        # Noise and places are drawn anew for each step and process, whatever ran before: resuming is exact.
        seed = [self._config.seed, step, part, self._fabric.global_rank]
        rng = np.random.default_rng(seed)
        torch.manual_seed(int(rng.integers(2**62)))
        side = self._sides["optimiser"]
        for critic in self._critics:
            critic.requires_grad_(False)
        with self._fabric.no_backward_sync(side, enabled=part < parts - 1):  # type: ignore[arg-type]
            losses, translated = side(*pictures, active, rng)
            losses["loss"] = weighted_sum(losses, {name: weights[name] for name in active})
            self._fabric.backward(losses["loss"] / parts)
        return losses, translated

    def _critic_pass(
        self, pictures: tuple[Tensor, Tensor], translated: Translated, part: int, parts: int
    ) -> dict[str, Tensor]:
        side = self._sides["critic_optimiser"]
        for critic in self._critics:
            critic.requires_grad_(True)
        with self._fabric.no_backward_sync(side, enabled=part < parts - 1):  # type: ignore[arg-type]
            losses: dict[str, Tensor] = side(
                *pictures, translated.derained.detach(), translated.rained.detach()
            )
            self._fabric.backward(torch.stack(list(losses.values())).sum() / parts)
        return losses


def channels_of(config: TrainConfig) -> int:
    """Return channels of the pictures a configuration's networks translate: 3 (RGB), or 1 (luma)."""
    return FAMILIES[config.network.family].channels


def new_heads(network: Network, config: TranslationConfig, channels: int) -> ProjectionHeads:
    """Return projection heads that fit the feature layers of a network, in either direction."""
    with torch.no_grad():
        probe = torch.zeros(1, channels, _PROBE_PX, _PROBE_PX)
        found = derainer(network).features(probe, config.feature_layers)
    return ProjectionHeads([f.shape[1] for f in found], width=config.head_width)


def new_discriminator(config: TranslationConfig, channels: int) -> Discriminator:
    """Return a discriminator with fresh weights."""
    return Discriminator(
        channels,
        width=config.discriminator_width,
        detail_px=config.discriminator_detail_px,
        norm=config.discriminator_norm,
    )


def _add(sums: dict[str, Tensor], losses: dict[str, Tensor], parts: int) -> None:
    for name, value in losses.items():
        sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach() / parts
