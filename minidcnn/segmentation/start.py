"""Starting from a trained network: which of its weights a new one takes, and what one should know about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..data import Dataset
from ..interop.checkpoints import Checkpoint, CheckpointError, load_checkpoint
from ..interop.weights import Loaded, WeightsError, load_weights
from ..words import counted, some
from .state import sample_names

if TYPE_CHECKING:
    from ..models import Segmenter

_OWN = ("score_pool", "upscore")  # how the layers are called that a finer FCN adds, and those of the coarser one that it does without


def start_from(path: str, model: Segmenter, train: Dataset, val: Dataset, data: str, warn: Callable[[str], object]) -> str:
    """Copy a checkpoint's weights into `model`. Returns in words what was done.

    All must fit, but where the number of classes is another: weights whose shapes hold that number, which are those of the last layers, stay
    as they are in `model`. So do the layers that a finer FCN adds, if the checkpoint is one of the networks `model.coarser`.
    data: the name of the data set that `train` and `val` are of. What makes scores too good goes to `warn`.
    CheckpointError if the file cannot be read, is of another network, or does not fit; throw `model` away then.
    """
    checkpoint = load_checkpoint(path)
    finer = checkpoint.model in model.coarser
    if checkpoint.model != model.name and not finer:
        others = f", or from {' or '.join(model.coarser)}" if model.coarser else ""
        raise CheckpointError(
            f"--start {path} is the network {checkpoint.model}, not {model.name}: start from one of the same kind{others}"
        )
    was, now = checkpoint.config.get("classes"), model.classes
    if was != now and any((checkpoint.config.get(key), ours) == (was, now) for key, ours in model.config.items() if key != "classes"):
        raise _does_not_fit(path, checkpoint, model)  # by their shapes, that setting's layers would pass for the last ones
    try:
        report = load_weights(model, checkpoint.tensors, strict=False)
    except WeightsError:  # nothing fits
        raise _does_not_fit(path, checkpoint, model) from None
    heads = [name for name, theirs, ours in report.different if _differ_in_classes(theirs, ours, was, now)]
    own = _OWN if finer else ()
    left = replace(
        report,
        missing=tuple(name for name in report.missing if not name.startswith(own)),
        unexpected=tuple(name for name in report.unexpected if not name.startswith(own)),
        different=tuple(d for d in report.different if d[0] not in heads),
    )
    if not left.complete:
        raise _does_not_fit(path, checkpoint, model, left)
    _warn_of_known_images(path, checkpoint, train, val, data, warn)
    new = dict.fromkeys(name.split(".")[0] for name in report.missing)
    stage = f", the coarser {checkpoint.model}: {', '.join(new)} are new" if finer else ""
    return f"starting from {path}{_scored(checkpoint.info)}{stage}{_about_classes(checkpoint, train, heads)}"


def _differ_in_classes(theirs: tuple[int, ...], ours: tuple[int, ...], was: Any, now: int) -> bool:
    return len(theirs) == len(ours) and all(a == b or (a, b) == (was, now) for a, b in zip(theirs, ours, strict=True))


def _does_not_fit(path: str, checkpoint: Checkpoint, model: Segmenter, left: Loaded | None = None) -> CheckpointError:
    """Names the settings that differ, else the tensors."""
    differ = [key for key, value in model.config.items() if key != "classes" and checkpoint.config.get(key, value) != value]
    if not differ:
        return CheckpointError(f"--start {path} does not fit this network: {left or 'no tensor has the same name and shape'}")
    theirs, ours = (", ".join(f"{key}={config.get(key)!r}" for key in differ) for config in (checkpoint.config, model.config))
    channels = f" (--channels {checkpoint.config['in_channels']} for a folder of images)" if "in_channels" in differ else ""
    return CheckpointError(
        f"--start {path} does not fit this network: it has {theirs}, this one {ours}; give this run the options of that one, which its "
        f"config.json holds{channels}"
    )


def _scored(info: dict[str, Any]) -> str:
    epoch, miou = info.get("epoch"), info.get("scores", {}).get("val_miou")
    return "" if epoch is None or miou is None else f" (epoch {epoch}, mean IoU {miou:.4f})"


def _about_classes(checkpoint: Checkpoint, train: Dataset, heads: list[str]) -> str:
    """What becomes of its classes, if they are others."""
    before, here = checkpoint.info.get("classes", []), list(train.classes)
    if heads:
        return f"; its classes are {len(before)} ({some(before)}), here they are {len(here)} ({some(here)}): {some(heads)} start anew"
    if before != here:
        return f"; its classes are called {some(before)}, here {some(here)}: each goes on as the one of its number"
    return ""


def _warn_of_known_images(
    path: str, checkpoint: Checkpoint, train: Dataset, val: Dataset, data: str, warn: Callable[[str], object]
) -> None:
    """Images that it was trained on are no honest test: a folder with more images in it is divided otherwise."""
    then, held = set(checkpoint.info.get("held_out", [])), sample_names(val)
    new = [name for name in held if name not in then]
    if checkpoint.info.get("data") == data and new and then and then.issubset([*held, *sample_names(train)]):
        warn(
            f"of the {counted(len(held), 'image')} held out now, {path} held out {len(held) - len(new)}: if it was trained on the others "
            f"({some(new)}), scores are too good; divide the images into train/ and val/ and keep in val/ what it has not seen"
        )
