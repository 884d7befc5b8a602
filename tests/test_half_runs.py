"""Runs with --precision float16: they train as in float32, go on after an interruption to the same bits, and predict in float16 too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training
from test_train_resume import stop_when

import minidcnn
from minidcnn.backend import image_dtype
from minidcnn.cli import main as cli
from minidcnn.interop import load_checkpoint
from minidcnn.segmentation.command import make_trainer
from minidcnn.segmentation.diagnose import TrainingError
from minidcnn.segmentation.evaluate import evaluate
from minidcnn.segmentation.interrupt import Stopped
from minidcnn.segmentation.options import read_options
from minidcnn.segmentation.predict import scores

HALF = np.dtype(np.float16)


@pytest.fixture(autouse=True)
def float16() -> Iterator[None]:
    minidcnn.use("numpy", "float16")
    yield
    minidcnn.use("numpy")


def inputs_of(model: Any) -> set[Any]:
    """The dtypes of what the network is given from now on."""
    seen: set[Any] = set()
    model.register_forward_pre_hook(lambda module, inputs: seen.add(inputs[0].dtype))
    return seen


def test_the_precision_says_what_images_are() -> None:
    assert [image_dtype(d) for d in ("float32", "float64", "float16")] == [HALF, np.float64, HALF]
    minidcnn.use("numpy", "bf16")
    assert image_dtype() == np.float32
    with pytest.raises(ValueError, match="float32, tf32x3, tf32, bf16, float16"):
        minidcnn.use("numpy", "float8")


def test_a_run_is_that_in_float32_up_to_rounding(tmp_path: Path) -> None:
    """Losses within 26 roundings of 2^-11 (tests/test_half.py counts them for such a network), in training and validation; weights stay float32."""
    half = training.make(tmp_path / "half", training.options(clip=1.0))
    seen = inputs_of(half.model)
    half.fit()
    assert seen == {HALF}  # training and validation
    assert all(value.dtype == np.float32 for value in half.model.state_dict().values() if value.dtype.kind == "f")
    minidcnn.use("numpy")
    full = training.make(tmp_path / "full", training.options(clip=1.0))
    full.fit()
    for a, b in zip(training.metrics(tmp_path / "half"), training.metrics(tmp_path / "full"), strict=True):
        assert a.pop("scale") == 2.0**16 and set(a) == set(b)
        for name in ("train_loss", "val_loss"):
            assert a[name] != b[name] and abs(a[name] / b[name] - 1) < 26 * 2.0**-11


@pytest.mark.parametrize("place", [0, 1, 4])
def test_stopped_and_resumed_is_never_stopped(place: int, tmp_path: Path) -> None:
    """The scale begins so high that steps are left out before, at and after the interruption: who forgets it, or the steps in a row, ends elsewhere."""
    config = training.options(optimizer="sgd", repeat=2)

    def made(out: Path, resume: bool = False) -> Any:
        trainer = training.make(out, config, resume=resume)
        if not resume:
            trainer.scaler.update(2.0**30)
        trainer.scaler._growth_interval = 2
        return trainer

    made(tmp_path / "whole").fit()
    trainer = made(tmp_path / "stopped")
    stop_when(trainer, lambda n, _: n == place)
    with pytest.raises(Stopped):
        trainer.fit()
    saved = load_checkpoint(tmp_path / "stopped" / "last.safetensors").training["scaler"]
    assert saved == trainer.scaler.state_dict() and saved["scale"] < 2.0**30
    made(tmp_path / "stopped", resume=True).fit()
    training.same_results(tmp_path / "whole", tmp_path / "stopped")


def test_steps_that_overflow_are_left_out(tmp_path: Path) -> None:
    trainer = training.make(tmp_path, training.options(epochs=1, limit=1))
    trainer.scaler.update(2.0**60)
    before = [p.numpy().copy() for p in trainer.model.parameters()]
    trainer.fit()
    for p, q in zip(trainer.model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.numpy(), q)
    assert training.metrics(tmp_path)[0]["scale"] == 2.0**59 and not any(trainer.optimizer.state.values())


def test_what_overflows_without_a_scale_ends_the_run(tmp_path: Path) -> None:
    trainer = training.make(tmp_path, training.options(epochs=1))
    trainer.scaler.update(1.0)
    first = next(p for p in trainer.model.parameters())
    first._array *= np.float32(1e5)  # beyond float16
    with pytest.raises(TrainingError, match=r"training stopped at step 1 .* leave out --precision float16, or look for strange images"):
        trainer.fit()


def test_predictions_are_those_of_float32_up_to_rounding(tmp_path: Path) -> None:
    trainer = training.make(tmp_path, training.options(epochs=1))
    trainer.fit()
    images = np.random.default_rng(0).standard_normal((2, 1, 24, 32)).astype(np.float32)
    seen = inputs_of(trainer.model)
    half = scores(trainer.model, images)
    tiled = scores(trainer.model, images, tile=16, flips=True)
    assert seen == {HALF} and half.dtype == tiled.dtype == np.float32
    np.testing.assert_allclose(half.sum(1), 1, atol=1e-6)  # probabilities are made in float32
    minidcnn.use("numpy")
    full = scores(trainer.model, images)
    assert 0 < abs(half - full).max() < 26 * 2.0**-11
    kinds = {"mean": trainer.mean, "std": trainer.std}
    exact = evaluate(trainer.model, trainer.val, **kinds).confusion.matrix
    minidcnn.use("numpy", "float16")
    rounded = evaluate(trainer.model, trainer.val, **kinds).confusion.matrix
    assert abs(exact - rounded).sum() <= 0.02 * exact.sum()


def test_the_option_travels_to_the_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minidcnn.use("numpy")
    argv = ["--backend", "numpy", "--precision", "float16", "--out", str(tmp_path / "run"), "--epochs", "1", "--limit", "1"]
    request = read_options("unet", argv, add_options=None)
    trainer = make_trainer(request, lambda data, options: training.unet(data))
    assert image_dtype() == HALF and trainer.scaler.is_enabled() and trainer.config.precision == "float16"


def test_predict_and_evaluate_take_the_precision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training.make(tmp_path / "run", training.options(epochs=1)).fit()
    best = str(tmp_path / "run" / "best.safetensors")
    said = []
    capsys.readouterr()
    for precision in ("float16", "float32"):
        assert cli(["evaluate", best, "--data", "cells", "--backend", "numpy", "--precision", precision, "--json"]) == 0
        assert image_dtype() == precision
        said.append(json.loads(capsys.readouterr().out))
    half, full = (np.array(result["confusion"]) for result in said)
    assert half.sum() == full.sum() and 0 < abs(half - full).sum() <= 0.02 * full.sum()  # some pixels lie on the edge
