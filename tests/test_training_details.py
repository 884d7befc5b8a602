"""The trainer's smaller promises: which order, which clock, which epoch is best, what a line says, what a picture shows, what a checkpoint tells."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training
from test_train_resume import stop_when

import minidcnn
from minidcnn import Tensor
from minidcnn import functional as F
from minidcnn.data import Arrays
from minidcnn.interop import load_checkpoint
from minidcnn.segmentation import train
from minidcnn.segmentation.diagnose import TrainingError
from minidcnn.segmentation.interrupt import Stopped
from minidcnn.segmentation.losses import Loss
from minidcnn.segmentation.progress import Progress


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The trainer's clock, in seconds: it stands still unless a test moves it."""
    seconds = [1000.0]
    monkeypatch.setattr(train, "time", types.SimpleNamespace(perf_counter=lambda: seconds[0]))
    return seconds


def scored(trainer: train.Trainer, **values: list[float]) -> None:
    """Let the epochs have these values in metrics.jsonl, whatever the network makes of the images."""
    record = trainer._record
    trainer._record = lambda evaluation: record(evaluation) | {key: v[trainer.epoch] for key, v in values.items()}  # type: ignore[method-assign]


# -- steps and their order -------------------------------------------------------------------------------------------------------------


def test_every_pass_over_the_images_has_an_order_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = training.make(tmp_path, training.options(repeat=3))
    batches, passes = trainer.loader.batches, []
    monkeypatch.setattr(trainer.loader, "batches", lambda epoch, start: (passes.append((epoch, start)), batches(epoch, start))[1])
    trainer.fit()
    assert passes == [(number, 0) for number in range(6)]


def test_a_limit_that_no_epoch_reaches_changes_nothing(tmp_path: Path) -> None:
    trainer = training.make(tmp_path, training.options(limit=5, schedule="poly", lr=0.01))
    assert trainer.steps == len(trainer.loader) == 2
    assert [entry["lr"] for entry in trainer.fit()] == pytest.approx([0.01 * 0.5**0.9, 0])


def test_a_network_that_was_evaluated_before_is_trained_in_training_mode(tmp_path: Path) -> None:
    trainer, modes = training.make(tmp_path), []
    trainer.model.eval()
    trainer.model.register_forward_hook(lambda module, inputs, output: modes.append(module.training))
    trainer.fit()
    assert modes == [True, True, False, False] * 2


