"""A GPU whose memory runs out, played by the stand-in: one sentence, and nothing that was saved is lost."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cupy_stand_in
import numpy as np
import pytest
import training
from cupy_stand_in import Memory
from simulated import ON_DEVICE

import minidcnn
from minidcnn import Tensor
from minidcnn import functional as F
from minidcnn.backend import compiling, exhausted, switch
from minidcnn.backend.cuda.launcher import Launcher
from minidcnn.interop import load_checkpoint
from minidcnn.segmentation import command
from minidcnn.segmentation.diagnose import TrainingError
from minidcnn.segmentation.options import Request

pytestmark = pytest.mark.skipif(ON_DEVICE, reason="lets the stand-in's memory run out")


@pytest.fixture(autouse=True)
def _cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in.make_module())
    monkeypatch.setattr(switch, "_made", {})
    monkeypatch.setattr(Memory, "left", None)
    with minidcnn.use_kernels("reference"):
        yield
    Memory.left = None
    minidcnn.use("numpy")


def run(out: Path, fails: bool, resume: bool = False) -> None:
    """Two epochs on the stand-in; with `fails`, memory is gone in the second, wherever that happens to be."""
    minidcnn.use("cupy")
    config = training.options(backend="cupy", optimizer="sgd")
    trainer = training.make(out, config, resume=resume)
    report = trainer._report

    def then(*arguments: Any) -> None:
        report(*arguments)
        if fails:
            Memory.left = 150

    trainer._report = then  # type: ignore[method-assign]
    command.run(trainer, Request(config, trainer.folder, resume))


def test_it_is_one_sentence_and_the_checkpoint_stays(tmp_path: Path) -> None:
    run(tmp_path / "whole", fails=False)
    with pytest.raises(TrainingError) as caught:
        run(tmp_path / "broken", fails=True)
    said = str(caught.value)
    assert "\n" not in said
    assert (
        " more were asked for on the GPU, where 7.0 GiB of 7.5 GiB are in use, 5.6 GiB by this program): use --recompute (less memory, more time, the same "
        "results), a smaller --batch-size (it is 2)" in said
    )
    assert "a smaller --crop (it is whole images) or a narrower network (--base); " in said
    assert said.endswith(f"{tmp_path / 'broken' / 'last.safetensors'} keeps the state after epoch 1")
    Memory.left = None
    assert load_checkpoint(tmp_path / "broken" / "last.safetensors").training["epoch"] == 1
    run(tmp_path / "broken", fails=False, resume=True)
    training.same_results(tmp_path / "whole", tmp_path / "broken")


def test_before_the_first_epoch_nothing_is_claimed(tmp_path: Path) -> None:
    minidcnn.use("cupy")
    config = replace(training.options(backend="cupy"), crop=(16, 16), recompute=True)
    trainer = training.make(tmp_path, config)
    Memory.left = 20
    ways = r"use a smaller --batch-size \(it is 2\), a smaller --crop \(it is 16x16\) or a narrower network \(--base\)"
    with pytest.raises(TrainingError, match=rf"by this program\): {ways}; nothing was saved yet"):
        command.run(trainer, Request(config, trainer.folder, False))


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path: Path) -> None:
    minidcnn.use("cupy")
    trainer = training.make(tmp_path, training.options(backend="cupy"))
    trainer._save_last()
    before = (tmp_path / "last.safetensors").read_bytes()

    class Full:  # the copy to the host fails
        def __iter__(self) -> Any:
            raise cupy_stand_in.OutOfMemoryError(10, 20)

    trainer.model.state_dict = Full  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        trainer._save_last()
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_what_was_asked_for_is_told_in_readable_units() -> None:
    minidcnn.use("cupy")
    error = cupy_stand_in.OutOfMemoryError(1_234_567_890, 1)
    assert exhausted(error).startswith("1.1 GiB more were asked for on the GPU, where 7.0 GiB of 7.5 GiB are in use")
    limited = cupy_stand_in.OutOfMemoryError(2048, 1)
    limited.args = ("Out of memory allocating 2,048 bytes (allocated so far: 1 bytes, limit set to: 3,000,000 bytes).",)
    assert exhausted(limited).endswith("5.6 GiB by this program, which may take 2.9 MiB") and exhausted(limited).startswith("2.0 KiB more")
    assert exhausted(MemoryError("Unable to allocate 3 TiB.")) == "Unable to allocate 3 TiB"
    assert exhausted(MemoryError()) == "no more is to be had"


def test_an_error_on_the_way_to_the_kernels_stays_what_it_is() -> None:
    """Allocations fail as MemoryError through every layer: nothing on the way turns them into another error."""
    minidcnn.use("cupy")
    x, w = Tensor(np.ones((1, 2, 8, 9), np.float32)), Tensor(np.ones((3, 2, 3, 3), np.float32))
    Memory.left = 0
    with pytest.raises(MemoryError, match="Out of memory allocating"):
        F.conv2d(x, w)


@pytest.mark.parametrize("text", ["CUDA_ERROR_OUT_OF_MEMORY: out of memory", "cudaErrorMemoryAllocation: out of memory"])
def test_a_driver_without_memory_for_a_launch_is_no_other_error(text: str) -> None:
    class Module:
        def __init__(self, **_: Any) -> None: ...

        def get_function(self, name: str) -> Any:
            def function(*_: Any, **__: Any) -> None:
                raise RuntimeError(text)

            return function

    with pytest.raises(MemoryError, match=f"kernel relu of elementwise.cu: {text}"):
        Launcher(np, Module).over(4, "elementwise.cu", "relu", "float32", np.zeros(4, np.float32), np.zeros(4, np.float32), 4)


def test_a_module_that_takes_long_to_load_is_told_to_be_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()

    class Module:
        def __init__(self, **_: Any) -> None:
            assert told.wait(60)

        def get_function(self, name: str) -> Any:
            return lambda *_, **__: None

    monkeypatch.setattr(compiling, "LONG", 0.01)
    with compiling.on_compile(told.set):
        Launcher(np, Module).over(4, "elementwise.cu", "relu", "float32", np.zeros(4, np.float32), np.zeros(4, np.float32), 4)
