"""The losses that a run can choose: which function each name means, with which weights, and what a batch weighs in the mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training

import minidcnn
from minidcnn import Tensor
from minidcnn import functional as F
from minidcnn.data import unet_weight_map
from minidcnn.segmentation.config import LOSSES
from minidcnn.segmentation.losses import Loss

WEIGHTS = np.array([0.5, 2.0, 7.0], np.float32)
IGNORED = 9  # no default of any function
Meant = Callable[..., Tensor]

MEANT: dict[str, Meant] = {
    "cross_entropy": F.cross_entropy,
    "dice": F.dice_loss,
    "cross_entropy+dice": lambda *a, **k: F.cross_entropy(*a, **k) + F.dice_loss(*a, **k),
    "focal": F.focal_loss,
    "tversky": F.tversky_loss,
}


def batch(rng: np.random.Generator) -> tuple[Tensor, np.ndarray]:
    """Logits (2, 3, 5, 7) and masks in which every class occurs, but not equally often; a third of the pixels is ignored."""
    logits = Tensor(rng.standard_normal((2, 3, 5, 7)).astype(np.float32))
    masks = rng.choice(3, (2, 5, 7), p=[0.6, 0.3, 0.1])
    masks[rng.random(masks.shape) < 1 / 3] = IGNORED
    return logits, masks


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", LOSSES)
def test_each_name_is_its_function_with_weights_and_ignored_pixels(name: str, weights: np.ndarray | None, rng: np.random.Generator) -> None:
    """And none is that without weights, without ignored pixels, or of another name."""
    logits, masks = batch(rng)
    own = None if weights is None else Tensor(weights)
    value = Loss(name, weights, IGNORED)(logits, Tensor(masks)).item()
    assert value == MEANT[name](logits, Tensor(masks), weight=own, ignore_index=IGNORED).item()
    others = [meant(logits, Tensor(masks), weight=own, ignore_index=IGNORED).item() for other, meant in MEANT.items() if other != name]
    if weights is not None:
        others.append(Loss(name, None, IGNORED)(logits, Tensor(masks)).item())
    others.append(Loss(name, weights, 255)(logits, Tensor(np.where(masks == IGNORED, 0, masks))).item())
    assert min(abs(value - other) for other in others) > 1e-3


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_pixel_weights_scale_the_cross_entropy(weights: np.ndarray | None, rng: np.random.Generator) -> None:
    """By hand: the sum over pixels of both weights times -log p, over the sum of both weights."""
    logits, masks = batch(rng)
    pixel_weights = rng.uniform(0.5, 5, masks.shape).astype(np.float32)
    loss = Loss("cross_entropy", weights, IGNORED)
    total = mass = 0.0
    for n, i, j in np.argwhere(masks != IGNORED):
        scores, k = logits.numpy()[n, :, i, j].astype(np.float64), masks[n, i, j]
        weight = float(pixel_weights[n, i, j]) * (1.0 if weights is None else float(weights[k]))
        total, mass = total + weight * (np.log(np.exp(scores).sum()) - scores[k]), mass + weight
    assert loss(logits, Tensor(masks), Tensor(pixel_weights)).item() == pytest.approx(total / mass, rel=1e-5)
    assert loss.size(masks, pixel_weights) == pytest.approx(mass, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "weights", "size"),
    [
        ("cross_entropy", None, 5.0),
        ("focal", None, 5.0),
        ("cross_entropy", WEIGHTS, 0.5 + 0.5 + 0.5 + 2 + 7),
        ("focal", WEIGHTS, 0.5 + 0.5 + 0.5 + 2 + 7),
        ("dice", WEIGHTS, 2.0),
        ("tversky", None, 2.0),
        ("cross_entropy+dice", WEIGHTS, 2.0),
    ],
)
def test_what_a_batch_weighs(name: str, weights: np.ndarray | None, size: float) -> None:
    """Two images with three pixels of class 0, one each of classes 1 and 2, and three that do not count."""
    masks = np.array([[[0, 0, IGNORED, 1]], [[2, IGNORED, 0, IGNORED]]])
    loss = Loss(name, weights, IGNORED)
    assert loss.size(masks) == size
    if name == "cross_entropy":
        pixel_weights = np.array([[[1, 2, 50, 4]], [[8, 50, 16, 50]]], np.float32)
        assert loss.size(masks, pixel_weights) == (1 + 2 + 4 + 8 + 16 if weights is None else 0.5 * (1 + 2 + 16) + 2 * 4 + 7 * 8)
    assert loss.size(np.full_like(masks, IGNORED)) == (2.0 if size == 2 else 0.0)


# -- the loss that a run reports -----------------------------------------------------------------------------------------------------------


def by_hand(logits: np.ndarray, masks: np.ndarray, weights: np.ndarray | None, pixel_weights: np.ndarray | None) -> tuple[float, float]:
    """The weighted sum of the cross-entropy over all pixels that count, and the sum of their weights, in float64."""
    scores = logits.astype(np.float64)
    logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    counted = masks != 255
    classes = np.where(counted, masks, 0)
    weight = counted * (1.0 if weights is None else weights.astype(np.float64)[classes]) * (1.0 if pixel_weights is None else pixel_weights)
    picked = np.take_along_axis(logs, classes[:, None], 1)[:, 0]
    return -float((weight * picked).sum()), float(weight.sum())


CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "class weights": {"class_weights": "median"},
    "border weights": {"border_weight": 10.0},
    "both": {"class_weights": "median", "border_weight": 10.0},
}


@pytest.mark.parametrize(("padding", "crop"), [("same", None), ("valid", (13, 18))])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("limit", [1, 3])
def test_the_training_loss_is_the_mean_over_the_pixels_of_all_steps(
    name: str, padding: str, crop: tuple[int, int] | None, limit: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    """A network that does not move: then metrics.jsonl must hold the loss of the first batches, each pixel counted by its weight."""
    data = training.arrays(rng, 6, (24, 32))
    config = training.options(epochs=1, limit=limit, lr=1e-30, optimizer="sgd", augment=(), crop=crop, **CONFIGS[name])
    trainer = training.make(tmp_path, config, (data, data), lambda d: training.unet(d, padding=padding, norm=None))
    model, m = trainer.model, trainer.model.margin
    assert (m > 0) == (padding == "valid")
    sums = np.zeros(2)
    with minidcnn.no_grad():
        for number, (seen, _) in enumerate(trainer.loader.batches(0)):
            if number == limit:
                break
            inner = np.s_[:, m : seen.masks.shape[1] - m, m : seen.masks.shape[2] - m]
            maps = None
            if config.border_weight:
                maps = np.stack([unet_weight_map(mask, 10.0, ignore_index=255) for mask in seen.masks])[inner]
            sums += by_hand(model(Tensor(seen.images)).numpy(), seen.masks[inner], trainer.loss.weights, maps)
    (entry,) = trainer.fit()
    assert entry["train_loss"] == training.metrics(tmp_path)[0]["train_loss"] == pytest.approx(sums[0] / sums[1], rel=1e-5)
