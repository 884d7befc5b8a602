"""`python -m minidcnn evaluate` in its corners: what it warns of, whose names it uses, which images it takes where they moved or are called alike."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import minidcnn
from minidcnn import models
from minidcnn.cli import main
from minidcnn.data import CAMVID_CLASSES, VOC_CLASSES
from minidcnn.interop import Checkpoint, load_checkpoint, save_checkpoint
from minidcnn.segmentation import figures
from minidcnn.segmentation.config import TrainConfig

Command = Callable[..., tuple[int, str, str]]
CLASSES = ["sky", "road", "tree"]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """(exit code, stdout, stderr) of `evaluate`."""
    monkeypatch.setattr(sys, "argv", ["minidcnn"])

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main(["evaluate", *map(str, words)])
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


def trained(path: Path, classes: list[str], channels: int = 1, **info: Any) -> Path:
    """A checkpoint of a network whose answers vary from pixel to pixel."""
    minidcnn.manual_seed(3)
    model = models.UNet(channels, len(classes), base=2, depth=1, padding="same")
    state = model.state_dict()
    state["head.weight"] *= 20
    about = {"classes": classes, "channels": channels, "mean": [0.3] * channels, "std": [0.25] * channels}
    save_checkpoint(path, Checkpoint("unet", model.config, state, about | info))
    return path


@pytest.fixture
def best(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return trained(tmp_path / "run" / "best.safetensors", CLASSES, mask_values=[0, 1, 2])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five gray images of 10 x 14 pixels and masks of three classes."""
    rng, root = np.random.default_rng(0), tmp_path / "mydata"
    for part, most in (("images", 256), ("masks", 3)):
        (root / part).mkdir(parents=True)
        for k in range(5):
            Image.fromarray(rng.integers(0, most, (10, 14), dtype=np.uint8)).save(root / part / f"{k}.png")
    return root


def written_run(folder: Path, **options: Any) -> None:
    """What a run has written beside its checkpoint."""
    (folder / "config.json").write_text(TrainConfig("unet", data="folder", **options).to_json())


# -- what is told -------------------------------------------------------------------------------------------------------------------------


def test_files_left_out_are_told_and_the_others_scored(command: Command, best: Path, root: Path) -> None:
    (root / "masks" / "3.png").unlink()
    (root / "images" / "more").mkdir()
    Image.new("L", (14, 10)).save(root / "images" / "more" / "9.png")
    code, out, err = command(best, "--data", "folder", "--root", root, "--split", "all", "--json")
    assert code == 0 and json.loads(out)["images"] == 4
    first, second = err.splitlines()
    assert first.startswith(f"warning: {root / 'images' / '3.png'} has no mask: ") and first.count("3.png") >= 2
    assert second.startswith("warning: ") and "that nothing uses: sub-folders are not searched" in second


def test_other_names_of_classes_are_told_and_those_of_the_checkpoint_used(
    command: Command, best: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "confusion", lambda *given: drawn.append(given))
    words = (best, "--data", "folder", "--root", root, "--split", "all", "--classes", "a,b,c")
    code, out, err = command(*words, "--confusion", tmp_path / "new" / "folder" / "c.PNG")
    assert (code, err) == (
        0, "warning: the classes are called sky, road, tree in the checkpoint and a, b, c in mydata all; their order is what counts\n",
    )  # fmt: skip
    assert [line.split()[0] for line in out.splitlines()[2:5]] == CLASSES
    ((matrix, names, path),) = drawn
    assert names == CLASSES and path == tmp_path / "new" / "folder" / "c.PNG" and path.parent.is_dir()
    told = json.loads(command(*words, "--json")[1])
    assert told["classes"] == CLASSES and told["confusion"] == matrix.matrix.tolist()


def test_a_network_that_always_says_the_same_is_told(command: Command, best: Path, root: Path) -> None:
    stored = load_checkpoint(best)
    stored.tensors["head.weight"][...], stored.tensors["head.bias"][...] = 0, [0, 9, 0]
    save_checkpoint(best, stored)
    code, out, err = command(best, "--data", "folder", "--root", root, "--split", "all", "--json")
    assert code == 0 and np.count_nonzero(np.sum(json.loads(out)["confusion"], axis=0)) == 1
    assert err.startswith("warning: ") and "road" in err and err.count("\n") == 1


def test_a_split_without_images_is_empty(command: Command, best: Path, root: Path) -> None:
    for part in ("images", "masks"):
        (root / "test" / part).mkdir(parents=True)
    code, _, err = command(best, "--data", "folder", "--root", root, "--split", "test")
    assert code == 2 and err.splitlines()[-1] == "error: mydata test is empty"


