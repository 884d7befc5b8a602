"""Whether the value taken for white can be the right one: what a network sees else is nearly black, or far beyond white."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..backend import Array
from ..data import Dataset, Sample, Subset


class Brightness:
    """How bright images are, which all have C channels.

    brightest: (C,) the brightest pixel of each channel. average: of all values.
    """

    def __init__(self, channels: int) -> None:
        self.brightest = np.full(channels, -np.inf)
        self.total, self.values = 0.0, 0

    def add(self, image: Array) -> None:
        """One more image, (C, H, W)."""
        self.brightest = np.maximum(self.brightest, image.max((1, 2), initial=-np.inf))
        self.total += float(image.sum(dtype=np.float64))
        self.values += image.size

    @property
    def average(self) -> float:
        return self.total / max(self.values, 1)


class Watched(Subset):
    """All of a data set; `seen` is how bright the samples were that it gave."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset, range(len(dataset)))
        self.seen = Brightness(dataset.channels)

    def load(self, index: int) -> Sample:
        sample = super().load(index)
        self.seen.add(sample.image)
        return sample


def doubtful_white(brightest: Array, average: float, info: Mapping[str, Any], white: float | None) -> str:
    """What is odd about images if `white`, None for the usual one of their type, was taken for white; "" if nothing is.

    brightest: (C,) the brightest pixel of each channel. average: of all values. info: of the checkpoint, with the training images' mean.
    Odd are images whose brightest pixels are all darker than the training images on average (those of 8 bits may, which are
    merely empty), or which are brighter than white on average.
    """
    mean = np.array(info["mean"])
    of_8_bits = white is None and np.allclose(brightest * 255, np.rint(brightest * 255), rtol=0, atol=1e-3)  # nobody mistakes their white
    if (brightest < mean).all() and not of_8_bits:
        found = f"the brightest pixel is {brightest.max():.3g}"
        way_out = "--white 4095 for images of 12 bits" if white is None else f"not {white:g}, but --white 255 for images of 8 bits"
    elif average > 1 >= mean.max():
        found, way_out = f"the mean is {average:.3g}", "--white 65535 for images of 16 bits"
    else:
        return ""
    return f"{found}, where 1 is white and the training images have a mean of {mean.mean():.3g}: say which value is white ({way_out})"
