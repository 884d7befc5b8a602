"""Looks a data set over before training: everything that would surface as a strange error, or as a bad result, hours later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..words import counted, some
from .dataset import Dataset
from .sample import Array, DataError, size_text, validate
from .statistics import LabelCounts
from .written import value_text

_FEW = 5  # images from which on a class in one of them is odd
RARE = 0.005  # share of labelled pixels below which a class is called rare


@dataclass(frozen=True, eq=False)
class Report:
    """What `check` found. `print(report)` shows it; `report.ok` tells whether training may start.

    errors: samples that cannot be used and pairs that are incomplete. warnings: what may be meant but often is not.
    notes: what one should know. sizes: (height, width) -> number of images. images: their number; counts: labels per class.
    stored: what stands for each class in the mask files, empty if that is its index.
    present: of each sample the classes that its mask holds, none if it could not be read.
    """

    name: str
    classes: tuple[str, ...]
    channels: int
    images: int
    sizes: dict[tuple[int, int], int]
    counts: LabelCounts
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    stored: tuple[str, ...] = ()
    present: tuple[frozenset[int], ...] = ()

    @property
    def ok(self) -> bool:
        """No errors."""
        return not self.errors

    @property
    def frequencies(self) -> Array:
        """(K,) share of each class in the labelled pixels."""
        return self.counts.frequencies

    def __str__(self) -> str:
        width = max([len(n) for n in self.classes] + [len("ignored"), 5])
        numbers = (self.images, "image"), (self.channels, "channel"), (len(self.classes), "class")
        lines = [f"{self.name}: {', '.join(counted(*number) for number in numbers)}, sizes {_sizes_text(self.sizes)}"]
        column = max(map(len, ("in masks", *self.stored))) if self.stored else -1
        stored = [f" {text:>{column}}" for text in ("in masks", *self.stored)] if self.stored else [""] * (1 + len(self.classes))
        lines.append(f"  {'':>3} {'class':<{width}}{stored[0]} {'pixels':>8} {'images':>7} {'median-frequency weight':>24}")
        weights = self.counts.median_weights()
        for k, name in enumerate(self.classes):
            share, weight = f"{100 * self.frequencies[k]:.2f} %", weights[k]
            lines.append(f"  {k:>3} {name:<{width}}{stored[k + 1]} {share:>8} {self.counts.images[k]:>7} {weight:>24.4f}")
        if self.counts.ignored:
            lines.append(f"  {'':>3} {'ignored':<{width + column + 1}} {100 * self.counts.ignored / self.counts.total:>6.2f} %")
        for kind, messages in (("error", self.errors), ("warning", self.warnings), ("note", self.notes)):
            lines += [f"{kind}: {message}" for message in messages]
        counts = (len(self.errors), len(self.warnings))
        lines.append("ok" if counts == (0, 0) else f"{counted(counts[0], 'error')}, {counted(counts[1], 'warning')}")
        return "\n".join(lines)


def check(dataset: Dataset) -> Report:
    """Reads every sample once and reports sizes, channels, class frequencies and everything that is wrong. Raises nothing for bad data.

    Incomplete pairs are reported if the data set was opened with `strict=False`; otherwise opening it raised DataError already.
    """
    errors, warnings, notes = list(dataset.problems), list(dataset.unused), []
    counts = LabelCounts.empty(len(dataset.classes))
    sizes: Counter[tuple[int, int]] = Counter()
    constant: list[str] = []
    unlabelled: list[str] = []
    single: Counter[int] = Counter()  # class -> images that hold nothing else
    names: Counter[str] = Counter()
    example: dict[int, str] = {}  # class -> the first image that holds it
    held: list[frozenset[int]] = []
    darkest, brightest = np.inf, -np.inf
    for index in range(len(dataset)):
        try:
            sample = dataset[index]
            validate(sample)
            if sample.image.shape[0] != dataset.channels:
                raise DataError(f"{sample.name}: the image has {counted(len(sample.image), 'channel')}, the data set {dataset.channels}")
            if not np.isfinite(sample.image).all():
                raise DataError(f"{sample.name}: the image holds NaN or infinity")
            present = counts.add(sample)
        except DataError as error:
            errors.append(str(error))
            held.append(frozenset())
            continue
        names[sample.name] += 1
        sizes[sample.size] += 1
        held.append(present)
        if not present:
            unlabelled.append(sample.name)
        for k in present:
            example.setdefault(k, sample.name)
            single[k] += len(present) == 1
        low, high = float(sample.image.min(initial=np.inf)), float(sample.image.max(initial=-np.inf))
        darkest, brightest = min(darkest, low), max(brightest, high)
        if low == high:
            constant.append(sample.name)

    read = sum(sizes.values())
    if not len(dataset):
        errors.append(f"{dataset.name} is empty")
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        warnings.append(f"{some(twice, 3)}: several samples have one name, so that their predictions would overwrite each other")
    if constant:
        warnings.append(f"{some(constant, 3)}: the image is one colour throughout")
    if unlabelled:
        warnings.append(f"{some(unlabelled, 3)}: every pixel is ignored")
    if read:
        warnings += _class_warnings(dataset, counts, single, example, read)
        if brightest > 1 or darkest < 0:
            warnings.append(f"image values run from {darkest:g} to {brightest:g}; 0 to 1 is expected")
        elif brightest < 0.2:
            warnings.append(
                f"the brightest pixel of all is {brightest:.4f}, where 1 is white: say which value is white, for 12-bit images white=4095 "
                f"(--white 4095)"
            )
        if len(sizes) > 1:
            height, width = (min(side) for side in zip(*sizes, strict=True))
            notes.append(
                f"the images differ in size, the smallest height is {height}, the smallest width {width}: training takes crops of one size "
                f"(--crop), or whole images in batches of one"
            )
    return Report(
        dataset.name,
        dataset.classes,
        dataset.channels,
        len(dataset),
        dict(sizes),
        counts,
        tuple(errors),
        tuple(warnings),
        tuple(notes),
        _stored(dataset),
        tuple(held),
    )


def _stored(dataset: Dataset) -> tuple[str, ...]:
    """What stands for each class in the mask files, if that isn't its index."""
    values = dataset.mask_values or ()
    if values == tuple(range(len(values))):
        return ()
    return tuple(map(value_text, values))


