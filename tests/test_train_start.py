"""Starting from a trained network: which weights are taken, what is told of them, and files that do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training

import minidcnn
from minidcnn.data import Arrays, Dataset
from minidcnn.interop import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from minidcnn.models import FCN8s, FCN8sAtOnce, FCN16s, FCN32s, Segmenter, SegNet, SegNetBasic, UNet
from minidcnn.segmentation import command
from minidcnn.segmentation.config import TrainConfig
from minidcnn.segmentation.options import Request
from minidcnn.segmentation.runs import RunFolder
from minidcnn.segmentation.start import start_from


def build(data: Dataset, options: dict[str, Any]) -> Segmenter:
    return training.unet(data, **options)


@pytest.fixture
def trained(tmp_path: Path) -> str:
    """The best network of a run on cells."""
    training.make(tmp_path / "before", training.options(epochs=3)).fit()
    return str(tmp_path / "before/best.safetensors")


def trainer_of(
    out: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch, data: tuple[Dataset, Dataset] | None = None, resume: bool = False
) -> command.Trainer:
    monkeypatch.setattr(command, "open_data", lambda config: data or training.cells())
    folder = RunFolder(out) if resume else RunFolder.new(str(out), "tiny")
    trainer = command.make_trainer(Request(config, folder, resume), build)
    trainer.shown = False
    trainer.draw_pictures = trainer.draw_curves = lambda: None  # type: ignore[method-assign]
    return trainer


def same(model: Segmenter, tensors: dict[str, Any], but: tuple[str, ...] = ()) -> None:
    for name, array in model.state_dict().items():
        if name not in but:
            np.testing.assert_array_equal(array, tensors[name], name)


def test_a_run_begins_with_the_weights_it_is_given(trained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And with nothing else: random numbers, optimizer and schedule are those of a new run."""
    config, before = training.options(epochs=1, start=trained), load_checkpoint(trained)
    trainer = trainer_of(tmp_path / "run", config, monkeypatch)
    same(trainer.model, before.tensors)
    epoch, miou = before.info["epoch"], before.info["scores"]["val_miou"]
    assert trainer.describe().splitlines()[-1] == f"starting from {trained} (epoch {epoch}, mean IoU {miou:.4f})" and not trainer.warnings
    scratch = trainer_of(tmp_path / "scratch", replace(config, start=None), monkeypatch)
    assert "starting" not in scratch.describe() and scratch.model.state_dict().keys() == before.tensors.keys()
    (entry,), (other,) = trainer.fit(), scratch.fit()
    assert entry["train_loss"] < 0.9 * other["train_loss"]
    a, b = (load_checkpoint(tmp_path / run / "last.safetensors").training for run in ("run", "scratch"))
    assert a["random_state"] == b["random_state"] and a["optimizer"] == b["optimizer"]


