"""`python -m minidcnn export`, from a network that was trained here to masks that onnxruntime makes of the files' own pixels."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_files import answers
from PIL import Image
from training import make, options

from minidcnn import models
from minidcnn.cli import main
from minidcnn.interop import Checkpoint, load_checkpoint, save_checkpoint
from minidcnn.segmentation.prepare import open_data

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setattr(sys, "argv", ["minidcnn"])

    def run(*words: object) -> tuple[int, str, str]:
        """(exit code, stdout, stderr)."""
        capsys.readouterr()
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learnt to tell dark from bright, on images of 24 x 32 pixels."""
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / "data" / part).mkdir(parents=True)
    for i in range(8):
        pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        Image.fromarray(pixels).save(folder / "data" / "images" / f"{i}.png")
        Image.fromarray((pixels.mean(2) > 127).astype(np.uint8)).save(folder / "data" / "masks" / f"{i}.png")
    config = options(data="folder", root=str(folder / "data"), classes=("dark", "bright"), epochs=6)
    make(folder / "run", config, open_data(config), draw=False).fit()
    return folder / "run"


def test_the_file_segments_as_predict_does(command: Command, run: Path, tmp_path: Path) -> None:
    """Pixels of other images, of other sizes, divided by 255: the masks are those that predict writes, pixel for pixel."""
    code, said, _ = command("export", run, tmp_path / "new" / "model.onnx", "--output", "classes")
    assert code == 0
    first, second = said.splitlines()
    assert first.startswith(f"{tmp_path / 'new' / 'model.onnx'} (0.") and first.endswith(
        "image (batch, 3, height, width) float32 -> classes (batch, height, width) int64; batch, height and width may have any size that the model takes"
    )
    assert second == "classes: dark, bright"
    rng, photos = np.random.default_rng(1), tmp_path / "photos"
    photos.mkdir()
    for name, size in (("wide", (9, 20)), ("tall", (17, 6)), ("small", (1, 2))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8).repeat(3, 0).repeat(3, 1)).save(photos / f"{name}.png")
    assert command("predict", run / "best.safetensors", photos, "--out", tmp_path / "out")[0] == 0
    model = onnx.load(tmp_path / "new" / "model.onnx")
    seen = set()
    for path in photos.iterdir():
        pixels = np.asarray(Image.open(path), np.float32).transpose(2, 0, 1)[None] / np.float32(255)
        [mask] = answers(model, pixels)
        expected = np.asarray(Image.open(tmp_path / "out" / path.name))
        np.testing.assert_array_equal(mask[0], expected)
        seen |= set(np.unique(mask))
    assert seen == {0, 1}
    assert json.loads({p.key: p.value for p in model.metadata_props}["classes"]) == ["dark", "bright"]


def test_mean_iou_is_the_same(command: Command, run: Path, tmp_path: Path) -> None:
    """Over the images that were held out, of which `evaluate` tells."""
    assert command("export", run / "best.safetensors", tmp_path / "model.onnx", "--output", "classes")[0] == 0
    found = json.loads(command("evaluate", run / "best.safetensors", "--json")[1])
    config = json.loads((run / "config.json").read_text())
    held_out = load_checkpoint(run / "best.safetensors").info["held_out"]
    model, matrix = onnx.load(tmp_path / "model.onnx"), np.zeros((2, 2), np.int64)
    for name in held_out:
        image, mask = (Path(config["root"]) / part / f"{Path(name).stem}.png" for part in ("images", "masks"))
        [answer] = answers(model, np.asarray(Image.open(image), np.float32).transpose(2, 0, 1)[None] / np.float32(255))
        np.add.at(matrix, (np.asarray(Image.open(mask)), answer[0]), 1)
    assert matrix.tolist() == found["confusion"] and matrix.sum() == len(held_out) * 24 * 32
    iou = np.diag(matrix) / (matrix.sum(0) + matrix.sum(1) - np.diag(matrix))
    np.testing.assert_allclose(iou.mean(), found["miou"], rtol=1e-6)


def test_nothing_is_overwritten_unasked(command: Command, run: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"mine")
    said = f"error: {tmp_path / 'model.onnx'} exists already; add --force to overwrite, or choose another place\n"
    assert command("export", run, tmp_path / "model.onnx") == (2, "", said)
    assert (tmp_path / "model.onnx").read_bytes() == b"mine"
    assert command("export", run, tmp_path / "model.onnx", "--force")[0] == 0
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"] and (tmp_path / "model.onnx").stat().st_size > 1000


def test_the_size_is_told_in_millions_of_bytes_and_probabilities_are_the_default(command: Command, tmp_path: Path) -> None:
    model = models.UNet(1, 2, base=32, depth=2, padding="same")
    info = {"classes": ["a", "b"], "mean": [0.5], "std": [0.2]}
    save_checkpoint(tmp_path / "best.safetensors", Checkpoint("unet", model.config, model.state_dict(), info))
    code, said, _ = command("export", tmp_path, tmp_path / "model.ONNX")
    size = (tmp_path / "model.ONNX").stat().st_size
    assert code == 0 and said.startswith(f"{tmp_path / 'model.ONNX'} ({size / 1e6:.1f} MB): image (batch, 1, height, width) float32 -> ")
    assert "-> probabilities (batch, 2, height, width) float32; " in said and f"{size / 1e6:.1f}" != f"{size / 2**20:.1f}"


def test_mistakes_are_one_sentence(command: Command, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def error(*words: object) -> str:
        code, out, err = command("export", *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        return err.removeprefix("error: ").rstrip("\n")

    file = tmp_path / "model.onnx"
    assert (
        error(run, tmp_path / "model.pt")
        == f"{tmp_path / 'model.pt'}: the name of an ONNX file ends in .onnx; call it {tmp_path / 'model.onnx'}"
    )
    assert (
        error("nowhere.safetensors", file)
        == "there is no checkpoint nowhere.safetensors; look for best.safetensors in the folder of the run"
    )
    assert "is a folder, not a checkpoint file" in error(tmp_path, file)
    (tmp_path / "file").write_bytes(b"")
    assert (
        error(run, tmp_path / "file" / "model.onnx") == f"{tmp_path / 'file'} is a file, not a folder; choose another place for the results"
    )
    model = models.UNet(1, 2, base=1, depth=1)
    save_checkpoint(tmp_path / "bare.safetensors", Checkpoint("unet", model.config, model.state_dict(), {"classes": ["a", "b"]}))
    assert "does not say the mean that it was trained with" in error(tmp_path / "bare.safetensors", file)

    def missing() -> Any:
        raise ImportError('exporting needs the package onnx; install it with: pip install "minidcnn[onnx]"')

    monkeypatch.setattr("minidcnn.interop.onnx.graph.required", missing)
    assert error(run, tmp_path / "new" / "model.onnx") == 'exporting needs the package onnx; install it with: pip install "minidcnn[onnx]"'
    assert not file.exists() and not (tmp_path / "new").exists()
