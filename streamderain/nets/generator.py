"""The generator of DCD-GAN (Chen et al., CVPR 2022): a ResNet with nine blocks and anti-aliased resampling.

The layout is the one of the authors' code, so that features are reached by the layer numbers of the paper:
one flat sequence whose layers 4, 8, 12 and 16 feed the contrastive loss. 11 378 179 parameters, 977.3 kMAC
per pixel.

Instance norm takes its statistics over the whole frame, so the network cannot be tiled. It is also blind to
the brightness of each colour and to the contrast of a picture: whatever they are, the same features leave the
first norm. `ResidualGenerator` gives them back: what leaves its last layer is a change of the picture, in
units of the picture's own contrast. See docs/decisions/0012-residual-generator.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamderain.nets.network import Network

FEATURE_LAYERS = (4, 8, 12, 16)
"""Layers whose outputs the contrastive loss compares: two strided stages, the first and the fifth block."""

REACH = 4.0
"""The largest change that `ResidualGenerator` makes, in units of the picture's contrast."""

MULTIPLE = 4
"""Width and height must be multiples of this, px: two halvings."""


class Generator(Network):
    """Translates pictures from one domain (rainy, clean) to the other.

    Args:
        width: Channels of the first layer; the middle has four times as many.
        blocks: Residual blocks.
    """

    family = "generator"
    channels = 3
    multiple = MULTIPLE
    least_px = 16

    def __init__(self, *, width: int = 64, blocks: int = 9) -> None:
        super().__init__()
        self.width, self.blocks = width, blocks
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), *_norm_relu(width)]
        for channels in (width, 2 * width):
            layers += [nn.Conv2d(channels, 2 * channels, 3, padding=1), *_norm_relu(2 * channels)]
            layers.append(BlurDown(2 * channels))
        layers += [ResidualBlock(4 * width) for _ in range(blocks)]
        for channels in (4 * width, 2 * width):
            layers += [BlurUp(channels), nn.Conv2d(channels, channels // 2, 3, padding=1)]
            layers += _norm_relu(channels // 2)
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        self.layers = nn.ModuleList(layers)

    def forward(self, picture: Tensor) -> Tensor:
        """Translate pictures.

        Args:
            picture: (N, 3, H, W), float RGB in -1..1; H and W multiples of `MULTIPLE`, at least 16.

        Returns:
            (N, 3, H, W) in -1..1.
        """
        return self.translate(picture, ())[0]

    def clean(self, frames: Tensor, validity: Tensor) -> Tensor:
        """See `Network.clean`; the neighbours are not looked at."""
        picture: Tensor = self(2.0 * frames[:, frames.shape[1] // 2] - 1.0)
        return ((picture + 1.0) / 2.0).clamp(0.0, 1.0)

    def features(
        self, picture: Tensor, layers: Sequence[int] = FEATURE_LAYERS, *, adds_rain: bool = False
    ) -> list[Tensor]:
        """Give the outputs of some layers, in order; nothing above the last of them is computed.

        Args:
            picture: As in `forward`.
            layers: Layer numbers, ascending.
            adds_rain: Either direction computes the same way.

        Returns:
            One (N, C, h, w) per layer: for the defaults (128, H, W), (256, H/2, W/2) and twice (256, H/4,
            W/4).

        Raises:
            ValueError: The numbers do not ascend, or a layer does not exist.
        """
        _check_layers(layers, len(self.layers))
        return _run(self.layers[: layers[-1] + 1], picture, layers)[1]

    def translate(
        self, picture: Tensor, layers: Sequence[int] = FEATURE_LAYERS, *, adds_rain: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Compute `forward` and `features` in one pass.

        Args:
            picture: As in `forward`.
            layers: Layer numbers, ascending; may be none.
            adds_rain: Either direction computes the same way.

        Returns:
            What `forward` returns, and what `features` returns.

        Raises:
            ValueError: As in `features`.
        """
        if layers:
            _check_layers(layers, len(self.layers))
        answer, found = _run(self.layers, picture, layers)
        return self.picture_of(picture, answer), found

    def picture_of(self, picture: Tensor, answer: Tensor) -> Tensor:
        """Return the translated picture, which the last layer's answer is.

        Args:
            picture: What was translated, (N, 3, H, W) in -1..1.
            answer: What left the last layer, same shape, in -1..1.
        """
        return answer


class ResidualGenerator(Generator):
    """The same layers, whose answer is a change of the picture in units of its contrast.

    Adding light to a colour of the whole picture, or stretching its contrast, does the same to what is made
    of it; an answer of 0 leaves the picture as it is.
    """

    family = "residual-generator"

    def __init__(self, *, width: int = 64, blocks: int = 9) -> None:
        super().__init__(width=width, blocks=blocks)
        last = self.layers[-2]
        assert isinstance(last, nn.Conv2d)
        with torch.no_grad():
            # Near 'no change', where training begins.
            last.weight.mul_(0.1)

    def picture_of(self, picture: Tensor, answer: Tensor) -> Tensor:
        """See `Generator.picture_of`; the result is not clipped."""
        return picture + REACH * contrast(picture) * answer


class RgbCore(nn.Module):
    """A generator as adapters read it: R, G, B in 0..1 in, and what must be added to them out, unclipped."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, picture: Tensor) -> Tensor:
        """Return the change of pictures, both (N, 3, H, W)."""
        rainy = 2.0 * picture - 1.0
        translated, _ = self.network.translate(rainy, ())
        return (translated - rainy) / 2.0


def contrast(picture: Tensor) -> Tensor:
    """Return the root mean square, over pixels and colours, of the difference from each colour's mean.

    Args:
        picture: (N, C, H, W).

    Returns:
        (N, 1, 1, 1), in the picture's unit.
    """
    off = picture - picture.mean(dim=(2, 3), keepdim=True)
    # Bounded below: the root has no slope at 0, where cycles ask for one.
    return off.square().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12).sqrt()


def _check_layers(layers: Sequence[int], count: int) -> None:
    if list(layers) != sorted(set(layers)) or not layers or not 0 <= layers[0] <= layers[-1] < count:
        raise ValueError(f"feature layers {tuple(layers)} must ascend within 0..{count - 1}")


def _run(modules: Iterable[nn.Module], x: Tensor, wanted: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    found = []
    for index, module in enumerate(modules):
        x = module(x)
        if index in wanted:
            found.append(x)
    return x, found


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), 3x3, reflect padding. (N, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            *_norm_relu(channels),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        residual: Tensor = self.body(x)
        return x + residual


class BlurDown(nn.Module):
    """Halve the size after a [1 2 1] blur (Zhang, ICML 2019): (N, C, H, W) to (N, C, H/2, W/2)."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("kernel", _binomial((1.0, 2.0, 1.0), channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Blur and halve."""
        padded = functional.pad(x, (1, 1, 1, 1), mode="reflect")
        return functional.conv2d(padded, self.kernel, stride=2, groups=x.shape[1])


class BlurUp(nn.Module):
    """Double the size with a [1 3 3 1] kernel: (N, C, H, W) to (N, C, 2H, 2W), no parameters."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("kernel", 4.0 * _binomial((1.0, 3.0, 3.0, 1.0), channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Double and blur."""
        padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
        raised = functional.conv_transpose2d(padded, self.kernel, stride=2, padding=2, groups=x.shape[1])
        return raised[:, :, 1:-1, 1:-1]


def _norm_relu(channels: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(channels), nn.ReLU()]


def _binomial(taps: tuple[float, ...], channels: int) -> Tensor:
    line = torch.tensor(taps) / sum(taps)
    return torch.outer(line, line)[None, None].repeat(channels, 1, 1, 1)
