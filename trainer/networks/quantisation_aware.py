"""Int8 while training: the fast network computes as its deployed int8 graph will, and learns to live with it.

The same places, steps and exceptions as `trainer.export.quantise`: what a ReLU gives is unsigned 8-bit (one
step for the whole tensor), weights are signed 8-bit (one step per output channel; half the range where NNCF's
overflow fix finds a first layer, which are the head and the convolution behind the float sum); the transposed
convolution's output, the validity's bias and the residual stay float. Gradients pass rounding as if it were
not there (straight through: Jacob et al., CVPR 2018, section 3). Weights are kept in float; the export rounds
them with the ranges found here. NNCF trains so too, but compiles a C++ extension where it runs:
docs/decisions/0006-int8-training.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from streamderain.nets.network import Network
from trainer.networks.int8_rules import INPUT_SCALE, OUTLIERS, SUM_RANGE

_FIRST, _SUM = "head", "merge"
"""The convolutions whose input is no other convolution's ReLU: the window, and the float sum."""

_FLOAT_OUTPUTS = ("up", "share", "share_of_rest", "correction")
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
_SMALLEST_RANGE = 1e-6
_UNTIE = 1.0 - 1e-6
"""With 63.5 steps a channel's largest weight lies on a tie; the exported graph rounds it up."""


class Int8Planes(nn.Module):
    """`Network.clean_planes` for training, in float or as int8 computes it.

    Args:
        network: Shared with the run's state.
        ranges: Largest value that each quantised activation has shown, a scalar by the activation's name;
            changed in place. It belongs in the checkpoint: a resumed run must round as the whole one does.
    """

    def __init__(self, network: Network, ranges: dict[str, Tensor]) -> None:
        super().__init__()
        self.network, self._ranges = network, ranges
        self._simulated = False
        for name, layer in network.named_modules():
            if not isinstance(layer, _CONVOLUTIONS):
                continue
            if name in (_FIRST, _SUM):
                layer.register_forward_pre_hook(self._before(name))
            if name not in _FLOAT_OUTPUTS:
                layer.register_forward_hook(self._after(name))

    def forward(self, window: Tensor, validity: Tensor) -> Tensor:
        """Clean luma in float, (N, 1, H, W), unbounded; see `Network.clean_planes`."""
        return self.network.clean_planes(window, validity, bounded=False)

    def simulate(self, window: Tensor, validity: Tensor) -> Tensor:
        """Compute the same with int8's rounding; widen the ranges by what it meets."""
        weights = {
            f"network.{name}.weight": quantised_weight(layer, halved=name in (_FIRST, _SUM))
            for name, layer in self.network.named_modules()
            if isinstance(layer, _CONVOLUTIONS)
        }
        self._simulated = True
        try:
            clean: Tensor = functional_call(self, weights, (window, validity))
        finally:
            self._simulated = False
        return clean

    def _before(self, name: str) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor] | None]:
        def hook(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
            if not self._simulated:
                return None
            if name == _FIRST:
                return (_unsigned(inputs[0], torch.tensor(INPUT_SCALE, device=inputs[0].device)),)
            return (self._quantised(SUM_RANGE, inputs[0]),)

        return hook

    def _after(self, name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor | None]:
        def hook(_: nn.Module, __: tuple[Tensor], output: Tensor) -> Tensor | None:
            # Below zero nothing is left: the ReLU that follows finds its work done.
            return self._quantised(name, output) if self._simulated else None

        return hook

    def _quantised(self, name: str, activation: Tensor) -> Tensor:
        with torch.no_grad():
            # The largest over all samples of what all but a few of a sample's values stay below.
            flat = activation.flatten(1)
            rank = max(1, round(flat.shape[1] * (1.0 - OUTLIERS)))
            most = flat.kthvalue(rank, dim=1).values.max().clamp(min=_SMALLEST_RANGE)
            self._ranges[name] = torch.maximum(most, self._ranges.get(name, most).to(most.device))
        return _unsigned(activation, self._ranges[name] / 255.0)


def quantised_weight(layer: nn.Module, *, halved: bool) -> Tensor:
    """Return a convolution's weight rounded to signed 8 bits per output channel.

    Args:
        layer: Conv2d or ConvTranspose2d.
        halved: Only half the range.
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    steps = 63.5 if halved else 127.0
    most = math.ceil(steps)
    others = [d for d in range(weight.dim()) if d != axis]
    scale = (weight.detach().abs().amax(dim=others) / steps * _UNTIE).clamp(min=_SMALLEST_RANGE)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, axis, -most, most)


def _unsigned(activation: Tensor, scale: Tensor) -> Tensor:
    zero = torch.zeros((), dtype=torch.int32, device=scale.device)
    return torch.fake_quantize_per_tensor_affine(activation, scale, zero, 0, 255)
