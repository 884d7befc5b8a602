"""How good a network is on a data set: every image predicted whole, at its own size, and all pixels counted together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..autograd import no_grad
from ..backend import Array, kernels_of, to_backend
from ..data import Dataset, Normalize, Sample, collate
from ..tensor import Tensor
from .metrics import ConfusionMatrix
from .predict import scores, whole_scores

if TYPE_CHECKING:
    from ..models import Segmenter
    from .boundary import BoundaryF1
    from .losses import Loss


class Shown(NamedTuple):
    """One image to look at. image: (C, H, W) in [0, 1]; truth, prediction: (H, W) class indices."""

    name: str
    image: Array
    truth: Array
    prediction: Array


@dataclass(frozen=True, eq=False)
class Evaluation:
    """confusion: over all pixels of all images. loss: its mean, None if no loss was asked for. shown: the samples that were asked for."""

    confusion: ConfusionMatrix
    loss: float | None
    shown: tuple[Shown, ...]


def evaluate(
    model: Segmenter,
    dataset: Dataset,
    *,
    mean: Sequence[float] | Array,
    std: Sequence[float] | Array,
    loss: Loss | None = None,
    batch_size: int = 8,
    tile: int | None = None,
    flips: bool = False,
    show: Collection[int] = (),
    boundary: BoundaryF1 | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Evaluation:
    """Predict all images of a data set and compare.

    mean, std: of each channel, as in training. tile, flips: see `predict.scores`. batch_size: images of one size that go through the network
    together, fewer if they have more than tile x tile pixels; it changes nothing but speed and memory, save for a loss of regions.
    loss: averaged over the data set as `losses.Loss` defines it; Dice and Tversky compare the regions of all images that go together.
    show: indices of samples to keep for pictures. boundary: scores all images, too.
    progress: called with (images done, images in all), for large images after each tile.
    DataError for bad files, FloatingPointError if the network answers with NaN.
    """
    confusion = ConfusionMatrix(len(dataset.classes), dataset.ignore_index)
    normalize = Normalize(mean, std)
    losses: list[tuple[Tensor, float]] = []  # of each batch, and what it weighs
    done = 0
    shown: list[Shown] = []

    def between(*_: int) -> None:
        if progress is not None:
            progress(done, len(dataset))

    for start, samples in _groups(dataset, batch_size, tile):
        batch = collate([normalize(sample) for sample in samples])
        fits = tile is None or max(model.suitable_size(samples[0].size)) <= tile
        whole = fits and not flips  # then all stays where the network is, and on a GPU nothing waits before the end
        probabilities = (
            whole_scores(model, batch.images) if whole else scores(model, batch.images, tile=tile, flips=flips, progress=between)
        )
        masks, predicted = to_backend(batch.masks, Tensor.wrap(probabilities).backend), probabilities.argmax(axis=1)
        confusion.update(masks, predicted)
        if boundary is not None:
            boundary.update(batch.masks, to_backend(predicted, "numpy"))
        if loss is not None:
            losses.append((_loss(loss, probabilities, masks), loss.size(batch.masks)))
        wanted = [i for i in range(len(samples)) if start + i in show]
        shown += [Shown(samples[i].name, samples[i].image, samples[i].mask, to_backend(predicted[i], "numpy")) for i in wanted]
        done += len(samples)
        between()
    total, size = sum((float(value.item()) * weight for value, weight in losses), 0.0), sum((weight for _, weight in losses), 0.0)
    confusion.matrix  # noqa: B018  # reading it brings errors of a GPU to light
    return Evaluation(confusion, None if loss is None else total / size if size else 0.0, tuple(shown))


def _loss(loss: Loss, probabilities: Array, masks: Array) -> Tensor:
    """The loss of probabilities: their logarithms are scores whose softmax they are."""
    kernels, least = kernels_of(probabilities), np.finfo(np.float32).tiny
    with no_grad():
        return loss(Tensor.wrap(kernels.map(lambda p: kernels.xp.log(kernels.xp.maximum(p, least)), probabilities)), Tensor.wrap(masks))


def _groups(dataset: Dataset, most: int, tile: int | None) -> Iterator[tuple[int, list[Sample]]]:
    """(index of the first, samples): neighbours of one size, at most so many, and no more than fit into tile x tile pixels, but always one."""
    group: list[Sample] = []
    for index in range(len(dataset)):
        sample = dataset[index]
        height, width = sample.size
        full = len(group) == most or (tile is not None and (len(group) + 1) * height * width > tile * tile)
        if group and (full or sample.size != group[0].size):
            yield index - len(group), group
            group = []
        group.append(sample)
    if group:
        yield len(dataset) - len(group), group
