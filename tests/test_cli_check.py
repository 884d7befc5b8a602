"""`check` says ok only where training starts: how images are divided, and which of them are meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidcnn.cli import main
from minidcnn.data import DataError, FileDataset, Folder
from minidcnn.segmentation import prepare
from minidcnn.segmentation.config import TrainConfig

rng = np.random.default_rng(0)


def put(folder: Path, names: Sequence[str], values: Sequence[int] = (0, 255)) -> None:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (6, 9), np.uint8)).save(folder / "images" / f"{name}.png")
        Image.fromarray(rng.choice(np.array(values, np.uint8), (6, 9))).save(folder / "masks" / f"{name}.png")


def starts(root: Path, **options: object) -> bool:
    """Whether training gets past its data."""
    config = TrainConfig("unet", data="folder", root=str(root), crop=(8, 8), **options)
    try:
        train, val = prepare.open_data(config)
        prepare.look_over(train, val, config, None, lambda warning: None)  # type: ignore[arg-type]
    except DataError:
        return False
    return True


def warned(root: Path, **options: object) -> list[str]:
    """What training warns of before it begins, about classes that do not occur."""
    config, warnings = TrainConfig("unet", data="folder", root=str(root), crop=(8, 8), **options), []
    prepare.look_over(*prepare.open_data(config), config, None, warnings.append)  # type: ignore[arg-type]
    return [text for text in warnings if "no pixel is" in text]


def checked(root: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    code = main(["check", "--data", "folder", "--root", str(root), *options])
    return code, capsys.readouterr().out


def test_images_to_be_divided_with_a_test_folder_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, [str(i) for i in range(8)])
    put(tmp_path / "test", ["0", "b"])
    code, out = checked(tmp_path, capsys)
    assert code == 0 and "10 images" in out and out.endswith("\nok\n") and starts(tmp_path)
    parts = {split: [s.name for s in Folder(tmp_path, split)] for split in ("train", "val", "test", "all")}
    assert (len(parts["train"]), len(parts["val"]), parts["test"]) == (6, 2, ["0", "b"])
    assert sorted(parts["train"] + parts["val"]) == [str(i) for i in range(8)]
    assert parts["all"] == [*(str(i) for i in range(8)), "test-0", "test-b"]


def test_images_beside_a_validation_folder_are_those_to_train_on(tmp_path: Path) -> None:
    put(tmp_path, ["a", "b", "c"])
    put(tmp_path / "val", ["d"])
    assert [len(Folder(tmp_path, split)) for split in ("train", "val", "all")] == [3, 1, 4] and starts(tmp_path)


def test_nested_test_images_and_others_to_be_divided(tmp_path: Path) -> None:
    put(tmp_path, ["a", "b", "c"])
    for part in ("images", "masks"):
        (tmp_path / part / "test").mkdir()
        (tmp_path / part / "c.png").rename(tmp_path / part / "test" / "c.png")
    assert [len(Folder(tmp_path, split)) for split in ("train", "val", "test", "all")] == [1, 1, 1, 3]


def test_a_train_folder_hides_what_lies_beside_it(tmp_path: Path) -> None:
    put(tmp_path, ["a"])
    put(tmp_path / "train", ["b", "c"])
    put(tmp_path / "val", ["d"])
    assert [s.name for s in Folder(tmp_path, "all")] == ["train-b", "train-c", "val-d"]


@pytest.mark.parametrize(("there", "missing"), [("train", "val"), ("test", "train"), ("test", "val")])
def test_a_split_that_is_missing_is_an_error(there: str, missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / there, ["a", "b"])
    code, out = checked(tmp_path, capsys)
    assert code == 1 and not starts(tmp_path)
    assert (
        f"error: Folder {tmp_path}: there is no split {missing!r}; this data set has {there}, all; put images/ and masks/ into {tmp_path}/{missing}, "
        f"or for a division at random all of them straight into {tmp_path}\n"
    ) in out
    assert checked(tmp_path, capsys, "--split", there)[0] == 0  # that part is all right
    assert [s.name for s in Folder(tmp_path, "all")] == ["a", "b"]


def test_one_image_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, ["a"])
    code, out = checked(tmp_path, capsys)
    assert code == 1 and out.count("1 image cannot be divided") == 1 and out.endswith("\n1 error, 0 warnings\n") and not starts(tmp_path)


def test_a_part_without_labels_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "train", ["a", "b"], (0, 1, 255))
    put(tmp_path / "val", ["c"], (255,))
    code, out = checked(tmp_path, capsys, "--classes", "2")
    assert code == 1 and " val: every pixel of 1 image is ignored: label some, or divide the images otherwise" in out
    assert not starts(tmp_path, classes=2)


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        ((0, 1), (0, 1, 2), ["train: no pixel is class 2: from these images nothing can be learned about it, nor its IoU be measured"]),
        (
            (0, 1, 2, 3),
            (0, 3),
            ["val: no pixel is class 1, class 2: the scores, by which the best epoch is chosen, cannot tell how well it is found"],
        ),
        ((0, 1), (0, 2), ["train: no pixel is class 2: from", "val: no pixel is class 1: the scores"]),
        ((0, 1, 2, 255), (0, 1, 2), []),
    ],
)
def test_classes_that_one_part_lacks_are_told_in_trainings_words(
    train: Sequence[int],
    val: Sequence[int],
    said: Sequence[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(tmp_path / "train", ["a", "b"], train)
    put(tmp_path / "val", ["a", "c", "d"], val)
    read: list[str] = []
    load = FileDataset.load
    monkeypatch.setattr(FileDataset, "load", lambda self, index: read.append(self.label(index)) or load(self, index))
    code, out = checked(tmp_path, capsys)
    assert code == 0 and len(read) == 5  # every file is read once
    warnings = [line.removeprefix("warning: ") for line in out.splitlines() if "no pixel is" in line]
    assert warnings == warned(tmp_path) and len(warnings) == len(said) and out.endswith("\nok\n") == (not said)
    assert all(text.startswith(f"{tmp_path.name} {start}") for text, start in zip(warnings, said, strict=True))


def test_a_class_that_the_division_at_random_leaves_out_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, [str(i) for i in range(8)], (0,))
    (held_out,) = Folder(tmp_path, "val", values=(0,), val_fraction=0.1).entries
    for name, told in (("7" if held_out.name != "7" else "6", 1), (held_out.name, 0)):
        put(tmp_path, [name], (0, 255))
        code, out = checked(tmp_path, capsys, "--val-fraction", "0.1")
        warnings = [line.removeprefix("warning: ") for line in out.splitlines() if "no pixel is" in line]
        assert code == 0 and warnings == warned(tmp_path, val_fraction=0.1) and len(warnings) == told


def test_all_damaged_files_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, [str(i) for i in range(6)])
    for path in (tmp_path / "images" / "1.png", tmp_path / "images" / "2.png", tmp_path / "masks" / "4.png"):
        path.write_bytes(b"no picture")
    code, out = checked(tmp_path, capsys)
    assert code == 1 and out.count("cannot be read as an image") == 3 and "all: 6 images, 1 channel" in out and not starts(tmp_path)
    assert all(f"error: {tmp_path / name} cannot be read" in out for name in ("images/1.png", "images/2.png", "masks/4.png"))
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"no picture")
    assert checked(tmp_path, capsys)[0] == 2


def test_the_folder_one_stands_in_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "mydata", ["a", "b"])
    monkeypatch.chdir(tmp_path / "mydata")
    assert Folder(".", "all").name == "mydata all" and Folder("../mydata/.", "train").name == "mydata train"


@pytest.mark.parametrize("names", [[], ["a", "b", "c"]])
def test_where_no_pair_is_left_every_problem_is_listed(names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As many as training counts, which sends to check; it knows no options of the library's."""
    put(tmp_path, names)
    for name in names:
        (tmp_path / "masks" / f"{name}.png").rename(tmp_path / "masks" / f"other{name * 9}.png")
    with pytest.raises(DataError) as told:
        Folder(tmp_path, "train")
    more = 2 * len(names) - 1 if names else 1
    assert str(told.value).endswith(f" ({more} more problem{'s' if names else ''}; python -m minidcnn check lists them)")
    assert main(["check", "--data", "folder", "--root", str(tmp_path)]) == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert not said.out and len(lines) == more + 1 and all(line.startswith("error: ") for line in lines)
    assert str(told.value).startswith(f"Folder: {lines[0].removeprefix('error: ')} (")
    for name in names:
        assert f"images/{name}.png has no mask" in said.err and f"other{name * 9}.png belongs to" in said.err
