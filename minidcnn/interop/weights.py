"""Weights of other programs: torchvision's AlexNet and VGG by name, from .safetensors or .npz files, and ours into such files.

    model = load_classifier("vgg16.safetensors")          # the AlexNet, CaffeNet or VGG whose weights these are
    print(load_weights(model, "vgg16.safetensors"))       # into a network of one's own making
    load_trunk(FCN32s(classes=21), "vgg16.safetensors")   # the FCN paper's start: VGG16 without its last layer
    save_weights("weights.npz", model)

PyTorch's own files (.pt, .pth) are pickles, which can run any code while they are read, so they are not read here. Where PyTorch is
installed, they are converted once:

    import torch, safetensors.torch
    state = torch.load("vgg16.pth", map_location="cpu", weights_only=True)
    safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, "vgg16.safetensors")

In that file, `torchvision.models.vgg16(weights="DEFAULT").state_dict()` makes `state` of the weights that torchvision downloads.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array
from ..models import Segmenter
from ..models.alexnet import AlexNet, CaffeNet
from ..models.classifier import Classifier
from ..models.vgg import STAGES, VGG11, VGG13, VGG16, VGG19
from ..nn import Module, init
from ..words import counted, some
from .atomic import replacing, write_tensors

_DTYPES = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}  # of safetensors, real and known to NumPy
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt")


class WeightsError(ValueError):
    """A file of weights cannot be read or does not fit. The message is one sentence: which file, what is wrong, and the way out."""


@dataclass(frozen=True)
class Loaded:
    """What came of loading weights by name; `print` shows it.

    loaded: names copied. missing: names the model has and the file lacks. unexpected: the other way round.
    different: (name, shape in the file, shape in the model) of those whose shapes differ.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    different: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()

    @property
    def complete(self) -> bool:
        """Nothing was left over on either side."""
        return not (self.missing or self.unexpected or self.different)

    def __str__(self) -> str:
        parts = [f"{counted(len(self.loaded), 'tensor')} loaded"]
        if self.missing:
            parts.append(f"{len(self.missing)} missing in the file: {some(self.missing)}")
        if self.unexpected:
            parts.append(f"{len(self.unexpected)} unknown to the model: {some(self.unexpected)}")
        if self.different:
            shapes = [f"{name} is {theirs} in the file and {ours} in the model" for name, theirs, ours in self.different]
            parts.append(f"{len(self.different)} of another shape: {some(shapes)}")
        return "; ".join(parts)


def load_weights(model: Module, source: str | os.PathLike[str] | Mapping[str, Any], strict: bool = True) -> Loaded:
    """Copy weights into the parameters and buffers of the same names, converted to the model's dtype.

    source: a file, see `read_weights`, or a mapping from names to arrays; the "module." that torch.nn.DataParallel puts before every name
    may stand there. strict=False copies what fits by name and shape and leaves the
    rest of the model as it is, for example the last layer where the classes are others; the report says what was left over.
    WeightsError if the file cannot be read; with `strict`, if anything is left over on either side; and always if nothing fits. Then
    nothing has been changed.
    """
    return _load(model, *_opened(source), strict)