def no_pixel(absent: Sequence[str]) -> str:
    """What it means that images don't have these classes."""
    return f"no pixel is {some(absent)}: from these images nothing can be learned about it, nor its IoU be measured"


def no_pixel_held_out(absent: Sequence[str], data: str) -> str:
    """What it means that the images held out don't have these classes, which those to train on have. data: the data set's name."""
    way_out = ", in folders train/ and val/" if data == "folder" else ""
    return (
        f"no pixel is {some(absent)}: the scores, by which the best epoch is chosen, cannot tell how well it is found; "
        f"hold out images that have it{way_out}"
    )


def all_ignored(images: int) -> str:
    """What to do about a part of a data set, so many images, none of which has a label."""
    return f"every pixel of {counted(images, 'image')} is ignored: label some, or divide the images otherwise"


def _class_warnings(dataset: Dataset, counts: LabelCounts, single: Counter[int], example: dict[int, str], read: int) -> list[str]:
    warnings = []
    labelled = int(counts.pixels.sum())
    absent = [name for name, pixels in zip(dataset.classes, counts.pixels, strict=True) if pixels == 0]
    if absent:
        warnings.append(no_pixel(absent))
    rare = [n for n, p, f in zip(dataset.classes, counts.pixels, counts.frequencies, strict=True) if p and f < RARE]
    if rare:
        way_out = "class weights or a Dice loss keep it from being overlooked"
        warnings.append(f"{', '.join(rare)}: below {100 * RARE:g} % of the pixels; {way_out}")
    if read >= _FEW:
        stored = _stored(dataset)
        for k, name in enumerate(dataset.classes):
            if counts.images[k] == 1:
                value = f" ({stored[k]} in the masks)" if stored else ""
                warnings.append(f"{name}{value} occurs in one image only, {example[k]}: is it meant, or a stray value?")
    if counts.ignored > labelled:
        warnings.append(f"{100 * counts.ignored / max(counts.total, 1):.0f} % of the pixels are ignored")
    for k, images in single.items():
        if images == read and not absent:
            continue
        if images > read / 2:
            warnings.append(f"{images} of {read} masks hold nothing but {dataset.classes[k]}")
    return warnings


def _sizes_text(sizes: dict[tuple[int, int], int]) -> str:
    if len(sizes) == 1:
        return size_text(next(iter(sizes)))
    most_first = sorted(sizes, key=lambda s: (-sizes[s], s))
    return some((f"{size_text(s)} ({sizes[s]})" for s in most_first), 3) or "unknown"
