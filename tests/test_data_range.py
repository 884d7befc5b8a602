"""Images of numbers without a usual range: which ones [0, 1] is read from, and what is said of those that no white helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidcnn.data import DataError, read_image

rng = np.random.default_rng(0)


def save(path: Path, array: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


def test_floating_point_files_need_a_known_range(tmp_path: Path) -> None:
    inside, outside = rng.random((5, 7)).astype(np.float32), np.float32([[0, 3], [700.5, 2]])
    np.testing.assert_array_equal(read_image(save(tmp_path / "f.tif", inside))[0], inside)
    path = save(tmp_path / "o.tif", outside)
    with pytest.raises(DataError, match=r"o\.tif holds float32 values from 0 to 700\.5.*white=700\.5"):
        read_image(path)
    np.testing.assert_allclose(read_image(path, white=1000)[0], outside / 1000, rtol=1e-6)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["x.tif", "x.npy"])
@pytest.mark.parametrize("white", [None, 2.0])
def test_numbers_that_are_not_finite_are_no_range(tmp_path: Path, odd: float, name: str, white: float | None) -> None:
    """No value of white would help."""
    pixels = rng.random((5, 7)).astype(np.float32)
    pixels[3, 1] = odd
    with pytest.raises(DataError, match=rf"{name} holds NaN or infinity at row 3, column 1: ") as error:
        read_image(save(tmp_path / name, pixels), white=white)
    assert "white" not in str(error.value)


@pytest.mark.parametrize("pixels", [-1 - rng.random((5, 7)).astype(np.float32), np.int32([[-1, -2, 0]])])
def test_where_no_number_is_positive_none_is_proposed_as_white(tmp_path: Path, pixels: np.ndarray) -> None:
    """It would be refused."""
    with pytest.raises(DataError, match=r"x\.npy holds (float|int)32 values from -\d.* none of them positive: .* 0 is black") as error:
        read_image(save(tmp_path / "x.npy", pixels))
    assert "white" not in str(error.value)
