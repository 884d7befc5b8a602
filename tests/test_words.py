"""How sentences say numbers, lists and options."""

from __future__ import annotations

import pytest

from minidcnn.words import counted, option_name, size, some


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (2, "class", "2 classes"),
        (1, "class", "1 class"),
        (3, "more problem", "3 more problems"),
    ],
)
def test_nouns_are_counted(number: int, noun: str, said: str) -> None:
    assert counted(number, noun) == said


def test_of_many_the_first_are_named() -> None:
    assert some([]) == ""
    assert some(range(5)) == "0, 1, 2, 3, 4"
    assert some(range(7)) == "0, 1, 2, 3, 4 and 2 more"
    assert some(iter("abcd"), 3) == "a, b, c and 1 more"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (1_572_864, "1.5 MiB"), ((1 << 30) - 1, "1024.0 MiB"), (1 << 30, "1.0 GiB"),
        (5 << 40, "5120.0 GiB"),
    ],
)  # fmt: skip
def test_bytes_are_said_in_powers_of_two(number: int, said: str) -> None:
    assert size(number) == said


def test_options_are_called_as_on_a_command_line() -> None:
    assert option_name("lr") == "--lr" and option_name("val_fraction") == "--val-fraction"
