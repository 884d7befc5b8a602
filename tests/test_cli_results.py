"""What commands give is what the library gives: scores with tiles and flips, predictions of 12-bit images, shares, images shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import minidcnn
from minidcnn import models
from minidcnn.cli import main
from minidcnn.cli.predict import shares
from minidcnn.cli.white import doubtful_white
from minidcnn.data import Normalize, read_image
from minidcnn.interop import Checkpoint, load_checkpoint, model_of, save_checkpoint
from minidcnn.segmentation import gallery, predict_mask
from minidcnn.segmentation.metrics import ConfusionMatrix

MEAN, STD, CLASSES = [0.3], [0.25], ["sky", "road", "tree"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net for gray images and three classes, untrained, whose answers vary from pixel to pixel."""
    minidcnn.manual_seed(3)
    model = models.UNet(1, 3, base=2, depth=2, padding="same")
    state = model.state_dict()
    state["head.weight"] *= 20
    info = {
        "classes": CLASSES,
        "palette": [[0, 0, 0], [200, 40, 40], [40, 90, 220]],
        "channels": 1,
        "mean": MEAN,
        "std": STD,
        "mask_values": [0, 1, 2],
    }
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    save_checkpoint(path, Checkpoint("unet", model.config, state, info))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten gray images of 28 x 36 to 28 x 45 pixels in tmp_path/mydata, each brighter than the one before, and masks of three classes."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / "mydata" / part).mkdir(parents=True)
    for k in range(10):
        image = rng.integers(0, 100, (28, 36 + k)) + 10 * k
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / "mydata" / "images" / f"{k}.png")
        Image.fromarray(rng.integers(0, 3, image.shape, dtype=np.uint8)).save(tmp_path / "mydata" / "masks" / f"{k}.png")
    return tmp_path / "mydata"


def matrix(checkpoint: Path, root: Path, **how: Any) -> ConfusionMatrix:
    """The pixels of all images by truth and prediction, image by image with the library."""
    model, total = model_of(load_checkpoint(checkpoint)), ConfusionMatrix(3, 255)
    for k in range(10):
        image = Normalize(MEAN, STD).image(read_image(root / "images" / f"{k}.png", 1))
        total.update(np.asarray(Image.open(root / "masks" / f"{k}.png")), predict_mask(model, image, **how))
    return total


# -- evaluate ------------------------------------------------------------------------------------------------------------------------------


WAYS: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("--tile 0", {}),
    ("--tile 16", {"tile": 16}),
    ("--flips", {"flips": True}),
    ("--tile 20 --flips", {"tile": 20, "flips": True}),
]


@pytest.mark.parametrize(("typed", "how"), WAYS)
def test_evaluate_predicts_with_tiles_and_flips(
    typed: str, how: dict[str, Any], checkpoint: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(checkpoint), "--data", "folder", "--root", str(root), "--split", "all", *typed.split()]
    expected = matrix(checkpoint, root, **how)
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told.pop("confusion") == expected.matrix.tolist() and told.pop("classes") == CLASSES
    assert told == {"checkpoint": str(checkpoint), "data": "mydata all", "images": 10, **expected.scores()}
    assert main(words) == 0
    assert capsys.readouterr().out == f"mydata all: 10 images\n{expected.table(CLASSES)}\n"
    if how:
        assert (expected.matrix != matrix(checkpoint, root).matrix).any()


