"""The discriminator of DCD-GAN: an anti-aliased PatchGAN that scores overlapping patches, not pictures."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from streamderain.nets.generator import BlurDown

MINIMUM_PX = 24
"""Smallest width and height: below, the last convolution has nothing to score."""

_DETAIL_GAIN = 4.0


class Discriminator(nn.Module):
    """Scores how much each patch looks like its domain (70x70 PatchGAN, Isola et al. 2017, section 3.2.2).

    Strided convolutions are replaced by ones of stride 1 and a blur that halves (Zhang 2019), as in the
    authors' code. Biases before an instance norm have no effect; they stand, and are counted, for parity with
    the published size of 2.77 million parameters.

    Args:
        channels: Channels of the pictures: 3 for RGB, 1 for luma.
        width: Channels of the first layer.
        detail_px: Odd; where above 0, what is scored is the picture less its mean over this many px each way.
            The paper's sees whole pictures (0).
        norm: "instance" as in the paper, or "spectral": each convolution's largest gain is 1 (Miyato et al.,
            "Spectral normalization for GANs", ICLR 2018), so that no faint pattern changes a score by much.
    """

    def __init__(
        self, channels: int = 3, *, width: int = 64, detail_px: int = 0, norm: str = "instance"
    ) -> None:
        super().__init__()
        self._detail_px = detail_px
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 4, padding=1),
            nn.LeakyReLU(0.2),
            BlurDown(width),
            *_block(width, 2 * width, norm),
            BlurDown(2 * width),
            *_block(2 * width, 4 * width, norm),
            BlurDown(4 * width),
            *_block(4 * width, 8 * width, norm),
            nn.Conv2d(8 * width, 1, 4, padding=1),
        )
        if norm == "spectral":
            for layer in self.layers:
                if isinstance(layer, nn.Conv2d):
                    spectral_norm(layer)

    def forward(self, picture: Tensor) -> Tensor:
        """Score patches.

        Args:
            picture: (N, channels, H, W), float in -1..1, at least `MINIMUM_PX` each way.

        Returns:
            (N, 1, h, w), unbounded; h and w are about H / 8 - 2 and W / 8 - 2.

        Raises:
            ValueError: The picture is too small.
        """
        if min(picture.shape[2:]) < MINIMUM_PX:
            raise ValueError(
                f"the discriminator needs pictures of at least {MINIMUM_PX} px each way, not "
                f"{picture.shape[3]}x{picture.shape[2]}"
            )
        scores: Tensor = self.layers(detail(picture, self._detail_px) if self._detail_px else picture)
        return scores


def detail(picture: Tensor, size_px: int) -> Tensor:
    """Return a picture less its local mean, where rain streaks stand out of what they fall on.

    The detail layer of Fu et al., "Removing rain from single images via a deep detail network", CVPR 2017,
    section 2.2, with a box filter.

    Args:
        picture: (N, channels, H, W) in -1..1.
        size_px: Edge of the mean's window, odd.

    Returns:
        Same shape, enlarged to about the range of pictures.
    """
    mean = functional.avg_pool2d(picture, size_px, stride=1, padding=size_px // 2, count_include_pad=False)
    return _DETAIL_GAIN * (picture - mean)


def _block(inputs: int, outputs: int, norm: str) -> list[nn.Module]:
    middle = [nn.InstanceNorm2d(outputs)] if norm == "instance" else []
    return [nn.Conv2d(inputs, outputs, 4, padding=1), *middle, nn.LeakyReLU(0.2)]
