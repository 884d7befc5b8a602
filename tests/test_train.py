"""The trainer: what it writes, that it learns, that it repeats itself to the bit, and how it stops when something is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training
from PIL import Image

import minidcnn
from minidcnn import Tensor
from minidcnn import functional as F
from minidcnn.backend import compiling
from minidcnn.data import Arrays, DataError, Sample
from minidcnn.interop import load_checkpoint, model_of
from minidcnn.models import SegNet
from minidcnn.segmentation import predict, train
from minidcnn.segmentation.config import DATA_DEFAULTS, TrainConfig, defaults
from minidcnn.segmentation.diagnose import TrainingError, out_of_memory
from minidcnn.segmentation.evaluate import evaluate
from minidcnn.segmentation.losses import Loss
from minidcnn.segmentation.prepare import class_weights, training_transform
from minidcnn.segmentation.progress import Progress, clock, compiling_said

FILES = {"config.json", "metrics.jsonl", "curves.png", "predictions.png", "last.safetensors", "best.safetensors"}


# -- what comes out ----------------------------------------------------------------------------------------------------------


def test_a_run_writes_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = training.make(tmp_path / "run", draw=True)
    history = trainer.fit()
    out = tmp_path / "run"
    assert {p.name for p in out.iterdir()} == FILES
    assert TrainConfig.from_json((out / "config.json").read_text()) == trainer.config
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines == history and [line["epoch"] for line in lines] == [1, 2]
    for line in lines:
        assert {
            "train_loss",
            "val_loss",
            "val_pixel_accuracy",
            "val_class_accuracy",
            "val_miou",
            "val_fwiou",
            "val_dice",
            "val_iou",
            "lr",
        } <= set(line)
        assert len(line["val_iou"]) == len(line["val_dices"]) == len(line["val_class_accuracies"]) == 2
        assert 0 < line["val_miou"] <= line["val_dice"] <= 1 and line["seconds"] > 0 and line["images_per_second"] > 0
        assert line["val_miou"] == pytest.approx(np.mean(line["val_iou"]))
    for name in ("curves.png", "predictions.png"):
        with Image.open(out / name) as picture:
            assert picture.size[0] > 400 and len(picture.convert("RGB").getcolors(1 << 24)) > 50
    printed = capsys.readouterr()
    assert "epoch 1/2" in printed.out and "mean IoU" in printed.out
    assert "\r" not in printed.err  # no bar where nobody watches


def test_the_checkpoints_say_what_predicting_needs(tmp_path: Path) -> None:
    data = training.cells()
    trainer = training.make(tmp_path, data=data)
    history = trainer.fit()
    last, best = load_checkpoint(tmp_path / "last.safetensors"), load_checkpoint(tmp_path / "best.safetensors")
    pixels = np.stack([s.image for s in data[0]])
    assert best.info["mean"] == pytest.approx([pixels.mean()]) and best.info["std"] == pytest.approx([pixels.std()])
    assert best.info["classes"] == ["background", "cell"] and best.info["palette"] == data[0].palette.tolist()
    assert (best.info["channels"], best.info["ignore_index"], best.info["data"], best.info["mask_values"]) == (1, 255, "cells", None)
    assert last.training["epoch"] == last.info["epoch"] == 2 and not best.training and not best.training_tensors
    top = max(history, key=lambda entry: entry["val_miou"])
    assert best.info["epoch"] == top["epoch"] == last.training["best"]["epoch"]
    assert best.info["scores"]["val_miou"] == top["val_miou"]
    result = evaluate(model_of(best), data[1], mean=best.info["mean"], std=best.info["std"], batch_size=3)
    assert result.confusion.scores("val_").items() <= top.items()


def test_two_runs_are_the_same_bits_and_another_seed_is_not(tmp_path: Path) -> None:
    for name, config in {"a": training.options(prefetch=2), "b": training.options(), "c": training.options(seed=1)}.items():
        training.make(tmp_path / name, config).fit()
    training.same_results(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a/last.safetensors").read_bytes() != (tmp_path / "c/last.safetensors").read_bytes()


def test_one_batch_is_learned_by_heart(tmp_path: Path, rng: np.random.Generator) -> None:
    data = training.arrays(rng, 2, (16, 24))
    config = training.options(epochs=1, repeat=40, augment=(), lr=0.03)
    entry = training.make(tmp_path, config, (data, data), lambda d: training.unet(d, base=8)).fit()[-1]
    assert entry["val_loss"] < 0.05
    assert entry["val_pixel_accuracy"] > 0.99


def test_weights_move_every_step_until_the_limit(tmp_path: Path) -> None:
    trainer = training.make(tmp_path, training.options(limit=3, repeat=4, epochs=1))
    assert len(trainer.loader) == 2 and trainer.steps == 3  # of 8 that four passes would have
    trainer.fit()
    assert trainer.optimizer.state_dict()["state"][0]["step"] == 3
    assert trainer.history[0]["step"] == 3


def test_the_progress_bar_tells_loss_speed_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(4, shown=True) as progress:
        progress.step("epoch 1/2", 0.1234, 8, 0.5)
        progress.say("a line")
        progress.bar.refresh()
    shown = capsys.readouterr()
    assert re.search(r"epoch 1/2  25%\|[^|]*\| loss 0\.123, 16 images/s, 0:0\d left", shown.err)
    assert shown.out == "a line\n"
    assert [clock(s) for s in (0.4, 75, 3700)] == ["0:00", "1:15", "1:01:40"]


def test_after_the_last_step_the_bar_says_what_goes_on_but_not_that_no_time_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = training.make(tmp_path / "run", training.options(epochs=2))
    trainer.shown = True
    monkeypatch.setattr(train, "REDRAW", -1.0)
    trainer.fit()
    shown = capsys.readouterr().err
    assert re.search(r"epoch 1/2  50%\|[^|]*\| validating 3/3, 0:0\d left", shown)
    assert re.search(r"epoch 2/2 100%\|[^|]*\| validating 3/3 *\r", shown) and "0:00 left" not in shown.partition("epoch 2/2 100%")[2]
    assert len(re.findall(r"epoch 1/2  50%\|[^|]*\| drawing pictures", shown)) == 1
    assert len(re.findall(r"epoch 2/2 100%\|[^|]*\| drawing pictures", shown)) == 2  # after that epoch, and at the end


def test_the_first_step_is_no_measure_of_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("minidcnn.segmentation.progress.time.perf_counter", lambda: now[0])
    with Progress(12, done=2, shown=False) as progress:
        for now[0], left in ((100, 900), (101, 8), (103, 10.5)):  # seconds in which three of ten steps are done
            progress.step("epoch 1/1", 0.1, 8, 1)
            assert progress.left == left


@pytest.mark.parametrize("shown", [True, False])
def test_compiling_is_said_once_where_somebody_watches(shown: bool, capsys: pytest.CaptureFixture[str]) -> None:
    compiling.tell()
    with compiling_said(shown):
        compiling.tell()
        compiling.tell()
    compiling.tell()
    assert capsys.readouterr().err == "compiling kernels: up to half a minute, in the first run on a machine\n" * shown


def test_a_run_says_that_it_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = training.make(tmp_path / "run")
    trainer.shown, epoch = True, trainer._epoch
    monkeypatch.setattr(trainer, "_epoch", lambda: (compiling.tell(), epoch()))
    trainer.fit()
    assert capsys.readouterr().err.count("compiling kernels: ") == 1


# -- data as the network sees it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("crop", [None, (13, 18)])
def test_targets_lie_where_the_output_does(padding: str, crop: tuple[int, int] | None, rng: np.random.Generator) -> None:
    """The image is made of its mask: then what the network is asked for must be what it is shown, margin aside."""
    mask = rng.integers(0, 5, (27, 38))
    model = training.unet(Arrays([mask / 5], [mask], 5), padding=padding)
    sample = Sample((mask[None] / 5).astype(np.float32), mask, "a")
    config = training.options(crop=crop, augment=("mirror", "turns"))
    whole = crop is None
    fractions = []
    for seed in range(12):
        seen = training_transform(config, model, 1, [0.5], [0.1])(sample, np.random.default_rng(seed))
        m = model.margin
        assert seen.size == model.suitable_size(crop or mask.shape) or whole
        target = seen.mask[m : seen.size[0] - m, m : seen.size[1] - m]
        assert target.shape == model.output_size(seen.size) and all(t >= c for t, c in zip(target.shape, crop or (1, 1), strict=True))
        shown = np.rint((seen.image[0] * 0.1 + 0.5) * 5)[m : seen.size[0] - m, m : seen.size[1] - m]
        counted = target != 255
        np.testing.assert_array_equal(shown[counted], target[counted])
        fractions.append(counted.sum())
    assert min(fractions) == mask.size if whole else min(fractions) >= crop[0] * crop[1]  # type: ignore[index]


def test_a_valid_network_trains_on_what_it_answers(tmp_path: Path) -> None:
    entry = training.make(tmp_path, training.options(epochs=1), build=lambda d: training.unet(d, padding="valid", norm=None)).fit()[0]
    assert entry["val_pixel_accuracy"] > 0 and np.isfinite(entry["train_loss"])


def test_every_augmentation_runs(tmp_path: Path, rng: np.random.Generator) -> None:
    data = training.arrays(rng, 4, (24, 32))
    everything = ("mirror", "turns", "scale", "rotate", "elastic", "colour")
    config = training.options(epochs=1, augment=everything, crop=(16, 16), border_weight=10.0)
    assert np.isfinite(training.make(tmp_path, config, (data, data)).fit()[0]["train_loss"])


# -- losses and class weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, np.array([0.5, 2.0, 7.0], np.float32)])
def test_losses_of_batches_add_up_to_that_of_the_data_set(weights: np.ndarray | None, rng: np.random.Generator) -> None:
    """The validation loss is the weighted mean over all pixels, whatever the batches: here by hand, pixel by pixel."""
    data = training.arrays(rng, 5, (12, 16))
    minidcnn.manual_seed(3)
    model = training.unet(data)
    results = [
        evaluate(model, data, mean=[0.5] * 3, std=[0.3] * 3, loss=Loss("cross_entropy", weights, 255), batch_size=b) for b in (1, 2, 5)
    ]
    total = mass = 0.0
    for sample in data:
        with minidcnn.no_grad():
            logits = model.eval()(Tensor((sample.image[None] - np.float32(0.5)) / np.float32(0.3))).numpy()[0].astype(np.float64)
        logs = logits - np.log(np.exp(logits).sum(0))
        for i, j in np.argwhere(sample.mask != 255):
            k = sample.mask[i, j]
            w = 1.0 if weights is None else float(weights[k])
            total, mass = total - w * logs[k, i, j], mass + w
    assert [r.loss for r in results] == pytest.approx([total / mass] * 3, rel=1e-5)
    assert len({r.confusion.matrix.tobytes() for r in results}) == 1


def test_large_images_are_validated_in_tiles_and_few_at_a_time(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "TILE", 64)
    small, large = training.arrays(rng, 3, (32, 40)), training.arrays(rng, 1, (72, 96))
    val = Arrays([s.image for s in [*small, *large]], [s.mask for s in [*small, *large]], 3)
    trainer = training.make(tmp_path, training.options(crop=(16, 24), epochs=1, batch_size=4), (small, val), draw=True)
    seen: list[tuple[int, ...]] = []
    trainer.model.register_forward_hook(lambda model, inputs, _: None if model.training else seen.append(inputs[0].shape))
    (entry,) = trainer.fit()
    assert [shape[0] for shape in seen[:2]] == [3, 1] and seen[0][2:] == (32, 40)  # as many as fit into a tile
    assert all(shape[0] * shape[2] * shape[3] <= 64 * 64 for shape in seen) and {shape[0] for shape in seen[1:]} == {1}
    kinds = {"mean": trainer.mean, "std": trainer.std}
    parts = [evaluate(trainer.model, data, **kinds, tile=64).confusion for data in (small, large)]
    np.testing.assert_array_equal(evaluate(trainer.model, val, **kinds, tile=64).confusion.matrix, parts[0].matrix + parts[1].matrix)
    assert entry["val_pixel_accuracy"] == pytest.approx(np.trace(sum(p.matrix for p in parts)) / sum(p.matrix.sum() for p in parts))


@pytest.mark.parametrize("flips", [False, True])
def test_whoever_watches_is_asked_between_the_tiles_of_an_image_too(flips: bool, rng: np.random.Generator) -> None:
    data, done = training.arrays(rng, 2, (72, 96)), []
    evaluate(training.unet(data), data, mean=[0.5] * 3, std=[0.3] * 3, tile=64, flips=flips, progress=lambda *numbers: done.append(numbers))
    tiles = 2 * 2 * (4 if flips else 1)
    assert done == [(0, 2)] * tiles + [(1, 2)] * (tiles + 1) + [(2, 2)]


def test_what_fits_into_a_tile_goes_through_whole(rng: np.random.Generator) -> None:
    data, kinds = training.arrays(rng, 3, (32, 40)), {"mean": [0.5] * 3, "std": [0.3] * 3, "loss": Loss("cross_entropy", None, 255)}
    model = training.unet(data)
    whole, tiled = (evaluate(model, data, **kinds, tile=tile) for tile in (None, 128))
    np.testing.assert_array_equal(whole.confusion.matrix, tiled.confusion.matrix)
    assert whole.loss == tiled.loss


def test_median_weights_are_those_of_the_training_masks(tmp_path: Path, rng: np.random.Generator) -> None:
    data = training.arrays(rng, 4, (12, 16))
    trainer = training.make(tmp_path, training.options(class_weights="median"), (data, data))
    masks = np.stack([s.mask for s in data])
    labelled = masks != 255
    share = np.array([(masks == k).sum() / labelled[(masks == k).any((1, 2))].size for k in range(3)])
    np.testing.assert_allclose(trainer.loss.weights, np.median(share) / share, rtol=1e-6)


def test_published_weights_are_segnets() -> None:
    config = TrainConfig(**defaults("segnet", "camvid"))
    assert config.class_weights == "published"
    weights = class_weights(config, None)  # type: ignore[arg-type]  # nothing is counted
    assert weights is not None and weights[6] == np.float32(9.6446) and len(weights) == 11


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "cross_entropy+dice", "focal", "tversky"])
def test_every_loss_trains(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    data = training.arrays(rng, 2, (12, 16))
    config = training.options(epochs=6, augment=(), loss=name, class_weights="median")
    history = training.make(tmp_path, config, (data, data)).fit()
    assert history[-1]["train_loss"] < history[0]["train_loss"]


# -- optimizers and schedules ------------------------------------------------------------------------------------------------


def test_plateau_follows_the_validation_loss(tmp_path: Path) -> None:
    config = training.options(epochs=8, schedule="plateau", lr=100.0, clip=1e-30, optimizer="sgd", limit=1)  # nothing moves
    history = training.make(tmp_path, config, build=lambda d: training.unet(d, norm=None)).fit()
    assert [entry["lr"] for entry in history] == pytest.approx([100.0] * 7 + [30.0])  # the first epoch is the best, five more are waited


def test_the_gradient_is_limited(tmp_path: Path) -> None:
    trainer = training.make(tmp_path, training.options(optimizer="sgd", momentum=0.0, lr=1.0, clip=1e-3, epochs=1, limit=1))
    before = trainer.model.state_dict()
    trainer.fit()
    after = trainer.model.state_dict()
    names = [name for name, _ in trainer.model.named_parameters()]
    assert np.sqrt(sum(((after[n] - before[n]).astype(np.float64) ** 2).sum() for n in names)) == pytest.approx(1e-3, rel=1e-3)


# -- when something is wrong ---------------------------------------------------------------------------------------------------


def test_nan_stops_at_once_and_names_step_and_layer(tmp_path: Path) -> None:
    trainer = training.make(tmp_path, training.options(epochs=3))
    calls = 0

    def spoil(module: Any, inputs: Any, output: Tensor) -> Tensor | None:
        nonlocal calls
        calls += module.training
        return F.mul(output, float("inf")) if calls >= 4 else None  # the second step of the second epoch

    trainer.model.get_submodule("encoder.1.3").register_forward_hook(spoil)
    kept: list[bytes] = []
    trainer.progress_report = trainer._report  # type: ignore[attr-defined]
    trainer._report = lambda *a: (kept.append((tmp_path / "last.safetensors").read_bytes()), trainer.progress_report(*a))  # type: ignore[attr-defined,method-assign,assignment,func-returns-value]
    with pytest.raises(
        TrainingError, match=r"stopped at step 4 \(step 2 of epoch 2\): the loss is nan; the first come out of encoder\.1\.3 \(Conv2d\)"
    ):
        trainer.fit()
    assert len(kept) == 1 and (tmp_path / "last.safetensors").read_bytes() == kept[0]
    assert load_checkpoint(tmp_path / "last.safetensors").info["epoch"] == 1
    assert len(training.metrics(tmp_path)) == 1


def test_a_learning_rate_that_is_too_high_is_found_out(tmp_path: Path) -> None:
    trainer = training.make(tmp_path, training.options(lr=1e25, optimizer="sgd"), build=lambda d: training.unet(d, norm=None))
    with (
        np.errstate(all="ignore"),
        pytest.raises(TrainingError, match=r"nothing was saved yet\. Lower the learning rate \(--lr is 1e\+25\)") as caught,
    ):
        trainer.fit()
    assert "--start" not in str(caught.value)  # nothing was learned
    assert not (tmp_path / "last.safetensors").exists()


def test_a_gradient_that_is_not_finite_changes_no_weight(tmp_path: Path) -> None:
    trainer = training.make(tmp_path)
    before = trainer.model.state_dict()
    parameters = dict(trainer.model.named_parameters())

    class Steep(Loss):
        def __call__(self, logits: Tensor, masks: Tensor, pixel_weights: Tensor | None = None) -> Tensor:
            at_zero = F.sqrt(F.mul(parameters["encoder.0.1.bias"], 0.0))  # 0, with an infinite slope
            return super().__call__(logits, masks, pixel_weights) + F.sum(at_zero)

    trainer.loss = Steep("cross_entropy", None, 255)
    with (
        np.errstate(all="ignore"),
        pytest.raises(TrainingError, match=r"the gradient is not finite; the first are in the gradient of encoder\.0\.1\.bias"),
    ):
        trainer.fit()
    for name, parameter in parameters.items():
        np.testing.assert_array_equal(parameter.numpy(), before[name])


def test_the_diagnosis_looks_at_images_and_weights_first(tmp_path: Path) -> None:
    trainer = training.make(tmp_path)
    dict(trainer.model.named_parameters())["decoder.0.0.weight"].data[0, 0, 0, 0] = np.nan
    with pytest.raises(TrainingError, match=r"the first are in the weights decoder\.0\.0\.weight"):
        trainer.fit()
    clean, bad = training.cells()[0], np.full((24, 32), np.nan)
    with pytest.raises(DataError, match=r"the image holds NaN"):
        training.make(tmp_path / "b", data=(Arrays([bad, bad], [np.zeros((24, 32), int)] * 2, 2), clean))


def test_nan_in_validation_stops_too(tmp_path: Path) -> None:
    trainer = training.make(tmp_path, training.options(epochs=3))
    trainer.model.get_submodule("head").register_forward_hook(
        lambda m, i, o: F.mul(o, float("nan")) if not m.training and trainer.epoch else None
    )
    with pytest.raises(TrainingError) as caught:
        trainer.fit()
    assert str(caught.value) == (
        f"training stopped in validation after step 4 (epoch 2): the network answers with NaN; {trainer.folder.last} keeps the state after "
        "epoch 1. Lower the learning rate (--lr is 0.01), limit the gradient (--clip 1), or look for strange images (python -m minidcnn check). "
        f"A new run takes up what was learned: --start {trainer.folder.best}"
    )


def test_a_constant_prediction_is_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = training.make(tmp_path, training.options(lr=1e-12))
    head = trainer.model.get_submodule("head")
    head.bias.data[:] = (100.0, 0.0)
    history = trainer.fit()
    assert all("every pixel is predicted as class 0 (background)" in entry["warning"] for entry in history)
    assert capsys.readouterr().err.count("warning: every pixel is predicted as class 0") == 1  # not again each epoch
    assert history[0]["val_iou"][1] == 0.0


def test_bad_data_is_found_before_training(tmp_path: Path, rng: np.random.Generator) -> None:
    good = training.arrays(rng, 3, (12, 16))
    masks = [m.copy() for m in good.masks]
    masks[1][5, 5] = 7
    with pytest.raises(DataError, match=r"0001: the mask holds class 7, but there are 3 classes"):
        training.make(tmp_path / "a", data=(good, Arrays(good.images, masks, 3)))
    with pytest.raises(DataError, match="is empty"):
        training.make(tmp_path / "b", data=(good, good[:0]))
    unlabelled = Arrays(good.images, [np.full_like(m, 255) for m in good.masks], 3)
    for name, data in (("g", (good, unlabelled)), ("h", (unlabelled, good))):
        with pytest.raises(DataError, match="every pixel of 3 images is ignored: label some"):
            training.make(tmp_path / name, data=data)
    mixed = Arrays([np.zeros((1, 16, 16)), np.ones((1, 24, 16))], [np.zeros((16, 16), int), np.ones((24, 16), int)], 2)
    with pytest.raises(
        DataError, match=r"arrays: images of 2 sizes \(16x16, 24x16\) cannot share batches of 2: crop .*\(--crop\), or use --batch-size 1"
    ):
        training.make(tmp_path / "c", data=(mixed, mixed))
    training.make(tmp_path / "d", training.options(batch_size=1, augment=("scale",)), data=(mixed, mixed))
    with pytest.raises(
        DataError, match="--augment scale makes images of many sizes, which cannot share batches of 2: crop .*--batch-size 1"
    ):
        training.make(tmp_path / "i", training.options(augment=("scale",)), data=(good, good))
    training.make(tmp_path / "e", training.options(crop=(8, 12)), data=(mixed, mixed))
    alike = Arrays(
        [x[:, : 15 + i] for i, x in enumerate(mixed.images[:1] * 2)], [m[: 15 + i] for i, m in enumerate(mixed.masks[:1] * 2)], 2
    )
    training.make(tmp_path / "f", data=(alike, alike))  # both are padded to 16x16


def test_a_network_for_other_data_is_refused_by_its_own_sentence(tmp_path: Path, rng: np.random.Generator) -> None:
    data = training.arrays(rng, 3, (12, 16))
    with pytest.raises(ValueError, match="input must be"):
        training.make(tmp_path, data=(data, data), build=lambda d: training.unet(training.cells()[0])).fit()


def test_out_of_memory_says_how_much_and_what_to_do() -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty((1 << 20, 1 << 20, 1 << 10), np.float32)
    text = out_of_memory(caught.value, 8, (256, 320), recompute=False)
    assert text.startswith("out of memory (unable to allocate 4.00 PiB") and "--batch-size (it is 8)" in text and "256x320" in text
    assert "use --recompute (" in text and "--recompute" not in out_of_memory(caught.value, 8, None, recompute=True)  # once is enough
    text = out_of_memory(caught.value, 8, (256, 320), recompute=False, validating=True)
    assert "out of memory in validation (" in text and "--crop" not in text and "--batch-size (it is 8)" in text


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"epochs": 0}, "--epochs must be at least 1, got 0"),
        ({"lr": 0.0}, "--lr must be a positive number"),
        ({"lr": float("nan")}, "--lr must be"),
        ({"weight_decay": float("nan")}, "--weight-decay must not be negative"),
        ({"val_fraction": 1.0}, "--val-fraction"),
        ({"crop": (0, 3)}, "--crop"),
        ({"augment": ("turn",)}, "--augment knows .*'turn'"),
        ({"optimizer": "lion"}, "--optimizer must be one of adam, adamw, sgd, got 'lion'"),
        ({"data": "cell"}, "--data must be one of"),
        ({"class_weights": "published"}, "camvid only, not for cells"),
        ({"border_weight": 10.0, "loss": "dice"}, "--border-weight needs --loss cross_entropy"),
        ({"schedule": "plateau", "warmup": 3}, "--warmup"),
    ],
)
def test_options_that_make_no_sense(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        training.options(**changes)


def test_a_warmup_longer_than_the_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--warmup of 4 steps is longer than the run of 4 steps"):
        training.make(tmp_path, training.options(warmup=4))


def test_configurations_survive_json() -> None:
    for data in DATA_DEFAULTS:
        config = TrainConfig(**defaults("segnet", data), network_options={"base": 3, "basic": True})
        assert TrainConfig.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match=r"config\.json does not hold the options of a run: the option 'epoch' is not known"):
        TrainConfig.from_json('{"network": "unet", "epoch": 3}')
    with pytest.raises(ValueError, match="does not hold the options"):
        TrainConfig.from_json("[]")


# -- real images -------------------------------------------------------------------------------------------------------------


def test_a_few_steps_on_real_images(tmp_path: Path, shared_data: Path) -> None:
    from minidcnn.data import open_dataset

    train, val = (open_dataset("camvid", shared_data / "camvid", split)[:4] for split in ("train", "val"))
    config = training.options(
        data="camvid", epochs=1, limit=2, batch_size=1, crop=(90, 120), augment=("mirror",), class_weights="published"
    )
    entry = training.make(tmp_path, config, (train, val[:1]), lambda d: SegNet(3, len(d.classes), width=2)).fit()[0]
    assert np.isfinite(entry["train_loss"]) and len(entry["val_iou"]) == 11
    checkpoint = load_checkpoint(tmp_path / "best.safetensors")
    assert (
        checkpoint.info["ignore_index"] == 11
        and checkpoint.info["classes"][8] == "Car"
        and checkpoint.info["mask_values"] == list(range(11))
    )