def test_resuming_starts_again_only_where_nothing_was_saved(trained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = training.options(start=trained)
    trainer_of(tmp_path / "whole", config, monkeypatch).fit()
    trainer_of(tmp_path / "early", config, monkeypatch)
    again = trainer_of(tmp_path / "early", config, monkeypatch, resume=True)
    assert again.started
    again.fit()
    training.same_results(tmp_path / "whole", tmp_path / "early")
    Path(trained).unlink()
    later = trainer_of(tmp_path / "early", replace(config, epochs=3), monkeypatch, resume=True)
    assert not later.started
    same(later.model, load_checkpoint(tmp_path / "early/last.safetensors").tensors)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        trainer_of(tmp_path / "gone", config, monkeypatch)


NETWORKS: dict[str, tuple[type[Segmenter], dict[str, Any], tuple[str, ...]]] = {
    "unet": (UNet, {"base": 2, "depth": 2, "norm": "batch", "padding": "same"}, ("head.weight", "head.bias")),
    "segnet": (SegNet, {"width": 2}, ()),
    "segnet_basic": (SegNetBasic, {"width": 2}, ()),
    "fcn32s": (FCN32s, {"width": 1, "pad": 1, "fc_kernel": 1}, ()),
    "fcn16s": (FCN16s, {"width": 1, "pad": 1, "fc_kernel": 1, "learn_upsampling": True}, ()),
    "fcn8s": (FCN8s, {"width": 1, "pad": 1, "fc_kernel": 1, "learn_upsampling": True}, ()),
    "fcn8s_at_once": (FCN8sAtOnce, {"width": 1, "pad": 1, "fc_kernel": 1}, ()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_with_other_classes_only_the_last_layers_are_new(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    network, options, heads = NETWORKS[name]
    before = network(in_channels=3, classes=5, **options)
    path = str(tmp_path / "a.safetensors")
    names = ["sky", "road", "tree", "car", "house"]
    save_checkpoint(path, Checkpoint(before.name, before.config, before.state_dict(), {"classes": names}))
    minidcnn.manual_seed(1)
    model = network(in_channels=3, classes=3, **options)
    fresh, data = model.state_dict(), training.arrays(rng, 2, (16, 24))
    said = start_from(path, model, data, data, "folder", pytest.fail)
    new = tuple(key for key, array in fresh.items() if array.shape != before.state_dict()[key].shape)
    assert new and len(new) < len(fresh) / 2 and (not heads or new == heads)
    same(model, before.state_dict(), but=new)
    for key in new:
        np.testing.assert_array_equal(model.state_dict()[key], fresh[key])
    assert "its classes are 5 (sky, road, tree, car, house), here they are 3 (class 0, class 1, class 2): " in said
    assert said.endswith(" start anew") and new[0] in said


LIGHT = {"in_channels": 3, "width": 1, "pad": 1, "fc_kernel": 1, "learn_upsampling": True}
FINER: list[tuple[type[Segmenter], type[Segmenter], str]] = [
    (FCN32s, FCN16s, "score_pool4, upscore2, upscore16"),
    (FCN16s, FCN8s, "score_pool3, upscore_pool4, upscore8"),
    (FCN32s, FCN8s, "score_pool4, score_pool3, upscore2, upscore_pool4, upscore8"),
]


def saved(path: Path, model: Segmenter, tensors: dict[str, Any] | None = None, classes: int = 4) -> str:
    info = {"classes": [f"class {k}" for k in range(classes)]}
    save_checkpoint(path, Checkpoint(model.name, model.config, tensors or model.state_dict(), info))
    return str(path)


@pytest.mark.parametrize(("coarse", "fine", "new"), FINER)
@pytest.mark.parametrize("classes", [4, 3])
def test_finer_fcns_start_from_coarser_ones(
    coarse: type[Segmenter], fine: type[Segmenter], new: str, classes: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    """As in the paper, in stages: scores that are new begin at zero. With other classes, what scores them is new, too."""
    before = coarse(classes=classes, **LIGHT)
    for p in before.parameters():
        p._array[...] += rng.normal(0, 0.1, p.shape).astype(np.float32)
    path, data = saved(tmp_path / "a.safetensors", before, classes=classes), training.arrays(rng, 2, (16, 24), classes=4)
    minidcnn.manual_seed(1)
    model = fine(classes=4, **LIGHT)
    fresh = model.state_dict()
    said = start_from(path, model, data, data, "folder", pytest.fail)
    assert said.startswith(f"starting from {path}, the coarser {before.name}: {new} are new")
    assert (said.endswith(" start anew") and "its classes are 3 (class 0, " in said and "score_fr.weight" in said) == (classes != 4)
    for key, array in model.state_dict().items():
        then = before.state_dict().get(key)
        np.testing.assert_array_equal(array, fresh[key] if then is None or then.shape != array.shape else then, key)
    for key in new.split(", "):
        assert key.startswith("upscore") or not fresh[f"{key}.weight"].any()


def test_fcns_that_do_not_fit_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    data = training.arrays(rng, 2, (16, 24), classes=4)
    middle = FCN16s(classes=4, **LIGHT)
    path = saved(tmp_path / "middle.safetensors", middle)
    for model, kinds in (
        (FCN32s(classes=4, **LIGHT), "one of the same kind"),
        (FCN8sAtOnce(classes=4, **LIGHT), "one of the same kind"),
        (UNet(3, 4, base=2, depth=2), "one of the same kind"),
    ):
        with pytest.raises(CheckpointError, match=f"is the network fcn16s, not {model.name}: start from {kinds}$"):
            start_from(path, model, data, data, "folder", pytest.fail)
    with pytest.raises(CheckpointError, match="is the network unet, not fcn8s: start from one of the same kind, or from fcn32s or fcn16s$"):
        unet = saved(tmp_path / "unet.safetensors", UNet(3, 4, base=2, depth=2))
        start_from(unet, FCN8s(classes=4, **LIGHT), data, data, "folder", pytest.fail)
    with pytest.raises(CheckpointError, match="it has width=1, this one width=2"):
        start_from(path, FCN8s(classes=4, **LIGHT | {"width": 2}), data, data, "folder", pytest.fail)
    for name, said in (
        ("features.0.weight", "missing in the file: features.0.weight"),
        ("score_fr.bias", "missing in the file: score_fr.bias"),
    ):
        cut = {key: array for key, array in middle.state_dict().items() if key != name}
        with pytest.raises(CheckpointError, match=f"does not fit this network: .*{said}"):
            start_from(saved(tmp_path / "cut.safetensors", middle, cut), FCN8s(classes=4, **LIGHT), data, data, "folder", pytest.fail)


def test_as_many_classes_of_other_names_go_on_by_number(trained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crack(data: Dataset) -> Arrays:
        return Arrays([s.image for s in data], [s.mask for s in data], ("wall", "crack"))

    train, val = map(crack, training.cells())
    trainer = trainer_of(tmp_path / "run", training.options(start=trained), monkeypatch, (train, val))
    same(trainer.model, load_checkpoint(trained).tensors)
    assert trainer.started.endswith("; its classes are called background, cell, here wall, crack: each goes on as the one of its number")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"base": 3},
            r"does not fit this network: it has base=2, this one base=3; give this run the options of that one, which its config",
        ),
        ({"depth": 1}, r"it has depth=2, this one depth=1;"),
        ({"norm": None, "depth": 3}, r"it has norm='batch', depth=2, this one norm=None, depth=3;"),
        ({"dropout": 0.5}, ""),  # no weight hangs on it
    ],
)
def test_a_file_that_does_not_fit(
    options: dict[str, Any], said: str, trained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = training.options(start=trained, network_options=options)
    if not said:
        assert trainer_of(tmp_path / "run", config, monkeypatch).started
        return
    with pytest.raises(CheckpointError, match=said):
        trainer_of(tmp_path / "run", config, monkeypatch)


def test_a_network_of_another_kind_or_with_other_images(trained: str, tmp_path: Path, rng: np.random.Generator) -> None:
    data = training.arrays(rng, 2, (16, 24))
    with pytest.raises(CheckpointError, match=r"is the network unet, not segnet: start from one of the same kind"):
        start_from(trained, SegNet(3, 3, width=2), data, data, "folder", pytest.fail)
    with pytest.raises(CheckpointError, match=r"it has in_channels=1, this one in_channels=3; .* \(--channels 1 for a folder of images\)"):
        start_from(trained, training.unet(data), data, data, "folder", pytest.fail)
    with pytest.raises(CheckpointError, match=r"before is a folder, not a checkpoint file; did you mean .*best\.safetensors\?"):
        start_from(str(Path(trained).parent), training.unet(data), data, data, "folder", pytest.fail)
    model = training.unet(data)
    foreign = {f"theirs.{name}": array for name, array in model.state_dict().items()}
    save_checkpoint(tmp_path / "foreign.safetensors", Checkpoint(model.name, model.config, foreign))
    with pytest.raises(CheckpointError, match=r"does not fit this network: no tensor has the same name and shape$"):
        start_from(str(tmp_path / "foreign.safetensors"), model, data, data, "folder", pytest.fail)
    tensors = {name.replace("head", "tail"): array for name, array in model.state_dict().items()}
    save_checkpoint(tmp_path / "odd.safetensors", Checkpoint(model.name, model.config, tensors))
    with pytest.raises(CheckpointError, match=r"does not fit this network: .* 2 missing in the file: head\.weight, head\.bias"):
        start_from(str(tmp_path / "odd.safetensors"), model, data, data, "folder", pytest.fail)


@pytest.mark.parametrize(
    ("before", "options", "said"),
    [
        (UNet(3, 3, base=2, depth=1), {"in_channels": 4}, r"it has in_channels=3, this one in_channels=4; .* \(--channels 3 for a folder"),
        (FCN32s(3, 3, width=1, pad=80, fc_kernel=3), {"fc_kernel": 4}, "it has fc_kernel=3, this one fc_kernel=4;"),
    ],
)
def test_another_setting_that_changes_as_the_classes_do_is_no_head(
    before: Segmenter, options: dict[str, Any], said: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    """From 3 classes to 4 and from 3 channels to 4: the first layer's shapes differ by the same numbers as the last one's."""
    data = training.arrays(rng, 2, (16, 24), classes=4)
    model = type(before)(**before.config | {"classes": 4} | options)
    with pytest.raises(CheckpointError, match=said):
        start_from(saved(tmp_path / "a.safetensors", before, classes=3), model, data, data, "folder", pytest.fail)


def test_only_what_differs_by_the_classes_alone_starts_anew(tmp_path: Path, rng: np.random.Generator) -> None:
    """A head of more channels, of other axes, one tensor too many, or an upsampling that is missing: then the file is another network's."""
    data, light = training.arrays(rng, 2, (16, 24)), {"base": 2, "depth": 2}
    unet, fcn = UNet(3, 5, **light), FCN16s(classes=5, **LIGHT)
    head, own, less = unet.state_dict()["head.weight"], unet.state_dict(), fcn.state_dict()
    del less["upscore2.weight"]
    for before, tensors, said in (
        (unet, own | {"head.weight": np.zeros((5, head.shape[1] + 1, 1, 1), np.float32)}, "head.weight"),
        (unet, own | {"head.weight": np.zeros(5, np.float32)}, "head.weight"),
        (unet, own | {"tail.weight": head}, "tail.weight"),
        (fcn, less, "upscore2.weight"),
    ):
        model = type(before)(**before.config | {"classes": 3})
        path = saved(tmp_path / "a.safetensors", before, tensors, classes=5)
        with pytest.raises(CheckpointError, match=f"does not fit this network: .*{said}"):
            start_from(path, model, data, data, "folder", pytest.fail)


def test_images_that_it_may_have_been_trained_on_are_warned_of(trained: str) -> None:
    """A folder that is divided at random is divided otherwise once it holds more images."""
    train, val = training.cells()
    checkpoint = load_checkpoint(trained)
    assert checkpoint.info["held_out"] == ["cells-val-0000", "cells-val-0001", "cells-val-0002"]

    def warnings(train: Dataset, val: Dataset, data: str = "cells") -> list[str]:
        said: list[str] = []
        start_from(trained, training.unet(train), train, val, data, said.append)
        return said

    both = Arrays(
        [s.image for s in (*train, *val)], [s.mask for s in (*train, *val)], train.classes, names=[s.name for s in (*train, *val)]
    )
    assert not warnings(train, val) and not warnings(train, val[:2]) and not warnings(both[:6], both[6:])
    (said,) = warnings(both[2:], both[:2])
    assert said.startswith(f"of the 2 images held out now, {trained} held out 0: if it was trained on the others (cells-train-0000, cells-")
    assert not warnings(both[2:], both[:2], "folder")  # of other data
