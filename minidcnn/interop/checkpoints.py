"""Checkpoints: one safetensors file that holds a network, what its images must look like, and how far its training has come.

The network's tensors have their own names, so that any program that reads safetensors can use them. Those that only training needs are
called "training/...". Everything else is JSON under one key of the file's metadata, which makes the same checkpoint the same bytes.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Array, to_backend
from ..nn import init
from .atomic import write_tensors

if TYPE_CHECKING:
    from ..models import Segmenter

FORMAT = 1  # raised when an older minidcnn could no longer read the files
_KEY = "minidcnn"  # of the file's metadata
_TRAINING = "training/"


class CheckpointError(ValueError):
    """A checkpoint cannot be read or does not fit. The message is one sentence: which file, what is wrong, and the way out."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained network, or one in training.

    model, config: the network's name and its constructor's arguments, as `models.create_model(model, **config)` takes them.
    tensors: its state dict. All arrays are NumPy's.
    info: what predicting needs to know. classes: list of names; palette: list of [r, g, b]; ignore_index; channels; mean, std: of each
    channel, applied as (image - mean) / std to images in [0, 1]; mask_values: list or None; mask_ignored: list; white: see
    `data.read_image`; data: the data set's name; held_out: names of the images that it was validated on; epoch: the number of epochs
    trained; scores: dict.
    training, training_tensors: what going on with training needs; empty in a checkpoint that is only for predicting.
    """

    model: str
    config: dict[str, Any]
    tensors: dict[str, Array]
    info: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    training_tensors: dict[str, Array] = field(default_factory=dict)


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically: a crash leaves the file that was there before. The same checkpoint gives the same bytes.

    ValueError if `config`, `info` or `training` hold NaN or infinity, TypeError if they hold what JSON cannot and for what is no Checkpoint,
    OSError if the disk is full.
    """
    _demand("save_checkpoint", checkpoint, "; save_weights writes a network alone")
    arrays = _plain(checkpoint.tensors) | {_TRAINING + name: array for name, array in _plain(checkpoint.training_tensors).items()}
    about = {
        "format": FORMAT,
        "model": checkpoint.model,
        "config": checkpoint.config,
        "info": checkpoint.info,
        "training": checkpoint.training,
        "checksum": _checksum(arrays),
    }
    metadata = {_KEY: json.dumps(about, allow_nan=False)}
    write_tensors(path, arrays, metadata)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint.

    CheckpointError if there is no such file, it is damaged, cut short or no safetensors file at all, it was not written by minidcnn, or
    by a newer one.
    """
    path = Path(path)
    if path.is_dir():
        inside = [name for name in ("best.safetensors", "last.safetensors") if (path / name).is_file()]
        hint = f"; did you mean {path / inside[0]}?" if inside else ""
        raise CheckpointError(f"{path} is a folder, not a checkpoint file{hint}")
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}; look for best.safetensors in the folder of the run")
    about, arrays = _read(path)
    training = {name.removeprefix(_TRAINING): array for name, array in arrays.items() if name.startswith(_TRAINING)}
    tensors = {name: array for name, array in arrays.items() if not name.startswith(_TRAINING)}
    return Checkpoint(about["model"], about["config"], tensors, about["info"], about["training"], training)


def model_of(checkpoint: Checkpoint) -> Segmenter:
    """The network of a checkpoint with its weights, on the current backend and in eval mode. The library's random numbers go on as before.

    CheckpointError if there is no such network, or its weights do not fit; it names the tensors and both shapes. TypeError for what is no
    Checkpoint.
    """
    from ..models import create_model

    _demand("model_of", checkpoint, "; load_checkpoint reads one from a file")
    try:
        with init.skipped():
            model = create_model(checkpoint.model, **checkpoint.config)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint's network {checkpoint.model!r} cannot be built: {error}") from error
    load_weights(model, checkpoint)
    return model.eval()


def load_weights(model: Segmenter, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's weights into `model`. CheckpointError names the tensors that do not fit, and both shapes."""
    try:
        model.load_state_dict(checkpoint.tensors)
    except ValueError as error:
        reason = str(error).partition(f"{type(model).__name__}: ")[2].partition("; pass strict=False")[0] or str(error)
        raise CheckpointError(
            f"the checkpoint's weights do not fit the network {model.name}: {reason}; it was trained as {checkpoint.model} with {_settings(checkpoint.config)}"
        ) from error


def _demand(name: str, checkpoint: Any, way: str) -> None:
    """TypeError unless `checkpoint` is one."""
    if not isinstance(checkpoint, Checkpoint):
        raise TypeError(f"{name}: checkpoint must be a Checkpoint, got {type(checkpoint).__name__}{way}")


def _plain(tensors: Mapping[str, Any]) -> dict[str, Array]:
    """C-ordered NumPy arrays in a fixed order. Arrays without axes stay so."""
    return {name: np.asarray(to_backend(tensors[name], "numpy"), order="C") for name in sorted(tensors)}


def _checksum(arrays: Mapping[str, Array]) -> int:
    """CRC-32 over all names and bytes: safetensors itself notices a file cut short, but not a flipped bit."""
    crc = 0
    for name in sorted(arrays):
        crc = zlib.crc32(arrays[name].reshape(-1).view(np.uint8).data, zlib.crc32(name.encode(), crc))
    return crc


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """(what our metadata says, all arrays)."""
    from safetensors import SafetensorError, safe_open

    try:
        path.open("rb").close()  # safetensors says of every file that it cannot open that there is none
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise CheckpointError(
                    f"{path} is a safetensors file but no checkpoint of minidcnn: it does not say which network it is for; bare weights "
                    f"are loaded with load_state_dict"
                )
            about = _about(path, metadata[_KEY])
            if about["format"] > FORMAT:
                raise CheckpointError(
                    f"{path} was written by a newer minidcnn (format {about['format']}, this one reads up to {FORMAT}): pip install -U minidcnn"
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # a file is no mapping
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no checkpoint, or was damaged or cut short ({error}); take another, or train again") from error
    except (AttributeError, TypeError) as error:  # what safetensors makes of dtypes that NumPy lacks; we write none
        raise CheckpointError(f"{path} is damaged: {error}; take another checkpoint, or train again") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if about["checksum"] != _checksum(arrays):
        raise CheckpointError(f"{path} is damaged: its tensors do not match its checksum; take another checkpoint, or train again")
    return about, arrays


def _about(path: Path, text: str) -> dict[str, Any]:
    """What our metadata says, which no checksum guards; a newer format may lack what ours has."""
    try:
        about: Any = json.loads(text)
    except ValueError:
        about = None
    kinds = {"model": str, "config": dict, "info": dict, "training": dict, "checksum": int}
    number = about.get("format") if isinstance(about, dict) else None
    if isinstance(number, int) and (number > FORMAT or all(isinstance(about.get(key), kind) for key, kind in kinds.items())):
        return about  # type: ignore[no-any-return]
    raise CheckpointError(f"{path} is damaged: its metadata cannot be read; take another checkpoint, or train again")


def _settings(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in config.items()) or "its defaults"
