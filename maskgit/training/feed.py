"""Images for stage 1: this process's slices of every step's batch, decoded ahead by workers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from maskgit.common.errors import UsageError
from maskgit.data.source import ImageSource
from maskgit.training.loop import DataOrder

Rows = list[tuple[int, int]]  # image and epoch of each


class Feed:
    """The images of slice (step, part), see maskgit.training.token_stage for the slices.

    With workers, separate processes decode the slices that follow the one asked for. What a slice
    holds does not depend on them.
    """

    def __init__(
        self,
        source: ImageSource,
        order: DataOrder,
        accelerator: Accelerator,
        accumulate: int = 1,
        workers: int = 0,
    ):
        self.source, self.order, self.accumulate, self.workers = source, order, accumulate, workers
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self._expected: tuple[int, int] | None = None
        self._batches: Iterator[np.ndarray] = iter(())

    def images(self, step: int, part: int) -> np.ndarray:
        """uint8 (b, H, W, C).

        Raises:
            UsageError: a file is not a readable image.
        """
        if self._expected != (step, part):
            self._batches = decoded(self.source, self._upcoming(step, part), self.workers)
        self._expected = (step, part + 1) if part + 1 < self.accumulate else (step + 1, 0)
        return next(self._batches)

    def _upcoming(self, step: int, part: int) -> Iterator[Rows]:
        """The rows of every slice from (step, part) on."""
        for number in itertools.count(step):
            picked, epochs = self.order.located(number)
            for following in range(part if number == step else 0, self.accumulate):
                first = following * self.world + self.rank
                rows = slice(first, None, self.world * self.accumulate)
                yield list(zip(picked[rows].tolist(), epochs[rows].tolist(), strict=True))


def decoded(source: ImageSource, batches: Iterable[Rows], workers: int) -> Iterator[np.ndarray]:
    """Decode batches, in their order, by worker processes if there are any.

    Arrays travel through pipes. Tensors would travel through /dev/shm, which containers often have
    64 MB of, and a worker that finds it full never answers.

    Raises UsageError: a file is not a readable image.
    """
    loader: DataLoader = DataLoader(
        _Decoded(source),  # type: ignore[arg-type]  # it has no length
        batch_size=None,
        sampler=batches,
        num_workers=workers,
        collate_fn=_as_is,
        generator=torch.Generator(),  # not the global one, which training seeds itself
    )
    for batch in loader:
        if isinstance(batch, UsageError):
            raise batch
        yield batch


class _Decoded:
    """Whole slices at once. An error travels as a value: raised in a worker, it would come out as
    a page of traceback."""

    def __init__(self, source: ImageSource):
        self.source = source

    def __getitem__(self, rows: Rows) -> np.ndarray | UsageError:
        picked, epochs = np.array(rows, np.int64).T
        try:
            return self.source.batch(picked, epochs)
        except UsageError as error:
            return UsageError(str(error))


def _as_is(batch: object) -> object:
    return batch
