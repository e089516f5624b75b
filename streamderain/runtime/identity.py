"""The identity engine: hand frames back unchanged, with delays and faults on request, for tests.

It keeps the window, the order and the waiting of a real engine, so that whatever is built on engines can be
tested without one.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from streamderain.errors import InferenceError
from streamderain.frame import Geometry, Planes
from streamderain.models import ModelCard
from streamderain.runtime.base import Engine, Session, SessionOptions
from streamderain.runtime.windowed import StoredFrame, SynchronousSession


class IdentityEngine(Engine):
    """Returns every frame unchanged.

    Args:
        model: Gives the window's shape; its files are not read.
        device: Ignored.
        precision: Ignored: codes pass through.
        threads: Ignored.
        delay_s: Seconds each frame takes.
        fail_at: Number of the computed frame, from 0, that fails with an InferenceError; None for none.
    """

    name = "identity"

    def __init__(
        self,
        model: ModelCard,
        *,
        device: str = "auto",
        precision: str = "auto",
        threads: int = 0,
        delay_s: float = 0.0,
        fail_at: int | None = None,
    ) -> None:
        self.model = model
        self.device = "none"
        self.precision = "exact"
        self._delay_s = delay_s
        self._fail_at = fail_at

    def session(self, geometry: Geometry, options: SessionOptions | None = None) -> Session:
        """See `Engine.session`."""
        return _IdentitySession(
            self.model,
            geometry,
            options or SessionOptions(),
            delay_s=self._delay_s,
            fail_at=self._fail_at,
        )

    def close(self) -> None:
        """See `Engine.close`."""


class _IdentitySession(SynchronousSession):
    def __init__(
        self,
        model: ModelCard,
        geometry: Geometry,
        options: SessionOptions,
        *,
        delay_s: float,
        fail_at: int | None,
    ) -> None:
        super().__init__(model, geometry, options, workers=1)
        self._delay_s = delay_s
        self._fail_at = fail_at
        self._numbers = itertools.count()

    def _stored(self, planes: Planes) -> StoredFrame:
        """Copy codes as they are, shifted or not: they leave as they came."""
        read = planes[: self.components]
        return StoredFrame(tuple(np.array(plane, dtype=self.geometry.dtype, order="C") for plane in read))

    @contextmanager
    def _inferred(self, prepared: Planes, validity: tuple[float, ...]) -> Iterator[Planes]:
        number = next(self._numbers)
        if self._delay_s:
            time.sleep(self._delay_s)
        if number == self._fail_at:
            raise InferenceError(f"the identity engine was told to fail at frame {number}")
        yield prepared

    def _copy_out(self, result: Planes) -> Planes:
        return result
