"""Transforms that move pixels. Image and mask always move together.

New pixels beyond the border are the image mirrored at its edge; the mask has `sample.ignore_index` there, and the weight map 0, so that
nothing is learned from them. Images are interpolated linearly, masks take the nearest pixel: classes are never mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ...window import integer, pair
from ..sample import Array, Sample
from .base import probability, span


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Left becomes right, with probability p. ValueError unless 0 <= p <= 1."""

    p: float = 0.5

    def __post_init__(self) -> None:
        probability(self.p, self)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return _moved(sample, lambda plane: plane[..., ::-1]) if rng.random() < self.p else sample


@dataclass(frozen=True)
class RandomVerticalFlip:
    """Top becomes bottom, with probability p. ValueError unless 0 <= p <= 1."""

    p: float = 0.5

    def __post_init__(self) -> None:
        probability(self.p, self)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return _moved(sample, lambda plane: plane[..., ::-1, :]) if rng.random() < self.p else sample


@dataclass(frozen=True)
class RandomQuarterTurn:
    """A turn by 0, 90, 180 or 270 degrees. `keep_size`: images that are not square are turned by 0 or 180 only, so that batches fit."""

    keep_size: bool = True

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        turns = int(rng.integers(4))
        if self.keep_size and sample.size[0] != sample.size[1]:
            turns -= turns % 2
        return _moved(sample, lambda plane: np.rot90(plane, turns, axes=(-2, -1))) if turns else sample


@dataclass(frozen=True)
class RandomCrop:
    """A random part of `size` (height, width). Smaller images are padded evenly on both sides first. ValueError for a size below 1."""

    size: int | Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", pair(self.size, "RandomCrop: size", 1))

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        (height, width), at = self.size, rng.random(2)  # type: ignore[misc]
        sample = _pad_to(sample, height, width)
        top, left = (int(a * (n - m + 1)) for a, n, m in zip(at, sample.size, (height, width), strict=True))
        return _moved(sample, lambda plane: plane[..., top : top + height, left : left + width])


@dataclass(frozen=True)
class CenterCrop:
    """The middle part of `size` (height, width). Smaller images are padded evenly on both sides first. ValueError for a size below 1."""

    size: int | Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", pair(self.size, "CenterCrop: size", 1))

    def __call__(self, sample: Sample, rng: np.random.Generator | None = None) -> Sample:
        height, width = self.size  # type: ignore[misc]
        sample = _pad_to(sample, height, width)
        top, left = (sample.size[0] - height) // 2, (sample.size[1] - width) // 2
        return _moved(sample, lambda plane: plane[..., top : top + height, left : left + width])


@dataclass(frozen=True)
class PadToMultiple:
    """Pads below and on the right until both sides are multiples of `multiple`, as networks of that stride need. ValueError below 1."""

    multiple: int | Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "multiple", pair(self.multiple, "PadToMultiple: multiple", 1))

    def __call__(self, sample: Sample, rng: np.random.Generator | None = None) -> Sample:
        below, right = (-n % m for n, m in zip(sample.size, self.multiple, strict=True))  # type: ignore[arg-type]
        return pad_sample(sample, (0, below), (0, right))


@dataclass(frozen=True)
class Resize:
    """Every image to `size` (height, width), whatever its proportions. ValueError for a size below 1."""

    size: int | Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", pair(self.size, "Resize: size", 1))

    def __call__(self, sample: Sample, rng: np.random.Generator | None = None) -> Sample:
        return resize_sample(sample, self.size)  # type: ignore[arg-type]


@dataclass(frozen=True)
class RandomScale:
    """Both sides times a factor between low and high; halving is as likely as doubling. The size changes: crop afterwards.

    ValueError unless 0 < low <= high.
    """

    low: float = 0.5
    high: float = 2.0

    def __post_init__(self) -> None:
        span(self.low, self.high, self, above=0)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        factor = float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))
        height, width = (max(round(n * factor), 1) for n in sample.size)
        return resize_sample(sample, (height, width))


@dataclass(frozen=True)
class RandomRotation:
    """A turn about the centre by an angle between -degrees and +degrees, or between a pair of angles; counter-clockwise, size kept.

    ValueError for a pair that falls, and for a negative number.
    """

    degrees: float | tuple[float, float]

    def __post_init__(self) -> None:
        if isinstance(self.degrees, Sequence) and len(self.degrees) != 2:
            raise ValueError(f"RandomRotation: degrees must be a number or a pair, got {self.degrees!r}")
        low, high = self.degrees if isinstance(self.degrees, Sequence) else (-self.degrees, self.degrees)
        span(low, high, self)
        object.__setattr__(self, "degrees", (float(low), float(high)))

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        angle = np.deg2rad(rng.uniform(*self.degrees))  # type: ignore[misc]
        height, width = sample.size
        row, column = np.arange(height)[:, None] - (height - 1) / 2, np.arange(width) - (width - 1) / 2
        cos, sin = np.cos(angle), np.sin(angle)  # rows point down, which makes this a counter-clockwise turn
        return warp(sample, cos * row + sin * column + (height - 1) / 2, cos * column - sin * row + (width - 1) / 2)


