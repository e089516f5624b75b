"""The passes of DCD-GAN and the terms they give, for the generators and for the discriminators.

Each side is one module that computes all its losses in one `forward`: what a strategy for several devices
wraps, so that gradients are exchanged once.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from streamderain.nets.network import Network
from trainer.config import TranslationConfig
from trainer.losses import SIDES, adversarial
from trainer.losses.colour import colour
from trainer.losses.contrastive import patch_nce
from trainer.losses.cycle import cycle
from trainer.losses.frequency import frequency
from trainer.losses.identity import identity
from trainer.losses.restoration import restoration
from trainer.networks.projection import ProjectionHeads, draw_places
from trainer.networks.translators import Translator, derainer, rainer

_CYCLE_TERMS = {"cycle": cycle, "colour": colour, "frequency": frequency}


class Translated(NamedTuple):
    """What the generators made of a batch, for the discriminators.

    Attributes:
        derained: N_R, (N, channels, H, W).
        rained: R_N, same shape.
    """

    derained: Tensor
    rained: Tensor


class GeneratorSide(nn.Module):
    """Both generators, their heads and every term that trains them.

    Args:
        network: G_R2N.
        rain: G_N2R.
        heads: For features of G_R2N.
        rain_heads: For features of G_N2R.
        clean_critic: D_N; not trained here.
        rain_critic: D_R; not trained here.
        config: The configuration's [translation] table.
    """

    def __init__(
        self,
        network: Network,
        rain: Network,
        heads: ProjectionHeads,
        rain_heads: ProjectionHeads,
        clean_critic: nn.Module,
        rain_critic: nn.Module,
        config: TranslationConfig,
    ) -> None:
        super().__init__()
        self.network, self.rain = network, rain
        self.heads: ProjectionHeads | None = heads
        self.rain_heads: ProjectionHeads | None = rain_heads
        self._critics = (clean_critic, rain_critic)  # a tuple keeps them out of parameters()
        self._config = config

    def without_heads(self) -> None:
        """Give up the heads, for objectives without contrast."""
        self.heads = self.rain_heads = None

    def forward(
        self, rainy: Tensor, clean: Tensor, active: Set[str], rng: np.random.Generator
    ) -> tuple[dict[str, Tensor], Translated]:
        """Translate a batch and compute the terms that are active.

        Args:
            rainy: R, (N, channels, H, W) in -1..1.
            clean: N, same shape.
            active: Names out of `trainer.losses.TERMS` and `SIDED_TERMS`.
            rng: Draws the places that are contrasted.

        Returns:
            Each active term by its name (both sides added up) and by its name and side; what the generators
            made.
        """
        derain, rain = derainer(self.network), rainer(self.rain)
        layers = self._config.feature_layers if "contrastive" in active else ()
        # (R, N) through G_R2N and (N, R) through G_N2R: the second half gives the identity term.
        same = {side: _wants(active, "identity", side) for side in SIDES}
        derained, same_clean, rainy_features = _pass(derain, rainy, clean if same["clean"] else None, layers)
        rained, same_rainy, clean_features = _pass(rain, clean, rainy if same["rainy"] else None, layers)
        rainy_again, derained_features = _back(rain, derained, self._wants_cycle(active, "rainy"), layers)
        clean_again, rained_features = _back(derain, rained, self._wants_cycle(active, "clean"), layers)

        terms: dict[str, Tensor] = {}
        for side, critic, made in zip(SIDES, self._critics, (derained, rained), strict=True):
            if _wants(active, "adversarial", side):
                terms[f"adversarial_{side}"] = adversarial.generator_loss(
                    critic(made), self._config.adversarial
                )
        for side, kept, picture in zip(SIDES, (same_clean, same_rainy), (clean, rainy), strict=True):
            if kept is not None:
                terms[f"identity_{side}"] = identity(kept, picture)
        for side, again, picture in zip(SIDES, (clean_again, rainy_again), (clean, rainy), strict=True):
            for name, term in _CYCLE_TERMS.items():
                if again is not None and _wants(active, name, side):
                    terms[f"{name}_{side}"] = term(again, picture)
        if "restoration" in active:
            restored, _ = derain.translate(rained.detach(), ())
            terms["restoration_clean"] = restoration(restored, clean)
        if layers:
            contrasted = [(rainy_features, derained_features), (clean_features, rained_features)]
            if self._config.contrasts == 4:
                assert rainy_again is not None
                assert clean_again is not None
                contrasted.append((derained_features, derain.features(rainy_again, layers)))
                contrasted.append((rained_features, rain.features(clean_again, layers)))
            terms |= self._contrast(contrasted, rng)
        sums = {
            name: torch.stack([value for key, value in terms.items() if key.startswith(f"{name}_")]).sum()
            for name in active - terms.keys()
        }
        return {**sums, **terms}, Translated(derained, rained)

    def _wants_cycle(self, active: Set[str], side: str) -> bool:
        four = "contrastive" in active and self._config.contrasts == 4
        return four or any(_wants(active, name, side) for name in _CYCLE_TERMS)

    def _contrast(
        self, pairs: Sequence[tuple[list[Tensor], list[Tensor]]], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Return the InfoNCE of each (keys, queries) pair of feature lists, the mean over layers.

        Keys come from one generator, queries from the other: the keys of (R, N_R) and (R_N, N*) from G_R2N,
        those of (N, R_N) and (N_R, R*) from G_N2R.
        """
        heads = (self.heads, self.rain_heads)
        features = pairs[0][0]
        sizes = [(f.shape[2], f.shape[3]) for f in features]
        drawn = draw_places(sizes, patches=self._config.patches, rng=rng)
        places = [torch.from_numpy(p).to(features[0].device) for p in drawn]
        queried: dict[int, list[Tensor]] = {}
        terms = {}
        for number, (keys, queries) in enumerate(pairs):
            swapped = number in (1, 2)
            key_heads, query_heads = heads[swapped], heads[not swapped]
            assert key_heads is not None
            assert query_heads is not None
            projected = queried[id(queries)] = query_heads(queries, places)
            if id(keys) in queried:  # a query of one pair is the key of another
                against = queried[id(keys)]
            else:
                with torch.no_grad():
                    against = key_heads(keys, places)
            losses = [
                patch_nce(query, key, temperature=self._config.temperature)
                for query, key in zip(projected, against, strict=True)
            ]
            terms[f"contrastive_{number + 1}"] = torch.stack(losses).mean()
        return terms


