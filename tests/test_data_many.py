"""Folders with as many classes as a mask of 8 bits can hold, and with more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidcnn.data import DataError, Folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two masks of 16 x 20 pixels that hold 0 to 255 each."""
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        for k in range(2):
            Image.fromarray((np.arange(320) % 256).astype(np.uint8).reshape(16, 20)).save(tmp_path / part / f"{k}.png")
    return tmp_path


@pytest.mark.parametrize("options", [{"values": range(256)}, {"values": range(300)}, {"classes": 256}, {"classes": 300}])
def test_too_many_classes_are_called_so(root: Path, options: dict[str, int | range]) -> None:
    """Not a value that is named twice, which no user has done: 255 is ignored beside class indices only if nothing is said of it."""
    (given,) = options.values()
    number = given if isinstance(given, int) else len(given)
    with pytest.raises(DataError, match=rf"^at most 255 classes are possible \(masks are kept in 8 bits\), got {number}; give several "):
        Folder(root, "all", **options)  # type: ignore[arg-type]


def test_255_is_a_class_where_it_is_named(root: Path) -> None:
    data = Folder(root, "all", values=range(1, 256), ignored=[0])
    assert len(data.classes) == 255 and data.mask_ignored == (0,)
    with pytest.raises(DataError, match="0 at row 0, column 0, which is no class"):
        Folder(root, "all", values=range(1, 256)).load(0)


def test_the_most_classes_with_255_ignored(root: Path) -> None:
    for options in ({"classes": 255}, {"values": range(255)}, {"values": range(255), "ignored": [255]}):
        data = Folder(root, "all", **options)  # type: ignore[arg-type]
        mask = data.load(0).mask
        assert len(data.classes) == 255 and data.mask_ignored == (255,)
        assert mask.ravel()[:256].tolist() == list(range(256))  # 255 is "ignore" there, too
