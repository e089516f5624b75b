"""Make batches ahead of the steps, in worker processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from typing import Generic, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from streamderain.errors import StreamderainError
from streamderain.system.process import die_with_parent

B = TypeVar("B")
B_co = TypeVar("B_co", covariant=True)


class WorkerLost(StreamderainError):
    """A process that makes batches ended before its work was done."""


class Maker(Protocol[B_co]):
    """Makes batches; each is a pure function of its arguments."""

    @property
    def counts(self) -> dict[str, int]:
        """How many samples of each kind there are to draw from."""
        ...

    def batch(self, step: int, *, part: int = 0, parts: int = 1) -> B_co:
        """Return one part of a step's batch."""
        ...


def feed(
    maker: Maker[B],
    first: int,
    last: int,
    *,
    accumulate: int = 1,
    rank: int = 0,
    ranks: int = 1,
    workers: int = 1,
) -> Iterator[list[B]]:
    """Yield the batches of steps first..last-1, each as the parts that one process works through.

    Args:
        maker: Makes them.
        first: First step.
        last: One past the last step.
        accumulate: Parts per step and process.
        rank: Number of this process among those that train together.
        ranks: How many there are.
        workers: Processes that make batches ahead; 0 makes them here, when they are asked for.

    Raises:
        Exception: What the maker raised, in whichever process.
        WorkerLost: A process that makes batches was killed; noticed within a few seconds.
    """
    parts = accumulate * ranks
    mine = range(rank * accumulate, (rank + 1) * accumulate)
    wanted = [(step, part) for step in range(first, last) for part in mine]
    loader = DataLoader(
        _Parts(maker, parts),
        batch_size=None,
        sampler=wanted,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=partial(_quiet_worker, os.getpid()) if workers else None,
        # Its own generator: the loader draws from it, and torch's would not be where a resumed run left it.
        generator=torch.Generator(),
    )
    made = _started(loader)
    for step in range(first, last):
        yield [_next(made, step) for _ in mine]


def _started(loader: DataLoader[B]) -> Iterator[B]:
    # torch < 3: the loader takes over SIGCHLD for the whole process and keeps it; where other libraries have
    # children and native threads that ends in a segmentation fault. It also looks for dead workers by itself.
    before = signal.getsignal(signal.SIGCHLD)
    made = iter(loader)
    if before is not None and signal.getsignal(signal.SIGCHLD) is not before:
        signal.signal(signal.SIGCHLD, before)
    return made


def _next(made: Iterator[B], step: int) -> B:
    try:
        return next(made)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise WorkerLost(
            f"a process that makes batches was killed at step {step} ({error}), most often because "
            "memory ran out; go on with --resume, with fewer workers in the configuration"
        ) from error


class _Parts(Dataset[B], Generic[B]):
    def __init__(self, maker: Maker[B], parts: int) -> None:
        self._maker, self._parts = maker, parts

    def __getitem__(self, index: tuple[int, int]) -> B:
        step, part = index
        return self._maker.batch(step, part=part, parts=self._parts)


def _quiet_worker(parent_pid: int, _: int) -> None:
    die_with_parent(parent_pid)
    # Ctrl-C reaches every process of the terminal; the run ends its workers itself, after its last step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
