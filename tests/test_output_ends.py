"""Programs from which the system withholds something. Whose output goes away ends in silence where its reader has seen enough, with a sentence
where it cannot be written; and with a sentence where no thread can be started.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidcnn.backend.cpu import threads
from minidcnn.cli import main

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


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As under `ulimit -u` and in a container with a limit of processes."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)  # which would warn


@pytest.mark.usefixtures("no_threads")
def test_kernels_compute_without_threads() -> None:
    before, done = threads.num_threads(), []
    threads.set_num_threads(3)
    try:
        threads.parallel(lambda start, stop: done.extend(range(start, stop)), 100)
    finally:
        threads.set_num_threads(before)
    assert done == list(range(100))


@pytest.mark.usefixtures("no_threads")
def test_a_command_without_threads(capsys: pytest.CaptureFixture[str], rng: np.random.Generator) -> None:
    for part in ("images", "masks"):
        Path("data", part).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 2, (24, 32), np.uint8)).save(f"data/{part}/1.png")
    assert main(["check", "--data", "folder", "--root", "data"]) == 2
    assert capsys.readouterr().err.startswith("error: the system starts no more threads for this program: ")


@pytest.mark.usefixtures("no_threads")
def test_a_training_without_threads(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*more: str) -> object:
        tiny = ["--epochs", "1", "--limit", "2", "--batch-size", "2", "--base", "2", "--out", "run"]
        monkeypatch.setattr(sys, "argv", ["train_unet.py", *tiny, *more])
        try:
            runpy.run_path(str(ROOT / "examples/train_unet.py"), run_name="__main__")
        except SystemExit as left:
            return left.code
        return 0

    assert train() == 2
    said = capsys.readouterr().err
    assert said.startswith("error: the system starts no more threads for this program: ") and said.count("\n") == 1
    assert train("--prefetch", "0") == 0 and Path("run/best.safetensors").exists()
