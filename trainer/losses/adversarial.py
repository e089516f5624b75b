"""Adversarial losses of discriminator and generator."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from streamderain.errors import ConfigError

KINDS = ("hinge", "lsgan")
"""The hinge loss (Lim and Ye 2017) of the authors' code, and least squares (Mao et al. 2017)."""


def discriminator_loss(real: Tensor, fake: Tensor, kind: str) -> Tensor:
    """Return what a discriminator minimises (DCD-GAN section 3.3, adversarial loss).

    hinge: (mean max(0, 1 - real) + mean max(0, 1 + fake)) / 2.
    lsgan: (mean (real - 1)^2 + mean fake^2) / 2.

    Args:
        real: Scores of pictures of the domain, any shape and float dtype.
        fake: Scores of translated pictures.
        kind: One of `KINDS`.

    Returns:
        Scalar, float32.

    Raises:
        ConfigError: Unknown kind.
    """
    real, fake = real.float(), fake.float()
    if kind == "hinge":
        return (functional.relu(1.0 - real).mean() + functional.relu(1.0 + fake).mean()) / 2.0
    _require_known(kind)
    return ((real - 1.0).square().mean() + fake.square().mean()) / 2.0


def generator_loss(fake: Tensor, kind: str) -> Tensor:
    """Return what a generator minimises (DCD-GAN section 3.3, adversarial loss).

    hinge: mean max(0, 1 - fake), as in the authors' code. Usual is -mean fake, which goes on pulling where
    the discriminator is convinced already; this one stops at 1.
    lsgan: mean (fake - 1)^2.

    Args:
        fake: Scores of translated pictures, any shape and float dtype.
        kind: One of `KINDS`.

    Returns:
        Scalar, float32.

    Raises:
        ConfigError: Unknown kind.
    """
    fake = fake.float()
    if kind == "hinge":
        return functional.relu(1.0 - fake).mean()
    _require_known(kind)
    return (fake - 1.0).square().mean()


def _require_known(kind: str) -> None:
    if kind not in KINDS:
        raise ConfigError(f"unknown adversarial loss {kind!r}; choose one of {', '.join(KINDS)}")