def test_the_loss_of_an_epoch_is_that_of_its_own_steps(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    data = training.arrays(rng, 5, (16, 24))
    trainer, values = training.make(tmp_path, training.options(epochs=3, batch_size=1, limit=1), (data, data)), []
    step = trainer._step
    monkeypatch.setattr(trainer, "_step", lambda *a: (values.append(step(*a)), values[-1])[1])
    assert [entry["train_loss"] for entry in trainer.fit()] == pytest.approx(values) and len(set(values)) == 3


def test_images_of_little_contrast_are_normalised(tmp_path: Path, rng: np.random.Generator) -> None:
    data = training.arrays(rng, 2, (16, 24))
    faint = Arrays([np.float32(0.5) + image * np.float32(1e-3) for image in data.images], data.masks, 3)
    trainer = training.make(tmp_path, training.options(augment=()), (faint, faint))
    seen = np.stack([trainer.loader.sample(0, i).image for i in range(2)])
    assert max(trainer.std) < 1e-3 and trainer.std == pytest.approx(np.stack(list(faint.images)).std((0, 2, 3)), rel=1e-3)
    np.testing.assert_allclose(seen.std((0, 2, 3)), 1, rtol=1e-3)


def test_an_epoch_of_ignored_pixels_alone_has_no_loss_to_tell(tmp_path: Path, rng: np.random.Generator) -> None:
    config, data = training.options(epochs=1, batch_size=1, limit=1), training.arrays(rng, 3, (16, 24))
    first = training.make(tmp_path / "order", config, (data, data)).loader.order(0)[0]
    masks = [np.full_like(mask, 255) if i == first else mask for i, mask in enumerate(data.masks)]
    (entry,) = training.make(tmp_path / "run", config, (Arrays(data.images, masks, 3), data)).fit()
    assert entry["train_loss"] == 0.0


def test_a_resumed_run_sees_images_as_it_saw_them_before(tmp_path: Path, rng: np.random.Generator) -> None:
    """Its network was trained on images of that mean; an image that was made brighter since then is no reason to normalise otherwise."""
    data = training.arrays(rng, 4, (16, 24))
    first = training.make(tmp_path, training.options(epochs=1, augment=()), (data, data))
    first.fit()
    brighter = Arrays([image + np.float32(0.5) for image in data.images], data.masks, 3)
    again = training.make(tmp_path, training.options(epochs=2, augment=()), (brighter, data), resume=True)
    assert (again.mean, again.std) == (first.mean, first.std)
    before, now = (trainer.loader.sample(0, 0).image for trainer in (first, again))
    np.testing.assert_allclose(now - before, np.broadcast_to(0.5 / np.array(first.std)[:, None, None], now.shape), rtol=1e-4)


def test_the_rate_goes_on_where_a_step_overflows_so_that_the_schedule_ends_with_the_run(tmp_path: Path) -> None:
    minidcnn.use("numpy", "float16")
    try:
        trainer = training.make(tmp_path, training.options(epochs=1, schedule="poly", lr=0.01))
        before = trainer.model.get_submodule("head").bias.numpy().copy()
        trainer.scaler.update(2.0**60)
        (entry,) = trainer.fit()
    finally:
        minidcnn.use("numpy")
    np.testing.assert_array_equal(trainer.model.get_submodule("head").bias.numpy(), before)  # both steps did
    assert (entry["scale"], entry["lr"]) == (2.0**58, 0.0)


def test_a_gradient_that_overflows_at_a_scale_of_one_ends_a_run_in_float16_too(tmp_path: Path) -> None:
    """At a scale of two, the step is left out."""
    minidcnn.use("numpy", "float16")
    try:
        trainer = training.make(tmp_path)
        bias = trainer.model.get_submodule("head").bias

        class Steep(Loss):
            def __call__(self, logits: Tensor, masks: Tensor, pixel_weights: Tensor | None = None) -> Tensor:
                return super().__call__(logits, masks) + F.sum(F.sqrt(F.mul(bias, 0.0)))  # of infinite slope

        trainer.loss = Steep("cross_entropy", None, 255)
        trainer.scaler.update(2.0)
        with pytest.raises(TrainingError, match=r"at step 2 .*: the gradient is not finite; the first are in the gradient of head\.bias"):
            trainer.fit()
    finally:
        minidcnn.use("numpy")


# -- what an epoch is worth -------------------------------------------------------------------------------------------------------------


def test_of_equal_epochs_the_first_is_the_best_and_its_network_is_drawn_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, drawn = training.make(tmp_path, training.options(epochs=3)), []
    scored(trainer, val_miou=[0.5, 0.5, 0.25])
    monkeypatch.setattr(trainer, "draw_predictions", lambda model: drawn.append(model.state_dict()))
    trainer.fit()
    best = load_checkpoint(trainer.folder.best)
    assert trainer.best == {"epoch": 1, "val_miou": 0.5} and best.info["epoch"] == 1
    for name, array in best.tensors.items():
        np.testing.assert_array_equal(drawn[-1][name], array, name)
    assert any((drawn[-1][name] != array).any() for name, array in trainer.model.state_dict().items())
    again = training.make(tmp_path, training.options(epochs=3), resume=True)
    assert again.best == trainer.best
    trainer.folder.best.unlink()  # somebody moved it: then the last one's are better than none
    trainer.draw_pictures()
    for name, array in trainer.model.state_dict().items():
        np.testing.assert_array_equal(drawn[-1][name], array, name)


def test_the_rate_falls_when_the_validation_loss_does_not_whatever_the_training_loss_does(tmp_path: Path) -> None:
    for falling, rates in (("val_loss", [0.01] * 8), ("train_loss", [0.01] * 7 + [0.003])):
        trainer = training.make(tmp_path / falling, training.options(epochs=8, schedule="plateau", limit=1))
        scored(trainer, **{key: [9.0 - i if key == falling else 1.0 for i in range(8)] for key in ("val_loss", "train_loss")})
        assert [entry["lr"] for entry in trainer.fit()] == pytest.approx(rates)


def test_the_rate_that_is_told_is_that_of_the_first_group(tmp_path: Path) -> None:
    """As --lr is, which the biases of an FCN learn at twice of."""

    def build(data: Any) -> Any:
        model = training.unet(data)
        trained = list(model.parameters())
        model.parameter_groups = lambda lr, decay: [{"params": trained[:2], "lr": lr}, {"params": trained[2:], "lr": 2 * lr}]  # type: ignore[assignment,return-value]
        return model

    (entry,) = training.make(tmp_path, training.options(epochs=1, schedule="constant", lr=0.25, optimizer="sgd"), build=build).fit()
    assert entry["lr"] == 0.25


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "dice"])
def test_held_out_images_are_judged_by_the_loss_that_is_trained(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """With its weights of the classes, and each image by itself where regions are compared."""
    data = training.arrays(rng, 3, (16, 24))
    config = training.options(epochs=1, loss=name, class_weights="median", batch_size=1)
    trainer = training.make(tmp_path, config, (data, data))
    (entry,) = trainer.fit()
    model, logits = trainer.model.eval(), []
    with minidcnn.no_grad():
        for sample in data:
            image = (sample.image - np.array(trainer.mean)[:, None, None]) / np.array(trainer.std)[:, None, None]
            logits.append(model(Tensor(image[None].astype(np.float32))).numpy()[0])
    images = [(Tensor(scores[None]), Tensor(sample.mask[None])) for scores, sample in zip(logits, data, strict=True)]
    kinds = {"weight": Tensor(trainer.loss.weights), "ignore_index": 255}
    if name == "dice":
        expected = np.mean([F.dice_loss(*image, **kinds).item() for image in images])
    else:
        together = Tensor(np.stack(logits)), Tensor(np.stack([sample.mask for sample in data]))
        expected = getattr(F, {"focal": "focal_loss"}.get(name, name))(*together, **kinds).item()
    assert entry["val_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_checkpoint_tells_the_scores_on_held_out_images_and_no_others(tmp_path: Path) -> None:
    history = training.make(tmp_path, training.options(epochs=1)).fit()
    for name in ("best", "last"):
        scores = load_checkpoint(tmp_path / f"{name}.safetensors").info["scores"]
        assert scores == {key: value for key, value in history[0].items() if key[:4] == "val_"} and "val_loss" in scores


# -- time ---------------------------------------------------------------------------------------------------------------------------------


def test_images_per_second_are_those_of_an_epochs_steps_and_its_seconds_are_all(tmp_path: Path, now: list[float]) -> None:
    """Two steps of two images: of a second each, then of four; and two batches of held-out images, of ten seconds each."""
    trainer = training.make(tmp_path)

    def work(module: Any, *_: Any) -> None:
        now[0] += (4 if trainer.epoch else 1) if module.training else 10

    trainer.model.register_forward_hook(work)
    assert [(entry["images_per_second"], entry["seconds"]) for entry in trainer.fit()] == [(2.0, 22.0), (0.5, 28.0)]


def test_pictures_are_drawn_again_when_a_minute_is_over(tmp_path: Path, now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """After each of seven epochs of 25 seconds, if more than 60 have gone by since the last time; and in the end."""
    trainer, drawn = training.make(tmp_path, training.options(epochs=7, limit=1)), []

    def validated() -> Any:
        now[0] += 25
        return validate()

    validate = trainer._validate
    monkeypatch.setattr(trainer, "_validate", validated)
    monkeypatch.setattr(trainer, "draw_curves", lambda: drawn.append(("curves", trainer.epoch)))
    monkeypatch.setattr(
        trainer, "draw_predictions", lambda model: drawn.append(("now" if model is trainer.model else "best", trainer.epoch))
    )
    trainer.fit()
    assert drawn == [("curves", 3), ("now", 3), ("curves", 6), ("now", 6), ("curves", 7), ("best", 7)]


def test_the_bar_of_a_resumed_run_begins_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = training.make(tmp_path)
    stop_when(trainer, lambda n, _: n == trainer.steps + 2)  # the first step of the second epoch
    with pytest.raises(Stopped):
        trainer.fit()
    assert (trainer.epoch, trainer.step) == (1, 1)
    capsys.readouterr()
    again = training.make(tmp_path, resume=True)
    again.shown = True
    again.fit()
    assert re.search(r"epoch 2/2 100%\|[^|]*\| validating 3/3 *\r", capsys.readouterr().err)


# -- lines --------------------------------------------------------------------------------------------------------------------------------


def test_the_line_of_an_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = training.make(tmp_path, training.options(epochs=12))
    entry = {"epoch": 3, "train_loss": 0.125, "val_loss": 0.25, "val_pixel_accuracy": 0.5, "val_miou": 0.375, "seconds": 75.2}
    with Progress(1, shown=False) as trainer.progress:
        trainer._report(entry, better=True)
        trainer._report(entry, better=False)
    line = "epoch  3/12  loss 0.1250  val loss 0.2500  pixel accuracy 0.5000  mean IoU 0.3750"
    assert capsys.readouterr().out.splitlines() == [f"{line} *  1:15", f"{line}    1:15"]


def test_a_warning_is_told_again_once_it_had_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = training.make(tmp_path)
    entry = {"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "val_pixel_accuracy": 0.5, "val_miou": 0.5, "seconds": 1.0}
    told = []
    with Progress(1, shown=False) as trainer.progress:
        for warned in (True, True, False, True, True, False, False, True):
            trainer.history.append(entry | {"warning": "all alike"} if warned else entry)
            trainer._report(trainer.history[-1], better=False)
            told.append(capsys.readouterr().err)
    once = "warning: all alike\n"
    assert told == [once, "", "", once, "", "", "", once]


def test_what_was_found_in_the_data_is_said_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = training.make(tmp_path, training.options(epochs=1))
    trainer.warnings += ["first", "second"]
    trainer.fit()
    assert capsys.readouterr().err == "warning: first\nwarning: second\n"
