"""Image and mask files as other programs write them: turned, of one bit or sixteen, with transparency, with colours of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidcnn.data import Source, read_image
from minidcnn.data.masks import read_raw

rng = np.random.default_rng(0)

# -- turned ------------------------------------------------------------------------------------------------------------------------

SHOWN = {  # how a picture is shown by its EXIF orientation
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
    5: np.transpose, 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).T, 8: np.rot90,
}  # fmt: skip


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize(
    ("name", "dtype"),
    [*(("x.tif", d) for d in (np.uint8, np.uint16, np.int32, bool)), *(("x.png", d) for d in (np.uint8, np.uint16, bool))],
)
def test_turned_files_of_every_depth_are_turned_upright(name: str, dtype: type, orientation: int, tmp_path: Path) -> None:
    stored = rng.integers(0, 2, (5, 8)).astype(dtype)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / name, exif=exif)
    shown = SHOWN[orientation](stored)
    np.testing.assert_array_equal(read_raw(Source(tmp_path / name)).values, shown)
    white = {np.uint8: 255, np.uint16: 65535}.get(dtype, 1)
    np.testing.assert_array_equal(read_image(tmp_path / name)[0], shown.astype(np.float32) * np.float32(1 / white))
