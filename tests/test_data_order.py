"""In what order a file system lists a folder decides nothing, and a division is a choice at random that each seed makes anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidcnn.data import DataError, Folder
from minidcnn.data.files import divide


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
