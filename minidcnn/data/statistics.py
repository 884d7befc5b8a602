"""Numbers of a whole data set: how frequent its classes are, what they weigh in the loss, mean and deviation of its channels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .dataset import Dataset
from .sample import Array, DataError, Sample


@dataclass(eq=False)
class LabelCounts:
    """Pixels per class, gathered image by image.

    pixels: (K,) int64, pixels of each class. seen: (K,) int64, all pixels of the images in which the class occurs.
    images: (K,) int64, the number of those images. ignored: pixels without a label; ignored_seen: all pixels of images with such.
    total: all pixels.
    """

    pixels: Array
    seen: Array
    images: Array
    ignored: int = 0
    ignored_seen: int = 0
    total: int = 0

    @classmethod
    def empty(cls, classes: int) -> LabelCounts:
        """Counts of nothing."""
        return cls(np.zeros(classes, np.int64), np.zeros(classes, np.int64), np.zeros(classes, np.int64))

    def add(self, sample: Sample) -> frozenset[int]:
        """Counts one more mask, and returns the classes that it holds. DataError if it holds an index that is neither a class nor the ignore index."""
        labels = sample.mask[sample.mask != sample.ignore_index]
        classes = len(self.pixels)
        if labels.size and (labels.min() < 0 or labels.max() >= classes):
            wrong = int(labels[(labels < 0) | (labels >= classes)][0])
            raise DataError(
                f"{sample.name}: the mask holds class {wrong}, but there are {classes} classes, 0 to {classes - 1}, "
                f"and the ignore index {sample.ignore_index}; is background missing from the classes, or are the masks not indices?"
            )
        counts = np.bincount(labels.ravel(), minlength=classes)
        present = counts > 0
        self.pixels += counts
        self.seen += present * sample.mask.size
        self.images += present
        ignored = sample.mask.size - labels.size
        self.ignored += ignored
        self.ignored_seen += sample.mask.size if ignored else 0
        self.total += sample.mask.size
        return frozenset(np.flatnonzero(present).tolist())

    @property
    def frequencies(self) -> Array:
        """(K,) share of each class in all labelled pixels; zeros if there are none."""
        return self.pixels / max(int(self.pixels.sum()), 1)

    def median_weights(self, ignored_as_class: bool = False) -> Array:
        """(K,) median frequency balancing, see `median_frequency_weights`."""
        present = self.pixels > 0
        frequency = self.pixels[present] / self.seen[present]
        weights = np.zeros(len(self.pixels))
        if present.any():
            extra = [self.ignored / self.ignored_seen] if ignored_as_class and self.ignored else []
            weights[present] = np.median([*frequency, *extra]) / frequency
        return weights


def count_labels(dataset: Dataset | Sequence[Sample], classes: int | None = None) -> LabelCounts:
    """Counts the labels of all samples. classes: their number, if `dataset` is a plain sequence of samples: TypeError without it.

    DataError for a sample that cannot be read, and for a label that is neither a class nor the ignore index.
    """
    if classes is None and not hasattr(dataset, "classes"):
        raise TypeError("count_labels: a plain sequence of samples does not say how many classes there are; pass classes=...")
    counts = LabelCounts.empty(len(dataset.classes) if classes is None else classes)  # type: ignore[union-attr]
    for sample in _samples(dataset):
        counts.add(sample)
    return counts


def class_frequencies(dataset: Dataset) -> Array:
    """(K,) float64: the share of each class in all labelled pixels. A class that does not occur has 0. DataError as of count_labels."""
    return count_labels(dataset).frequencies


def median_frequency_weights(dataset: Dataset, *, ignored_as_class: bool = False) -> Array:
    """(K,) float64 loss weights: median(freq) / freq(c).

    freq(c) is the number of pixels of class c divided by the number of all pixels of the images where c occurs (Badrinarayanan, Kendall,
    Cipolla, "SegNet", section 4, after Eigen and Fergus). The median is over the classes that occur; a class that does not has weight 0,
    since no pixel could ever use it. `ignored_as_class` counts the ignored pixels as one class more when the median is taken: SegNet's
    published weights for CamVid come out so (see `CAMVID_CLASS_WEIGHTS`). It changes all weights by one factor. DataError as of count_labels.
    """
    return count_labels(dataset).median_weights(ignored_as_class)


class ChannelStatistics(NamedTuple):
    """mean, std: (C,) float32 over all pixels of all images, as `transforms.Normalize(mean, std)` takes them."""

    mean: Array
    std: Array


def channel_statistics(dataset: Dataset) -> ChannelStatistics:
    """Mean and standard deviation of each channel in one pass: images are merged by mean and squared deviation, so that nothing cancels.

    DataError if there are no pixels, or an image cannot be read.
    """
    count, mean, squares = 0, np.zeros(dataset.channels), np.zeros(dataset.channels)
    for sample in _samples(dataset):
        pixels = sample.image.reshape(len(sample.image), -1).astype(np.float64)
        size, its_mean = pixels.shape[1], pixels.mean(1)
        if size == 0:
            continue
        apart, total = its_mean - mean, count + size
        squares += np.square(pixels - its_mean[:, None]).sum(1) + np.square(apart) * (count * size / total)
        mean, count = mean + apart * (size / total), total
    if count == 0:
        raise DataError(f"{dataset!r} has no pixels to take statistics of")
    return ChannelStatistics(mean.astype(np.float32), np.sqrt(squares / count).astype(np.float32))


def _samples(dataset: Dataset | Sequence[Sample]) -> Iterable[Sample]:
    return (dataset[i] for i in range(len(dataset)))
