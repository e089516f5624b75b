"""Forecast a run's time and memory from two of its steps, for `train --dry-run`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from trainer.config import TrainConfig, dump_toml
from trainer.data.loader import Maker
from trainer.methods.registry import Method, new_method


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes:
        config: The resolved configuration.
        parameters: Of each network, averages left out.
        gmac_per_picture: Multiply-accumulates of the network that is deployed, on one crop, in 10^9.
        gmac_per_step: The same of a whole step, backward passes included.
        state_bytes: Weights, gradients, averages and the optimisers' moments.
        activation_bytes: What one part of a batch keeps for the backward pass.
        counts: Samples by kind, as the maker names them.
        seconds_per_step: Measured: the second step, data waiting included.
        device: Where it was measured.
    """

    config: TrainConfig
    parameters: Mapping[str, int]
    gmac_per_picture: float
    gmac_per_step: float
    state_bytes: int
    activation_bytes: int
    counts: Mapping[str, int]
    seconds_per_step: float
    device: str

    def text(self) -> str:
        """Return the resolved configuration as TOML, and the forecast as comments below it."""
        config = self.config
        hours = self.seconds_per_step * config.steps / 3600.0
        lines = [
            f"device: {self.device}, precision {config.precision}",
            *(f"parameters of {name}: {count:,}" for name, count in self.parameters.items()),
            f"GMAC: {self.gmac_per_picture:.2f} a crop (deployed network), {self.gmac_per_step:.1f} a step",
            f"memory, estimated: {_mib(self.state_bytes)} for weights, gradients, averages and moments, "
            f"{_mib(self.activation_bytes)} for what backward needs",
            *(f"samples, {kind}: {count:,}" for kind, count in self.counts.items()),
            f"steps: {config.steps:,} of {config.batch} crops: {config.steps * config.batch:,} images",
            f"speed, measured: {self.seconds_per_step:.3g} s a step, "
            f"{config.batch / self.seconds_per_step:.3g} images/s; the run: {hours:.3g} hours",
        ]
        return dump_toml(config.as_dict()) + "\n# Forecast\n" + "\n".join(f"# {line}" for line in lines)


def forecast(config: TrainConfig, maker: Maker[Any], fabric: Fabric) -> Forecast:
    """Measure two steps of a run from fresh weights; nothing is written.

    Args:
        config: The run's configuration.
        maker: Makes its batches.
        fabric: Device and precision.
    """
    torch.set_num_threads(config.threads)
    method = new_method(config, fabric)
    parts = config.accumulate * fabric.world_size
    saved = _SavedBytes()
    with FlopCounterMode(display=False) as counter, saved:
        method.step([maker.batch(0, part=0, parts=parts)])
    gmac_per_step = counter.get_total_flops() * config.accumulate / 2e9
    began = time.perf_counter()
    method.step([maker.batch(1, part=part, parts=parts) for part in range(config.accumulate)])
    if fabric.device.type == "cuda":
        torch.cuda.synchronize()
    return Forecast(
        config=config,
        parameters={
            name: sum(p.numel() for p in module.parameters())
            for name, module in method.state.modules.items()
            if "average" not in name
        },
        gmac_per_picture=_gmac_per_picture(config, method, fabric),
        gmac_per_step=gmac_per_step,
        state_bytes=_state_bytes(method),
        activation_bytes=saved.total,
        counts=maker.counts,
        seconds_per_step=time.perf_counter() - began,
        device=str(fabric.device),
    )


def _gmac_per_picture(config: TrainConfig, method: Method, fabric: Fabric) -> float:
    network = method.state.average
    crop = config.unpaired.crop_px if config.method == "translation" else config.data.crop_px
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        frames = torch.zeros(1, 3, network.channels, crop, crop, device=fabric.device)
        network.clean(frames, torch.ones(1, 2, device=fabric.device))
    return float(counter.get_total_flops()) / 2e9


def _state_bytes(method: Method) -> int:
    weights = {p for module in method.state.modules.values() for p in module.parameters()}
    tensors: list[Tensor] = [*weights, *(p.grad for p in weights if p.grad is not None)]
    for optimiser in method.state.optimisers.values():
        tensors += [v for slots in optimiser.state.values() for v in slots.values() if torch.is_tensor(v)]
    return sum(t.numel() * t.element_size() for t in tensors)


class _SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Counts the memory of the tensors that autograd keeps, each once."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        super().__init__(self._pack, lambda tensor: tensor)

    @property
    def total(self) -> int:
        """Bytes kept."""
        return sum(self._seen.values())

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._seen[storage.data_ptr()] = storage.nbytes()
        return tensor


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
