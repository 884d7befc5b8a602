"""Words of commands that are told to be copied: a shell reads them back as they are."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from minidcnn.data.written import shell_text

TEXTS = [
    "runs/unet-1",
    "my runs/best",
    "",
    "it's",
    'say "so"',
    "a&b",
    "100%",
    "$HOME",
    "a\\b",
    "C:\\my runs",
    "C:\\my runs\\",
    'a\\" b',
    "Straße 3",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_shell_reads_one_word(text: str) -> None:
    assert shlex.split(shell_text(text, windows=False)) == [text]


@pytest.mark.parametrize("text", TEXTS)
def test_windows_reads_one_word_in_double_quotes(text: str) -> None:
    said = shell_text(text, windows=True)
    as_python_does = subprocess.list2cmdline([text])  # which quotes only where there are spaces; cmd reads a & outside quotes
    plain = re.fullmatch(r"[\w./:\\-]+", text) or " " in text or not text
    assert said == (as_python_does if plain else f'"{as_python_does}"')
