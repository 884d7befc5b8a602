"""Transforms that change values and leave masks alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..images import luminance
from ..sample import Array, DataError, Sample
from ..weight_map import unet_weight_map
from .base import span


@dataclass(frozen=True)
class ColorJitter:
    """Random brightness, contrast, saturation and hue, in this order; results are clipped to [0, 1].

    brightness b: all values times a factor in [1 - b, 1 + b]. contrast, saturation alike, for the distance from the image's mean gray and
    from each pixel's gray. hue h: a turn of the colours by a part of the full circle in [-h, h], h <= 0.5.
    Saturation and hue leave images alone that don't have 3 channels. ValueError for what is not one number from 0 to 1, of hue to 0.5.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation", "hue"):
            most, value = 0.5 if name == "hue" else 1.0, getattr(self, name)
            if not hasattr(value, "__float__") or not 0 <= value <= most:
                raise ValueError(f"ColorJitter: {name} must lie between 0 and {most}, got {value}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        brightness, contrast, saturation, hue = rng.uniform(-1, 1, 4) * (self.brightness, self.contrast, self.saturation, self.hue)
        image = sample.image
        image = np.clip(image * np.float32(1 + brightness), 0, 1)
        mean = _gray(image).mean()
        image = np.clip(mean + (image - mean) * np.float32(1 + contrast), 0, 1)
        if len(image) == 3:
            gray = _gray(image)
            image = np.clip(gray + (image - gray) * np.float32(1 + saturation), 0, 1)
            image = np.clip(np.tensordot(hue_matrix(hue), image, 1), 0, 1)
        return replace(sample, image=image.astype(np.float32))


@dataclass(frozen=True)
class RandomGamma:
    """Values to a power between low and high; 1/2 is as likely as 2. Above 1 darkens. ValueError unless 0 < low <= high."""

    low: float = 0.7
    high: float = 1.4

    def __post_init__(self) -> None:
        span(self.low, self.high, self, above=0)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        power = np.float32(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))
        return replace(sample, image=np.clip(sample.image, 0, 1) ** power)


@dataclass(frozen=True, init=False)
class Normalize:
    """(image - mean) / std per channel, as `channel_statistics` finds them: Normalize(*channel_statistics(dataset)). Put it last.

    ValueError unless there is one number of each for every channel, std above 0; DataError for an image of other channels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(self, mean: float | Sequence[float] | Array, std: float | Sequence[float] | Array) -> None:
        for name, value in (("mean", mean), ("std", std)):
            numbers = np.atleast_1d(value)
            if numbers.ndim > 1 or numbers.dtype.kind not in "iuf" or not np.isfinite(numbers).all():
                raise ValueError(f"Normalize: {name} must be finite numbers, one per channel, got {value!r}")
            object.__setattr__(self, name, tuple(map(float, numbers)))
        if len(self.mean) != len(self.std):
            raise ValueError(f"Normalize: mean and std must have one number per channel each, got {len(self.mean)} and {len(self.std)}")
        if not all(s > 0 for s in self.std):
            raise ValueError(f"Normalize: std must be positive, got {self.std}; is one channel constant?")

    def __call__(self, sample: Sample, rng: np.random.Generator | None = None) -> Sample:
        return replace(sample, image=self.image(sample.image, sample.name))

    def image(self, image: Array, name: str = "the image") -> Array:
        """(C, H, W) -> the same, normalised. One mean serves any number of channels; DataError for another number of them."""
        if len(self.mean) not in (1, len(image)):
            raise DataError(f"Normalize: mean has {len(self.mean)} channels, but {name} has {len(image)}")
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (self.mean, self.std))
        return np.asarray((image - mean) / std, np.float32)


@dataclass(frozen=True)
class UNetWeights:
    """Gives the sample the U-Net paper's weight map, computed from its mask (see `unet_weight_map`). Put it after what moves pixels.

    DataError, when it is called, for settings out of range.
    """

    w0: float = 10.0
    sigma: float = 5.0
    class_weights: tuple[float, ...] | None = None

    def __call__(self, sample: Sample, rng: np.random.Generator | None = None) -> Sample:
        weight = unet_weight_map(sample.mask, self.w0, self.sigma, class_weights=self.class_weights, ignore_index=sample.ignore_index)
        return replace(sample, weight=weight)


def _gray(image: Array) -> Array:
    """(1, H, W): luminance of RGB, else the mean of the channels."""
    if len(image) == 3:
        return luminance(image)
    return np.asarray(image.mean(0, keepdims=True))


def hue_matrix(turn: float) -> Array:
    """(3, 3) float32: turns RGB colours about the gray axis by a part `turn` of the circle; gray stays, and so does r + g + b."""
    angle = 2 * np.pi * turn
    cos, sin = np.cos(angle), np.sin(angle) / np.sqrt(3)
    third = (1 - cos) / 3
    # Rodrigues' formula for the axis (1, 1, 1) / sqrt(3)
    return np.array(
        [[cos + third, third - sin, third + sin], [third + sin, cos + third, third - sin], [third - sin, third + sin, cos + third]],
        np.float32,
    )
