"""Supervised training on pairs whose clean side is known."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from streamderain.nets.network import Network
from trainer.checkpoint import TrainState
from trainer.config import PhaseConfig, TrainConfig
from trainer.data.paired import Batch
from trainer.data.picture_pairs import PictureBatch
from trainer.losses import LOSSES
from trainer.methods.optimise import follow, learning_rate, set_rate, update, weighted_sum
from trainer.networks.quantisation_aware import Int8Planes
from trainer.networks.translators import new_network

Codes = NDArray[np.uint8]
Teacher = Callable[[Tensor, Tensor], Tensor]
"""(N, 3, H, W) luma window and (N, 2) validity to (N, 1, H, W) clean luma, in 0..1."""


class Supervised:
    """The method "pairs".

    Args:
        config: The run's configuration.
        fabric: Device, precision and the processes that train together.
        teacher: For the loss "distillation".
    """

    def __init__(self, config: TrainConfig, fabric: Fabric, *, teacher: Teacher | None = None) -> None:
        torch.manual_seed(config.seed)
        self._config, self._fabric, self._teacher = config, fabric, teacher
        self._network = new_network(config.network).to(memory_format=torch.channels_last)
        average = copy.deepcopy(self._network).requires_grad_(False).eval()
        optimiser = torch.optim.AdamW(
            self._network.parameters(), lr=config.rate, betas=config.betas, weight_decay=config.weight_decay
        )
        average.to(fabric.device)
        self.state = TrainState({"network": self._network, "average": average}, {"optimiser": optimiser})
        side: nn.Module
        if self._network.channels == 1:
            side = _Side(Int8Planes(self._network, self.state.extra))
        else:
            side = _PictureSide(self._network)
        self._side, self._optimiser = fabric.setup(side, optimiser)

    def step(self, parts: Sequence[Batch | PictureBatch]) -> dict[str, float]:
        """Make one optimiser step: forward, losses, backward, update, average.

        Args:
            parts: The step's batch in the parts it is worked through in.

        Returns:
            Each loss by name, "loss" (their weighted sum), "rate", and "norm" (of the gradient, before
            clipping). Weights are left alone where the gradient is not finite.
        """
        config, state = self._config, self.state
        phase = config.phase(state.step)
        rate = learning_rate(config, state.step)
        set_rate(self._optimiser, rate)
        self._network.residual_slope = phase.residual_slope

        self._optimiser.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for index, batch in enumerate(parts):
            with self._fabric.no_backward_sync(self._side, enabled=index < len(parts) - 1):
                losses = self._losses(batch, phase)
                losses["loss"] = weighted_sum(losses, phase.losses)
                self._fabric.backward(losses["loss"] / len(parts))
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.detach() / len(parts)
        norm = update(self._optimiser, config.clip_norm)
        follow(state.modules["average"], self._network, decay=config.ema, step=state.step)
        return {name: float(value) for name, value in sums.items()} | {"rate": rate, "norm": float(norm)}

    @torch.no_grad()
    def sheet(self, batch: Batch | PictureBatch) -> Codes:
        """Draw a picture to look at: the first samples' rainy | output | clean, of the averaged network."""
        average, count = self.state.average, min(4, len(batch.target))
        if isinstance(batch, PictureBatch):
            rainy, target = (self._sent(a[:count]) for a in (batch.rainy, batch.target))
            output = average.clean(rainy[:, None], rainy.new_zeros(count, 2))
        else:
            arrays = (batch.window, batch.validity, batch.target)
            window, validity, target = (self._sent(a[:count]) for a in arrays)
            rainy, output = window[:, 1:2], average.clean_planes(window, validity)
        strips = torch.cat([rainy, output, target], dim=3).permute(0, 2, 3, 1).flatten(0, 1)
        codes: Codes = (strips * 255.0).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        return codes if codes.shape[2] == 3 else codes[:, :, 0]

    def _sent(self, array: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(array).to(self._fabric.device, non_blocking=True)

    def _losses(self, batch: Batch | PictureBatch, phase: PhaseConfig) -> dict[str, Tensor]:
        losses: dict[str, Tensor]
        if isinstance(batch, PictureBatch):
            losses = self._side(self._sent(batch.rainy), self._sent(batch.target), phase)
            return losses
        window, validity, target = map(self._sent, (batch.window, batch.validity, batch.target))
        trusted = None if batch.trusted is None else self._sent(batch.trusted)
        teachers = None
        if phase.losses.get("distillation"):
            assert self._teacher is not None
            teachers = self._teacher(window, validity)
        losses = self._side(window, validity, target, teachers, trusted, phase)
        return losses


class _Side(nn.Module):
    """The network with its losses: what a strategy for several devices wraps as one."""

    def __init__(self, planes: Int8Planes) -> None:
        super().__init__()
        self.planes = planes

    def forward(
        self,
        window: Tensor,
        validity: Tensor,
        target: Tensor,
        teachers: Tensor | None,
        trusted: Tensor | None,
        phase: PhaseConfig,
    ) -> dict[str, Tensor]:
        output = (self.planes.simulate if phase.int8 else self.planes)(window, validity)
        # Where nothing is known the output is right by definition, and has no gradient.
        judged = output if trusted is None else target + trusted * (output - target)
        of_video = target + validity.amax(1)[:, None, None, None] * (judged - target)
        asked = {"harm_in_video": (of_video, target)}
        if teachers is not None:
            asked["distillation"] = (output, teachers)
        return {name: LOSSES[name](*asked.get(name, (judged, target))) for name in phase.losses}


class _PictureSide(nn.Module):
    """The same for a network of RGB, which sees one picture at a time."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, rainy: Tensor, target: Tensor, phase: PhaseConfig) -> dict[str, Tensor]:
        translated, _ = self.network.translate(2.0 * rainy - 1.0, ())
        output = (translated + 1.0) / 2.0
        return {name: LOSSES[name](output, target) for name in phase.losses}
