"""The command line, as users call it: what each command writes and says, and one sentence for everything that is wrong."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minidcnn
from minidcnn import models
from minidcnn.backend import compiling
from minidcnn.cli import COMMANDS, main
from minidcnn.cli.common import data_arguments, open_data
from minidcnn.cli.evaluate import held_out
from minidcnn.cli.images import find_images, unique_names
from minidcnn.data import FileDataset, Normalize, Subset, read_image
from minidcnn.interop import Checkpoint, load_checkpoint, model_of, save_checkpoint, save_weights
from minidcnn.segmentation import BoundaryF1, predict_mask
from minidcnn.segmentation.paint import overlay

PALETTE = [[0, 0, 0], [200, 40, 40], [40, 90, 220]]


class Said:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def error(self) -> str:
        """The one sentence of a command that failed."""
        assert self.code == 2 and not self.out, (self.code, self.out)
        assert self.err.count("\n") == 1 and self.err.startswith("error: ") and "Traceback" not in self.err, self.err
        return self.err.removeprefix("error: ").rstrip("\n")


Command = Callable[..., Said]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setattr(sys, "argv", ["minidcnn"])

    def run(*words: object) -> Said:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net for RGB images and three classes, untrained, whose answers vary from pixel to pixel."""
    minidcnn.manual_seed(3)
    model = models.UNet(3, 3, base=2, depth=2, padding="same")
    state = model.state_dict()
    state["head.weight"] *= 20
    info = {
        "classes": ["sky", "road", "tree"], "palette": PALETTE, "ignore_index": 255, "channels": 3, "mean": [0.5, 0.4, 0.6], "std": [0.3, 0.2, 0.25],
        "mask_values": [0, 1, 2], "data": "folder", "epoch": 1, "scores": {},
    }  # fmt: skip
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    save_checkpoint(path, Checkpoint("unet", model.config, state, info))
    return path