def test_evaluate_says_which_classes_the_scores_know_nothing_of(checkpoint: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (root / "masks").iterdir():
        Image.fromarray(np.minimum(np.asarray(Image.open(path)), 1)).save(path)
    words = ["evaluate", str(checkpoint), "--data", "folder", "--root", str(root), "--json", "--split"]
    assert main([*words, "all"]) == 0
    said = "warning: mydata all: no pixel is tree: the scores cannot tell how well it is found\n"
    assert said in capsys.readouterr().err
    Image.fromarray(np.full((28, 36), 2, np.uint8)).save(root / "masks" / "0.png")
    assert main([*words, "all"]) == 0
    assert "no pixel" not in capsys.readouterr().err


# -- predict -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("typed", "how"), WAYS)
def test_predict_takes_tiles_and_flips_too(typed: str, how: dict[str, Any], checkpoint: Path, root: Path, tmp_path: Path) -> None:
    model, normal = model_of(load_checkpoint(checkpoint)), Normalize(MEAN, STD).image(read_image(root / "images" / "4.png", 1))
    assert main(["predict", str(checkpoint), str(root / "images" / "4.png"), "--out", str(tmp_path / "out"), *typed.split()]) == 0
    predicted = np.asarray(Image.open(tmp_path / "out" / "4.png"))
    np.testing.assert_array_equal(predicted, predict_mask(model, normal, **how))
    assert bool(how) == bool((predicted != predict_mask(model, normal)).any())


@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_a_12_bit_image_is_predicted_as_its_values_over_the_white_one(kind: str, checkpoint: Path, tmp_path: Path) -> None:
    """By the option, else as in training, else by the file's type."""
    stored = np.random.default_rng(1).integers(0, 4096, (22, 30), dtype=np.uint16)
    image = tmp_path / f"deep.{kind}"
    np.save(image, stored) if kind == "npy" else Image.fromarray(stored).save(image)
    loaded = load_checkpoint(checkpoint)
    trained = tmp_path / "trained.safetensors"
    save_checkpoint(trained, Checkpoint("unet", loaded.config, loaded.tensors, loaded.info | {"white": 2000.0}))
    seen = {}
    for name, path, typed, white in (
        ("given", checkpoint, ["--white", "4095"], 4095),
        ("as in training", trained, [], 2000),
        ("given after training", trained, ["--white", "4095"], 4095),
        ("by the type", checkpoint, [], 65535),
    ):
        assert main(["predict", str(path), str(image), "--out", str(tmp_path / name), *typed]) == 0
        seen[name] = np.asarray(Image.open(tmp_path / name / "deep.png"))
        values = stored[None] / np.float32(white)
        np.testing.assert_array_equal(seen[name], predict_mask(model_of(loaded), Normalize(MEAN, STD).image(values.astype(np.float32))))
    assert len({s.tobytes() for s in seen.values()}) == 3


@pytest.mark.parametrize(
    ("kind", "trained", "typed", "found", "way_out"),
    [
        ("8 bits.png", None, [], "", ""),
        ("16 bits.tif", None, [], "", ""),
        ("12 bits.tif", None, [], "the brightest pixel is 0.0623", "--white 4095 for images of 12 bits"),
        ("12 bits.tif", None, ["--white", "4095"], "", ""),
        ("12 bits.tif", 4095, [], "", ""),
        ("8 bits.png", 4095, [], "the brightest pixel is 0.0623", "not 4095, but --white 255 for images of 8 bits"),
        ("8 bits.png", 4095, ["--white", "255"], "", ""),
        ("16 bits.tif", 4095, [], "the mean is 7.24", "--white 65535 for images of 16 bits"),
    ],
)
def test_a_white_that_cannot_be_meant_is_told(
    kind: str,
    trained: int | None,
    typed: list[str],
    found: str,
    way_out: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same picture in three kinds of files, for networks trained on 8 bits and on 12."""
    picture = np.arange(22 * 30).reshape(22, 30) % 256
    stored = {"8": picture.astype(np.uint8), "12": (picture * 16).astype(np.uint16), "16": (picture * 257).astype(np.uint16)}[
        kind.split()[0]
    ]
    for part, array in (("images", stored), ("masks", picture.astype(np.uint8) % 3)):
        (tmp_path / part).mkdir()
        Image.fromarray(array).save(tmp_path / part / (kind if part == "images" else f"{Path(kind).stem}.png"))
    loaded = load_checkpoint(checkpoint)
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, Checkpoint("unet", loaded.config, loaded.tensors, loaded.info | {"white": trained}))
    said = f"{found}, where 1 is white and the training images have a mean of 0.3: say which value is white ({way_out})\n" if found else ""
    assert main(["predict", str(path), str(tmp_path / "images" / kind), "--out", str(tmp_path / "out"), *typed]) == 0
    assert capsys.readouterr().err == (said and f"warning: {tmp_path / 'images' / kind}: {said}")
    assert main(["evaluate", str(path), "--data", "folder", "--root", str(tmp_path), "--split", "all", *typed]) == 0
    told = capsys.readouterr().err
    assert told.startswith(f"warning: {tmp_path.name} all: {said}") if said else "is white" not in told


def test_an_empty_image_among_others_is_not_doubted(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "images"
    images.mkdir()
    loaded = load_checkpoint(checkpoint)
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, Checkpoint("unet", loaded.config, loaded.tensors, loaded.info | {"mean": [0.02]}))  # of spots on black
    for name, brightest in (("1 empty", 250), ("2 spots", 60000), ("3 empty", 270)):
        Image.fromarray(np.linspace(0, brightest, 22 * 30).astype(np.uint16).reshape(22, 30)).save(images / f"{name}.tif")
    assert main(["predict", str(path), str(images), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err == ""
    (images / "2 spots.tif").unlink()
    assert main(["predict", str(path), str(images), "--out", str(tmp_path / "dark")]) == 0
    assert capsys.readouterr().err.startswith("warning: all images: the brightest pixel is 0.00412, where 1 is white")


def test_dark_images_of_a_bright_channel_are_not_doubted() -> None:
    info = {"mean": [0.5, 0.02]}
    assert not doubtful_white(np.array([0.3, 0.1]), 0.05, info, None)  # a dark place, but not in every channel
    assert doubtful_white(np.array([0.03, 0.01]), 0.01, info, None).startswith("the brightest pixel is 0.03, where")
    assert not doubtful_white(np.array([5.0, 0.1]), 1.2, {"mean": [1.4, 0.1]}, 3000)  # so it was in training


def test_shares_of_classes() -> None:
    assert shares(np.array([1, 3]), ["a", "b"]) == "b 75.0 %, a 25.0 %"
    assert shares(np.array([0, 5, 0, 3]), ["a", "b", "c", "d"]) == "b 62.5 %, d 37.5 %"
    assert shares(np.arange(9), list("abcdefghi")) == "i 22.2 %, h 19.4 %, g 16.7 %, f 13.9 %, e 11.1 %, d 8.3 % and 2 more"


def test_predict_tells_the_shares_of_each_image_and_of_all(
    checkpoint: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [root / "images" / f"{k}.png" for k in (2, 7)]
    assert main(["predict", str(checkpoint), *map(str, images), "--out", str(tmp_path / "out")]) == 0
    counts = [np.bincount(np.asarray(Image.open(tmp_path / "out" / i.name)).ravel(), minlength=3) for i in images]
    lines = [f"{i} -> {tmp_path / 'out' / i.name}: {shares(c, CLASSES)}" for i, c in zip(images, counts, strict=True)]
    assert capsys.readouterr().out.splitlines() == [*lines, f"all 2: {shares(sum(counts), CLASSES)}"]


# -- show ----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "names"), [(1, "5"), (2, "27"), (4, "1368"), (5, "13579"), (7, "0235679"), (10, "0123456789"), (33, "0123456789")]
)
def test_show_takes_the_middle_of_each_part(count: int, names: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data set is cut into as many equal parts as images are asked for."""
    drawn: list[Any] = []
    monkeypatch.setattr(gallery, "samples", lambda shown, *rest, **named: drawn.append((shown, *rest, named)))
    words = ["--data", "folder", "--root", str(root), "--split", "all", "--classes", "a,b,c", "--out", str(tmp_path / "out")]
    assert main(["show", *words, "--count", str(count)]) == 0
    ((shown, classes, palette, path, named),) = drawn
    assert [sample.name for sample in shown] == list(names)
    for sample in shown:
        np.testing.assert_array_equal(sample.mask, np.asarray(Image.open(root / "masks" / f"{sample.name}.png")))
    assert (classes, len(palette), path) == (("a", "b", "c"), 3, tmp_path / "out" / "mydata-all.png")
    assert named == {"title": f"mydata all: {len(names)} of 10 images"}


def test_another_number_of_channels_is_counted(checkpoint: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(checkpoint), "--data", "folder", "--root", str(root), "--split", "all", "--channels", "3"]
    assert main(words) == 2
    assert capsys.readouterr().err == f"error: {checkpoint} takes images of 1 channel, mydata all has 3\n"


@pytest.mark.parametrize(("values", "given", "shown"), [([0, 1, 2], "7,1", "1"), ([[9, 0, 0], [0, 80, 0], [1, 2, 3]], "0/80/0", "0/80/0")])
def test_a_class_of_the_checkpoint_cannot_be_ignored(
    values: list[Any], given: str, shown: str, checkpoint: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The values are the checkpoint's: nobody has named one twice."""
    stored = load_checkpoint(checkpoint)
    save_checkpoint(tmp_path / "x.safetensors", Checkpoint("unet", stored.config, stored.tensors, stored.info | {"mask_values": values}))
    assert main(["evaluate", str(tmp_path / "x.safetensors"), "--data", "folder", "--root", str(root), "--ignored", given]) == 2
    assert capsys.readouterr().err == (
        f"error: --ignored {shown}: {shown} is the class road of the checkpoint, and a class that the network knows cannot be left out; if these "
        f"masks have other values, say which one each class has with --values\n"
    )
    assert main(["evaluate", str(tmp_path / "x.safetensors"), "--data", "cells", "--ignored", given]) == 2
    assert "--data cells does not take it" in capsys.readouterr().err


def test_a_number_of_the_checkpoint_may_be_ignored_where_it_is_no_class(
    checkpoint: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ignored = 0
    for path in (root / "masks").iterdir():
        mask = np.asarray(Image.open(path))
        ignored += np.count_nonzero(mask == 1)
        Image.fromarray(np.where(mask == 2, 5, mask).astype(np.uint8)).save(path)
    options = ["--split", "all", "--values", "0,3,5", "--ignored", "1", "--json"]
    assert main(["evaluate", str(checkpoint), "--data", "folder", "--root", str(root), *options]) == 0
    size = sum(28 * (36 + k) for k in range(10))
    assert 0 < ignored and np.sum(json.loads(capsys.readouterr().out)["confusion"]) == size - ignored


def predict_into(stdout: int, checkpoint: Path, root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "minidcnn", "predict", checkpoint, root / "images/0.png", root / "images/1.png", "--out", out]
    return subprocess.run([str(word) for word in command], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


def test_a_reader_that_has_gone_away_is_no_error_of_an_image(checkpoint: Path, root: Path, tmp_path: Path) -> None:
    """As | head, which has seen enough: predict ends in silence, and what it has written is whole."""
    reading, writing = os.pipe()
    os.close(reading)
    done = predict_into(writing, checkpoint, root, tmp_path / "out")
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "0_overlay.png"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_output_is_no_error_of_an_image(checkpoint: Path, root: Path, tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = predict_into(full.fileno(), checkpoint, root, tmp_path / "out")
    assert done.returncode and "No space left" in done.stderr
    assert "0.png" not in done.stderr and "images are done" not in done.stderr
