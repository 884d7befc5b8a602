"""Every option of a run arrives: on the command line, in what happens to a sample, in the optimizer, in the rate of every step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training

from minidcnn import models, optim
from minidcnn.backend import random_state
from minidcnn.data import (
    ColorJitter,
    Compose,
    ElasticDeformation,
    Normalize,
    RandomCrop,
    RandomGamma,
    RandomHorizontalFlip,
    RandomQuarterTurn,
    RandomRotation,
    RandomScale,
    Sample,
    UNetWeights,
    unet_weight_map,
)
from minidcnn.segmentation import command
from minidcnn.segmentation.config import SCHEDULES, TrainConfig, defaults
from minidcnn.segmentation.options import read_options
from minidcnn.segmentation.prepare import PadTo, make_optimizer, make_schedule, training_transform
from minidcnn.segmentation.runs import RunFolder

MEAN, STD = [0.5, 0.25, 0.125], [0.5, 0.25, 2.0]


# -- on the command line -------------------------------------------------------------------------------------------------------------------

GIVEN: dict[str, tuple[str, Any]] = {  # field -> what is typed, and what it means
    "data": ("--data isbi", "isbi"),
    "root": ("--root somewhere", "somewhere"),
    "val_fraction": ("--data folder --val-fraction 0.35", 0.35),
    "classes": ("--data folder --classes sky,road", ("sky", "road")),
    "values": ("--data folder --values 7,9", (7, 9)),
    "ignored": ("--data folder --ignored 3/4/5", ((3, 4, 5),)),
    "suffix": ("--data folder --suffix _m", "_m"),
    "channels": ("--data folder --channels 2", 2),
    "white": ("--data folder --white 4095", 4095.0),
    "epochs": ("--epochs 77", 77),
    "batch_size": ("--batch-size 13", 13),
    "crop": ("--crop 48x80", (48, 80)),
    "repeat": ("--repeat 6", 6),
    "limit": ("--limit 21", 21),
    "augment": ("--augment scale rotate elastic colour", ("scale", "rotate", "elastic", "colour")),
    "loss": ("--loss tversky", "tversky"),
    "class_weights": ("--class-weights median", "median"),
    "border_weight": ("--border-weight 8.5", 8.5),
    "optimizer": ("--optimizer sgd", "sgd"),
    "lr": ("--lr 0.0625", 0.0625),
    "momentum": ("--momentum 0.75", 0.75),
    "weight_decay": ("--weight-decay 0.0005", 0.0005),
    "schedule": ("--schedule poly", "poly"),
    "warmup": ("--warmup 9", 9),
    "clip": ("--clip 1.5", 1.5),
    "seed": ("--seed 42", 42),
    "start": ("--start runs/a/best.safetensors", "runs/a/best.safetensors"),
    "backend": ("--backend numpy", "numpy"),
    "precision": ("--precision float16", "float16"),
    "graph": ("--graph", True),
    "prefetch": ("--prefetch 3", 3),
    "recompute": ("--recompute", True),
}


def test_every_option_of_a_run_can_be_given() -> None:
    """So that a new one gets its line above."""
    assert set(GIVEN) == {f.name for f in fields(TrainConfig)} - {"network", "network_options"}


@pytest.mark.parametrize("name", GIVEN)
def test_an_option_changes_its_own_field_and_no_other(name: str, tmp_path: Path) -> None:
    typed, value = GIVEN[name]
    request = read_options("unet", ["--out", str(tmp_path / "run"), *typed.split()])
    data = {"data": typed.split()[1]} if typed.startswith("--data") else {}
    usual = TrainConfig(**defaults("unet", data.get("data", "cells")))
    assert request.config == replace(usual, **{name: value}) and request.folder.path == tmp_path / "run" and not request.resume
    assert name == "data" or request.config != usual


def test_all_together_and_options_of_the_network(tmp_path: Path) -> None:
    together = [
        name for name in GIVEN if name not in ("data", "border_weight")
    ]  # that weighs pixels, which the loss of the others does not
    typed = [word for name in together for word in GIVEN[name][0].split()]
    request = read_options(
        "unet", [*typed, "--depth", "3", "--out", str(tmp_path / "run")],
        add_options=lambda group: [group.add_argument(f"--{name}", type=int, default=5) for name in ("depth", "base")],
    )  # fmt: skip
    values = {name: GIVEN[name][1] for name in together}
    assert request.config == TrainConfig("unet", data="folder", **values, network_options={"depth": 3, "base": 5})


def test_no_augmentation_and_whole_images(tmp_path: Path) -> None:
    request = read_options("unet", ["--data", "voc", "--root", "x", "--no-augment", "--crop", "none", "--out", str(tmp_path)])
    assert request.config == replace(TrainConfig(**defaults("unet", "voc")), root="x", augment=(), crop=None)


def test_what_the_trainer_is_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds of the network and of the order of images, batches, threads, images as the options say, and memory."""
    monkeypatch.setattr(command, "open_data", lambda config: training.cells())
    states, built = [], []

    def build(data: Any, options: dict[str, Any]) -> Any:
        states.append(random_state())
        built.append(options)
        return training.unet(data)

    for seed in (3, 3, 4):
        config = training.options(seed=seed, prefetch=1, batch_size=3, repeat=5, limit=4, recompute=True, network_options={"base": 7})
        trainer = command.make_trainer(command.Request(config, RunFolder.new(str(tmp_path / str(len(states))), "tiny"), False), build)
        loader = trainer.loader
        assert (loader.seed, loader.prefetch, loader.batch_size, loader.shuffle, loader.drop_last) == (seed, 1, 3, True, True)
        assert trainer.model.recompute and trainer.steps == 4 and trainer.config == config
        assert loader.transform == training_transform(config, trainer.model, 1, trainer.mean, trainer.std)
    assert states[0] == states[1] != states[2] and built == [{"base": 7}] * 3


