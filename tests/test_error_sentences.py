"""Sentences for rare mistakes, whole: what is wrong, the numbers, and the way out."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cupy_stand_in
import numpy as np
import pytest
from PIL import Image
from simulated import ON_DEVICE

import minidcnn
from minidcnn import nn
from minidcnn.backend import BackendError, kernels, switch
from minidcnn.backend.cpu import CpuKernels
from minidcnn.backend.cuda import source
from minidcnn.backend.cuda.graph import SEEDS, WARM_UP, Graphs
from minidcnn.backend.random import next_seed
from minidcnn.cli.bench import numbers
from minidcnn.data import ISBI, Arrays, CamVid, DataError, Folder


def said(kind: type[Exception], call: Any, *arguments: Any, **named: Any) -> str:
    """The sentence with which a call is refused."""
    with pytest.raises(kind) as caught:
        call(*arguments, **named)
    return str(caught.value)


def put(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)


# -- the processor -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", ["5", "32", "0", "eight", " 8"])
def test_vectors_that_no_processor_has(lanes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIDCNN_LANES", lanes)
    assert said(BackendError, CpuKernels) == f"MINIDCNN_LANES must be 4, 8 or 16, got {lanes!r}; unset it to use what the processor has"


@pytest.mark.parametrize("lanes", ["", "4", "8", "16"])
def test_vectors_that_some_processor_has(lanes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIDCNN_LANES", lanes)
    assert CpuKernels().name == "cpu"


# -- data sets -----------------------------------------------------------------------------------------------------------------------------


def test_no_mask_that_can_be_read(tmp_path: Path) -> None:
    """For `check`, which goes on where it can: it tells of the first, and why."""
    put(tmp_path / "images" / "a.png", np.zeros((4, 6)))
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").write_text("broken")
    sentence = said(DataError, Folder, tmp_path, "all", strict=False)
    assert sentence.startswith(f"{tmp_path}: none of the masks can be read: {tmp_path / 'masks' / 'a.png'} cannot be read")


def test_names_and_masks_that_are_not_as_many_as_the_images() -> None:
    images, masks = np.zeros((3, 1, 4, 6)), np.zeros((3, 4, 6), int)
    assert said(DataError, Arrays, images, masks, 2, names=["a", "b"]) == "every image needs one name, got 3 images and 2 names"
    assert said(DataError, Arrays, images, masks[:2], 2) == "every image needs one mask, got 3 images and 2 masks"
    assert [s.name for s in Arrays(images, masks, 2, names=["a", "b", "c"])] == ["a", "b", "c"]


def test_stacks_of_two_lengths(tmp_path: Path) -> None:
    for name, count in (("train-volume.tif", 5), ("train-labels.tif", 4)):
        first, *others = [Image.fromarray(np.full((6, 9), 255 * (i % 2), np.uint8)) for i in range(count)]
        first.save(tmp_path / name, save_all=True, append_images=others)
    volume, labels = tmp_path / "train-volume.tif", tmp_path / "train-labels.tif"
    assert said(DataError, ISBI, tmp_path, train_sections=2) == f"ISBI: {volume} has 5 sections but {labels} has 4"


def test_labels_without_images(tmp_path: Path) -> None:
    for part in ("train", "trainannot", "valannot"):
        put(tmp_path / part / "a.png", np.zeros((6, 9, 3) if part == "train" else (6, 9)))
    assert len(CamVid(tmp_path, "train")) == 1
    assert said(DataError, CamVid, tmp_path, "val") == f"CamVid: {tmp_path} holds valannot/ but not val/ with the images"


# -- names, numbers, sources ---------------------------------------------------------------------------------------------------------------


def test_names_in_a_module_are_strings() -> None:
    module = nn.Sequential()
    for register, kind in ((module.register_parameter, "parameter"), (module.register_buffer, "buffer"), (module.add_module, "module")):
        assert said(TypeError, register, 3, None) == f"Sequential: the name of a {kind} must be a string, got int"


@pytest.mark.parametrize("typed", ["64,,128", "0", "64 128", "-1", "64x64"])
def test_sizes_of_a_sweep(typed: str) -> None:
    assert said(argparse.ArgumentTypeError, numbers, typed) == f"expected numbers such as 64,128,256, got {typed!r}"


def test_an_installation_without_its_cuda_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "__file__", str(tmp_path / "minidcnn" / "backend" / "cuda" / "source.py"))
    places = f"{tmp_path / 'minidcnn' / 'kernels'} nor {tmp_path / 'kernels'}"
    assert said(FileNotFoundError, source.folder.__wrapped__) == f"the CUDA sources are in neither {places}; reinstall minidcnn"


# -- a step as a CUDA graph ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if ON_DEVICE:
        pytest.skip("plays CuPy")
    monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in.make_module())
    monkeypatch.setattr(switch, "_made", {})
    minidcnn.use("cupy")
    yield
    minidcnn.use("numpy")


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("seeds", [SEEDS, SEEDS + 1])
def test_more_dropout_than_a_recording_has_places_for(seeds: int) -> None:
    def work(x: Any) -> tuple[Any, ...]:
        for _ in range(seeds):
            next_seed()
        return (x + 1,)

    x = kernels().xp.asarray(np.ones(3))
    with Graphs(kernels().xp, work) as graphs:
        for _ in range(WARM_UP):
            graphs(x)
        if seeds == SEEDS:
            graphs(x)
        else:
            wanted = "this step cannot be recorded as a CUDA graph (it draws more than 256 seeds of dropout): leave out --graph"
            with pytest.raises(BackendError, match=f"^{re.escape(wanted)}$"):
                graphs(x)
