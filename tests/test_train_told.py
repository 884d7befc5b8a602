"""What a run says of itself, number by number; and what its numbers hang on: a constant channel, a scaled loss."""

from __future__ import annotations

import errno
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training

import minidcnn
from minidcnn.data import Arrays
from minidcnn.interop import load_checkpoint, model_of
from minidcnn.segmentation import command, train
from minidcnn.segmentation.evaluate import evaluate
from minidcnn.segmentation.interrupt import Stopped
from minidcnn.words import counted


@pytest.mark.parametrize("data", ["cells", "folder"])
def test_a_class_that_no_held_out_image_has_is_warned_of(data: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """Its score is undefined, so that a network which never finds it may have the best mean IoU there is."""
    train = training.arrays(rng, 3, (16, 24), classes=4)
    background = Arrays(train.images, [np.where(mask == 1, 1, 0) for mask in train.masks], 4)
    trainer = training.make(tmp_path, training.options(data=data, root="x" if data == "folder" else None), (train, background))
    (warning,) = trainer.warnings
    assert warning == (
        "arrays: no pixel is class 2, class 3: the scores, by which the best epoch is chosen, cannot tell how well it is found; "
        "hold out images that have it" + ", in folders train/ and val/" * (data == "folder")
    )
    for i, pair in enumerate([(train, train), (background, background)]):  # what is not learned either is told of the training images
        warnings = training.make(tmp_path / f"others-{i}", data=pair).warnings
        assert not any("cannot tell" in warning for warning in warnings) and bool(warnings) == i


def test_a_run_tells_what_it_trains_and_its_best_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = training.options(epochs=3, repeat=2, batch_size=2, lr=0.05)
    trainer = training.make(tmp_path / "run", config)
    size = sum(parameter.size for parameter in trainer.model.parameters())
    assert trainer.describe().splitlines() == [
        "cells: 5 images to train on, 3 held out, 1 channel, 2 classes",
        f"unet: {size:,} parameters on numpy, 3 epochs of 4 steps of 2 images",
        f"results in {tmp_path / 'run'}",
    ]
    command.run(trainer, command.Request(config, trainer.folder, False))
    best = max(trainer.history, key=lambda entry: entry["val_miou"])
    said = capsys.readouterr().out
    assert said.startswith(trainer.describe() + "\n")
    again = evaluate(model_of(load_checkpoint(trainer.folder.best)), trainer.val, mean=trainer.mean, std=trainer.std)
    table = again.confusion.table(["background", "cell"])
    assert f"best mean IoU {best['val_miou']:.4f} (epoch {best['epoch']}), on held-out images:\n{table}\n" in said
    assert f"predict with\n  python -m minidcnn predict {trainer.folder.best} IMAGE..." in said


def test_a_channel_that_is_constant_is_not_divided_by_its_deviation(tmp_path: Path, rng: np.random.Generator) -> None:
    data = training.arrays(rng, 4, (16, 24))
    images: Any = np.stack(list(data.images))
    images[:, 1] = 0.25
    data = Arrays(images, data.masks, 3)
    trainer = training.make(tmp_path, training.options(epochs=1), (data, data))
    (entry,) = trainer.fit()
    assert np.isfinite(entry["train_loss"]) and np.isfinite(entry["val_loss"])
    info = load_checkpoint(tmp_path / "best.safetensors").info
    assert info["mean"] == pytest.approx(images.mean((0, 2, 3)), rel=1e-5) and info["mean"][1] == 0.25
    assert info["std"] == pytest.approx([images[:, 0].std(), 1.0, images[:, 2].std()], rel=1e-5)


@pytest.mark.parametrize("clip", [1e-3, 1e6])
def test_the_gradient_that_is_limited_is_that_of_the_loss_not_of_the_scaled_one(clip: float, tmp_path: Path) -> None:
    """In float16, one step of plain descent at rate 1: it is as long as the limit, or, far below that, as long as the gradient."""
    minidcnn.use("numpy", "float16")
    try:
        config = training.options(
            optimizer="sgd", momentum=0.0, lr=1.0, clip=clip, epochs=1, limit=1, schedule="constant", precision="float16"
        )
        trainer = training.make(tmp_path, config)
        trainer.scaler.update(256.0)
        before = trainer.model.state_dict()
        trainer.fit()
        moved = [trainer.model.state_dict()[name] - before[name] for name, _ in trainer.model.named_parameters()]
    finally:
        minidcnn.use("numpy")
    norm = np.sqrt(sum((m.astype(np.float64) ** 2).sum() for m in moved))
    assert norm == pytest.approx(1e-3, rel=1e-2) if clip == 1e-3 else 0.01 < norm < 100


def test_one_is_no_plural(tmp_path: Path, rng: np.random.Generator) -> None:
    assert [counted(n, word) for n, word in ((0, "image"), (1, "class"), (2, "class"))] == ["0 images", "1 class", "2 classes"]
    image = training.arrays(rng, 1, (16, 24))
    data, network, _ = training.make(tmp_path, training.options(epochs=1), (image, image)).describe().splitlines()
    assert data == "cells: 1 image to train on, 1 held out, 3 channels, 3 classes"
    assert network.endswith("on numpy, 1 epoch of 1 step of 1 image")


def test_what_is_kept_is_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the epoch that was about to be saved when the disk was full; and after a stop within an epoch, the steps too."""
    trainer, save = training.make(tmp_path / "run"), train.save_checkpoint
    assert trainer.kept() == "nothing was saved yet"

    def full(path: Path, checkpoint: Any) -> None:
        if path == trainer.folder.last and trainer.epoch == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(path, checkpoint)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(train, "save_checkpoint", full)
        trainer.fit()
    assert load_checkpoint(trainer.folder.last).training["epoch"] == 1
    assert trainer.kept() == f"{trainer.folder.last} keeps the state after epoch 1"
    again = training.make(tmp_path / "run", resume=True)
    assert again.kept() == trainer.kept()
    again.model.register_forward_hook(lambda module, inputs, output: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Stopped):
        again.fit()
    assert again.kept() == f"{trainer.folder.last} keeps the state after epoch 1, step 1 of 2"
