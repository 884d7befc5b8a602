"""The examples as scripts: every data set, every network, the README's way from images to predictions, and errors as one sentence."""

from __future__ import annotations

import errno
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import training
from PIL import Image

from minidcnn.cli import main
from minidcnn.data import DataError, cells
from minidcnn.interop import load_checkpoint
from minidcnn.segmentation import command
from minidcnn.segmentation.interrupt import Stopped

ROOT = Path(__file__).resolve().parent.parent
TINY = ("--epochs", "1", "--limit", "2", "--batch-size", "2", "--base", "2")
Script = Callable[..., int]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Script:
    """script("unet", *options) runs examples/train_unet.py in this process and an empty folder, and returns its exit status."""
    monkeypatch.chdir(tmp_path)

    def run(network: str, *options: str | Path) -> int:
        path = ROOT / "examples" / f"train_{network}.py"
        monkeypatch.setattr(sys, "argv", [f"examples/{path.name}", *map(str, options)])
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as left:
            return int(left.code or 0)
        return 0

    return run


# -- data: a few small files of every kind ---------------------------------------------------------------------------------------


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)


def pair(
    image: Path, mask: Path, rng: np.random.Generator, values: tuple[int, ...], channels: int = 3, size: tuple[int, int] = (40, 48)
) -> None:
    """An image and its mask of blocks, in which all values occur; where the mask is high, the image is bright."""
    blocks = rng.permutation(np.arange(size[0] * size[1] // 64) % len(values)).reshape(size[0] // 8, size[1] // 8)
    labels = blocks.repeat(8, 0).repeat(8, 1)
    pixels = 200 * labels[..., None] / len(values) + rng.integers(0, 50, (*size, channels))
    save(image, pixels if channels == 3 else pixels[..., 0])
    save(mask, np.asarray(values)[labels])


def make_folder(root: Path, rng: np.random.Generator) -> None:
    for i in range(5):  # of different sizes, masks 0 and 255
        pair(root / "images" / f"{i}.png", root / "masks" / f"{i}.png", rng, (0, 255), size=(40, 48 + 8 * i))


def make_isbi(root: Path, rng: np.random.Generator) -> None:
    for i in range(22):
        pair(root / "images" / f"{i}.png", root / "labels" / f"{i}.png", rng, (0, 255), 1)


def make_camvid(root: Path, rng: np.random.Generator) -> None:
    for split in ("train", "val"):
        for i in range(3):
            pair(root / split / f"{i}.png", root / f"{split}annot" / f"{i}.png", rng, tuple(range(12)))


def make_voc(root: Path, rng: np.random.Generator) -> None:
    for split in ("train", "val"):
        for i in range(3):
            pair(
                root / "JPEGImages" / f"{split}{i}.jpg",
                root / "SegmentationClass" / f"{split}{i}.png",
                rng,
                (0, 5, 20, 255),
                size=(40, 48 + 8 * i),
            )
        (root / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("".join(f"{split}{i}\n" for i in range(3)))


def make_oxford_pet(root: Path, rng: np.random.Generator) -> None:
    for i in range(5):
        pair(root / "images" / f"cat_{i}.jpg", root / "annotations/trimaps" / f"cat_{i}.png", rng, (1, 2, 3), size=(40 + 8 * i, 48))
    (root / "annotations/list.txt").write_text("".join(f"cat_{i} 1 1 1\n" for i in range(5)))


CLASSES = {"folder": 2, "isbi": 2, "camvid": 11, "voc": 21, "oxford_pet": 3}
MAKE = {"folder": make_folder, "isbi": make_isbi, "camvid": make_camvid, "voc": make_voc, "oxford_pet": make_oxford_pet}


@pytest.mark.parametrize("data", MAKE)
def test_every_data_set_trains(data: str, script: Script, tmp_path: Path, rng: np.random.Generator) -> None:
    MAKE[data](tmp_path / "data", rng)
    crop = ("--crop", "32") if data in ("folder", "isbi", "voc", "oxford_pet") else ()
    assert script("unet", "--data", data, "--root", "data", "--depth", "2", *crop, *TINY) == 0
    out = tmp_path / f"runs/unet-{data}-1"
    (entry,) = training.metrics(out)
    assert len(entry["val_iou"]) == CLASSES[data] and np.isfinite(entry["train_loss"])
    config = json.loads((out / "config.json").read_text())
    assert config["data"] == data and config["root"] == "data"
    assert config["class_weights"] == ("published" if data == "camvid" else "none")
    assert load_checkpoint(out / "best.safetensors").info["data"] == data


def test_the_default_data_set_is_generated(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "val"):
        monkeypatch.setitem(cells._SPLITS, split, 8)  # fewer images than the usual 240 and 60
    assert script("unet", *TINY) == 0
    said = capsys.readouterr().out
    assert "cells: 8 images to train on, 8 held out, 1 channel, 2 classes" in said
    assert "python -m minidcnn predict runs/unet-cells-1/best.safetensors" in said and "background" in said
    assert {p.name for p in (tmp_path / "runs/unet-cells-1").iterdir()} >= {"curves.png", "predictions.png"}


@pytest.mark.parametrize(
    ("network", "options", "name"),
    [
        ("unet", ("--padding", "valid", "--norm", "none", "--upsample", "bilinear", "--depth", "2"), "unet"),
        ("segnet", (), "segnet"),
        ("segnet", ("--basic", "--bayesian"), "segnet_basic"),
        ("fcn", (), "fcn8s"),
        ("fcn", ("--variant", "16s"), "fcn16s"),
        ("fcn", ("--variant", "32s", "--paper"), "fcn32s"),
        ("fcn", ("--variant", "8s-at-once"), "fcn8s_at_once"),
    ],
)
def test_every_network_trains(
    network: str, options: tuple[str, ...], name: str, script: Script, tmp_path: Path, rng: np.random.Generator
) -> None:
    make_folder(tmp_path / "data", rng)
    assert script(network, "--data", "folder", "--root", "data", "--crop", "32x40", "--out", "run", *options, *TINY) == 0
    checkpoint = load_checkpoint(tmp_path / "run/best.safetensors")
    assert checkpoint.model == name and checkpoint.info["classes"] == ["background", "foreground"]
    assert checkpoint.info["mask_values"] == [0, 255]


@pytest.mark.parametrize("network", ["unet", "segnet", "fcn"])
def test_recomputing_trains_to_the_same_bits(network: str, script: Script, tmp_path: Path, rng: np.random.Generator) -> None:
    make_folder(tmp_path / "data", rng)
    options = ("--data", "folder", "--root", "data", "--crop", "32x40", *TINY)
    assert script(network, *options, "--out", "kept") == 0
    assert script(network, *options, "--out", "again", "--recompute") == 0
    kept, again = (load_checkpoint(tmp_path / out / "last.safetensors") for out in ("kept", "again"))
    assert kept.training["random_state"] == again.training["random_state"]
    for name, array in kept.tensors.items():
        np.testing.assert_array_equal(again.tensors[name], array)


def test_from_images_to_predictions_as_the_readme_says(script: Script, tmp_path: Path, rng: np.random.Generator) -> None:
    from minidcnn import cli

    make_folder(tmp_path / "mydata", rng)
    pair(tmp_path / "photo.jpg", tmp_path / "truth.png", rng, (0, 1), size=(56, 40))
    assert cli.main(["check", "--data", "folder", "--root", "mydata"]) == 0
    learn = ("--epochs", "4", "--repeat", "8", "--crop", "32", "--batch-size", "4", "--base", "4", "--depth", "2", "--lr", "0.02")
    assert script("unet", "--data", "folder", "--root", "mydata", "--out", "runs/mine", *learn) == 0
    assert cli.main(["predict", "runs/mine/best.safetensors", "photo.jpg", "--out", "predicted"]) == 0
    with Image.open(tmp_path / "predicted/photo.png") as image, Image.open(tmp_path / "truth.png") as truth:
        assert image.mode == "P" and image.size == (40, 56)
        assert (np.asarray(image) == np.asarray(truth)).mean() > 0.9  # it has learned that bright is foreground
    assert (tmp_path / "predicted/photo_overlay.png").is_file()
    assert script("unet", "--out", "runs/mine", "--resume") == 0  # complete already
    assert len(training.metrics(tmp_path / "runs/mine")) == 4


def test_a_new_run_starts_from_a_trained_network(
    script: Script, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """After more images were labelled, with a third class; and not into a network of another width, nor into a run that has begun."""
    make_folder(tmp_path / "data", rng)
    options = ("--data", "folder", "--crop", "32", "--depth", "2", *TINY)
    assert script("unet", *options, "--root", "data", "--out", "first") == 0
    for i in range(6):
        pair(tmp_path / f"more/images/{i}.png", tmp_path / f"more/masks/{i}.png", rng, (0, 1, 2))
    capsys.readouterr()
    assert script("unet", *options, "--root", "more", "--start", "first/best.safetensors", "--out", "second") == 0
    said = capsys.readouterr().out
    assert "\nstarting from first/best.safetensors (epoch 1, mean IoU 0." in said and "here they are 3" in said
    assert json.loads((tmp_path / "second/config.json").read_text())["start"] == "first/best.safetensors"
    assert load_checkpoint(tmp_path / "second/best.safetensors").config["classes"] == 3
    assert script("unet", *options, "--root", "more", "--start", "first/best.safetensors", "--out", "third", "--base", "3") == 2
    assert "does not fit this network: it has base=2, this one base=3" in capsys.readouterr().err and not (tmp_path / "third").exists()
    assert script("unet", "--resume", "--out", "second", "--start", "second/best.safetensors") == 2
    assert "--start is second/best.safetensors now, but the run in second was started with first/best" in capsys.readouterr().err
    assert script("unet", "--resume", "--out", "first", "--start", "second/best.safetensors") == 2
    assert "but the run in first was started without it: leave it out" in capsys.readouterr().err


# -- errors ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--data", "folder"), "the data set folder needs a folder; say where it lies (root, or --root on the command line)"),
        (("--data", "folder", "--root", "nowhere"), "the folder nowhere does not exist"),
        (("--root", "."), "cells is generated and takes no folder"),
        (("--epochs", "0"), "--epochs must be at least 1, got 0"),
        (("--resume",), "there is no run runs/unet-* to resume"),
        (("--base", "0"), "base must be an integer of at least 1"),
        (("--data", "folder", "--root", "bad"), "holds 3 at row 0, column 0"),
        (("--out", "a-file/runs"), "a-file/runs: Not a directory"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(
    options: tuple[str, ...], said: str, script: Script, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(tmp_path / "bad", rng)
    (tmp_path / "bad/classes.txt").write_text("sky 0\nground 255\n")
    save(tmp_path / "bad/masks/3.png", np.full((40, 72), 3))
    (tmp_path / "a-file").touch()
    assert script("unet", *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1
    runs = tmp_path / "runs"
    assert not runs.exists() or not list(runs.iterdir())  # nothing is left of a run that could not begin


def test_a_run_that_cannot_begin_leaves_a_folder_that_was_there_and_says_why(
    script: Script, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though it is a link, which cannot be removed as a folder can."""
    make_folder(tmp_path / "data", rng)
    (tmp_path / "before").mkdir()
    (tmp_path / "link").symlink_to("before")
    assert script("unet", "--data", "folder", "--root", "nowhere", "--out", "link") == 2
    assert "the folder nowhere does not exist" in capsys.readouterr().err
    wild = ("--norm", "none", "--lr", "1e30", "--optimizer", "sgd", "--crop", "16", "--depth", "2", *TINY, "--epochs", "3")
    assert script("unet", "--data", "folder", "--root", "data", "--out", "link", *wild) == 1
    assert "error: training stopped at step" in capsys.readouterr().err
    assert (tmp_path / "before").is_dir() and not list((tmp_path / "before").iterdir())


def test_programs_draw_and_speak_wherever_they_run(tmp_path: Path, rng: np.random.Generator) -> None:
    """In a notebook, whose backend of Matplotlib is not installed here; and with stderr closed, as services have it."""
    make_folder(tmp_path / "mydata", rng)
    example, data = ROOT / "examples/train_unet.py", ("--data", "folder", "--root", "mydata")
    environment = os.environ | {"MPLBACKEND": "module://nowhere.at_all"}
    for how, program in (
        ('"$@"', [example, *data, *TINY, "--out", "run"]),
        ('"$@"', ["-m", "minidcnn", "show", *data, "--out", "shown.png"]),
        ('"$@" 2>&-', [example, *data, *TINY, "--out", "quiet"]),
        ('"$@" 2>&-', ["-m", "minidcnn", "check", *data]),
        ('"$@" 2>&-', ["-m", "minidcnn", "predict", "quiet/best.safetensors", "mydata/images", "--out", "predicted"]),
    ):
        words = ["sh", "-c", how, "sh", sys.executable, *map(str, program)]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (program, done.stderr)
    assert (tmp_path / "run/curves.png").exists() and (tmp_path / "shown.png").exists() and list((tmp_path / "predicted").iterdir())


def test_an_option_that_does_not_exist(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("segnet", "--colour") == 2
    assert "unrecognized arguments: --colour" in capsys.readouterr().err


def test_a_run_is_not_overwritten(script: Script, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    make_folder(tmp_path / "data", rng)
    options = ("--data", "folder", "--root", "data", "--crop", "16", "--depth", "2", "--out", "here", *TINY)
    assert script("unet", *options) == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "here").iterdir()}
    capsys.readouterr()
    assert script("unet", *options) == 2
    assert capsys.readouterr().err == (
        "error: here holds a run already (1 of 1 epochs); add --resume to go on with it, or choose another --out\n"
    )
    (tmp_path / "here/last.safetensors").write_bytes(b"broken")
    assert script("unet", "--out", "here", "--resume") == 2
    assert "here/last.safetensors is no checkpoint, or was damaged" in capsys.readouterr().err
    for name in before.keys() - {"last.safetensors"}:
        assert (tmp_path / "here" / name).read_bytes() == before[name]


def test_cupy_without_a_gpu_says_what_is_missing(
    script: Script, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from minidcnn.backend import switch

    monkeypatch.setattr(switch, "why_no_cupy", lambda: 'backend "cupy" needs the package CuPy')
    assert script("unet", "--backend", "cupy") == 2
    assert capsys.readouterr().err == 'error: backend "cupy" needs the package CuPy\n'


def test_memory_and_divergence_are_told_with_a_way_out(
    script: Script, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "data", rng)
    options = ("--data", "folder", "--root", "data", "--crop", "16", "--depth", "2", *TINY)
    for _ in range(2):  # nothing of it is left that would refuse the same --out
        assert script("unet", *options, "--norm", "none", "--lr", "1e30", "--optimizer", "sgd", "--epochs", "3", "--out", "wild") == 1
        assert not (tmp_path / "wild").exists()
    error = capsys.readouterr().err
    assert "error: training stopped at step" in error and "--lr is 1e+30" in error and "Traceback" not in error
    monkeypatch.setattr(command.Trainer, "fit", lambda self: np.empty((1 << 20, 1 << 20, 1 << 10), np.float32))
    assert script("unet", *options) == 1
    assert "error: out of memory (unable to allocate 4.00 PiB" in capsys.readouterr().err

    def exhausted(*args: object, **kwargs: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", exhausted)  # while the data are looked over
    assert script("unet", *options) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: out of memory (while reading data/") and "Traceback" not in error


def test_sizes_that_the_first_step_finds_too_small_are_one_sentence(
    script: Script, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "data", rng)
    options = ("--data", "folder", "--root", "data", "--crop", "16", "--depth", "4", "--batch-size", "1", "--base", "2", "--epochs", "1")
    assert script("unet", *options, "--out", "run") == 2
    assert capsys.readouterr().err == (
        "error: batch_norm: training needs more than one value per channel, got input (1, 32, 1, 1); give a larger batch or image, or use "
        "eval() (--batch-size is 1, --crop 16x16)\n"
    )
    assert not (tmp_path / "run").exists()  # so that the same --out may be tried again

    def later(self: command.Trainer) -> None:
        self.step = 1
        raise ValueError("no option's fault")

    monkeypatch.setattr(command.Trainer, "fit", later)
    with pytest.raises(ValueError, match="no option's fault"):
        script("unet", *options, "--out", "run")


def test_what_is_kept_is_told_when_the_disk_is_full_or_an_image_is_gone(
    script: Script, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "data", rng)
    options = ("--data", "folder", "--root", "data", "--crop", "16", "--depth", "2", "--out", "run", *TINY)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "run/last.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr("minidcnn.segmentation.train.save_checkpoint", full)
        assert script("unet", *options) == 2
    error = capsys.readouterr().err
    assert error == "error: [Errno 28] No space left on device: 'run/last.safetensors'; nothing was saved yet\n"
    assert not (tmp_path / "run").exists()  # the best network is not left alone, which would refuse the same --out
    assert script("unet", *options) == 0

    def gone(*args: object) -> None:
        raise DataError("data/images/1.png does not exist")

    monkeypatch.setattr(command.Trainer, "_batches", gone)
    assert script("unet", "--out", "run", "--resume", "--epochs", "2") == 2
    assert capsys.readouterr().err == "error: data/images/1.png does not exist; run/last.safetensors keeps the state after epoch 1\n"


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is another signal there")
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path, rng: np.random.Generator) -> None:
    make_folder(tmp_path / "data", rng)
    options = ["--data", "folder", "--root", "data", "--crop", "32", "--depth", "2", "--base", "2", "--batch-size", "2", "--out", "run"]
    program = [sys.executable, str(ROOT / "examples/train_unet.py")]
    with subprocess.Popen(
        [*program, *options, "--epochs", "100000"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if line.startswith("epoch"):
                run.send_signal(signal.SIGINT)
                break
        _, error = run.communicate(timeout=120)
    assert run.returncode == 130, error
    assert (
        error.startswith("stopping: this step is finished")
        and "go on with: python" in error
        and error.rstrip().endswith("--out run --resume")
        and "Traceback" not in error
    )
    saved = load_checkpoint(tmp_path / "run/last.safetensors").training
    epochs = saved["epoch"] + 1
    again = subprocess.run(
        [*program, "--out", "run", "--resume", "--epochs", str(epochs)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert f"resuming after epoch {saved['epoch']}" in again.stdout
    assert [entry["epoch"] for entry in training.metrics(tmp_path / "run")] == list(range(1, epochs + 1))


def test_ctrl_c_at_any_other_time_is_no_traceback(
    script: Script, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*args: object) -> None:
        raise KeyboardInterrupt

    make_folder(tmp_path / "data", rng)
    options = ("--data", "folder", "--root", "data", "--crop", "16", "--depth", "2", *TINY)
    for place, said in (("_batches", "interrupted; nothing was saved yet"), ("describe", "interrupted"), ("__init__", "interrupted")):
        with monkeypatch.context() as patch:
            patch.setattr(command.Trainer, place, press)
            assert script("unet", *options) == 130
            assert capsys.readouterr().err == f"{said}\n"
    with monkeypatch.context() as patch:
        patch.setattr(command, "score_table", press)
        assert script("unet", *options) == 130
        assert capsys.readouterr().err.endswith("interrupted\n")


def test_commands_to_copy_quote_folders_with_spaces(
    script: Script, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object) -> None:
        raise Stopped

    make_folder(tmp_path / "data", rng)
    options = ("--data", "folder", "--root", "data", "--crop", "16", "--depth", "2", *TINY)
    assert script("unet", *options, "--out", "my run") == 0
    assert 'minidcnn predict "my run/best.safetensors" IMAGE' in capsys.readouterr().out
    monkeypatch.setattr(command.Trainer, "_batches", stop)
    assert script("unet", *options, "--out", "my run", "--resume", "--epochs", "2") == 130
    assert capsys.readouterr().err.endswith('--out "my run" --resume\n')


@pytest.mark.parametrize("network", ["unet", "segnet", "fcn"])
def test_the_help_teaches(network: str, script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    assert script(network, "--help") == 0
    shown = capsys.readouterr().out
    for word in (
        "data:",
        "network:",
        "training:",
        "run:",
        "examples:",
        "--resume",
        "--class-weights",
        "best.safetensors",
        "camvid",
        "published",
    ):
        assert word in shown, word
    assert f"python examples/train_{network}.py --data folder --root mydata" in shown


def test_the_stages_that_the_help_of_fcn_prints(
    script: Script, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command as it stands, but for a smaller network and fewer steps."""
    make_folder(tmp_path / "mydata", rng)
    assert script("fcn", "--help") == 0
    stages = [line.split()[2:] for line in capsys.readouterr().out.splitlines() if "--variant" in line and "python examples/" in line]
    assert [stage[stage.index("--variant") + 1] for stage in stages] == ["32s", "16s", "8s"]
    for number, stage in enumerate(stages):
        assert script("fcn", *stage, *TINY) == 0
        assert ("starting from" in capsys.readouterr().out) == (number > 0)


def test_the_help_says_what_numpy_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("predict", "evaluate", "bench"):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert "tf32x3 and tf32 use a GPU's tensor cores and change nothing on numpy" in " ".join(capsys.readouterr().out.split())