@dataclass(frozen=True)
class ElasticDeformation:
    """Smooth random deformation (Ronneberger, Fischer, Brox, "U-Net", section 3.1).

    Displacements on a coarse `grid` x `grid` of points that spans the image are drawn from a normal distribution with a deviation of
    `sigma` pixels; those of the pixels are computed by bicubic interpolation. Applied with probability p.
    ValueError for a negative sigma, a grid below 2 and a p outside [0, 1]; TypeError for a grid that is no integer.
    """

    sigma: float = 10.0
    grid: int = 3
    p: float = 1.0

    def __post_init__(self) -> None:
        probability(self.p, self)
        if not 0 <= self.sigma < np.inf or integer(self.grid, "ElasticDeformation: grid") < 2:
            raise ValueError(f"ElasticDeformation: sigma must not be negative and grid be at least 2, got {self}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        coarse = rng.normal(0.0, self.sigma, (2, self.grid, self.grid))
        if rng.random() >= self.p:
            return sample
        height, width = sample.size
        down, right = cubic_matrix(height, self.grid) @ coarse @ cubic_matrix(width, self.grid).T
        return warp(sample, np.arange(height)[:, None] + down, np.arange(width) + right)


def cubic_matrix(size: int, grid: int) -> Array:
    """(size, grid): interpolates values at `grid` equally spaced points, the first and last at the ends, to `size` pixels.

    Cubic convolution with a = -1/2 (Keys, "Cubic convolution interpolation for digital image processing", 1981); beyond the ends the values
    go on as they are, so that every row sums to 1.
    """
    at = np.linspace(0, grid - 1, size)
    base = np.minimum(np.floor(at).astype(int), grid - 2)
    matrix = np.zeros((size, grid))
    for neighbour in range(-1, 3):
        t = np.abs(at - base - neighbour)
        weight = np.where(t <= 1, (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2)
        np.add.at(matrix, (np.arange(size), np.clip(base + neighbour, 0, grid - 1)), weight)
    return matrix


def warp(sample: Sample, rows: Array, columns: Array) -> Sample:
    """Pixel (i, j) of the result is taken from (rows[i, j], columns[i, j]) of the sample. rows, columns: (H', W') in pixels."""
    from scipy import ndimage

    height, width = sample.size
    rows, columns = np.broadcast_arrays(rows, columns)
    image = np.empty((len(sample.image), *rows.shape), np.float32)
    for plane, target in zip(sample.image, image, strict=True):  # "mirror" repeats no edge pixel, like numpy's "reflect"
        ndimage.map_coordinates(plane, (rows, columns), target, order=1, mode="mirror")
    row, column = np.rint(rows).astype(np.int64), np.rint(columns).astype(np.int64)
    outside = (row < 0) | (row >= height) | (column < 0) | (column >= width)
    row, column = row.clip(0, height - 1), column.clip(0, width - 1)
    mask = np.where(outside, sample.ignore_index, sample.mask[row, column])
    weight = None if sample.weight is None else np.where(outside, np.float32(0), sample.weight[row, column])
    return sample.with_arrays(image, mask, weight)


def pad_sample(sample: Sample, rows: tuple[int, int], columns: tuple[int, int]) -> Sample:
    """Adds (before, after) rows and columns."""
    if not any((*rows, *columns)):
        return sample
    image = np.pad(sample.image, ((0, 0), rows, columns), mode="reflect")
    mask = np.pad(sample.mask, (rows, columns), constant_values=sample.ignore_index)
    weight = None if sample.weight is None else np.pad(sample.weight, (rows, columns))
    return sample.with_arrays(image, mask, weight)


def resize_sample(sample: Sample, size: tuple[int, int]) -> Sample:
    """To `size` (height, width). Images are averaged over what a new pixel covers where they shrink."""
    if size == sample.size:
        return sample
    planes = [Image.fromarray(np.ascontiguousarray(plane, np.float32)) for plane in sample.image]
    image = np.stack([np.asarray(plane.resize(size[::-1], Image.Resampling.BILINEAR)) for plane in planes])
    # the nearest pixel's centre, as the image's own interpolation places them
    row, column = (((np.arange(m) + 0.5) * n / m).astype(np.int64) for m, n in zip(size, sample.size, strict=True))
    nearest = np.ix_(row, column)
    return sample.with_arrays(image, sample.mask[nearest], None if sample.weight is None else sample.weight[nearest])


def _pad_to(sample: Sample, height: int, width: int) -> Sample:
    rows, columns = (max(m - n, 0) for m, n in zip((height, width), sample.size, strict=True))
    return pad_sample(sample, (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2))


def _moved(sample: Sample, move: Callable[[Array], Array]) -> Sample:
    return sample.with_arrays(move(sample.image), move(sample.mask), None if sample.weight is None else move(sample.weight))
