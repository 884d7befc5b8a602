"""Augmentation: (sample, rng) -> sample. Masks follow their images, by the nearest pixel, with ignored pixels outside."""

from __future__ import annotations

from .base import Compose, RandomApply, Transform
from .colour import ColorJitter, Normalize, RandomGamma, UNetWeights
from .geometry import (
    CenterCrop,
    ElasticDeformation,
    PadToMultiple,
    RandomCrop,
    RandomHorizontalFlip,
    RandomQuarterTurn,
    RandomRotation,
    RandomScale,
    RandomVerticalFlip,
    Resize,
)

__all__ = [
    "CenterCrop",
    "ColorJitter",
    "Compose",
    "ElasticDeformation",
    "Normalize",
    "PadToMultiple",
    "RandomApply",
    "RandomCrop",
    "RandomGamma",
    "RandomHorizontalFlip",
    "RandomQuarterTurn",
    "RandomRotation",
    "RandomScale",
    "RandomVerticalFlip",
    "Resize",
    "Transform",
    "UNetWeights",
]
