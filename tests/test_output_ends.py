"""Programs whose output goes away: they end in silence where its reader has seen enough, with a sentence where it cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHORT = [  # less than a buffer: written when the program ends
    ["-m", "minidcnn", "--help"],
    ["-m", "minidcnn", "show", "--help"],
    ["-m", "minidcnn", "summary", "unet", "base=2", "depth=1"],
]


def into(stdout: int, words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / word) if word.startswith("examples/") else word for word in words]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, *command], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, cwd=folder, env=buffered
    )


def with_nobody_reading(words: list[str], folder: Path) -> tuple[int, str]:
    """(exit code, stderr)"""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = into(writing, words, folder)
    finally:
        os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", SHORT, ids=lambda words: words[2])
def test_a_reader_that_has_gone_away_is_no_error(words: list[str], tmp_path: Path) -> None:
    assert with_nobody_reading(words, tmp_path) == (1, "")


def test_another_error_goes_first(tmp_path: Path) -> None:
    program = "from minidcnn.segmentation.output import written_out\nwith written_out():\n    print(1)\n    raise ValueError('another')"
    code, said = with_nobody_reading(["-c", program], tmp_path)
    assert code == 1 and said.endswith("\nValueError: another\n")


def test_a_training_whose_output_nobody_reads_says_what_is_kept(tmp_path: Path) -> None:
    tiny = ["--epochs", "2", "--limit", "2", "--batch-size", "2", "--base", "2", "--out", "run"]
    code, said = with_nobody_reading(["examples/train_unet.py", *tiny], tmp_path)
    assert (code, said) == (1, f"error: nobody reads the output any more; {Path('run/last.safetensors')} keeps the state after epoch 1\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("words", SHORT, ids=lambda words: words[2])
def test_what_cannot_be_written_is_told_once(words: list[str], tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = into(full.fileno(), words, tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: [Errno 28] No space left on device\n")
