"""Batches from a data set. Every random choice is a function of (seed, epoch, index): no state to save, resume where you like."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeAlias

import numpy as np

from ..window import integer
from .dataset import Dataset
from .sample import Array, Batch, DataError, Sample, random_generator, size_text, validate

Transform: TypeAlias = Callable[[Sample, np.random.Generator], Sample]

_ORDER, _TRANSFORM = 0, 1  # what a generator is for: part of its key


class Loader:
    """Cuts a data set into batches.

    batch_size: samples in a batch; the last may hold fewer, or is left out with `drop_last`.
    shuffle: a new order every epoch. transform: (sample, rng) -> sample, such as `transforms.Compose`, applied to each sample.
    prefetch: batches that one thread prepares ahead; 0 for none. It changes no bit of the result.
    then: what is done with each batch as soon as it is made, in that thread, such as sending it to a GPU; its result is what is yielded.

    The order of an epoch depends on (seed, epoch), the transform of a sample on (seed, epoch, its index in the data set): a resumed run
    draws the same as an uninterrupted one, and a sample is augmented alike in whatever batch it is.
    ValueError for numbers out of range, TypeError for what is no integer or cannot be called, DataError where there is no batch to make.
    """

    def __init__(
        self,
        dataset: Dataset | Sequence[Sample],
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        transform: Transform | None = None,
        drop_last: bool = False,
        prefetch: int = 0,
        then: Callable[[Batch], Any] | None = None,
    ) -> None:
        for name, number in (("batch_size", batch_size), ("prefetch", prefetch), ("seed", seed)):
            integer(number, f"Loader: {name}")
        for name, function in (("transform", transform), ("then", then)):
            if function is not None and not callable(function):
                raise TypeError(f"Loader: {name} must be a function, got {function!r}")
        if batch_size < 1 or prefetch < 0 or seed < 0:
            raise ValueError(
                f"Loader: batch_size must be at least 1, prefetch and seed at least 0, got {batch_size=}, {prefetch=}, {seed=}"
            )
        if not len(dataset):
            raise DataError(f"Loader: the data set {dataset!r} is empty; there is nothing to make batches of")
        if drop_last and len(dataset) < batch_size:
            raise DataError(
                f"Loader: drop_last leaves no batch, since the data set has {len(dataset)} samples and batch_size is {batch_size}; "
                f"use a smaller batch or drop_last=False"
            )
        self.dataset, self.batch_size, self.shuffle, self.seed = dataset, batch_size, shuffle, seed
        self.transform, self.drop_last, self.prefetch, self.then = transform, drop_last, prefetch, then

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def order(self, epoch: int) -> Array:
        """(len(dataset),) int64: the indices of the samples in the order of `epoch`. ValueError for a negative one."""
        if integer(epoch, "Loader: epoch") < 0:
            raise ValueError(f"Loader: epoch must not be negative, got {epoch}")
        count = len(self.dataset)
        return random_generator(self.seed, epoch, _ORDER).permutation(count) if self.shuffle else np.arange(count)

    def sample(self, epoch: int, index: int) -> Sample:
        """Sample `index` of the data set as it is in `epoch`, transformed. IndexError if it has none, DataError if it cannot be read."""
        sample = self.dataset[index]
        if self.transform is not None:
            sample = self.transform(sample, random_generator(self.seed, epoch, _TRANSFORM, index))
        return sample

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Any]:
        """The batches of `epoch`, from batch `start` on, or what `then` makes of them.

        ValueError if either is negative; DataError, when it comes to that, for a sample that cannot be read or does not fit those beside it.
        """
        start = integer(start, "Loader: start", 0)
        order = self.order(epoch)
        pieces = [order[i * self.batch_size : (i + 1) * self.batch_size].tolist() for i in range(start, len(self))]
        if not self.prefetch:
            return (self._batch(epoch, piece) for piece in pieces)
        return self._ahead(epoch, pieces)

    def __iter__(self) -> Iterator[Any]:
        return self.batches(0)

    def _batch(self, epoch: int, indices: Sequence[int]) -> Any:
        batch = collate([self.sample(epoch, index) for index in indices])
        return batch if self.then is None else self.then(batch)

    def _ahead(self, epoch: int, pieces: Sequence[Sequence[int]]) -> Iterator[Any]:
        thread = ThreadPoolExecutor(1, "minidcnn-loader")
        try:
            todo = iter(pieces)
            waiting: deque[Future[Any]] = deque(thread.submit(self._batch, epoch, piece) for piece in islice(todo, self.prefetch))
            while waiting:
                batch = waiting.popleft().result()
                waiting.extend(thread.submit(self._batch, epoch, piece) for piece in islice(todo, 1))
                yield batch
        finally:  # also when the caller stops early
            thread.shutdown(wait=True, cancel_futures=True)

    def __repr__(self) -> str:
        settings = f"batch_size={self.batch_size}, shuffle={self.shuffle}, seed={self.seed}, transform={self.transform}"
        return f"Loader({self.dataset!r}, {settings})"


def collate(samples: Sequence[Sample]) -> Batch:
    """Stacks samples into a batch. DataError for none, and one that names two which differ in size, in channels, or in having weights."""
    if not samples:
        raise DataError("collate: got no samples; a batch needs at least one")
    first = samples[0]
    for sample in samples:
        validate(sample)
        if sample.image.shape[0] != first.image.shape[0]:
            raise DataError(
                f"{first.name} has {first.image.shape[0]} channels and {sample.name} has {sample.image.shape[0]}, so that they cannot "
                f"share a batch; open the data set with channels=... (--channels)"
            )
        if sample.size != first.size:
            raise DataError(
                f"{first.name} is {size_text(first.size)} and {sample.name} is {size_text(sample.size)}, so that they cannot share a "
                f"batch; crop them to one size (transforms.RandomCrop, --crop) or use batch_size=1"
            )
        if (sample.weight is None) != (first.weight is None):
            raise DataError(f"of {first.name} and {sample.name} only one carries a weight map, so that they cannot share a batch")
    channels, height, width = first.image.shape
    images = np.empty((len(samples), height, width, channels), np.float32).transpose(0, 3, 1, 2)  # NCHW view of NHWC memory
    masks = np.empty((len(samples), height, width), np.int64)
    weights = None if first.weight is None else np.empty((len(samples), height, width), np.float32)
    for i, sample in enumerate(samples):
        images[i], masks[i] = sample.image, sample.mask
        if weights is not None:
            weights[i] = sample.weight
    return Batch(images, masks, tuple(sample.name for sample in samples), weights)
