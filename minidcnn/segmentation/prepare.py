"""From options to what a trainer needs: data sets that were looked over, statistics, augmentation, optimizer and schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import optim
from ..backend import Array
from ..data import (
    CAMVID_CLASS_WEIGHTS,
    ColorJitter,
    Compose,
    DataError,
    Dataset,
    ElasticDeformation,
    LabelCounts,
    Normalize,
    RandomCrop,
    RandomGamma,
    RandomHorizontalFlip,
    RandomQuarterTurn,
    RandomRotation,
    RandomScale,
    Sample,
    Transform,
    UNetWeights,
    check,
    open_dataset,
)
from ..data.report import all_ignored, no_pixel_held_out
from ..data.sample import size_text
from ..data.transforms.geometry import pad_sample
from ..optim import lr_scheduler
from ..words import counted, some
from .config import TrainConfig

if TYPE_CHECKING:
    from ..models import Segmenter


# -- data -------------------------------------------------------------------------------------------------------------


def open_data(config: TrainConfig) -> tuple[Dataset, Dataset]:
    """The data sets to train on and to validate with. DataError if they cannot be opened."""
    options = config.data_options()
    train = open_dataset(config.data, config.root, "train", **options)
    if config.data == "folder":  # what was found out holds for both, and no mask need be read for it again
        found = {"classes": train.classes, "values": train.mask_values, "ignored": train.mask_ignored, "channels": train.channels}
        options = {**options, **found}
    return train, open_dataset(config.data, config.root, "val", **options)


def look_over(
    train: Dataset, val: Dataset, config: TrainConfig, model: Segmenter, warn: Callable[[str], object]
) -> tuple[LabelCounts, LabelCounts]:
    """Read every sample once before any time is spent on training. Returns the labels' counts of both.

    DataError with the first thing wrong and the number of others, if no pixel is labelled, or if whole images of several sizes would meet in
    a batch; what may be meant but often is not goes to `warn`.
    """
    reports = [check(train), check(val)]
    errors = [error for report in reports for error in report.errors]
    if errors:
        others = f" ({len(errors) - 1} more; python -m minidcnn check lists them)" if len(errors) > 1 else ""
        raise DataError(errors[0] + others)
    for report in reports:
        if not report.counts.pixels.any():  # no step could be judged, or no epoch
            raise DataError(f"{report.name}: {all_ignored(report.images)}")
    batch, sizes = min(config.batch_size, len(train)), sorted(reports[0].sizes)
    if config.crop is None and batch > 1:
        way_out = f"cannot share batches of {batch}: crop them to one size (--crop), or use --batch-size 1"
        if "scale" in config.augment:
            raise DataError(f"--augment scale makes images of many sizes, which {way_out}")
        if len({model.suitable_size(size) for size in sizes}) > 1:
            raise DataError(f"{train.name}: images of {len(sizes)} sizes ({some(map(size_text, sizes))}) {way_out}")
    for warning in reports[0].warnings:
        warn(f"{train.name}: {warning}")
    learned, measured = (report.counts.pixels > 0 for report in reports)
    if unmeasured := [name for name, missing in zip(train.classes, learned & ~measured, strict=True) if missing]:
        warn(f"{val.name}: {no_pixel_held_out(unmeasured, config.data)}")
    return reports[0].counts, reports[1].counts


def class_weights(config: TrainConfig, counts: LabelCounts) -> Array | None:
    """(K,) float32 weights of the classes in the loss, or None."""
    if config.class_weights == "none":
        return None
    weights = CAMVID_CLASS_WEIGHTS if config.class_weights == "published" else counts.median_weights()
    return np.asarray(weights, np.float32)


# -- augmentation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PadTo:
    """Pads by mirroring: `margin` pixels above and on the left, and below and on the right up to the size that `fit` gives for the sample's.

    New pixels are ignored. fit: (height, width) -> (height, width), such as `model.suitable_size`, margins included; None: margin on all sides.
    """

    margin: int = 0
    fit: Callable[[tuple[int, int]], tuple[int, int]] | None = None

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        m, (height, width) = self.margin, sample.size
        below, right = (m, m)
        if self.fit is not None:
            fitting = self.fit(sample.size)
            below, right = fitting[0] - height - m, fitting[1] - width - m
        return pad_sample(sample, (m, below), (m, right))


def input_size(config: TrainConfig, model: Segmenter) -> tuple[int, int] | None:
    """What the network gets to see of an image, None if whole ones: the crop, enlarged to what the network takes and its margin."""
    return None if config.crop is None else model.suitable_size(config.crop)


def training_transform(config: TrainConfig, model: Segmenter, channels: int, mean: Sequence[float], std: Sequence[float]) -> Compose:
    """What happens to a training sample, a new draw each time: augmentation, crop, normalisation.

    A network without padding (`model.margin`) sees the image's surroundings, mirrored beyond its border, and is judged on the inner part.
    """
    window = input_size(config, model)
    steps: list[Transform] = []
    if "scale" in config.augment:
        steps.append(RandomScale(0.7, 1.5))
    if "rotate" in config.augment:
        steps.append(RandomRotation(15.0))
    if "elastic" in config.augment:
        steps.append(ElasticDeformation(sigma=10.0, p=0.5))
    steps += [PadTo(model.margin, model.suitable_size)] if window is None else [PadTo(model.margin), RandomCrop(window)]
    if "mirror" in config.augment or "turns" in config.augment:
        steps.append(RandomHorizontalFlip())
    if "turns" in config.augment:
        steps.append(RandomQuarterTurn())
    if "colour" in config.augment:
        steps.append(ColorJitter(0.3, 0.3, 0.3, 0.05) if channels == 3 else RandomGamma())
    if config.border_weight:
        steps.append(UNetWeights(config.border_weight))
    return Compose(*steps, Normalize(mean, std))


# -- optimization -----------------------------------------------------------------------------------------------------


def make_optimizer(config: TrainConfig, model: Segmenter) -> optim.Optimizer:
    groups = model.parameter_groups(config.lr, config.weight_decay)
    if config.optimizer == "sgd":
        return optim.SGD(groups, config.lr, momentum=config.momentum)
    return (optim.AdamW if config.optimizer == "adamw" else optim.Adam)(groups, config.lr)


def make_schedule(config: TrainConfig, optimizer: optim.Optimizer, steps: int) -> lr_scheduler.LRScheduler:
    """The schedule for so many steps in all. It steps after each of them; ReduceLROnPlateau after each epoch, with the validation loss.

    ValueError if the warm-up leaves no step.
    """
    if config.schedule == "plateau":
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=5)
    if config.warmup >= steps:
        raise ValueError(f"--warmup of {counted(config.warmup, 'step')} is longer than the run of {counted(steps, 'step')}")
    rest = steps - config.warmup
    makers: dict[str, Callable[[], lr_scheduler.LRScheduler]] = {
        "constant": lambda: lr_scheduler.ConstantLR(optimizer, 1.0, 0),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, rest),
        "poly": lambda: lr_scheduler.PolynomialLR(optimizer, rest, 0.9),
        "step": lambda: lr_scheduler.StepLR(optimizer, -(-rest // 3), 0.1),
    }
    if not config.warmup:
        return makers[config.schedule]()
    rising = lr_scheduler.LinearLR(optimizer, 1 / (config.warmup + 1), 1.0, config.warmup)
    return lr_scheduler.SequentialLR(optimizer, [rising, makers[config.schedule]()], [config.warmup])