def test_no_pixels_apart_is_a_distance_and_infinitely_many_are_none(command: Command, best: Path, root: Path) -> None:
    words = ("--data", "folder", "--root", root, "--split", "all", "--json")
    assert json.loads(command(best, *words, "--boundary", 0)[1])["boundary_tolerance"] == 0
    assert json.loads(command(best, *words, "--boundary")[1])["boundary_tolerance"] is None
    for far in ("inf", "1e999"):
        assert f"'{far}' is no number of pixels" in command(best, *words, "--boundary", far)[2]


def test_boundaries_leave_out_what_the_data_set_ignores(command: Command, tmp_path: Path) -> None:
    """Whatever number it has: CamVid's is 11."""
    rng = np.random.default_rng(1)
    for part, size, most in (("val", (12, 16, 3), 256), ("valannot", (12, 16), 12)):
        (tmp_path / part).mkdir()
        Image.fromarray(rng.integers(0, most, size, dtype=np.uint8)).save(tmp_path / part / "0.png")
    best = trained(tmp_path / "best.safetensors", list(CAMVID_CLASSES), 3)
    code, out, _ = command(best, "--data", "camvid", "--root", tmp_path, "--json", "--boundary", 1)
    assert code == 0 and 0 < json.loads(out)["boundary_f1"] < 1
    counted = np.count_nonzero(np.asarray(Image.open(tmp_path / "valannot" / "0.png")) != 11)
    assert np.sum(json.loads(out)["confusion"]) == counted < 12 * 16


# -- which images -------------------------------------------------------------------------------------------------------------------------


