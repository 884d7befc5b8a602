"""What a checkpoint says of a run's data, and how a run that goes on is told apart from one on other data: setting by setting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training

from minidcnn.data import Arrays, Subset, Value
from minidcnn.interop import Checkpoint, CheckpointError, save_checkpoint
from minidcnn.segmentation.runs import RunFolder
from minidcnn.segmentation.start import start_from
from minidcnn.segmentation.state import changed, facts, names_sum, resumable

Values = tuple[Value, ...]


def marked(
    *names: str, values: Values | None = (0, 128, 255), ignored: Values = (), classes: tuple[str, ...] = ("sky", "road", "car"), **more: Any
) -> Arrays:
    """A data set as one in files is: with what stands for its classes in the masks."""
    images = [np.full((1, 4, 6), i / 8, np.float32) for i in range(len(names))]
    data = Arrays(images, [np.zeros((4, 6), int)] * len(names), classes, names=names, **more)
    data.mask_values, data.mask_ignored = values, ignored
    return data


def kept(train: Arrays, val: Any, **info: Any) -> Checkpoint:
    """The checkpoint of a run on these, as it comes from a file."""
    said = json.loads(json.dumps(facts(train, val, [0.5], [0.25], "folder"))) | info
    return Checkpoint("unet", {}, {}, said, {"images": len(train), "names": names_sum(train)})


def test_what_a_checkpoint_says_of_the_data() -> None:
    palette = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.uint8)
    train = marked("a", "b", values=((0, 0, 0), (9, 0, 0), (0, 9, 0)), ignored=((9, 9, 9),), palette=palette, ignore_index=7)
    train.white = 4095.0  # of folders only
    assert facts(train[:1], train[1:], (0.5,), (0.25,), "folder") | {"held_out": ["c", "d"]} == facts(
        train, marked("c", "d"), (0.5,), (0.25,), "folder"
    )  # part of a data set is read like all of it
    said = facts(train, marked("c", "d"), np.array([0.5], np.float32), (0.25,), "folder")
    assert json.loads(json.dumps(said)) == {
        "classes": ["sky", "road", "car"],
        "palette": palette.tolist(),
        "ignore_index": 7,
        "channels": 1,
        "white": 4095.0,
        "mean": [0.5],
        "std": [0.25],
        "mask_values": [[0, 0, 0], [9, 0, 0], [0, 9, 0]],
        "mask_ignored": [[9, 9, 9]],
        "data": "folder",
        "held_out": ["c", "d"],
    }
    said = facts(marked("a", values=None), marked("c"), [0], [1], "cells")
    assert (said["white"], said["mask_values"], said["mask_ignored"]) == (None, None, [])
    assert facts(marked("a", values=(0, 1, 2), ignored=(3,)), marked("c"), [0], [1], "x")["mask_ignored"] == [3]


def test_what_differs_is_said() -> None:
    """The number of images first, then their names, then what masks mean."""
    train, val = marked("a", "b", "c"), marked("v", "w", "x")
    checkpoint = kept(train, val)
    assert changed(checkpoint, train, val) == ""
    names = "on other images: some have another name now, or another order"
    way_out = " (if the masks did not change, --values 0,128,255 goes on)"
    for now, held, said in (
        (marked("a", "b"), marked("v"), "on 3 training images, now there are 2"),
        (train, marked("v", "w"), "with 3 images held out, now there are 2"),
        (train, marked("v", "y", "z"), "with w held out, which is not any more"),
        (train, Subset(val, [2, 0, 1]), names),
        (marked("b", "a", "c"), val, names),
        (marked("a", "b", "d"), val, names),
        (marked("a", "b", "c", classes=("sky", "road", "bus")), val, "with the classes sky,road,car, now they are sky,road,bus"),
        (marked("a", "b", "c", values=(0, 1, 2)), val, f"with the mask values 0,128,255, now they are 0,1,2{way_out}"),
        (marked("a", "b", "c", values=None), val, f"with the mask values 0,128,255, now they are none{way_out}"),
        (marked("a", "b", "c", ignored=(7,)), val, f"with the ignored mask values none, now they are 7{way_out}"),
    ):
        assert changed(checkpoint, now, held) == said
    colours = marked("a", values=((0, 0, 0), (0, 9, 0), (9, 0, 0)), ignored=((9, 9, 9),))
    assert changed(kept(colours, val), colours, val) == ""
    said = changed(kept(colours, val), marked("a", values=((0, 0, 0), (9, 0, 0), (0, 9, 0)), ignored=((9, 9, 9),)), val)
    assert said == (
        "with the mask values 0/0/0,0/9/0,9/0/0, now they are 0/0/0,9/0/0,0/9/0 "
        "(if the masks did not change, --values 0/0/0,0/9/0,9/0/0 --ignored 9/9/9 goes on)"
    )


def test_names_in_another_order_have_another_sum() -> None:
    assert names_sum(marked("a", "b")) == names_sum(marked("a", "b", values=None)) != names_sum(marked("b", "a"))
    assert names_sum(marked("a", "bc")) != names_sum(marked("ab", "c"))


def test_as_many_epochs_as_are_done_can_be_resumed_and_fewer_cannot(tmp_path: Path) -> None:
    train, val = training.cells()
    folder = RunFolder(tmp_path)
    assert resumable(folder, 1, train, val) is None
    training.make(tmp_path, training.options(epochs=2)).fit()
    found = resumable(folder, 2, train, val)
    assert found is not None and found.training["epoch"] == 2 and resumable(folder, 3, train, val) is not None
    with pytest.raises(ValueError, match="has done 2 epochs, more than --epochs 1: give at least 2"):
        resumable(folder, 1, train, val)
    with pytest.raises(CheckpointError, match="was started on 5 training images, now there are 4: put the data back as it was"):
        resumable(folder, 2, train[:4], val)


# -- starting from a trained network -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"epoch": 3, "scores": {"val_miou": 0.0}}, " (epoch 3, mean IoU 0.0000)"),
        ({"epoch": 0, "scores": {"val_miou": 0.25}}, " (epoch 0, mean IoU 0.2500)"),
        ({"epoch": 0, "scores": {}}, ""),
        ({"scores": {"val_miou": 0.25}}, ""),
        ({"epoch": 3}, ""),
    ],
)
def test_how_good_a_network_is_that_is_started_from(info: dict[str, Any], said: str, tmp_path: Path) -> None:
    data = marked("a", "b")
    path, model = str(tmp_path / "a.safetensors"), training.unet(data)
    save_checkpoint(path, Checkpoint(model.name, model.config, model.state_dict(), info | {"classes": list(data.classes)}))
    assert start_from(path, training.unet(data), data, data, "folder", pytest.fail) == f"starting from {path}{said}"


@pytest.mark.parametrize(
    ("then", "train", "val", "warned"),
    [
        (["v", "w"], ["a", "b"], ["v", "w"], ""),  # as it was
        (["v", "w"], ["a", "v"], ["w"], ""),  # fewer
        (
            ["v", "w"],
            ["a", "v"],
            ["w", "b", "c"],
            "of the 3 images held out now, PATH held out 1: if it was trained on the others (b, c), ",
        ),
        (["v", "w"], ["a", "b"], ["v", "w", "c"], "of the 3 images held out now, PATH held out 2: if it was trained on the others (c), "),
        (["v", "w"], ["v", "w"], ["a"], "of the 1 image held out now, PATH held out 0: if it was trained on the others (a), "),
        (["v", "w"], ["x", "y"], ["z"], ""),  # another folder
        (["v", "w"], ["x", "v"], ["z"], ""),  # w is gone: who knows
        ([], ["a", "b"], ["v"], ""),  # of an older version
    ],
)
def test_images_that_may_be_known_are_counted(then: list[str], train: list[str], val: list[str], warned: str, tmp_path: Path) -> None:
    now, held = marked(*train), marked(*val)
    path, model, warnings = str(tmp_path / "a.safetensors"), training.unet(now), list[str]()
    info = {"classes": list(now.classes), "data": "folder", "held_out": then}
    save_checkpoint(path, Checkpoint(model.name, model.config, model.state_dict(), info))
    start_from(path, training.unet(now), now, held, "folder", warnings.append)
    assert len(warnings) == bool(warned) and all(said.startswith(warned.replace("PATH", path)) for said in warnings)
    start_from(path, training.unet(now), now, held, "cells", pytest.fail)  # of other data