# -- what happens to a sample --------------------------------------------------------------------------------------------------------------


def network(channels: int = 3, padding: str = "same") -> models.UNet:
    return models.UNet(channels, 4, base=1, depth=2, padding=padding)


EXPECTED: dict[str, tuple[dict[str, Any], Callable[[models.UNet], list[Any]]]] = {
    "nothing": ({}, lambda m: [PadTo(0, m.suitable_size)]),
    "mirror": ({"augment": ("mirror",)}, lambda m: [PadTo(0, m.suitable_size), RandomHorizontalFlip()]),
    "turns": ({"augment": ("turns",)}, lambda m: [PadTo(0, m.suitable_size), RandomHorizontalFlip(), RandomQuarterTurn()]),
    "scale": ({"augment": ("scale",)}, lambda m: [RandomScale(0.7, 1.5), PadTo(0, m.suitable_size)]),
    "rotate": ({"augment": ("rotate",)}, lambda m: [RandomRotation(15), PadTo(0, m.suitable_size)]),
    "elastic": ({"augment": ("elastic",)}, lambda m: [ElasticDeformation(10, 3, 0.5), PadTo(0, m.suitable_size)]),
    "colour": ({"augment": ("colour",)}, lambda m: [PadTo(0, m.suitable_size), ColorJitter(0.3, 0.3, 0.3, 0.05)]),
    "border weights": ({"border_weight": 8.0}, lambda m: [PadTo(0, m.suitable_size), UNetWeights(8.0)]),
    "crop": ({"crop": (13, 18)}, lambda m: [PadTo(0), RandomCrop((16, 20))]),
    "everything": (
        {"augment": ("colour", "elastic", "rotate", "scale", "turns", "mirror"), "border_weight": 5.0, "crop": (16, 24)},
        lambda m: [
            RandomScale(0.7, 1.5), RandomRotation(15), ElasticDeformation(10, 3, 0.5), PadTo(0), RandomCrop((16, 24)),
            RandomHorizontalFlip(), RandomQuarterTurn(), ColorJitter(0.3, 0.3, 0.3, 0.05), UNetWeights(5.0),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_the_transform_of_each_option(name: str) -> None:
    """What changes shape or colour comes before the normalisation, and weights are those of the mask as it is trained on."""
    changes, steps = EXPECTED[name]
    model = network()
    config = training.options(**{"augment": (), **changes})
    assert training_transform(config, model, 3, MEAN, STD) == Compose(*steps(model), Normalize(MEAN, STD))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_images_of_other_than_three_channels_change_by_a_power(channels: int) -> None:
    model = network(channels)
    found = training_transform(training.options(augment=("colour",)), model, channels, [0.5], [0.25])
    assert found == Compose(PadTo(0, model.suitable_size), RandomGamma(), Normalize([0.5], [0.25]))


def test_a_network_without_padding_sees_its_margin() -> None:
    model = network(padding="valid")
    assert model.margin > 0
    whole, crop = (training_transform(training.options(augment=(), crop=crop), model, 3, MEAN, STD) for crop in (None, (13, 18)))
    assert whole == Compose(PadTo(model.margin, model.suitable_size), Normalize(MEAN, STD))
    assert crop == Compose(PadTo(model.margin), RandomCrop(model.suitable_size((13, 18))), Normalize(MEAN, STD))


def seen(channels: int = 3, count: int = 24, **changes: Any) -> tuple[Sample, list[Sample]]:
    """A sample of 28x44 whose image and mask vary from pixel to pixel, and what training sees of it in so many draws, not normalised."""
    rng = np.random.default_rng(7)
    image, mask = rng.uniform(0.25, 0.75, (channels, 28, 44)).astype(np.float32), rng.integers(0, 4, (28, 44))
    sample = Sample(image, mask, "a")
    transform = training_transform(training.options(**{"augment": (), **changes}), network(channels), channels, [0.0], [1.0])
    return sample, [transform(sample, np.random.default_rng(seed)) for seed in range(count)]


def test_without_augmentation_only_normalised() -> None:
    sample, drawn = seen()
    for s in drawn:
        np.testing.assert_array_equal(s.image, sample.image)
        np.testing.assert_array_equal(s.mask, sample.mask)
        assert s.weight is None
    transform = training_transform(training.options(augment=()), network(), 3, MEAN, STD)
    normal = transform(sample, np.random.default_rng(0)).image
    np.testing.assert_allclose(normal, (sample.image - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None], rtol=1e-5, atol=1e-6)


def test_scaled_images_are_larger_and_smaller() -> None:
    sample, drawn = seen(augment=("scale",))
    factors = np.array([(s.mask != 255).sum() for s in drawn]) ** 0.5 / sample.mask.size**0.5
    assert 0.68 < factors.min() < 0.85 and 1.25 < factors.max() < 1.52


def test_rotated_images_keep_their_middle_and_lose_corners() -> None:
    sample, drawn = seen(augment=("rotate",))
    corners = np.array([[s.mask[i, j] == 255 for i in (0, -1) for j in (0, -1)] for s in drawn])
    assert corners.any(1).mean() > 0.7
    for s in drawn:
        assert s.size == sample.size and 0.75 < (s.mask != 255).mean() <= 1
        np.testing.assert_array_equal(s.mask[13:15, 21:23], sample.mask[13:15, 21:23])


def test_half_of_the_images_are_deformed() -> None:
    sample, drawn = seen(augment=("elastic",))
    changed = [bool((s.mask != sample.mask).any()) for s in drawn]
    assert 0.25 < np.mean(changed) < 0.75 and all(s.size == sample.size for s in drawn)
    assert all((s.image != sample.image).any() == c for s, c in zip(drawn, changed, strict=True))


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_change_and_masks_do_not(channels: int) -> None:
    sample, drawn = seen(channels, augment=("colour",))
    for s in drawn:
        np.testing.assert_array_equal(s.mask, sample.mask)
    change = [float(s.image.mean() / sample.image.mean()) for s in drawn]
    assert 0.6 < min(change) < 0.9 and 1.1 < max(change) < 1.4


def test_pixels_between_cells_weigh_more() -> None:
    for s in seen(border_weight=8.0, count=2)[1] + seen(border_weight=8.0, count=4, augment=("turns",), crop=(16, 24))[1]:
        assert s.weight is not None and s.weight.max() > 2
        np.testing.assert_array_equal(s.weight, unet_weight_map(s.mask, 8.0))


# -- optimizers ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("sgd", optim.SGD, {"momentum": 0.75, "dampening": 0.0, "nesterov": False}),
        ("adam", optim.Adam, {"betas": (0.9, 0.999)}),
        ("adamw", optim.AdamW, {"betas": (0.9, 0.999)}),
    ],
)
def test_optimizers_and_their_settings(name: str, kind: type, settings: dict[str, Any]) -> None:
    """FCN's biases learn at twice the rate without decay; of the others all parameters alike."""
    config = training.options(optimizer=name, momentum=0.75, weight_decay=0.25, lr=0.5)
    optimizer = make_optimizer(config, network())
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert group.items() >= {**settings, "weight_decay": 0.25, "lr": 0.5}.items()
    optimizer = make_optimizer(config, models.FCN32s(2, 3, width=1))
    assert type(optimizer) is kind
    weights, biases = optimizer.param_groups
    assert weights.items() >= {**settings, "weight_decay": 0.25, "lr": 0.5}.items()
    assert biases.items() >= {**settings, "weight_decay": 0.0, "lr": 1.0}.items()


def test_a_networks_groups_hold_what_is_trained_with_its_decay() -> None:
    model = network()
    frozen = next(iter(model.parameters()))
    frozen.requires_grad_(False)
    (group,) = model.parameter_groups(0.125, 0.0625)
    assert (group["lr"], group["weight_decay"]) == (0.125, 0.0625)
    assert list(map(id, group["params"])) == [id(p) for p in model.parameters() if p is not frozen]
    assert model.parameter_groups(0.125)[0]["weight_decay"] == 0


# -- schedules -----------------------------------------------------------------------------------------------------------------------------


def share(schedule: str, step: int, steps: int, warmup: int) -> float:
    """What part of --lr step number `step` of `steps` is taken with."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    t, rest = step - warmup, steps - warmup
    return {
        "constant": 1.0,
        "cosine": (1 + math.cos(math.pi * t / rest)) / 2,
        "poly": (1 - t / rest) ** 0.9,
        "step": 0.1 ** (t // math.ceil(rest / 3)),
    }[schedule]


@pytest.mark.parametrize("warmup", [0, 1, 5])
@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name != "plateau"])
def test_every_rate_is_that_of_the_formula(schedule: str, warmup: int) -> None:
    for steps in (23, 24):
        config = training.options(schedule=schedule, warmup=warmup, lr=0.8, optimizer="sgd")
        optimizer = make_optimizer(config, models.FCN32s(2, 3, width=1))
        made = make_schedule(config, optimizer, steps)
        rates = []
        for _ in range(steps):
            rates.append([group["lr"] for group in optimizer.param_groups])
            made.step()
        expected = np.array([share(schedule, step, steps, warmup) for step in range(steps)])
        np.testing.assert_allclose(rates, expected[:, None] * [0.8, 1.6], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("schedule", ["cosine", "poly", "step"])
def test_a_run_spreads_its_schedule_over_all_epochs(schedule: str, tmp_path: Path) -> None:
    """The rate that metrics.jsonl tells is that of the step to come."""
    config = training.options(epochs=3, repeat=2, limit=3, warmup=2, schedule=schedule, lr=0.004)
    history = training.make(tmp_path, config).fit()
    assert [entry["step"] for entry in history] == [3, 6, 9]
    expected = [0.004 * share(schedule, step, 9, 2) for step in (3, 6, 9)]
    assert [entry["lr"] for entry in history] == pytest.approx(expected, rel=1e-12, abs=1e-15)
