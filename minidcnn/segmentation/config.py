"""Everything that decides a training run, in one frozen object that is written to config.json, and the defaults of each data set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..backend import PRECISIONS
from ..data import DATASETS, Value
from ..data.options import OPTIONS, accepted, taken
from ..words import option_name

AUGMENTATIONS = ("mirror", "turns", "scale", "rotate", "elastic", "colour")
CLASS_WEIGHTS = ("none", "median", "published")
LOSSES = ("cross_entropy", "dice", "cross_entropy+dice", "focal", "tversky")
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "poly", "step", "plateau")
BACKENDS = ("auto", "numpy", "cupy")


@dataclass(frozen=True)
class TrainConfig:
    """Options of a training run. ValueError, one sentence that names the option, for values that make no sense.

    network: a name for the run; network_options: the options of its own, as the example's `build` reads them.
    classes, values, ignored, suffix, channels, white: how a folder is read, see `data.Folder`; None finds it out.
    crop: (height, width), or None for whole images. repeat: how often an epoch goes through the training images; limit: the most steps in
    an epoch, 0 for no limit. augment: any of AUGMENTATIONS. warmup: steps in which the learning rate rises. clip: the largest norm of
    the gradient, 0 for no limit. recompute: see `models.Segmenter`. border_weight: w0 of the U-Net paper's pixel weights, 0 for none.
    start: a checkpoint whose weights the network begins with. graph: launch the recorded step as one CUDA graph.
    """

    network: str
    data: str = "cells"
    root: str | None = None
    val_fraction: float = 0.2
    classes: tuple[str, ...] | int | None = None
    values: tuple[Value, ...] | None = None
    ignored: tuple[Value, ...] | None = None
    suffix: str | None = None
    channels: int | None = None
    white: float | None = None
    epochs: int = 10
    batch_size: int = 4
    crop: tuple[int, int] | None = None
    repeat: int = 1
    limit: int = 0
    augment: tuple[str, ...] = ()
    loss: str = "cross_entropy"
    class_weights: str = "none"
    border_weight: float = 0.0
    optimizer: str = "adam"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "cosine"
    warmup: int = 0
    clip: float = 0.0
    seed: int = 0
    start: str | None = None
    backend: str = "auto"
    precision: str = "float32"
    graph: bool = False
    prefetch: int = 2
    recompute: bool = False
    network_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "network_options", dict(self.network_options))
        for name in ("augment", "classes", "values", "ignored"):  # JSON has lists for tuples
            object.__setattr__(self, name, _tuples(getattr(self, name)))
        if self.crop is not None:
            object.__setattr__(self, "crop", tuple(self.crop))
            if len(self.crop) != 2 or min(self.crop) < 1:
                raise ValueError(f"--crop must be a size of at least 1, or HEIGHTxWIDTH, got {self.crop}")
        for name in ("epochs", "batch_size", "repeat"):
            if getattr(self, name) < 1:
                raise ValueError(f"{option_name(name)} must be at least 1, got {getattr(self, name)}")
        for name in ("limit", "warmup", "seed", "prefetch", "border_weight", "weight_decay", "momentum", "clip"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{option_name(name)} must not be negative, got {getattr(self, name)}")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"--lr must be a positive number, got {self.lr}")
        if not 0 < self.val_fraction < 1:
            raise ValueError(f"--val-fraction must lie between 0 and 1, got {self.val_fraction}")
        for name, known in (
            ("loss", LOSSES),
            ("class_weights", CLASS_WEIGHTS),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("backend", BACKENDS),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{option_name(name)} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        unknown = [name for name in self.augment if name not in AUGMENTATIONS]
        if unknown:
            raise ValueError(f"--augment knows {', '.join(AUGMENTATIONS)}, got {unknown[0]!r}")
        if self.data not in DATASETS:
            raise ValueError(f"--data must be one of {', '.join(DATASETS)}, got {self.data!r}")
        self.data_options()
        if self.class_weights == "published" and self.data != "camvid":
            raise ValueError(f"--class-weights published exist for camvid only, not for {self.data}; use median, computed from the masks")
        if self.schedule == "plateau" and self.warmup:
            raise ValueError("--warmup does not go with --schedule plateau, which follows the validation loss; use another schedule")
        if self.border_weight and self.loss != "cross_entropy":
            raise ValueError(f"--border-weight needs --loss cross_entropy, which weighs pixels; {self.loss} does not")

    def data_options(self) -> dict[str, Any]:
        """The arguments of the data set. DataError, which is a ValueError, for those that it does not take."""
        return accepted(self.data, {name: getattr(self, name) for name in OPTIONS if name != "val_fraction" or name in taken(self.data)})

    def to_json(self) -> str:
        """The text of config.json: one option a line."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: object = "config.json") -> TrainConfig:
        """The inverse of to_json. ValueError that names the file for text that is none, or options that do not exist."""
        try:
            values = json.loads(text)
            unknown = sorted(set(values) - {f.name for f in fields(cls)})
            if unknown:
                raise ValueError(f"the option {unknown[0]!r} is not known")
            return cls(**values)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{where} does not hold the options of a run: {error}") from error


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


DATA_DEFAULTS: dict[str, dict[str, Any]] = {
    "cells": {"epochs": 5, "batch_size": 8, "lr": 3e-3, "augment": ("mirror", "turns")},
    "isbi": {"epochs": 10, "batch_size": 2, "crop": (256, 256), "repeat": 8, "lr": 2e-3, "augment": ("mirror", "turns")},
    "camvid": {"epochs": 60, "batch_size": 4, "lr": 1e-3, "augment": ("mirror",), "class_weights": "published"},
    "folder": {"epochs": 40, "batch_size": 4, "crop": (256, 256), "lr": 1e-3, "augment": ("mirror",)},
    "voc": {"epochs": 60, "batch_size": 8, "crop": (320, 320), "lr": 1e-3, "augment": ("mirror", "scale")},
    "oxford_pet": {"epochs": 20, "batch_size": 8, "crop": (256, 256), "lr": 1e-3, "augment": ("mirror", "scale")},
}
"""What differs from TrainConfig's own defaults. Chosen so that a run on two CPU cores is worth its time."""


def defaults(network: str, data: str, adjust: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """The options of a run on a data set if nothing is said. adjust: a network's own wishes, by data set, or "all" for every one."""
    adjust = adjust or {}
    return {"network": network, "data": data, **DATA_DEFAULTS.get(data, {}), **adjust.get("all", {}), **adjust.get(data, {})}
