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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array, to_backend
from ..models import Segmenter
from ..models.alexnet import AlexNet, CaffeNet
from ..models.classifier import Classifier
from ..models.vgg import STAGES, VGG11, VGG13, VGG16, VGG19
from ..nn import Module, init
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
        parts = [f"{len(self.loaded)} tensors loaded"]
        if self.missing:
            parts.append(f"{len(self.missing)} missing in the file: {_some(self.missing)}")
        if self.unexpected:
            parts.append(f"{len(self.unexpected)} unknown to the model: {_some(self.unexpected)}")
        if self.different:
            shapes = [f"{name} is {theirs} in the file and {ours} in the model" for name, theirs, ours in self.different]
            parts.append(f"{len(self.different)} of another shape: {_some(shapes)}")
        return "; ".join(parts)


def load_weights(model: Module, source: str | os.PathLike[str] | Mapping[str, Any], strict: bool = True) -> Loaded:
    """Copy weights into the parameters and buffers of the same names, converted to the model's dtype.

    source: a file, see `read_weights`, or a mapping from names to arrays. strict=False copies what fits by name and shape and leaves the
    rest of the model as it is, for example the last layer where the classes are others; the report says what was left over.
    WeightsError if the file cannot be read; with `strict`, if anything is left over on either side; and always if nothing fits. Then
    nothing has been changed.
    """
    where = "the mapping" if isinstance(source, Mapping) else str(source)
    tensors: Mapping[str, Any] = source if isinstance(source, Mapping) else read_weights(source)
    shapes = {name: tuple(np.shape(array)) for name, array in tensors.items()}
    ours = {name: (tensor.shape, own in owner.optional_state) for name, owner, own, tensor in model.named_state()}
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
            f"{where} does not fit {type(model).__name__}: {report}; strict=False loads what fits and leaves the rest as it is"
        )
    model.load_state_dict({name: tensors[name] for name in fitting}, strict=False)
    return report


def save_weights(path: str | os.PathLike[str], model: Module) -> None:
    """Write a network's parameters and buffers under their names, in torch's layout, to a .safetensors or .npz file, atomically.

    WeightsError for any other ending, OSError if the disk is full.
    """
    path = Path(path)
    arrays = {name: np.ascontiguousarray(to_backend(array, "numpy")).reshape(array.shape) for name, array in model.state_dict().items()}
    if path.suffix not in (".safetensors", ".npz"):
        raise WeightsError(f"{path} must end in .safetensors or .npz, the two kinds of file that weights are written to")
    if path.suffix == ".safetensors":
        write_tensors(path, arrays)
        return
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_weights(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The tensors of a .safetensors or .npz file by name. What a checkpoint of ours keeps for training is left out, and so is the "module."
    that torch.nn.DataParallel puts before every name. WeightsError if there is no such file, it is damaged, or of another kind.
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
    tensors = _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): array for name, array in tensors.items()}
    return tensors


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
        with safe_open(path, "numpy") as file:
            names = [name for name in file.keys() if not name.startswith("training/")]  # noqa: SIM118  # a file is no mapping
            odd = sorted({file.get_slice(name).get_dtype() for name in names} - _DTYPES)
            if odd:
                raise WeightsError(f"{path} holds {odd[0]} numbers, which are not read here; convert them to float32 before saving")
            return {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise WeightsError(f"{path} is no safetensors file, or was damaged or cut short ({error})") from error


# -- classifiers -------------------------------------------------------------------------------------------------------------------------


def load_classifier(source: str | os.PathLike[str] | Mapping[str, Any]) -> Classifier:
    """The classifier that the weights are of, with them, in eval mode: AlexNet, CaffeNet, or VGG11 to VGG19 with or without batch norm.

    Which one, its classes, channels and widths are read off the tensors' names and shapes. WeightsError if they are of another network.
    """
    where = "the mapping" if isinstance(source, Mapping) else str(source)
    tensors: Mapping[str, Any] = source if isinstance(source, Mapping) else read_weights(source)
    shapes = {name: tuple(np.shape(array)) for name, array in tensors.items()}
    convs = [name for name, shape in shapes.items() if name.startswith("features.") and len(shape) == 4]
    linears = sorted((int(name.split(".")[1]), name) for name, s in shapes.items() if name.startswith("classifier.") and len(s) == 2)
    kinds: dict[int, Any] = {sum(stages): kind for kind in (VGG11, VGG13, VGG16, VGG19) for stages in [STAGES[kind.layers]]}
    kinds[5] = CaffeNet if "features.4.weight" in shapes else AlexNet
    if len(convs) not in kinds or len(linears) != 3 or "features.0.weight" not in shapes:
        raise WeightsError(
            f"{where} is of none of AlexNet, CaffeNet and VGG: it has {len(convs)} convolutions in features and {len(linears)} linear layers "
            f"in classifier; load_weights loads weights by name into any network"
        )
    width, in_channels = shapes["features.0.weight"][:2]
    options: dict[str, Any] = {"hidden": shapes[linears[0][1]][0]}
    if len(convs) > 5 and any(name.endswith("running_mean") for name in shapes):
        options["norm"] = "batch"
    with init.skipped():
        model: Classifier = kinds[len(convs)](shapes[linears[-1][1]][0], in_channels, width, **options)
    try:
        load_weights(model, tensors)
    except WeightsError as error:
        raise WeightsError(str(error).replace("the mapping", where)) from error
    model.eval()
    return model


def load_trunk(model: Segmenter, source: str | os.PathLike[str] | Mapping[str, Any]) -> Segmenter:
    """Start an FCN or a SegNet from a classifier's weights, as their papers do: VGG16, or CaffeNet for FCN-AlexNet. Returns `model`.

    All of the classifier's layers but the last are copied; linear layers become convolutions. WeightsError if it does not fit.
    """
    if not hasattr(model, "load_trunk"):
        raise WeightsError(f"{type(model).__name__} has no trunk that a classifier's weights could start; FCN and SegNet have")
    classifier = load_classifier(source)
    try:
        model.load_trunk(classifier)
    except ValueError as error:
        where = "the mapping" if isinstance(source, Mapping) else str(source)
        theirs = f"weights of {type(classifier).__name__} with width={classifier.state_dict()['features.0.weight'].shape[0]}"
        raise WeightsError(f"{where} cannot be the trunk of {type(model).__name__}: {error}; it holds {theirs}") from error
    return model


def _some(items: tuple[str, ...] | list[str], most: int = 4) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