def test_data_that_moved_is_the_runs_own(command: Command, best: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--root alone says where it is now; home may be written ~."""
    written_run(best.parent, root=str(root), val_fraction=0.4)
    own = command(best, "--json")
    assert own[0] == 0 and json.loads(own[1])["images"] == 2
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert command(best, "--data", "folder", "--root", "~/mydata", "--json") == own
    shutil.move(root, tmp_path / "moved")
    code, out, _ = command(best, "--root", tmp_path / "moved", "--json")
    assert code == 0 and json.loads(out)["confusion"] == json.loads(own[1])["confusion"]
    assert "does not exist" in command(best, "--json")[2]


def test_another_data_set_in_the_runs_place_is_not_its_own(command: Command, root: Path, tmp_path: Path) -> None:
    """Two layouts in one folder: --data says which one is meant."""
    for part, size in (("val", (12, 16, 3)), ("valannot", (12, 16))):
        (root / part).mkdir()
        Image.fromarray(np.zeros(size, np.uint8)).save(root / part / "0.png")
    best = trained(tmp_path / "best.safetensors", list(CAMVID_CLASSES), 3, held_out=["1"])
    written_run(tmp_path, root=str(root))
    code, out, err = command(best, "--data", "camvid", "--root", root, "--json")
    assert code == 0 and json.loads(out)["data"] == "camvid val" and json.loads(out)["images"] == 1 and "held out" not in err


def test_masks_are_those_with_the_runs_ending_unless_another_is_given(command: Command, best: Path, root: Path) -> None:
    for k in range(5):
        Image.fromarray(np.ones((10, 14), np.uint8)).save(root / "masks" / f"{k}_ones.png")
        Image.fromarray(np.full((10, 14), 2, np.uint8)).save(root / "masks" / f"{k}_twos.png")
        (root / "masks" / f"{k}.png").unlink()
    written_run(best.parent, root=str(root), suffix="_twos")

    def true(*words: object) -> list[int]:
        return np.sum(json.loads(command(best, "--json", "--split", "all", *words)[1])["confusion"], axis=1).tolist()

    assert true() == true("--data", "folder", "--root", root) == [0, 0, 700]
    assert true("--suffix", "_ones") == [0, 700, 0]


def test_what_was_trained_on_can_be_scored_also_by_checkpoints_that_know_no_names(command: Command, best: Path, root: Path) -> None:
    written_run(best.parent, root=str(root), val_fraction=0.4)
    assert "held_out" not in load_checkpoint(best).info
    assert [json.loads(command(best, "--json", "--split", split)[1])["images"] for split in ("train", "val", "all")] == [3, 2, 5]


def test_a_damaged_run_is_told_unless_the_data_is_named(command: Command, best: Path, root: Path) -> None:
    (best.parent / "config.json").write_text("{")
    code, out, err = command(best)
    assert (code, out) == (2, "") and "config.json" in err and "does not hold the options of a run" in err
    assert command(best, "--data", "folder", "--root", root)[0] == 0
    (best.parent / "config.json").unlink()
    assert command(best, "--data", "folder", "--root", root)[0] == 0
    assert "that says what" in command(best)[2]


def test_names_of_images_held_out_are_told_with_the_data_set_they_should_be_in(command: Command, best: Path, root: Path) -> None:
    stored = load_checkpoint(best)
    stored.info["held_out"] = ["1", "gone", "lost"]
    save_checkpoint(best, stored)
    written_run(best.parent, root=str(root))
    code, out, err = command(best)
    assert code == 0 and out.startswith("mydata val: 1 image\n")
    assert err.splitlines()[0] == "warning: 2 of the 3 images held out in training are not in mydata val any more, such as gone"
    stored.info["held_out"] = ["gone", "lost"]
    save_checkpoint(best, stored)
    assert "has none of the 2 images held out in training, such as gone;" in command(best)[2]


def test_a_data_set_without_a_split_of_all_has_what_its_lists_name(command: Command, tmp_path: Path) -> None:
    voc = tmp_path / "voc"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    for k in range(2):
        Image.fromarray(np.full((12, 16, 3), 80 * k, np.uint8)).save(voc / "JPEGImages" / f"{k}.jpg")
        Image.fromarray(np.full((12, 16), k, np.uint8)).save(voc / "SegmentationClass" / f"{k}.png")
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text("0\n1\n")
    best = trained(tmp_path / "best.safetensors", list(VOC_CLASSES), 3, held_out=["0", "1", "2"])
    (tmp_path / "config.json").write_text(TrainConfig("unet", data="voc", root=str(voc)).to_json())
    code, out, err = command(best, "--json")
    assert code == 0 and json.loads(out)["images"] == 2
    assert err.startswith("warning: 1 of the 3 images held out in training are not in voc val any more, such as 2\n")


def test_an_image_that_has_no_mask_yet_changes_nothing_else(command: Command, best: Path, root: Path) -> None:
    """It is told, and those held out in training are found among all others."""
    stored = load_checkpoint(best)
    stored.info["held_out"] = ["0", "3", "4"]
    save_checkpoint(best, stored)
    written_run(best.parent, root=str(root), val_fraction=0.4)
    Image.new("L", (14, 10)).save(root / "images" / "5.png")
    code, out, err = command(best, "--json")
    assert code == 0 and json.loads(out)["images"] == 3
    assert len(err.splitlines()) == 1 and "5.png has no mask" in err
    said = command(best, "--json", "--split", "train")
    assert said[0] == 2 and said[2].splitlines()[-1].startswith("error: images came or went since training")


# -- what masks and images mean -----------------------------------------------------------------------------------------------------------


def test_values_are_found_where_the_checkpoint_knows_none(command: Command, best: Path, root: Path, tmp_path: Path) -> None:
    stored = load_checkpoint(best)
    del stored.info["mask_values"]
    save_checkpoint(tmp_path / "older.safetensors", stored)
    for path in (root / "masks").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) * np.uint8(100)).save(path)
    code, out, _ = command(tmp_path / "older.safetensors", "--data", "folder", "--root", root, "--split", "all", "--json")
    assert code == 0 and (np.sum(json.loads(out)["confusion"], axis=1) > 0).all()


def test_what_was_ignored_in_training_may_be_a_class_of_masks_with_other_values(command: Command, best: Path, root: Path) -> None:
    stored = load_checkpoint(best)
    stored.info["mask_ignored"] = [255]
    save_checkpoint(best, stored)
    words = (best, "--data", "folder", "--root", root, "--split", "all", "--json")
    known = json.loads(command(*words)[1])["confusion"]
    for path in (root / "masks").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask == 2, 255, mask).astype(np.uint8)).save(path)
    assert json.loads(command(*words, "--values", "0,1,255")[1])["confusion"] == known
    assert np.sum(json.loads(command(*words)[1])["confusion"], axis=1)[2] == 0  # as in training


def test_gray_images_are_given_the_channels_that_the_network_takes(command: Command, root: Path, tmp_path: Path) -> None:
    best = trained(tmp_path / "best.safetensors", CLASSES, 3, mask_values=[0, 1, 2])
    code, out, _ = command(best, "--data", "folder", "--root", root, "--split", "all", "--json")
    assert code == 0 and json.loads(out)["images"] == 5
