"""Tiny runs for the tests of the trainer: a few images, a narrow network, two epochs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import minidcnn
from minidcnn.data import Arrays, Cells, Dataset
from minidcnn.models import Segmenter, UNet
from minidcnn.segmentation.config import TrainConfig
from minidcnn.segmentation.runs import RunFolder
from minidcnn.segmentation.train import Trainer

TIMES = ("seconds", "images_per_second")  # what differs from run to run
Build = Callable[[Dataset], Segmenter]


def cells() -> tuple[Dataset, Dataset]:
    return Cells("train", 5, (24, 32)), Cells("val", 3, (24, 32))


def arrays(rng: np.random.Generator, count: int, size: tuple[int, int], classes: int = 3, channels: int = 3, ignore: bool = True) -> Arrays:
    """Images whose classes can be told by brightness, some of their pixels ignored."""
    masks = rng.integers(0, classes, (count, *(n // 4 for n in size))).repeat(4, 1).repeat(4, 2)
    noise = rng.random((count, channels, *size), dtype=np.float32)
    images = (masks[:, None] + noise * 0.5).astype(np.float32) / np.float32(classes)
    if ignore:
        masks[:, :2] = 255
    return Arrays(images, masks, classes)


def unet(data: Dataset, **options: Any) -> UNet:
    return UNet(data.channels, len(data.classes), **{"base": 2, "depth": 2, "padding": "same", "norm": "batch", **options})


def options(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"network": "unet", "epochs": 2, "batch_size": 2, "lr": 0.01, "augment": ("turns",), "prefetch": 0, **changes})


def make(
    out: Path,
    config: TrainConfig | None = None,
    data: tuple[Dataset, Dataset] | None = None,
    build: Build = unet,
    resume: bool = False,
    draw: bool = False,
) -> Trainer:
    """A trainer as command.make_trainer makes it, on data in memory; without pictures, which take longer than such a run."""
    config = config or options()
    train, val = data or cells()
    minidcnn.manual_seed(config.seed)
    folder = RunFolder(out) if resume else RunFolder.new(str(out), "tiny")
    trainer = Trainer(build(train), train, val, config, folder, shown=False)
    if not draw:
        trainer.draw_curves = lambda: None  # type: ignore[method-assign]
        trainer.draw_predictions = lambda model: None  # type: ignore[method-assign]
    if resume:
        trainer.restore()
    folder.write_config(config)
    return trainer


def metrics(out: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the times."""
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]


def same_results(a: Path, b: Path) -> None:
    """Both runs ended with the same bits: weights, optimizer, random numbers, scores."""
    for name in ("last.safetensors", "best.safetensors"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    assert metrics(a) == metrics(b)
