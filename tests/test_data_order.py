"""What is found in folders, in whatever order they list it, and a division that is a choice at random."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidcnn.data import DataError, Folder
from minidcnn.data.files import divide
from minidcnn.data.folder import read_classes


def fill(folder: Path, count: int, *, value: int = 1) -> None:
    """So many images and masks, of 4 x 6 pixels."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(np.array([[0, value] * 3] * 4, np.uint8)).save(folder / part / f"{i}.png")


@pytest.fixture(params=["as named", "the other way round"])
def listing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders list what they hold in this order."""
    usual = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        return iter(sorted(usual(path), reverse=request.param != "as named"))

    monkeypatch.setattr(Path, "iterdir", iterdir)


@pytest.mark.usefixtures("listing")
def test_of_folders_that_differ_in_case_always_the_same_is_taken(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    (tmp_path / "Images").mkdir(exist_ok=True)
    if len(list(tmp_path.glob("[Ii]mages"))) < 2:
        pytest.skip("this file system does not tell them apart")
    for i in range(3):
        Image.fromarray(np.full((4, 6), 50 + i, np.uint8)).save(tmp_path / "Images" / f"{i}.png")
    (found,) = {entry.image.path.parent.name for entry in Folder(tmp_path, "all", classes=2).entries}
    assert found == "Images"


@pytest.mark.usefixtures("listing")
def test_samples_and_what_a_folder_holds_are_told_in_order(tmp_path: Path) -> None:
    fill(tmp_path / "data", 11)
    assert [entry.name for entry in Folder(tmp_path / "data", "all").entries] == [str(i) for i in range(11)]
    for name in ("b", "a", ".hidden", "c"):
        (tmp_path / "other" / name).mkdir(parents=True)
    (tmp_path / "other" / "a file").touch()
    with pytest.raises(DataError, match="but holds a, b, c$"):
        Folder(tmp_path / "other")


def test_values_that_are_given_go_before_those_of_a_file(tmp_path: Path) -> None:
    fill(tmp_path, 3, value=7)
    (tmp_path / "classes.txt").write_text("background 0\ncell 255\n")
    data = Folder(tmp_path, "all", values=(0, 7))
    assert data.classes == ("background", "cell") and data.mask_values == (0, 7)
    assert data[0].mask.tolist() == [[0, 1] * 3] * 4


@pytest.mark.parametrize(("count", "fraction", "held_out"), [(10, 0.25, 2), (7, 0.5, 4), (9, 0.2, 2), (3, 0.1, 1)])
def test_a_division_is_a_choice_at_random(count: int, fraction: float, held_out: int) -> None:
    """Each image in one part, both in order, the share rounded; with other seeds others, and none always or never."""
    times, choices = np.zeros(count, int), set()
    for seed in range(200):
        train, val = divide(count, fraction, seed, "Folder")
        assert (train, val) == (sorted(train), sorted(val)) == divide(count, fraction, seed, "Folder")
        assert sorted(train + val) == list(range(count)) and len(val) == held_out
        times[val] += 1
        choices.add(tuple(val))
    share = held_out / count
    assert abs(times / 200 - share).max() < 5 * (share * (1 - share) / 200) ** 0.5
    assert len(choices) > min(20, count - 1)


def test_a_file_is_not_taken_for_a_folder_of_its_name(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    (tmp_path / "masks").rename(tmp_path / "labels")
    (tmp_path / "mask").write_text("notes on the masks")
    (found,) = {entry.mask.path.parent.name for entry in Folder(tmp_path, "all").entries}
    assert found == "labels"


def test_255_is_ignored_unasked_but_not_where_nothing_is_to_be(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    Image.fromarray(np.array([[0, 1, 2, 255, 1, 0]] * 4, np.uint8)).save(tmp_path / "masks" / "0.png")
    assert Folder(tmp_path, "all", values=(0, 1, 2))[0].mask.tolist() == [[0, 1, 2, 255, 1, 0]] * 4
    with pytest.raises(DataError, match="255"):
        Folder(tmp_path, "all", values=(0, 1, 2), ignored=())[0]


def test_the_usual_name_goes_first(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    for name, other in (("images", "imgs"), ("images", "image"), ("masks", "annotations"), ("masks", "labels")):
        (tmp_path / other).mkdir(exist_ok=True)
        (entry, *_) = Folder(tmp_path, "all").entries
        assert name in (entry.image.path.parent.name, entry.mask.path.parent.name)


def test_an_ending_is_found_out_only_if_all_folders_share_it(tmp_path: Path) -> None:
    for split, ending in (("train", "_mask"), ("val", "_label")):
        fill(tmp_path / split, 2)
        for path in list((tmp_path / split / "masks").iterdir()):
            path.rename(path.with_name(f"{path.stem}{ending}.png"))
    assert "suffix" not in Folder(tmp_path, "train").guessed and len(Folder(tmp_path, "all")) == 4
    shutil.rmtree(tmp_path / "val")
    assert Folder(tmp_path, "train").guessed["suffix"] == "_mask"


def test_gray_values_in_classes_txt_have_16_bits_and_colours_8(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("sky 0\nroad 65535\n")
    assert read_classes(path) == (("sky", "road"), (0, 65535))
    path.write_text("sky 0 0 0\nroad 0 255 9\n")
    assert read_classes(path) == (("sky", "road"), ((0, 0, 0), (0, 255, 9)))
    for text, line in (("sky 0\nroad 65536\n", 2), ("sky 256 0 0\nroad 0 0 1\n", 1)):
        path.write_text(text)
        with pytest.raises(DataError, match=f"line {line}: .* is neither a gray value nor a colour"):
            read_classes(path)


def test_the_most_frequent_ending_is_taken_for_that_of_all(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    for k, ending in enumerate(("_x", "_mask", "_mask", "_mask", "_y")):
        (tmp_path / "masks" / f"{k}.png").rename(tmp_path / "masks" / f"{k}{ending}.png")
    data = Folder(tmp_path, "all", strict=False)
    assert [entry.name for entry in data.entries] == ["1", "2", "3"] and data.guessed["suffix"] == "_mask"
    assert len(data.problems) == 4


def test_names_are_made_up_from_0_where_there_is_no_background(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    for path in (tmp_path / "masks").iterdir():
        Image.fromarray(np.array([[100, 200, 130] * 2] * 4, np.uint8)).save(path)
    assert Folder(tmp_path, "all").classes == ("class 0", "class 1", "class 2")


def test_the_first_images_whose_channels_differ_are_named(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    for k in (2, 3):
        (tmp_path / "images" / f"{k}.png").unlink()
        page = Image.new("L", (6, 4))
        page.save(tmp_path / "images" / f"{k}.tif", save_all=True, append_images=[page])
    with pytest.raises(DataError, match=r"0\.png has 1 channel, .*2\.tif has 2; all images of a data set need the same number"):
        Folder(tmp_path, "all")