class CriticSide(nn.Module):
    """Both discriminators and their loss.

    Args:
        clean: D_N.
        rainy: D_R.
        kind: See `trainer.losses.adversarial`.
    """

    def __init__(self, clean: nn.Module, rainy: nn.Module, kind: str) -> None:
        super().__init__()
        self.clean, self.rainy, self._kind = clean, rainy, kind

    def forward(self, rainy: Tensor, clean: Tensor, derained: Tensor, rained: Tensor) -> dict[str, Tensor]:
        """Return the losses of D_N and D_R.

        Args:
            rainy: R, (N, channels, H, W) in -1..1.
            clean: N.
            derained: N_R, detached.
            rained: R_N, detached.
        """
        losses = {}
        for name, critic, real, fake in (
            ("discriminator_clean", self.clean, clean, derained),
            ("discriminator_rainy", self.rainy, rainy, rained),
        ):
            of_real, of_fake = critic(torch.cat([real, fake])).chunk(2)
            losses[name] = adversarial.discriminator_loss(of_real, of_fake, self._kind)
        return losses


def _wants(active: Set[str], term: str, side: str) -> bool:
    return term in active or f"{term}_{side}" in active


def _back(
    translator: Translator, made: Tensor, whole: bool, layers: Sequence[int]
) -> tuple[Tensor | None, list[Tensor]]:
    """Translate what was made back, where that is asked for, else only look at its features."""
    if whole:
        return translator.translate(made, layers)
    return None, translator.features(made, layers) if layers else []


def _pass(
    translator: Translator, picture: Tensor, same: Tensor | None, layers: Sequence[int]
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """Translate pictures together with some that are in the target domain already.

    Returns:
        The translated pictures, what became of the others, and the features of the former.
    """
    if same is None:
        translated, features = translator.translate(picture, layers)
        return translated, None, features
    translated, features = translator.translate(torch.cat([picture, same]), layers)
    count = len(picture)
    return translated[:count], translated[count:], [f[:count] for f in features]