def _opened(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """What messages call the weights, and the weights."""
    return ("the mapping", source) if isinstance(source, Mapping) else (str(source), read_weights(source))


def _alone(tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without the "module." that torch.nn.DataParallel puts before every name."""
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): array for name, array in tensors.items()}
    return tensors


def _load(model: Module, where: str, tensors: Mapping[str, Any], strict: bool = True) -> Loaded:
    ours = {name: (tensor.shape, own in owner.optional_state) for name, owner, own, tensor in model.named_state()}
    if not any(name in ours for name in tensors):
        tensors = _alone(tensors)
    shapes = {name: tuple(np.shape(array)) for name, array in tensors.items()}
    fitting = [name for name, (shape, _) in ours.items() if shapes.get(name) == shape]
    report = Loaded(
        loaded=tuple(fitting),
        missing=tuple(name for name, (_, optional) in ours.items() if name not in shapes and not optional),
        unexpected=tuple(name for name in shapes if name not in ours),
        different=tuple((name, shapes[name], ours[name][0]) for name in ours if shapes.get(name, ours[name][0]) != ours[name][0]),
    )
    if not fitting:
        raise WeightsError(f"{where} does not fit {type(model).__name__}: no tensor has a name and shape of the model's ({report})")
    if strict and not report.complete:
        raise WeightsError(
            f"{where} does not fit {type(model).__name__}: {report}; load_weights with strict=False loads what fits and leaves the rest as it is"
        )
    model.load_state_dict({name: tensors[name] for name in fitting}, strict=False)
    return report


def save_weights(path: str | os.PathLike[str], model: Module) -> None:
    """Write a network's parameters and buffers under their names, in torch's layout, to a .safetensors or .npz file, atomically.

    WeightsError for any other ending, OSError if the disk is full, TypeError for what is no Module.
    """
    if not isinstance(model, Module):
        raise TypeError(f"save_weights: model must be a Module, got {type(model).__name__}; save_checkpoint writes a checkpoint")
    path = Path(path)
    arrays = model.state_dict()
    if path.suffix not in (".safetensors", ".npz"):
        raise WeightsError(f"{path} must end in .safetensors or .npz, the two kinds of file that weights are written to")
    if path.suffix == ".safetensors":
        write_tensors(path, arrays)
        return
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_weights(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The tensors of a .safetensors or .npz file by name, without what a checkpoint of ours keeps for training.

    WeightsError if there is no such file, it is damaged, or of another kind.
    """
    path = Path(path)
    if path.suffix in _PICKLES:
        raise WeightsError(
            f"{path} is a pickle, which can run any code while it is read, so minidcnn does not read it: convert it once, where PyTorch is "
            f'installed, with safetensors.torch.save_file(torch.load("{path.name}", map_location="cpu", weights_only=True), '
            f'"{path.stem}.safetensors")'
        )
    if path.suffix not in (".safetensors", ".npz"):
        raise WeightsError(f"{path} is no file of weights: its name must end in .safetensors or .npz")
    if not path.is_file():
        raise WeightsError(f"{path} {'is a folder, not a file of weights' if path.is_dir() else 'does not exist'}")
    return _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except MemoryError:
        raise
    except Exception as error:  # of damaged archives zipfile and NumPy raise nearly anything
        raise WeightsError(f"{path} cannot be read as a .npz file of arrays ({error})") from error
    odd = next((name for name, array in arrays.items() if array.dtype.kind not in "fiub"), None)
    if odd is not None:
        raise WeightsError(f"{path} holds no weights: {odd} is an array of {arrays[odd].dtype}; save arrays of numbers only")
    return arrays


def _read_safetensors(path: Path) -> dict[str, Array]:
    from safetensors import SafetensorError, safe_open

    try:
        path.open("rb").close()  # safetensors says of every file that it cannot open that there is none
        with safe_open(path, "numpy") as file:
            names = [name for name in file.keys() if not name.startswith("training/")]  # noqa: SIM118  # a file is no mapping
            odd = sorted({file.get_slice(name).get_dtype() for name in names} - _DTYPES)
            if odd:
                raise WeightsError(f"{path} holds {odd[0]} numbers, which are not read here; convert them to float32 before saving")
            return {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise WeightsError(f"{path} is no safetensors file, or was damaged or cut short ({error})") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error


# -- classifiers -------------------------------------------------------------------------------------------------------------------------


def load_classifier(source: str | os.PathLike[str] | Mapping[str, Any]) -> Classifier:
    """The classifier that the weights are of, with them, in eval mode: AlexNet, CaffeNet, or VGG11 to VGG19 with or without batch norm.

    Which one, its classes, channels and widths are read off the tensors' names and shapes. WeightsError if they are of another network.
    """
    return _classifier(*_opened(source))


def _classifier(where: str, tensors: Mapping[str, Any]) -> Classifier:
    tensors = _alone(tensors)
    shapes = {name: tuple(np.shape(array)) for name, array in tensors.items()}
    convs = [name for name, shape in shapes.items() if name.startswith("features.") and len(shape) == 4]
    numbered = [name for name, shape in shapes.items() if re.match(r"classifier\.\d+\.", name) and len(shape) == 2]
    linears = sorted(numbered, key=lambda name: int(name.split(".")[1]))
    kinds: dict[int, Any] = {sum(stages): kind for kind in (VGG11, VGG13, VGG16, VGG19) for stages in [STAGES[kind.layers]]}
    kinds[5] = CaffeNet if "features.4.weight" in shapes else AlexNet
    if len(convs) not in kinds or len(linears) != 3 or "features.0.weight" not in convs:
        raise WeightsError(
            f"{where} is of none of AlexNet, CaffeNet and VGG: it has {len(convs)} convolutions in features and {len(linears)} linear layers "
            f"in classifier; load_weights loads weights by name into any network"
        )
    width, in_channels = shapes["features.0.weight"][:2]
    options: dict[str, Any] = {"hidden": shapes[linears[0]][0]}
    if len(convs) > 5 and any(name.endswith("running_mean") for name in shapes):
        options["norm"] = "batch"
    try:
        with init.skipped():
            model: Classifier = kinds[len(convs)](shapes[linears[-1]][0], in_channels, width, **options)
    except ValueError as error:
        raise WeightsError(f"{where} is of none of AlexNet, CaffeNet and VGG, though named as one: {error}") from error
    _load(model, where, tensors)
    return model.eval()


def load_trunk(model: Segmenter, source: str | os.PathLike[str] | Mapping[str, Any]) -> Segmenter:
    """Start an FCN or a SegNet from a classifier's weights, as their papers do: VGG16, or CaffeNet for FCN-AlexNet. Returns `model`.

    All of the classifier's layers but the last are copied; linear layers become convolutions. WeightsError if it does not fit.
    """
    if not hasattr(model, "load_trunk"):
        raise WeightsError(f"{type(model).__name__} has no trunk that a classifier's weights could start; FCN and SegNet have")
    where, tensors = _opened(source)
    classifier = _classifier(where, tensors)
    try:
        model.load_trunk(classifier)
    except ValueError as error:
        theirs = f"weights of {type(classifier).__name__} with width={classifier.state_dict()['features.0.weight'].shape[0]}"
        raise WeightsError(f"{where} cannot be the trunk of {type(model).__name__}: {error}; it holds {theirs}") from error
    return model
