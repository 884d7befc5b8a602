"""What --boundary takes for a number of pixels."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from minidcnn.cli.evaluate import _pixels


@pytest.mark.parametrize("text", ["inf", "nan", "-1", "two"])
def test_no_number_of_pixels(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="no number of pixels"):
        _pixels(text)


def test_a_part_of_a_pixel_is_one() -> None:
    assert _pixels("1.5") == 1.5
