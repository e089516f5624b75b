"""A wider generator begins with what a narrow one knows."""

from __future__ import annotations

import pytest
import torch

from streamderain.errors import ConfigError
from streamderain.nets.generator import Generator, ResidualGenerator
from trainer.networks import widen
from trainer.networks.widen import widened


@pytest.mark.parametrize("family", [Generator, ResidualGenerator])
@torch.no_grad()
def test_a_wider_one_computes_the_same(family: type[Generator], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    narrow = family(width=4, blocks=2).eval()
    picture = torch.rand(1, 3, 32, 48) * 2 - 1
    monkeypatch.setattr(widen, "NOISE", 0.0)
    wide = widened(narrow, 12)
    assert type(wide) is family
    assert wide.width == 12
    torch.testing.assert_close(wide(picture), narrow(picture), rtol=0, atol=1e-4)


def test_copies_learn_apart() -> None:
    torch.manual_seed(0)
    wide = widened(ResidualGenerator(width=4, blocks=1), 8)
    wide(torch.rand(1, 3, 32, 32)).square().mean().backward()
    gradients = [m.weight.grad for m in wide.modules() if isinstance(m, torch.nn.Conv2d)][:-1]
    for gradient in gradients:
        assert gradient is not None
        one, other = gradient[::2], gradient[1::2]
        assert (one - other).abs().mean() > 0.01 * gradient.abs().mean()


@pytest.mark.parametrize("width", [6, 2, 0])
def test_widths_that_are_no_multiple_are_refused(width: int) -> None:
    with pytest.raises(ConfigError, match=f"width 4 cannot be made one of width {width}"):
        widened(ResidualGenerator(width=4, blocks=1), width)
