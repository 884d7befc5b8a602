"""What every data set yields: one image with its mask. Plain arrays, no autograd."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..window import integer

Array: TypeAlias = NDArray[Any]
Value: TypeAlias = int | tuple[int, int, int]  #: what a mask file stores: a gray value, a palette index or a colour

IGNORE = 255  #: the usual label of pixels that no loss and no metric may count


class DataError(ValueError):
    """Something is wrong with the data. The message is one sentence: which file, what was found, and the way out."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One image and its labels. What it holds is checked where it is used: by `collate` and `check`.

    image: (C, H, W) float32 in [0, 1].
    mask: (H, W) int64 of class indices; `ignore_index` marks pixels without a label.
    name: short, unique within the data set, fit for a file name.
    ignore_index: travels with the sample, so that a transform that makes new pixels can never mark them with the wrong number.
    weight: optional (H, W) float32, the loss weight of each pixel (see `unet_weight_map`); it follows every geometric transform.
    """

    image: Array
    mask: Array
    name: str
    ignore_index: int = IGNORE
    weight: Array | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return int(self.image.shape[-2]), int(self.image.shape[-1])

    def with_arrays(self, image: Array, mask: Array, weight: Array | None) -> Sample:
        """The same sample with other arrays."""
        return replace(self, image=image, mask=mask, weight=weight)


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one size, stacked.

    images: (N, C, H, W) float32 in channels-last memory (an NCHW view of NHWC memory), as the engine keeps its activations.
    masks: (N, H, W) int64. names: N strings. weights: (N, H, W) float32 if the samples carry weights, else None.
    """

    images: Array
    masks: Array
    names: tuple[str, ...]
    weights: Array | None = None

    def __len__(self) -> int:
        return len(self.names)


def validate(sample: Sample) -> None:
    """DataError unless the sample's arrays have the documented shapes and kinds and agree with each other."""
    if not isinstance(sample, Sample):
        raise DataError(f"a data set must yield Sample(image, mask, name), got {type(sample).__name__}")
    image, mask, weight = sample.image, sample.mask, sample.weight
    if image.ndim != 3 or image.dtype.kind != "f":
        raise DataError(f"{sample.name}: an image must be floating point (channels, height, width), got {image.dtype} {image.shape}")
    if mask.ndim != 2 or mask.dtype.kind not in "iu":
        raise DataError(f"{sample.name}: a mask must hold integer class indices (height, width), got {mask.dtype} {mask.shape}")
    if mask.shape != image.shape[1:]:
        raise DataError(f"{sample.name}: the image is {size_text(sample.size)} but its mask {size_text(mask.shape)} (height x width)")
    if weight is not None and weight.shape != mask.shape:
        raise DataError(f"{sample.name}: the mask is {size_text(mask.shape)} but its weight map {size_text(weight.shape)}")


def size_text(size: tuple[int, ...]) -> str:
    """(360, 480) -> "360x480": height first, everywhere."""
    return "x".join(map(str, size))


def random_generator(seed: int, *key: int) -> np.random.Generator:
    """The generator of one place in a run: the same (seed, key) gives the same numbers, different keys independent ones.

    TypeError for a seed that is no integer, ValueError for a negative one.
    """
    seed = integer(seed, "seed", 0)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))