def pixels(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """(H, W, C) uint8, smooth enough that JPEG keeps it."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 4), -(-width // 4), channels), dtype=np.uint8)
    return coarse.repeat(4, 0).repeat(4, 1)[:height, :width]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with images of all kinds."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    rgb = pixels(0, 37, 50)
    Image.fromarray(rgb).save(folder / "colour.png")
    Image.fromarray(rgb).save(folder / "photo.jpg", quality=95)
    Image.fromarray(rgb[:, :, 0]).save(folder / "gray.png")
    Image.fromarray(np.concatenate([rgb, rgb[:, :, :1]], axis=2)).save(folder / "rgba.png")
    Image.fromarray(rgb).quantize(17).save(folder / "palette.png")
    Image.fromarray(rgb[:, :, 0].astype(np.uint16) * 257).save(folder / "sixteen.tif")
    Image.fromarray(rgb[:1, :1]).save(folder / "one.png")
    Image.fromarray(rgb).save(folder / "sub" / "not searched.png")
    (folder / ".hidden.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Ten images and masks of three classes, 24 x 32, in root/images and root/masks."""
    root = tmp_path / "mydata"
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for i in range(10):
        mask = pixels(i, 24, 32, 1)[:, :, 0] % 3
        Image.fromarray(np.array(PALETTE, np.uint8)[mask]).save(root / "images" / f"{i}.png")
        Image.fromarray(mask).save(root / "masks" / f"{i}.png")
    return root


# -- the program itself ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, command: Command) -> None:
    said = command(name, "--help")
    assert said.code == 0 and not said.err
    assert said.out.startswith(f"usage: minidcnn {name}") and f"python -m minidcnn {name}" in said.out  # an example
    assert all(len(line) <= 140 for line in said.out.splitlines())


def test_the_program_lists_its_commands(command: Command) -> None:
    said = command("--help")
    assert said.code == 0 and all(name in said.out and what in said.out for name, what in COMMANDS.items())
    assert command().code == 2
    assert command("--version").out == f"minidcnn {minidcnn.__version__}\n"
    assert command("predcit").error == "there is no command 'predcit', did you mean predict?; minidcnn --help lists them"
    assert command("x").error == "there is no command 'x'; minidcnn --help lists them"


def test_commands_say_that_they_compile_where_somebody_watches(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minidcnn.cli.summary.run", lambda args: compiling.tell() or 0)
    assert command("summary", "unet").err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert command("summary", "unet").err.startswith("compiling kernels: ")


def test_python_m_minidcnn(tmp_path: Path) -> None:
    """As a program of its own: its name in what it says, its exit code, and no heavy import before a command needs it."""
    code = "import runpy, sys; sys.argv = ['minidcnn/__main__.py', '--help']\ntry: runpy.run_module('minidcnn', run_name='__main__')\n"
    code += "except SystemExit as e: print([m for m in ('matplotlib', 'numba', 'PIL', 'scipy') if m in sys.modules], e.code)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.startswith("usage: python -m minidcnn COMMAND") and shown.stdout.endswith("[] 0\n")
    run = [sys.executable, "-m", "minidcnn", "predict", "none.safetensors", "a.png", "--out", str(tmp_path / "out")]
    failed = subprocess.run(run, capture_output=True, text=True, check=False, timeout=60)
    assert failed.returncode == 2 and not failed.stdout
    assert failed.stderr == "error: there is no checkpoint none.safetensors; look for best.safetensors in the folder of the run\n"


# -- predict -----------------------------------------------------------------------------------------------------------------------------


def test_predict_writes_index_and_overlay_at_the_images_size(command: Command, checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    said = command("predict", checkpoint, photos, "--out", out)
    assert said.code == 0 and said.err.startswith(f"warning: {photos / 'sub'} holds 1 image, too") and said.err.count("\n") == 1
    names = ["colour", "gray", "one", "palette", "photo", "rgba", "sixteen"]
    assert sorted(p.name for p in out.iterdir()) == sorted(f"{n}{end}.png" for n in names for end in ("", "_overlay"))
    lines = said.out.splitlines()
    assert len(lines) == 8 and lines[0].startswith(f"{photos / 'colour.png'} -> {out / 'colour.png'}: ") and "road" in lines[0]

    loaded = load_checkpoint(checkpoint)
    model, normalize = model_of(loaded), Normalize([0.5, 0.4, 0.6], [0.3, 0.2, 0.25])
    for path in photos.glob("*.*"):
        if path.stem not in names:
            continue
        image = read_image(path, 3)
        expected = predict_mask(model, normalize.image(image))
        with Image.open(out / f"{path.stem}.png") as index, Image.open(out / f"{path.stem}_overlay.png") as over:
            assert index.mode == "P" and index.getpalette()[:9] == [c for colour in PALETTE for c in colour]
            np.testing.assert_array_equal(np.asarray(index), expected)
            assert over.mode == "RGB" and over.size == index.size == image.shape[:0:-1]
            np.testing.assert_array_equal(np.asarray(over), overlay(image, expected, np.array(PALETTE, np.uint8)))
        if path.stem not in ("one", "sixteen"):
            assert len(np.unique(expected)) > 1  # something is to be seen


def test_tiles_are_as_large_as_the_network_needs_where_nothing_is_said(
    command: Command, checkpoint: Path, photos: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("predict", checkpoint, photos / "colour.png", "--out", tmp_path / "four", "--tile", 4).code == 0
    monkeypatch.setattr("minidcnn.segmentation.predict.TILE", 3)
    assert command("predict", checkpoint, photos / "colour.png", "--out", tmp_path / "usual").code == 0
    assert (tmp_path / "usual" / "colour.png").read_bytes() == (tmp_path / "four" / "colour.png").read_bytes()
    assert command("evaluate", checkpoint, "--data", "folder", "--root", dataset).code == 0


def test_a_bad_image_does_not_cost_the_others(command: Command, checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    (photos / "cut.jpg").write_bytes((photos / "photo.jpg").read_bytes()[:300])
    np.save(photos / "five.npy", np.zeros((4, 4, 5), np.float32))
    np.save(photos / "counts.npy", np.full((4, 4), 4095, np.int32))
    said = command("predict", checkpoint, photos, photos / "none.png", photos / "notes.txt", "--out", tmp_path / "out")
    assert said.code == 1 and len(list((tmp_path / "out").iterdir())) == 14
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    for part in (
        f"{photos / 'none.png'} does not exist",
        f"{photos / 'notes.txt'} is no image: files must end in .bmp, ",
        f"{photos / 'bad.png'} cannot be read as an image",
        f"{photos / 'cut.jpg'} cannot be read as an image",
        f"{photos / 'five.npy'} has 5 channels, 3 were asked for",
        f"{photos / 'counts.npy'} holds int32 values from 4095 to 4095, whose range is not known; say which value is white",
        "for example white=4095 (--white 4095)",
    ):
        assert sum(part in line for line in errors) == 1, said.err
    assert len(errors) == 6 and said.err.splitlines()[-1] == "7 of 13 images are done"
    assert command("predict", checkpoint, photos / "counts.npy", "--white", 4095, "--out", tmp_path / "white").code == 0
    loaded = load_checkpoint(checkpoint)
    save_checkpoint(tmp_path / "white.safetensors", Checkpoint("unet", loaded.config, loaded.tensors, loaded.info | {"white": 4095.0}))
    assert command("predict", tmp_path / "white.safetensors", photos / "counts.npy", "--out", tmp_path / "as in training").code == 0


def test_predict_overwrites_nothing_unasked(command: Command, checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "gray_overlay.png").write_bytes(b"mine")
    said = command("predict", checkpoint, photos / "colour.png", photos / "gray.png", "--out", out)
    assert said.error == f"{out / 'gray_overlay.png'} exists already; add --force to overwrite, or choose another place"
    assert [p.name for p in out.iterdir()] == ["gray_overlay.png"]  # and nothing was begun
    assert command("predict", checkpoint, photos / "gray.png", "--out", out, "--force").code == 0
    assert (out / "gray_overlay.png").read_bytes() != b"mine"

    before = (photos / "gray.png").read_bytes()
    said = command("predict", checkpoint, photos / "gray.png", "--out", photos, "--force")
    assert said.error == f"{photos / 'gray.png'} is one of the images, and its prediction would overwrite it; choose another --out"
    assert (photos / "gray.png").read_bytes() == before
    assert command("predict", checkpoint, photos / "photo.jpg", "--out", photos).code == 0  # here nothing is in the way
    said = command("predict", checkpoint, photos / "gray.png", "--out", photos / "notes.txt")
    assert said.error == f"{photos / 'notes.txt'} is a file, not a folder; choose another place for the results"


def test_pages_are_images_or_channels(command: Command, checkpoint: Path, tmp_path: Path) -> None:
    layers = [Image.fromarray(pixels(i, 20, 28, 1)[:, :, 0]) for i in range(3)]
    layers[0].save(tmp_path / "two.tif", save_all=True, append_images=layers[1:2])
    layers[0].save(tmp_path / "three.tif", save_all=True, append_images=layers[1:])
    said = command("predict", checkpoint, tmp_path / "two.tif", tmp_path / "three.tif", "--out", tmp_path / "out")
    assert said.code == 0 and "two.tif (page 2) -> " in said.out
    found = sorted(p.name for p in (tmp_path / "out").iterdir() if "overlay" not in p.name)
    assert found == ["three.png", "two-1.png", "two-2.png"]  # three pages are the three channels that the network takes
    layers[0].save(tmp_path / "two-1.png")
    layers[0].save(tmp_path / "two-2.tif")
    said = command("predict", checkpoint, *(tmp_path / name for name in ("two.tif", "two-1.png", "two-2.tif")), "--out", tmp_path / "more")
    found = sorted(p.name for p in (tmp_path / "more").iterdir() if "overlay" not in p.name)
    assert said.code == 0 and found == ["two-1_png.png", "two-1_tif.png", "two-2_1.png", "two-2_2.png"]


def test_names_of_results(tmp_path: Path) -> None:
    def names(*files: str) -> list[str]:
        return unique_names([Path("/data") / f for f in files])

    assert names("a.png", "b.c.jpg") == ["a", "b.c"]
    assert names("a.png", "a.jpg", "b.png") == ["a_png", "a_jpg", "b"]
    assert names("x/a.png", "y/a.png") == ["x_a", "y_a"]
    assert names("x/A.png", "y/a.png") == ["x_A", "y_a"]  # one file where case does not count
    assert names("x/a.png", "x/a.jpg", "y/a.png") == ["x_a_png", "x_a_jpg", "y_a_png"]
    assert names("a.png", "a_overlay.png") == ["a", "a_overlay_png"]  # a_overlay.png is the overlay of a
    assert names("p/x/a.png", "q/x/a.png") == ["a_1", "a_2"]
    assert names("p/x/a.png", "q/x/a.png", "a_2.png", "A_2.jpg") == ["a_1", "a_2", "a_2_png", "A_2_jpg"]
    assert names("a_2.png", "p/x/a.png", "q/x/a.png") == ["a_2", "a_3", "a_4"]
    assert names("a.png", "a.jpg", "a_png.png") == ["a_png", "a_jpg", "a_png_png"]
    image = tmp_path / "a.png"
    Image.fromarray(pixels(0, 4, 4)).save(image)
    jobs, problems = find_images([image, tmp_path, tmp_path / ".." / tmp_path.name / "a.png"], 3)
    assert [job.name for job in jobs] == ["a"] and not problems  # named three times, predicted once


def test_predict_says_what_lies_in_sub_folders(command: Command, checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    said = command("predict", checkpoint, photos, "--out", tmp_path / "out")
    assert (
        said.code == 0
        and said.err == f"warning: {photos / 'sub'} holds 1 image, too, but sub-folders are not searched: name them as well\n"
    )
    assert command("predict", checkpoint, photos, photos / "sub", "--out", photos / "results").err == ""
    assert command("predict", checkpoint, photos, photos / "sub", "--out", photos / "results", "--force").err == ""  # nor of those
    (tmp_path / "album").mkdir()
    photos.rename(tmp_path / "album" / "photos")
    said = command("predict", checkpoint, tmp_path / "album", "--out", tmp_path / "none")
    assert said.code == 2 and said.err == (
        f"error: {tmp_path / 'album'} holds no images of its own; {tmp_path / 'album' / 'photos'} holds 24 images, but sub-folders are not searched: "
        f"name them\n"
    )


def test_empty_folders_and_nothing_to_do(command: Command, checkpoint: Path, tmp_path: Path) -> None:
    said = command("predict", checkpoint, tmp_path, "--out", tmp_path / "out")
    assert said.code == 2 and not (tmp_path / "out").exists()
    assert said.err == "error: " + f"{checkpoint.parent} holds no images\n".replace(str(checkpoint.parent), str(tmp_path))


# -- wrong use, one sentence each ----------------------------------------------------------------------------------------------------------


def test_wrong_checkpoints(command: Command, checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    def said(path: Path) -> str:
        return command("predict", path, photos / "gray.png", "--out", tmp_path / "out").error

    (tmp_path / "text.safetensors").write_text("this is text, not tensors" * 9)
    save_weights(tmp_path / "bare.safetensors", models.UNet(1, 2, base=1, depth=1))
    loaded = load_checkpoint(checkpoint)
    save_checkpoint(tmp_path / "other.safetensors", Checkpoint("unet", loaded.config | {"base": 3}, loaded.tensors, loaded.info))
    save_checkpoint(tmp_path / "unknown.safetensors", Checkpoint("vnet", {}, loaded.tensors, loaded.info))
    assert "is a folder, not a checkpoint file; did you mean" in said(checkpoint.parent)
    assert "is no checkpoint, or was damaged or cut short" in said(tmp_path / "text.safetensors")
    assert "is a safetensors file but no checkpoint of minidcnn" in said(tmp_path / "bare.safetensors")
    assert "is (2, 3, 3, 3), the model's is (3, 3, 3, 3)" in said(tmp_path / "other.safetensors")
    assert "vnet" in said(tmp_path / "unknown.safetensors")
    save_checkpoint(tmp_path / "plain.safetensors", Checkpoint("unet", loaded.config, loaded.tensors))
    assert "does not say the classes that it was trained with" in said(tmp_path / "plain.safetensors")
    save_checkpoint(tmp_path / "odd.safetensors", Checkpoint("unet", loaded.config, loaded.tensors, loaded.info | {"classes": ["a", "b"]}))
    assert "classes has 2 entries, its network needs 3" in said(tmp_path / "odd.safetensors")


def test_wrong_options(command: Command, checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    image, out = photos / "gray.png", ("--out", tmp_path / "out")
    helps = "; minidcnn predict --help explains the options"
    assert command("predict", checkpoint, image).error == "the following arguments are required: --out" + helps
    assert command("predict", checkpoint, image, *out, "--tiel", 9).error == "unrecognized arguments: --tiel 9" + helps
    assert command("predict", checkpoint, image, *out, "--tile", "big").error == "argument --tile: invalid int value: 'big'" + helps
    assert (
        "--tile must be at least 4 pixels for this network, or 0 for whole images, got 3"
        in command("predict", checkpoint, image, *out, "--tile", 3).error
    )
    for white in ("0", "-4095", "nan"):
        assert "--white must be a positive number, got " in command("predict", checkpoint, image, *out, f"--white={white}").error
    assert "invalid choice: 'cuda'" in command("predict", checkpoint, image, *out, "--backend", "cuda").error
    assert "argument --count: '0' is no whole number of at least 1" in command("show", *out, "--count", 0).error
    assert (
        "argument --values: 'red' is no mask value: give numbers up to 65535 as in 0,128,255, or colours as red/green/blue, as in 255/0/0"
        in command("check", "--values", "red").error
    )


def test_cupy_says_what_is_missing(
    command: Command, checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None)
    said = command("predict", checkpoint, photos / "gray.png", "--out", tmp_path / "out", "--backend", "cupy")
    assert 'backend "cupy" needs the package CuPy, which is not installed: pip install' in said.error
    assert command("predict", checkpoint, photos / "gray.png", "--out", tmp_path / "out", "--backend", "auto").code == 0


def test_what_the_system_says_is_told_with_the_file(
    command: Command, checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device", "gray.png")

    monkeypatch.setattr("minidcnn.segmentation.paint.index_png", full)
    said = command("predict", checkpoint, photos / "gray.png", "--out", tmp_path / "out")
    assert said.code == 1 and f"error: {photos / 'gray.png'}: gray.png: No space left on device\n" in said.err


def test_out_of_memory_is_told_with_a_way_out(
    command: Command, checkpoint: Path, photos: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*args: object, **kwargs: object) -> None:
        raise MemoryError("Unable to allocate 30.0 GiB for an array")

    monkeypatch.setattr("minidcnn.segmentation.predict.predict_mask", exhausted)
    said = command("predict", checkpoint, photos / "gray.png", "--out", tmp_path / "out")
    assert said.code == 1
    sentence = f"error: {photos / 'gray.png'}: out of memory (Unable to allocate 30.0 GiB for an array)"
    assert f"{sentence}; try --tile 512\n" in said.err
    for tile, advice in ((0, "; try --tile 1024"), (7, "; try --tile 4"), (4, "")):
        assert f"{sentence}{advice}\n" in command("predict", checkpoint, photos / "gray.png", "--out", tmp_path / "out", "--tile", tile).err
    monkeypatch.setattr("minidcnn.segmentation.evaluate.evaluate", exhausted)
    said = command("evaluate", checkpoint, "--data", "folder", "--root", dataset)
    assert said.error == "out of memory (Unable to allocate 30.0 GiB for an array); a smaller --tile needs less"


# -- check, show -------------------------------------------------------------------------------------------------------------------------


def test_check_passes_good_data_and_names_what_is_wrong(command: Command, dataset: Path) -> None:
    said = command("check", "--data", "folder", "--root", dataset)
    assert said.code == 0 and "10 images, 3 channels, 3 classes, sizes 24x32" in said.out and said.out.endswith("ok\n")
    (dataset / "masks" / "3.png").unlink()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(dataset / "masks" / "4.png")
    said = command("check", "--data", "folder", "--root", dataset)
    assert said.code == 1 and "error: " in said.out
    assert f"{dataset / 'images' / '3.png'} has no mask: {dataset / 'masks' / '3.png'} is expected" in said.out
    assert "is 24x32 but its mask" in said.out and "is 9x9" in said.out and "2 errors" in said.out


def test_check_every_split(command: Command) -> None:
    said = command("check")
    assert said.code == 0 and "cells train: 240 images" in said.out and "cells val: 60 images" in said.out
    said = command("check", "--split", "val")
    assert "cells train" not in said.out and "cells val" in said.out


def test_check_reads_every_pet_once(command: Command, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trimaps = dataset / "annotations" / "trimaps"
    trimaps.mkdir(parents=True)
    for i in range(10):
        Image.open(dataset / "images" / f"{i}.png").save(dataset / "images" / f"{i}.jpg")
        Image.fromarray(np.asarray(Image.open(dataset / "masks" / f"{i}.png")) + np.uint8(1)).save(trimaps / f"{i}.png")
    for name, numbers in (("trainval", range(6)), ("test", range(6, 10))):
        (dataset / "annotations" / f"{name}.txt").write_text("".join(f"{i} 1 1 1\n" for i in numbers))
    read: list[str] = []
    load = FileDataset.load
    monkeypatch.setattr(FileDataset, "load", lambda self, index: read.append(self.label(index)) or load(self, index))
    said = command("check", "--data", "oxford_pet", "--root", dataset)
    assert said.code == 0 and sorted(read) == list("0123456789"), said.out


def test_wrong_data_sets(command: Command, dataset: Path, tmp_path: Path) -> None:
    folder = ("check", "--data", "folder")
    assert "needs a folder; say where it lies (root, or --root on the command line)" in command(*folder).error
    assert "does not exist" in command(*folder, "--root", tmp_path / "none").error
    assert "should hold images/ and masks/" in command(*folder, "--root", tmp_path).error
    assert "invalid choice: 'coco'" in command("check", "--data", "coco").error
    assert "the data set cells is generated and takes no folder" in command("check", "--root", dataset).error
    assert command("check", "--suffix", "_m").error.startswith(
        "--suffix _m is for --data folder; --data cells does not take it: leave it out"
    )
    assert "there is no split 'tset'" in command(*folder, "--root", dataset, "--split", "tset").error
    assert "is background missing from the names? It is a class, too" in command(*folder, "--root", dataset, "--classes", "road,tree").error
    assert command(*folder, "--root", dataset, "--classes", "sky,road,tree").code == 0
    assert command(*folder, "--root", dataset, "--classes", 3).code == 0
    Image.fromarray(pixels(1, 24, 32, 1)[:, :, 0]).save(dataset / "masks" / "5.png")
    assert "too many for classes" in command(*folder, "--root", dataset).error


def test_colours_and_ignored_values(command: Command, dataset: Path) -> None:
    for path in (dataset / "masks").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.array(PALETTE, np.uint8)[mask]).save(path)
    given = ("--values", "40/90/220,200/40/40", "--ignored", "0/0/0", "--classes", "tree,road")
    said = command("check", "--data", "folder", "--root", dataset, *given)
    assert said.code == 0 and "2 classes" in said.out and "ignored" in said.out
    assert said.out.index(" tree ") < said.out.index(" road ")


def test_show_draws_a_picture_and_overwrites_nothing(command: Command, dataset: Path, tmp_path: Path) -> None:
    words = ("show", "--data", "folder", "--root", dataset, "--out", tmp_path / "out", "--count", 2)
    said = command(*words)
    picture = tmp_path / "out" / "mydata-train.png"
    assert said.code == 0 and said.out == f"{picture} shows 2 of 8 images\n"
    with Image.open(picture) as image:
        assert image.size[0] > 1000
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}
    assert {tuple(c) for c in minidcnn.data.default_palette(3).tolist()} <= colours
    assert f"{picture} exists already; add --force to overwrite" in command(*words).error
    assert command(*words, "--force").code == 0
    (dataset / "images" / "0.png").write_bytes(b"no image")
    said = command(
        "show", "--data", "folder", "--root", dataset, "--split", "all", "--out", tmp_path / "all", "--count", 10, "--channels", 3
    )
    assert said.code == 1 and "shows 9 of 10 images" in said.out and "warning: " in said.err and "0.png cannot be read" in said.err


# -- evaluate, summary -------------------------------------------------------------------------------------------------------------------


def test_evaluate_scores_in_words_and_in_json(command: Command, checkpoint: Path, dataset: Path, tmp_path: Path) -> None:
    words = ("evaluate", checkpoint, "--data", "folder", "--root", dataset)
    said = command(*words, "--split", "all", "--confusion", tmp_path / "c.png")
    assert said.code == 0 and said.out.startswith("mydata all: 10 images\nclass") and "pixel accuracy" in said.out
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.size[0] > 300
    assert "c.png exists already" in command(*words, "--confusion", tmp_path / "c.png").error
    assert "must end in .png" in command(*words, "--confusion", tmp_path / "c.jpg").error

    numbers = json.loads(command(*words, "--split", "all", "--json").out)
    matrix = np.array(numbers["confusion"])
    model, total = model_of(load_checkpoint(checkpoint)), np.zeros((3, 3), int)
    for i in range(10):
        image = read_image(dataset / "images" / f"{i}.png", 3)
        normal = Normalize([0.5, 0.4, 0.6], [0.3, 0.2, 0.25]).image(image)
        truth, guess = np.asarray(Image.open(dataset / "masks" / f"{i}.png")), predict_mask(model, normal)
        np.add.at(total, (truth, guess), 1)
    np.testing.assert_array_equal(matrix, total)
    assert numbers["pixel_accuracy"] == pytest.approx(np.trace(total) / total.sum()) and numbers["images"] == 10
    assert numbers["classes"] == ["sky", "road", "tree"] and len(numbers["iou"]) == 3
    assert json.loads(command(*words, "--json").out)["images"] == 2  # the part that training holds out
    assert json.loads(command(*words, "--json", "--val-fraction", 0.5).out)["images"] == 5


def test_evaluate_scores_boundaries_if_asked_to(command: Command, checkpoint: Path, dataset: Path) -> None:
    words = ("evaluate", checkpoint, "--data", "folder", "--root", dataset, "--split", "all")
    model, truths, guesses = model_of(load_checkpoint(checkpoint)), [], []
    for i in range(10):
        normal = Normalize([0.5, 0.4, 0.6], [0.3, 0.2, 0.25]).image(read_image(dataset / "images" / f"{i}.png", 3))
        truths.append(np.asarray(Image.open(dataset / "masks" / f"{i}.png")))
        guesses.append(predict_mask(model, normal))
    means = []
    for more, tolerance in (([], None), ([1.5], 1.5)):
        expected = BoundaryF1(3, tolerance=tolerance)
        expected.update(np.stack(truths), np.stack(guesses))
        numbers = json.loads(command(*words, "--json", "--boundary", *more).out)
        assert {name: numbers[name] for name in expected.scores()} == expected.scores() and 0 < expected.mean < 1
        means.append(expected.mean)
    assert means[0] < means[1]
    assert "boundary F1 counts what lies within 2 px" in command(*words, "--boundary", 2).out
    assert "boundary" not in command(*words).out and "boundary_f1" not in command(*words, "--json").out
    for wrong in (-1, "nan", checkpoint):
        assert f"'{wrong}' is no number of pixels" in command("evaluate", "--boundary", wrong, checkpoint).error


def test_evaluate_knows_masks_as_in_training(command: Command, checkpoint: Path, dataset: Path) -> None:
    """A folder in which a class does not occur must not number the others anew."""
    loaded = load_checkpoint(checkpoint)
    stored = dataset / "best.safetensors"
    save_checkpoint(stored, Checkpoint("unet", loaded.config, loaded.tensors, loaded.info | {"mask_values": [10, 100, 200]}))
    for path in (dataset / "masks").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask == 2, 200, 10).astype(np.uint8)).save(path)
    numbers = json.loads(command("evaluate", stored, "--data", "folder", "--root", dataset, "--split", "all", "--json").out)
    true = np.array(numbers["confusion"]).sum(axis=1)
    assert true[1] == 0 and true[2] > 0 and numbers["classes"] == ["sky", "road", "tree"]


def test_evaluate_refuses_masks_that_store_a_class_as_another_value(command: Command, checkpoint: Path, dataset: Path) -> None:
    """255 was nothing in training: to leave it out would leave out a class, where the masks hold the classes as 0, 1 and 255."""
    loaded = load_checkpoint(checkpoint)
    stored = dataset / "best.safetensors"
    save_checkpoint(stored, Checkpoint("unet", loaded.config, loaded.tensors, loaded.info | {"mask_ignored": []}))
    trees = 0
    for path in (dataset / "masks").iterdir():
        mask = np.asarray(Image.open(path))
        trees += np.count_nonzero(mask == 2)
        Image.fromarray(np.where(mask == 2, 255, mask).astype(np.uint8)).save(path)
    words = ("evaluate", stored, "--data", "folder", "--root", dataset, "--split", "all", "--json")
    said = command(*words).error
    assert "holds 255 at row" in said and "which is no class; the known values are 0, 1, 2" in said and "--ignored" in said
    assert np.sum(json.loads(command(*words, "--ignored", 255).out)["confusion"]) == 10 * 24 * 32 - trees
    assert np.sum(json.loads(command(*words, "--values", "0,1,255").out)["confusion"], axis=1)[2] == trees


def test_evaluate_without_labels_has_nothing_to_say(command: Command, checkpoint: Path, dataset: Path, tmp_path: Path) -> None:
    for mask in (dataset / "masks").iterdir():
        Image.fromarray(np.full((24, 32), 255, np.uint8)).save(mask)
    words = ("--data", "folder", "--root", dataset, "--values", "0,1,2", "--split", "all", "--confusion", tmp_path / "c.png")
    assert (
        command("evaluate", checkpoint, *words).error
        == "mydata all: every pixel of 10 images is ignored, so that there is nothing to compare"
    )
    assert not (tmp_path / "c.png").exists()


def test_evaluate_what_does_not_fit(command: Command, checkpoint: Path, dataset: Path) -> None:
    assert "that says what" in command("evaluate", checkpoint).error
    assert (
        "knows 3 classes (sky, road, tree), but cells val has 2 classes (background, cell)"
        in command("evaluate", checkpoint, "--data", "cells").error
    )
    mask = dataset / "masks" / "0.png"
    Image.fromarray(np.full((24, 32), 7, np.uint8)).save(mask)
    assert "7" in command("evaluate", checkpoint, "--data", "folder", "--root", dataset, "--split", "all").error


def test_evaluate_goes_by_the_run_in_whose_folder_the_checkpoint_lies(
    command: Command, checkpoint: Path, dataset: Path, tmp_path: Path
) -> None:
    from minidcnn.segmentation.config import TrainConfig

    (tmp_path / "best.safetensors").write_bytes(checkpoint.read_bytes())
    config = TrainConfig("unet", data="folder", root=str(dataset), val_fraction=0.3)
    (tmp_path / "config.json").write_text(config.to_json())
    assert json.loads(command("evaluate", tmp_path / "best.safetensors", "--json").out)["images"] == 3
    assert json.loads(command("evaluate", tmp_path / "best.safetensors", "--json", "--val-fraction", 0.3).out)["images"] == 3
    assert command("evaluate", tmp_path / "best.safetensors", "--val-fraction", 0.5).error == (
        "--val-fraction 0.5 would divide the images anew, and the network knows some of them from training: leave it out, or name other images "
        "with --data and --root"
    )


def test_evaluate_scores_no_image_trained_on_though_the_folder_is_named(
    command: Command, checkpoint: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minidcnn.segmentation.config import TrainConfig

    stored = load_checkpoint(checkpoint)
    stored.info["held_out"] = ["1", "4", "9"]
    save_checkpoint(tmp_path / "best.safetensors", stored)
    config = tmp_path / "config.json"
    config.write_text(TrainConfig("unet", data="folder", root="mydata", val_fraction=0.3).to_json())
    monkeypatch.chdir(tmp_path)
    held_out = json.loads(command("evaluate", "best.safetensors", "--json").out)
    for root in ("mydata", dataset, "../" + tmp_path.name + "/mydata/"):
        words = ("evaluate", "best.safetensors", "--data", "folder", "--root", root, "--json")
        assert json.loads(command(*words).out) == held_out
        assert "would divide the images anew" in command(*words, "--val-fraction", 0.5).error
    for part in ("images", "masks"):
        (tmp_path / "others" / part).mkdir(parents=True)
        for i in range(10):
            (tmp_path / "others" / part / f"{i}.png").write_bytes((dataset / part / f"{i}.png").read_bytes())
    others = ("evaluate", "best.safetensors", "--data", "folder", "--root", "others", "--json")
    assert json.loads(command(*others).out)["images"] == 2  # other images, divided as ever
    config.write_text("{}")  # of no run, or of another program
    assert json.loads(command(*others).out)["images"] == json.loads(command(*words).out)["images"] == 2


def test_evaluate_scores_the_images_held_out_in_training_though_others_came_and_went(
    command: Command, checkpoint: Path, dataset: Path, tmp_path: Path
) -> None:
    from minidcnn.segmentation.config import TrainConfig

    stored = load_checkpoint(checkpoint)
    stored.info["held_out"] = ["1", "4", "9"]
    save_checkpoint(tmp_path / "best.safetensors", stored)
    (tmp_path / "config.json").write_text(TrainConfig("unet", data="folder", root=str(dataset)).to_json())

    def pixels_of(names: list[str]) -> np.ndarray:
        return sum(np.bincount(np.asarray(Image.open(dataset / "masks" / f"{name}.png")).ravel(), minlength=3) for name in names)  # type: ignore[return-value]

    for i in range(10, 25):
        for part in ("images", "masks"):
            (dataset / part / f"{i}.png").write_bytes((dataset / part / f"{i % 10}.png").read_bytes())
    said = command("evaluate", tmp_path / "best.safetensors", "--json")
    scores = json.loads(said.out)
    assert scores["images"] == 3 and not said.err
    np.testing.assert_array_equal(np.sum(scores["confusion"], axis=1), pixels_of(["1", "4", "9"]))
    for name in ("val", "validation"):
        assert json.loads(command("evaluate", tmp_path / "best.safetensors", "--json", "--split", name).out) == scores
    assert json.loads(command("evaluate", tmp_path / "best.safetensors", "--json", "--split", "all").out)["images"] == 25

    for part in ("images", "masks"):
        (dataset / part / "4.png").unlink()
    said = command("evaluate", tmp_path / "best.safetensors", "--json")
    assert said.err == "warning: 1 of the 3 images held out in training are not in mydata val any more, such as 4\n"
    np.testing.assert_array_equal(np.sum(json.loads(said.out)["confusion"], axis=1), pixels_of(["1", "9"]))
    for part in ("images", "masks"):
        for name in ("1", "9"):
            (dataset / part / f"{name}.png").unlink()
    assert "mydata val has none of the 3 images held out in training, such as 1" in command("evaluate", tmp_path / "best.safetensors").error


def test_evaluate_goes_by_names_where_a_folder_is_divided_already(
    command: Command, checkpoint: Path, dataset: Path, tmp_path: Path
) -> None:
    from minidcnn.segmentation.config import TrainConfig

    stored = load_checkpoint(checkpoint)
    stored.info["held_out"] = ["7", "8"]
    save_checkpoint(tmp_path / "best.safetensors", stored)
    root = tmp_path / "divided"
    for split, names in (("train", range(6)), ("val", range(6, 10))):
        for part in ("images", "masks"):
            (root / split / part).mkdir(parents=True)
            for i in names:
                (root / split / part / f"{i}.png").write_bytes((dataset / part / f"{i}.png").read_bytes())
    (tmp_path / "config.json").write_text(TrainConfig("unet", data="folder", root=str(root)).to_json())
    assert json.loads(command("evaluate", tmp_path / "best.safetensors", "--json").out)["images"] == 2


def test_evaluate_does_not_take_others_for_the_images_trained_on(command: Command, checkpoint: Path, dataset: Path, tmp_path: Path) -> None:
    """With images more or fewer, `train` is divided anew. Where somebody else divided them, it stays what it is, whatever happens to val."""
    from minidcnn.data import Folder
    from minidcnn.segmentation.config import TrainConfig
    from minidcnn.segmentation.state import sample_names

    stored = load_checkpoint(checkpoint)
    stored.info["held_out"] = sample_names(Folder(dataset, "val"))
    save_checkpoint(tmp_path / "best.safetensors", stored)
    (tmp_path / "config.json").write_text(TrainConfig("unet", data="folder", root=str(dataset)).to_json())
    words = ("evaluate", tmp_path / "best.safetensors", "--json", "--split", "train")
    assert json.loads(command(*words).out)["images"] == 8
    for i in range(10, 13):
        for part in ("images", "masks"):
            (dataset / part / f"{i}.png").write_bytes((dataset / part / f"{i % 10}.png").read_bytes())
    assert command(*words).error == (
        "images came or went since training, so that mydata train is divided anew and has images that the network was not trained on: "
        "evaluate --split val, which are those held out then, or --split all"
    )
    assert "mydata train is divided anew" in command(*words, "--data", "folder", "--root", dataset).error
    for part in ("images", "masks"):
        (dataset / "test" / part).mkdir(parents=True)
        (dataset / "test" / part / "1.png").write_bytes((dataset / part / "1.png").read_bytes())
    assert "mydata train is divided anew" in command(*words).error  # images to test with are none of those that are divided
    assert json.loads(command(*words[:-1], "test").out)["images"] == 1

    root = tmp_path / "divided"
    for split, names in (("train", range(6)), ("val", range(4, 10))):
        for part in ("images", "masks"):
            (root / split / part).mkdir(parents=True)
            for i in names:
                (root / split / part / f"{i}.png").write_bytes((dataset / part / f"{i}.png").read_bytes())
    (tmp_path / "config.json").write_text(TrainConfig("unet", data="folder", root=str(root)).to_json())
    assert json.loads(command(*words).out)["images"] == 6


def test_an_image_to_train_on_never_stands_for_one_of_its_name_that_was_held_out(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    data_arguments(parser, "val")
    args = parser.parse_args(["--data", "camvid", "--root", str(tmp_path)])
    for split, names in (("train", "012"), ("val", "02")):
        for part in (split, f"{split}annot"):
            (tmp_path / part).mkdir()
            for name in names:
                Image.fromarray(np.zeros((24, 32, 3) if part == split else (24, 32), np.uint8)).save(tmp_path / part / f"{name}.png")
    found = held_out(args, open_data(args, "val"), {"classes": [], "held_out": ["0", "1", "2"]})
    assert [found.label(i) for i in range(len(found))] == ["0", "2"]
    assert isinstance(found, Subset) and all(entry.image.path.parent.name == "val" for entry in found.dataset.entries)  # type: ignore[attr-defined]


def test_summary_of_networks_and_checkpoints(command: Command, checkpoint: Path) -> None:
    said = command("summary", "unet", "--size", "572x572", "--in-channels", 1, "--classes", 2)
    assert said.code == 0 and "1 x 2 x 388 x 388" in said.out and "parameters 31,030,658" in said.out
    said = command("summary", "unet", "padding=same", "norm=batch", "base=4", "--in-channels", 3)
    assert "1 x 2 x 256 x 256" in said.out and "BatchNorm2d" in said.out
    assert "parameters 138,357,544" in command("summary", "vgg16").out
    assert "parameters 136,152,917" in command("summary", "fcn32s").out
    said = command("summary", checkpoint, "--size", "20x24")
    assert said.code == 0 and "1 x 3 x 20 x 24" in said.out


def test_summary_of_what_does_not_exist(command: Command, checkpoint: Path) -> None:
    assert "there is no network 'vnet', nor a file of that name; known are " in command("summary", "vnet").error
    assert "UNet takes in_channels, classes, base, " in command("summary", "unet", "layers=3").error
    assert "'base' is no KEY=VALUE" in command("summary", "unet", "base").error
    assert 'padding must be "valid" or "same"' in command("summary", "unet", "padding=full").error
    assert "572x572" in command("summary", "unet", "--size", "570x570").error
    assert "'9x' is no size" in command("summary", "unet", "--size", "9x").error
    its_own = "is a checkpoint, whose network is what it is: leave"
    assert f"{its_own} fc_kernel out" in command("summary", checkpoint, "fc_kernel=3").error
    assert f"{its_own} --in-channels out" in command("summary", checkpoint, "--in-channels", "3").error


# -- the README's lines ------------------------------------------------------------------------------------------------------------------


def test_the_readmes_commands(command: Command, checkpoint: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m minidcnn ...` as the README has them, where it says the files lie."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "best.safetensors").write_bytes(checkpoint.read_bytes())
    Image.fromarray(pixels(0, 41, 67)).save("photo.jpg")
    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
    lines = [line.split("#")[0].split()[3:] for line in readme.splitlines() if line.startswith("python -m minidcnn ")]
    assert len(lines) >= 2
    for words in lines:
        assert command(*words).code == 0, words
    with Image.open("predicted/photo.png") as index, Image.open("predicted/photo_overlay.png") as over:
        assert index.size == over.size == (67, 41)
