"""Which images make the value taken for white doubtful."""

from __future__ import annotations

import numpy as np

from minidcnn.cli.white import doubtful_white

INFO = {"mean": [0.0114]}  # of nearly black images with few bright spots, as of fluorescence


def test_an_empty_image_of_8_bits_is_merely_dark() -> None:
    assert doubtful_white(np.array([2 / 255], np.float32), 0.004, INFO, None) == ""


def test_an_image_of_12_bits_in_16_is_doubtful() -> None:
    assert "--white 4095" in doubtful_white(np.array([700 / 65535], np.float32), 0.004, INFO, None)
