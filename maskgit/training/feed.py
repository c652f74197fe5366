"""Images for stage 1: this process's slices of every step's batch, decoded ahead by workers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from maskgit.common.errors import UsageError
from maskgit.data.source import ImageSource
from maskgit.training.loop import DataOrder


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
        self.pin = accelerator.device.type == "cuda"
        self._expected: tuple[int, int] | None = None
        self._batches: Iterator[np.ndarray] = iter(())

    def images(self, step: int, part: int) -> np.ndarray:
        """uint8 (b, H, W, C).

        Raises:
            UsageError: a file is not a readable image.
        """
        if not self.workers:
            return self.source.batch(*self._rows(step, part))
        if self._expected != (step, part):
            self._batches = decoded(
                self.source, lambda: self._upcoming(step, part), self.workers, self.pin
            )
        self._expected = (step, part + 1) if part + 1 < self.accumulate else (step + 1, 0)
        return next(self._batches)

    def _rows(self, step: int, part: int) -> tuple[np.ndarray, np.ndarray]:
        picked, epochs = self.order.located(step)
        rows = slice(part * self.world + self.rank, None, self.world * self.accumulate)
        return picked[rows], epochs[rows]

    def _upcoming(self, step: int, part: int) -> Iterator[list[tuple[int, int]]]:
        """What the workers are to decode, from slice (step, part) on."""
        for number in itertools.count(step):
            for following in range(part if number == step else 0, self.accumulate):
                picked, epochs = self._rows(number, following)
                yield list(zip(picked.tolist(), epochs.tolist(), strict=True))


def decoded(
    source: ImageSource,
    batches: Callable[[], Iterator[list[tuple[int, int]]]],
    workers: int,
    pin: bool = False,
) -> Iterator[np.ndarray]:
    """Decode batches of (image, epoch), in their order, by worker processes if there are any.

    Raises UsageError: a file is not a readable image.
    """
    loader = DataLoader(
        _Decoded(source),
        batch_sampler=_Restartable(batches),
        num_workers=workers,
        collate_fn=_as_is,
        pin_memory=pin,
        generator=torch.Generator(),  # not the global one, which training seeds itself
    )
    for batch in loader:
        if isinstance(batch, UsageError):
            raise batch
        yield batch.numpy()


class _Restartable:
    """A DataLoader asks its sampler for an iterator of lists."""

    def __init__(self, start: Callable[[], Iterator[list[tuple[int, int]]]]):
        self.start = start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self.start()


class _Decoded(Dataset):
    """Whole slices at once. An error travels as a value: raised in a worker, it would come out as
    a page of traceback."""

    def __init__(self, source: ImageSource):
        self.source = source

    def __getitem__(self, row: tuple[int, int]) -> Any:
        return self.__getitems__([row])

    def __getitems__(self, rows: list[tuple[int, int]]) -> Any:
        picked, epochs = np.array(rows, np.int64).T
        try:
            return torch.from_numpy(np.ascontiguousarray(self.source.batch(picked, epochs)))
        except UsageError as error:
            return UsageError(str(error))


def _as_is(batch: Any) -> Any:
    return batch
