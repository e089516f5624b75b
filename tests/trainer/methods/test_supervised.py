"""Which samples each loss of the method "pairs" is asked of."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trainer.support import TINY
from trainer.config import parse_config
from trainer.data.paired import Batch
from trainer.methods.supervised import Supervised
from trainer.run.loop import one_device


@pytest.mark.parametrize(("of_video", "share"), [(0, 0.0), (1, 0.25), (4, 1.0)])
def test_harm_in_video_is_asked_where_a_neighbour_is_there(of_video: int, share: float) -> None:
    losses = {"harm": 1.0, "harm_in_video": 1.0}
    told = {**TINY, "phases": [{"until": 1.0, "losses": losses, "residual_slope": 0.3}]}
    config = parse_config(told, where="test")
    one = np.random.default_rng(6).uniform(0.3, 0.6, (1, 1, 32, 32)).astype(np.float32)
    window = np.repeat(np.repeat(one, 3, 1), 4, 0)
    validity = np.zeros((4, 2), np.float32)
    validity[:of_video, 0] = 1.0
    batch = Batch(window, validity, window[:, 1:2] + np.float32(0.1))
    values = Supervised(config, one_device(config)).step([batch])
    assert values["harm"] > 0
    # Validity reaches the network, so that equal pictures may get answers that differ a little.
    assert values["harm_in_video"] == pytest.approx(share * values["harm"], rel=0.2)
