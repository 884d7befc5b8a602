"""What a transform is, and how they combine.

A transform is a frozen dataclass, called as transform(sample, rng) -> sample. It is pure: it changes no array it is given and draws all its
random numbers from rng, the same number whatever the sample looks like. Its repr says all there is to know about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..sample import Sample


class Transform(Protocol):
    """(sample, rng) -> sample. Those here raise ValueError or TypeError for settings that make no sense when they are made."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample: ...


@dataclass(frozen=True, init=False, repr=False)
class Compose:
    """One transform after the other: Compose(RandomCrop(256), RandomHorizontalFlip()), or a list of them. TypeError for what cannot be called."""

    transforms: tuple[Transform, ...]

    def __init__(self, *transforms: Transform | list[Transform] | tuple[Transform, ...]) -> None:
        flat = [t for item in transforms for t in (item if isinstance(item, (list, tuple)) else (item,))]
        for t in flat:
            if not callable(t):
                raise TypeError(f"Compose takes transforms, got {t!r}")
        object.__setattr__(self, "transforms", tuple(flat))

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        for transform in self.transforms:
            sample = transform(sample, rng)
        return sample

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.transforms))})"


@dataclass(frozen=True)
class RandomApply:
    """Another transform, with probability p. ValueError unless 0 <= p <= 1, TypeError for what cannot be called."""

    transform: Transform
    p: float = 0.5

    def __post_init__(self) -> None:
        probability(self.p, self)
        if not callable(self.transform):
            raise TypeError(f"RandomApply takes a transform, got {self.transform!r}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return self.transform(sample, rng) if rng.random() < self.p else sample


def probability(p: float, owner: object) -> None:
    """ValueError unless 0 <= p <= 1."""
    if not 0 <= p <= 1:
        raise ValueError(f"{type(owner).__name__}: p must be a probability between 0 and 1, got {p}")


def span(low: float, high: float, owner: object, above: float = -np.inf) -> None:
    """ValueError unless above < low <= high."""
    if not above < low <= high:
        bound = f"lie above {above:g} and " if above > -np.inf else ""
        raise ValueError(f"{type(owner).__name__}: the range must {bound}ascend, got {low} to {high}")
