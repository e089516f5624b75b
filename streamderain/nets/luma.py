"""What all networks of luma share: what they read, what they answer, and what is made of the answer.

Everything dense runs on *blocks*: a plane of height x width whose 4x4 neighbourhoods were unshuffled into
16 channels at a quarter of the size. Nothing is ever thrown away: the residual is predicted at full
resolution, four by four samples at a time.

The neighbours are warped onto the current frame before the network sees them (`streamderain.motion`). A drop
is in one place for one frame, so what the current frame has more than the brighter of both neighbours, the
*excess*, is rain wherever the warp fits; what it has more than the darker one, beyond that, the *rest*, is
rain where the brighter neighbour has rain too. Both are computed exactly beside the network, which says for
each pixel which share of them is rain, and corrects: otherwise the few channels at 1/4 size would have to
carry every pixel's difference. Light is only ever taken away:
`clean = current - relu(share * excess + share_of_rest * rest + correction)`. The last step belongs to the
adapter, which takes it on integer codes.

Rain only brightens, while a warp that does not fit is as often too bright as too dark. The *deficit*, by
which the current frame is darker than both neighbours, therefore tells how much of the excess around is no
rain: the log-odds of the two, the *prior*, is added to the logits of the shares. See
docs/decisions/0003-fast-network.md.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamderain.nets.network import Network

BLOCK = 4
"""Edge of a block, px: one block is 4x4 luma samples, 16 channels in pixel_unshuffle order (dy * 4 + dx)."""

BLOCK_CHANNELS = BLOCK * BLOCK
FRAMES = 3

PARTS = 4
"""Planes that the core reads: the current frame, excess, rest and deficit."""

FAINTEST = 1.0 / 255.0
"""Corrections of less light than one 8-bit code are none: int8 rounds by as much, and nobody sees them."""


PRIOR_BLOCKS = (3, 9, 33)
"""Edges of the squares over which excess and deficit are weighed against each other, in blocks: how well the
warp fits here, and whether it rains at all."""

PRIOR_FLOOR = 0.1 / 255.0
PRIOR_LIMIT = 4.0


class Answer(NamedTuple):
    """What the core tells of a frame, as blocks; see `residual_planes`.

    Attributes:
        logits: (N, 16, h, w), of the share of the excess that is rain.
        odds: (N, 1, h, w), what the prior adds to them: one number for all samples of a block.
        logits_of_rest: The same for the rest.
        odds_of_rest: The same for the rest.
        correction: (N, 16, h, w), light that is rain beside the shares, in luma code / 255, unbounded.
    """

    logits: Tensor
    odds: Tensor
    logits_of_rest: Tensor
    odds_of_rest: Tensor
    correction: Tensor


class LumaNetwork(Network):
    """A network that removes rain from the luma of the middle of three frames.

    `residual_slope` is the slope of the residual below zero. Training starts leaky, so that no pixel's
    gradient dies while the residual is still small, and anneals it to 0, which is what evaluation uses.
    """

    channels = 1
    alignment = "flow"

    def _add_tails(self, width: int, *, beside_another: bool = False) -> None:
        """Make the three last layers, which start near identity: the residual is small but not dead.

        Args:
            width: Channels of what `merge_stages` gives.
            beside_another: Their answer is added to another network's: they start at none at all.
        """
        # Three layers rather than one: runtimes cut channels in three more slowly than they convolve.
        self.share = nn.Conv2d(width, BLOCK_CHANNELS, 3, padding=1)
        self.share_of_rest = nn.Conv2d(width, BLOCK_CHANNELS, 3, padding=1)
        self.correction = nn.Conv2d(width, BLOCK_CHANNELS, 3, padding=1)
        # How much each of both shares heeds the prior of each square.
        self.trust = nn.Parameter(torch.full((2, len(PRIOR_BLOCKS)), 0.0 if beside_another else 0.5))

        for tail in (self.share, self.share_of_rest, self.correction):
            nn.init.normal_(tail.weight, std=0.0 if beside_another else 0.01)
            assert tail.bias is not None
            nn.init.zeros_(tail.bias)
        if not beside_another:
            assert self.share_of_rest.bias is not None
            # The rest is mostly texture that does not fit: trust in it has to be learned.
            nn.init.constant_(self.share_of_rest.bias, -3.0)

    def forward(self, window: Tensor, prior: Tensor, validity: Tensor) -> Answer:
        """Compute what is exported as the *core*.

        Args:
            window: Blocks beside each other, (N, 64, h, w), float in 0..1, h and w multiples of
                `multiple / BLOCK`: luma code / 255 of the current frame, excess, rest and deficit (see
                `core_window`).
            prior: (N, 3, h, w), float, see `rain_prior`.
            validity: (N, 2), float 0 or 1, for (previous, next). Where 0 the neighbour is a copy of current.

        Returns:
            See `Answer`.
        """
        return self.decode(self.encode(window, validity), prior, validity)

    @abstractmethod
    def encode(self, window: Tensor, validity: Tensor) -> list[Tensor]:
        """Run the encoder half.

        Args:
            window: As in `forward`.
            validity: As in `forward`.

        Returns:
            What its layers give, in order, from 1/4 size down; the first is (N, width, h, w).
        """

    @abstractmethod
    def merge_stages(self, stages: Sequence[Tensor], validity: Tensor) -> Tensor:
        """Run the other half up to the three last layers: from what `encode` returned to (N, width, h, w)."""

    def decode(self, stages: Sequence[Tensor], prior: Tensor, validity: Tensor) -> Answer:
        """Run the other half: from what `encode` returned to what `forward` returns."""
        answer = self.judge(stages, prior, validity)
        faint = (1.0 - self.residual_slope) * answer.correction.clamp(-FAINTEST, FAINTEST)
        return answer._replace(correction=answer.correction - faint)

    def judge(self, stages: Sequence[Tensor], prior: Tensor, validity: Tensor) -> Answer:
        """Give what `decode` does, corrections that nobody sees among it."""
        return self.answer(self.merge_stages(stages, validity), prior)

    def answer(self, merged: Tensor, prior: Tensor) -> Answer:
        """Run the three last layers, and weigh the prior.

        Args:
            merged: What `merge_stages` gave.
            prior: As in `forward`.
        """
        odds, odds_of_rest = (
            functional.conv2d(prior, weights) for weights in self.trust[:, None, :, None, None]
        )
        correction = self.correction(merged)
        return Answer(self.share(merged), odds, self.share_of_rest(merged), odds_of_rest, correction)

    def clean(self, frames: Tensor, validity: Tensor) -> Tensor:
        """See `Network.clean`."""
        return self.clean_planes(frames[:, :, 0], validity)

    def translate(
        self, picture: Tensor, layers: Sequence[int], *, adds_rain: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """See `Network.translate`; light is taken away or added, below zero with `residual_slope`.

        Feature layers count from 0, as `encode` gives them.
        """
        blocks = self._picture_blocks(picture, adds_rain=adds_rain)
        valid = picture.new_full((len(picture), FRAMES - 1), float(adds_rain))
        stages = self.encode(blocks, valid)
        answer = self.decode(stages, rain_prior(blocks), valid)
        found = [stages[layer] for layer in layers]
        # Planes are in 0..1, pictures in -1..1: twice the light.
        if adds_rain:
            light = functional.pixel_shuffle(answer.correction, BLOCK)
            return picture + 2.0 * functional.leaky_relu(light, self.residual_slope), found
        light = residual_planes(blocks, answer)
        return picture - 2.0 * functional.leaky_relu(light, self.residual_slope), found

    def features(self, picture: Tensor, layers: Sequence[int], *, adds_rain: bool = False) -> list[Tensor]:
        """See `Network.features`."""
        valid = picture.new_full((len(picture), FRAMES - 1), float(adds_rain))
        stages = self.encode(self._picture_blocks(picture, adds_rain=adds_rain), valid)
        return [stages[layer] for layer in layers]

    @staticmethod
    def _picture_blocks(picture: Tensor, *, adds_rain: bool) -> Tensor:
        """Return single pictures as the core reads them: both neighbours are missing, or differ by noise.

        One clean picture has many rainy ones. Without noise (of torch's random state) a network that adds
        rain could only make streaks of what it sees, the same every time.
        """
        plane = (picture + 1.0) / 2.0
        if not adds_rain:
            return core_window(plane.expand(-1, FRAMES, -1, -1))
        noise = torch.rand(len(plane), 2, *plane.shape[2:], device=plane.device, dtype=plane.dtype)
        window = torch.cat([plane, noise, torch.zeros_like(plane)], dim=1)
        return functional.pixel_unshuffle(window, BLOCK)

    def clean_planes(self, window: Tensor, validity: Tensor, *, bounded: bool = True) -> Tensor:
        """Clean whole luma planes, for training and evaluation.

        Args:
            window: (N, 3, H, W), float, studio-range luma code / 255 in 0..1, frames t-1, t, t+1; H and W
                multiples of `MULTIPLE`.
            validity: (N, 2), float 0 or 1, for (t-1, t+1).
            bounded: Never add light, and clip to 0..1; False uses `residual_slope` and no clip, so that every
                pixel has a gradient.

        Returns:
            (N, 1, H, W) clean luma.
        """
        blocks = core_window(window)
        residual = residual_planes(blocks, self(blocks, rain_prior(blocks), validity))
        current = window[:, 1:2]
        if bounded:
            return (current - functional.relu(residual)).clamp(0.0, 1.0)
        return current - functional.leaky_relu(residual, self.residual_slope)


def core_window(window: Tensor) -> Tensor:
    """Return what the core reads of whole planes.

    Args:
        window: (N, 3, H, W), frames t-1, t, t+1, the outer ones warped onto the middle one.

    Returns:
        (N, 64, H / 4, W / 4): the blocks of the middle frame, then those of the excess, by which it is
        brighter than both neighbours, of the rest, by which it is brighter than the darker one beyond that,
        and of the deficit, by which it is darker than both. None is negative; all are 0 for copies.
    """
    before, current, after = window.chunk(FRAMES, dim=1)
    darker = torch.minimum(before, after)
    excess = functional.relu(current - torch.maximum(before, after))
    rest = functional.relu(current - darker) - excess
    deficit = functional.relu(darker - current)
    return functional.pixel_unshuffle(torch.cat([current, excess, rest, deficit], dim=1), BLOCK)


def rain_prior(window: Tensor) -> Tensor:
    """Weigh excess against deficit around each block: the log-odds that what is in excess there is rain.

    Args:
        window: What the core reads, see `core_window`.

    Returns:
        (N, 3, h, w), one for each of `PRIOR_BLOCKS`, in -4..4; 0 where there is neither.
    """
    _, excess, _, deficit = window.chunk(PARTS, dim=1)
    means = torch.cat([excess.mean(1, keepdim=True), deficit.mean(1, keepdim=True)], dim=1)
    found = []
    for edge in PRIOR_BLOCKS:
        around = functional.avg_pool2d(means, edge, 1, edge // 2, count_include_pad=False)
        rain, misfit = (around[:, :1] - around[:, 1:]).clamp(min=0.0), around[:, 1:]
        odds = (rain + PRIOR_FLOOR).log() - (misfit + PRIOR_FLOOR).log()
        found.append(odds.clamp(-PRIOR_LIMIT, PRIOR_LIMIT))
    return torch.cat(found, dim=1)


def residual_planes(window: Tensor, answer: Answer) -> Tensor:
    """Return the light that is rain, before what is negative of it is dropped.

    Args:
        window: What the core read, see `core_window`.
        answer: What the core returned.

    Returns:
        (N, 1, H, W).
    """
    _, excess, rest, _ = window.chunk(PARTS, dim=1)
    share = (answer.logits + answer.odds).sigmoid()
    share_of_rest = (answer.logits_of_rest + answer.odds_of_rest).sigmoid()
    return functional.pixel_shuffle(share * excess + share_of_rest * rest + answer.correction, BLOCK)
