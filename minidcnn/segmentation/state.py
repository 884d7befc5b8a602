"""What a checkpoint says of a run: what it was trained on, whether that is the same now, and what its optimizer has gathered."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Array
from ..data import Dataset, Value
from ..data.written import argument_text, option_text
from ..interop.checkpoints import Checkpoint, CheckpointError, load_checkpoint

if TYPE_CHECKING:
    from ..optim.lr_scheduler import LRScheduler
    from .runs import RunFolder


def facts(train: Dataset, val: Dataset, mean: Sequence[float], std: Sequence[float], name: str) -> dict[str, Any]:
    """What a checkpoint says about the data; see `interop.Checkpoint.info`."""
    values = train.mask_values
    return {
        "classes": list(train.classes),
        "palette": np.asarray(train.palette).tolist(),
        "ignore_index": int(train.ignore_index),
        "channels": int(train.channels),
        "white": train.white,
        "mean": [float(m) for m in mean],
        "std": [float(s) for s in std],
        "mask_values": None if values is None else _listed(values),
        "mask_ignored": _listed(train.mask_ignored),
        "data": name,
        "held_out": sample_names(val),
    }


def resumable(folder: RunFolder, epochs: int, train: Dataset, val: Dataset) -> Checkpoint | None:
    """The state that a run of so many epochs can go on with, which last.safetensors holds; None without that file.

    CheckpointError if the file is damaged, or if images or classes are others now; ValueError if more epochs are done already.
    """
    if not folder.last.exists():
        return None
    checkpoint = load_checkpoint(folder.last)
    if "optimizer" not in checkpoint.training:
        raise CheckpointError(f"{folder.last} has no state of a training, only a network; it is for predicting")
    if difference := changed(checkpoint, train, val):
        raise CheckpointError(
            f"the run in {folder} was started {difference}: put the data back as it was, or start a new run with another --out"
        )
    if (done := int(checkpoint.training["epoch"])) > epochs:
        raise ValueError(f"the run in {folder} has done {done} epochs, more than --epochs {epochs}: give at least {done}")
    return checkpoint


def changed(checkpoint: Checkpoint, train: Dataset, val: Dataset) -> str:
    """How images or classes differ from those that a checkpoint was trained on, in words; "" if they don't."""
    info, state = checkpoint.info, checkpoint.training
    if state["images"] != len(train):
        return f"on {state['images']} training images, now there are {len(train)}"
    held = sample_names(val)
    held_then = info.get("held_out", held)  # runs of older versions lack it, and the sum of names
    if len(held_then) != len(held):
        return f"with {len(held_then)} images held out, now there are {len(held)}"
    if gone := set(held_then) - set(held):
        return f"with {min(gone)} held out, which is not any more"
    if state.get("names", names_sum(train)) != names_sum(train) or held_then != held:
        return "on other images: some have another name now, or another order"
    values, ignored = info["mask_values"] or [], info.get("mask_ignored") or []
    values_now, ignored_now = _listed(train.mask_values or ()), _listed(train.mask_ignored)
    way_out = ""
    if (values, ignored) != (values_now, ignored_now):  # an older version may have found out something else
        options = " ".join(option_text(name, known) for name, known in (("values", values), ("ignored", ignored)) if known)
        way_out = f" (if the masks did not change, {options} goes on)"
    for called, before, now in (
        ("classes", info["classes"], list(train.classes)),
        ("mask values", values, values_now),
        ("ignored mask values", ignored, ignored_now),
    ):
        if before != now:
            return f"with the {called} {argument_text(before) or 'none'}, now they are {argument_text(now) or 'none'}{way_out}"
    return ""


def sample_names(dataset: Dataset) -> list[str]:
    """The names of all samples, in their order."""
    return [dataset.label(i) for i in range(len(dataset))]


def names_sum(dataset: Dataset) -> int:
    """CRC-32 of the samples' names in their order."""
    return zlib.crc32(json.dumps(sample_names(dataset)).encode())


def _listed(values: Sequence[Value]) -> list[Any]:
    """As JSON has them: a colour is a list."""
    return [list(v) if isinstance(v, tuple) else int(v) for v in values]


def apart(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Array]]:
    """An optimizer's state_dict as a checkpoint keeps it: what JSON can hold, and arrays called "parameter.entry"."""
    arrays = {f"{i}.{key}": v for i, values in state["state"].items() for key, v in values.items() if hasattr(v, "dtype")}
    numbers = {str(i): {key: v for key, v in values.items() if not hasattr(v, "dtype")} for i, values in state["state"].items()}
    return {"state": numbers, "param_groups": state["param_groups"]}, arrays


def together(kept: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Any]:
    """The inverse of `apart`."""
    values: dict[str, dict[str, Any]] = {i: dict(numbers) for i, numbers in kept["state"].items()}
    for name, array in arrays.items():
        i, _, key = name.partition(".")
        values[i][key] = array
    return {"state": values, "param_groups": kept["param_groups"]}


def go_on(schedule: LRScheduler, state: Mapping[str, Any]) -> None:
    """Put a schedule where a run left it. Runs of older versions kept the rates under another name, or only how many steps were taken."""
    if "_last_lr" in state or "last_lr" in state:
        schedule.load_state_dict({"_last_lr": state.get("last_lr"), **state})
    else:
        schedule.jump(int(state["last_epoch"]))
