"""Settings that make no sense are refused where they are given, in one sentence, and not by Python somewhere later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minidcnn import Tensor, models, nn, optim
from minidcnn.data import (
    Arrays,
    Cells,
    ColorJitter,
    DataError,
    ElasticDeformation,
    Folder,
    LabelTable,
    Loader,
    Normalize,
    RandomApply,
    RandomRotation,
    Subset,
    collate,
    count_labels,
    read_image,
    unet_weight_map,
)
from minidcnn.interop import Checkpoint, export_checkpoint, export_onnx, model_of, save_checkpoint, save_weights
from minidcnn.optim import lr_scheduler as S
from minidcnn.segmentation import BoundaryF1, ConfusionMatrix


def said(kind: type[Exception], call: Callable[[], Any]) -> str:
    """The sentence with which a call is refused."""
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


# -- schedules -----------------------------------------------------------------------------------------------------------------------------

# fmt: off
SCHEDULES: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda o: S.LambdaLR(o, 0.5), TypeError, "LambdaLR: lr_lambda must be a function of the step, or one for each group, got 0.5"),
    (lambda o: S.LambdaLR(o, [abs, "a"]), TypeError, "LambdaLR: lr_lambda must be a function of the step, or one for each group, got 'a'"),
    (lambda o: S.StepLR(o, 2, gamma=None), TypeError, "StepLR: gamma must be a number, got None"),
    (lambda o: S.StepLR(o, 2, last_epoch=1.5), TypeError, "StepLR: last_epoch must be an int, got 1.5"),
    (lambda o: S.StepLR(o, 2, last_epoch=-2), ValueError, "StepLR: last_epoch must be at least -1, got -2"),
    (lambda o: S.MultiStepLR(o, [2, 3], "a"), TypeError, "MultiStepLR: gamma must be a number, got 'a'"),
    (lambda o: S.ConstantLR(o, 2), ValueError, "ConstantLR: factor must lie between 0 and 1, got 2"),
    (lambda o: S.ConstantLR(o, 0.5, 2.5), TypeError, "ConstantLR: total_iters must be an int, got 2.5"),
    (lambda o: S.ConstantLR(o, 0.5, -1), ValueError, "ConstantLR: total_iters must be at least 0, got -1"),
    (lambda o: S.LinearLR(o, "a"), TypeError, "LinearLR: start_factor must be a number, got 'a'"),
    (lambda o: S.LinearLR(o, 0.5, None), TypeError, "LinearLR: end_factor must be a number, got None"),
    (lambda o: S.ExponentialLR(o, float("nan")), ValueError, "ExponentialLR: gamma must be a number, got nan"),
    (lambda o: S.PolynomialLR(o, 3, -1), ValueError, "PolynomialLR: power must be at least 0, got -1"),
    (lambda o: S.CosineAnnealingLR(o, 3, "a"), TypeError, "CosineAnnealingLR: eta_min must be a number, got 'a'"),
    (lambda o: S.SequentialLR(o, [], []), ValueError, "SequentialLR: give at least one schedule, got none"),
    (lambda o: S.SequentialLR(o, [S.StepLR(o, 1)], [], last_epoch=-2), ValueError, "SequentialLR: last_epoch must be at least -1, got -2"),
    (lambda o: S.ReduceLROnPlateau(o, factor=-0.5), ValueError, "ReduceLROnPlateau: factor must be at least 0, got -0.5"),
    (lambda o: S.ReduceLROnPlateau(o, patience=-1), ValueError, "ReduceLROnPlateau: patience must be at least 0, got -1"),
    (lambda o: S.ReduceLROnPlateau(o, cooldown=1.5), TypeError, "ReduceLROnPlateau: cooldown must be an int, got 1.5"),
    (lambda o: S.ReduceLROnPlateau(o, threshold="a"), TypeError, "ReduceLROnPlateau: threshold must be a number, got 'a'"),
    (lambda o: S.OneCycleLR(o, 1.0, epochs=-2, steps_per_epoch=-3), ValueError, "OneCycleLR: epochs must be at least 1, got -2"),
    (lambda o: S.OneCycleLR(o, "a", 5), TypeError, "OneCycleLR: max_lr must be a number, got 'a'"),
    (lambda o: S.OneCycleLR(o, 1.0, 5, div_factor=0), ValueError, "OneCycleLR: div_factor must be above 0, got 0; rates are divided by it"),
    (lambda o: S.OneCycleLR(o, 1.0, 5, final_div_factor=-1), ValueError, "OneCycleLR: final_div_factor must be above 0, got -1; rates are divided by it"),
]
# fmt: on


@pytest.mark.parametrize(("make", "kind", "sentence"), SCHEDULES, ids=[sentence for *_, sentence in SCHEDULES])
def test_settings_of_schedules(make: Callable[[Any], Any], kind: type[Exception], sentence: str) -> None:
    o = optim.SGD([Tensor(np.ones(3, np.float32), requires_grad=True)], lr=0.5, momentum=0.9)
    assert said(kind, lambda: make(o)) == sentence
    assert o.param_groups[0]["lr"] == 0.5  # as it was


# -- data ----------------------------------------------------------------------------------------------------------------------------------

IMAGES, MASKS = np.zeros((3, 1, 4, 6), np.float32), np.zeros((3, 4, 6), np.int64)
SAMPLES = Arrays(IMAGES, MASKS, 2)

# fmt: off
DATA: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Loader(SAMPLES, 2.5), TypeError, "Loader: batch_size must be an int, got 2.5"),
    (lambda: Loader(SAMPLES, 2, prefetch=1.5), TypeError, "Loader: prefetch must be an int, got 1.5"),
    (lambda: Loader(SAMPLES, 2, seed="a"), TypeError, "Loader: seed must be an int, got 'a'"),
    (lambda: Loader(SAMPLES, 2, transform=3), TypeError, "Loader: transform must be a function, got 3"),
    (lambda: Loader(SAMPLES, 2, then="gpu"), TypeError, "Loader: then must be a function, got 'gpu'"),
    (lambda: Loader(SAMPLES, 2).order(0.5), TypeError, "Loader: epoch must be an int, got 0.5"),
    (lambda: Loader(SAMPLES, 2).batches(0, -1), ValueError, "Loader: start must be at least 0, got -1"),
    (lambda: collate([]), DataError, "collate: got no samples; a batch needs at least one"),
    (lambda: SAMPLES[1.5], TypeError, "arrays: an index must be an int, got 1.5"),
    (lambda: Subset(SAMPLES, [0, 3]), IndexError, "Subset: index 3 is out of range: arrays has 3 images"),
    (lambda: Subset(SAMPLES, [0.5]), TypeError, "Subset: an index must be an int, got 0.5"),
    (lambda: Arrays(IMAGES, MASKS, 0), DataError, "Arrays: classes must be names or a number of at least 1, got 0"),
    (lambda: Arrays(IMAGES, MASKS, []), DataError, "Arrays: classes must be names or a number of at least 1, got []"),
    (lambda: Arrays(IMAGES, MASKS, 2.5), TypeError, "Arrays: classes must be an int, got 2.5"),
    (lambda: Arrays(IMAGES, MASKS, 2, palette=np.zeros((3, 2))), DataError, "Arrays: palette must have shape (2, 3), a colour for each class, got (3, 2)"),
    (lambda: Cells(count=2.5), TypeError, "Cells: count must be an int, got 2.5"),
    (lambda: Cells(seed=0.5), TypeError, "Cells: seed must be an int, got 0.5"),
    (lambda: LabelTable(()), DataError, "LabelTable: values is empty; name the mask value of each class"),
    (lambda: count_labels(list(SAMPLES)), TypeError, "count_labels: a plain sequence of samples does not say how many classes there are; pass classes=..."),
    (lambda: unet_weight_map(MASKS[0], sigma=float("nan")), DataError,
     "unet_weight_map: sigma must be positive and w0 not negative, both finite, got sigma=nan and w0=10.0"),
    (lambda: RandomApply(3), TypeError, "RandomApply takes a transform, got 3"),
    (lambda: RandomRotation((1, 2, 3)), ValueError, "RandomRotation: degrees must be a number or a pair, got (1, 2, 3)"),
    (lambda: ColorJitter((0.8, 1.2)), ValueError, "ColorJitter: brightness must lie between 0 and 1.0, got (0.8, 1.2)"),
    (lambda: ElasticDeformation(grid=2.5), TypeError, "ElasticDeformation: grid must be an int, got 2.5"),
    (lambda: ElasticDeformation(float("nan")), ValueError,
     "ElasticDeformation: sigma must not be negative and grid be at least 2, got ElasticDeformation(sigma=nan, grid=3, p=1.0)"),
    (lambda: Normalize([0.5, float("inf")], [1, 1]), ValueError, "Normalize: mean must be finite numbers, one per channel, got [0.5, inf]"),
    (lambda: Normalize(0.5, np.ones((2, 1))), ValueError, "Normalize: std must be finite numbers, one per channel, got array([[1.],\n       [1.]])"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "sentence"), DATA, ids=[sentence for *_, sentence in DATA])
def test_settings_of_data(call: Callable[[], Any], kind: type[Exception], sentence: str) -> None:
    assert said(kind, call) == sentence


@pytest.mark.parametrize("white", [0, -4095, float("nan"), float("inf"), "a"])
def test_a_white_that_is_none(tmp_path: Path, white: Any) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 6), np.uint16))
    assert said(DataError, lambda: read_image(tmp_path / "a.npy", white=white)) == (
        f"read_image: white=... (--white) must be a positive number, got {white!r}"
    )


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    """A count of classes may come from masks.max() + 1, an index from a permutation."""
    assert Arrays(IMAGES, MASKS, np.int64(2)).classes == ("class 0", "class 1")
    assert SAMPLES[np.int64(-1)].name == "0002"
    assert len(Loader(SAMPLES, np.int64(2), seed=np.uint8(3))) == 2
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "a.npy", np.arange(24).reshape(4, 6) % 3 / (2 if folder == "images" else 1))
    assert Folder(tmp_path, "all", classes=np.int64(3)).classes == ("background", "class 1", "class 2")


# -- networks, files, scores -----------------------------------------------------------------------------------------------------------------

CHECKPOINT = Checkpoint("unet", {}, {})

# fmt: off
NETWORKS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: nn.ConvTranspose2d(3, 4, 3, padding="same"), ValueError,
     'ConvTranspose2d: padding must be an int or a pair, got "same"; choose the size with output_size instead'),
    (lambda: models.VGG(16), TypeError, "VGG: how many layers it has is not said; use VGG11, VGG13, VGG16 or VGG19"),
    (lambda: models.AlexNet(3, width=1)(np.ones((1, 3, 65, 67))), TypeError,
     "AlexNet: input must be a Tensor, got ndarray; wrap arrays as minidcnn.Tensor(array)"),
    (lambda: models.FCN32s(3, width=1).load_trunk("vgg16"), TypeError, "load_trunk: FCN32s takes the weights of a classifier, got str"),
    (lambda: models.SegNet(width=1).load_trunk(nn.ReLU()), TypeError, "load_trunk: SegNet takes the weights of a VGG16, got ReLU"),
    (lambda: export_onnx(CHECKPOINT, (1, 1, 20, 22), "a.onnx"), TypeError,
     "export_onnx: model must be a Module, got Checkpoint; export_checkpoint takes a checkpoint"),
    (lambda: export_checkpoint("best.safetensors", "a.onnx"), TypeError,
     "model_of: checkpoint must be a Checkpoint, got str; load_checkpoint reads one from a file"),
    (lambda: model_of("best.safetensors"), TypeError, "model_of: checkpoint must be a Checkpoint, got str; load_checkpoint reads one from a file"),
    (lambda: save_checkpoint("a.safetensors", nn.ReLU()), TypeError,
     "save_checkpoint: checkpoint must be a Checkpoint, got ReLU; save_weights writes a network alone"),
    (lambda: save_weights("a.npz", CHECKPOINT), TypeError, "save_weights: model must be a Module, got Checkpoint; save_checkpoint writes a checkpoint"),
    (lambda: ConfusionMatrix(2.5), TypeError, "ConfusionMatrix: classes must be an int, got 2.5"),
    (lambda: ConfusionMatrix(2, 1.5), TypeError, "ConfusionMatrix: ignore_index must be an int, got 1.5"),
    (lambda: BoundaryF1(0), ValueError, "BoundaryF1: classes must be at least 1, got 0"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "sentence"), NETWORKS, ids=[sentence for *_, sentence in NETWORKS])
def test_what_is_no_network_or_does_not_fit_one(
    call: Callable[[], Any], kind: type[Exception], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said(kind, call) == sentence
    assert not list(tmp_path.iterdir())  # nothing was written
