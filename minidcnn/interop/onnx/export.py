"""Networks as ONNX files, for programs that know nothing of minidcnn (onnxruntime, OpenVINO, TensorRT, browsers).

    export_onnx(model, (1, 3, 256, 256), "model.onnx")

A module is run, and each function that it applied becomes a node or a few; nothing is said about networks or layers here. What the file
holds is ONNX's opset 18; it passes the checks of the package onnx, which must be installed: pip install "minidcnn[onnx]".
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...nn import Module
from ...tensor import Tensor
from .build import SYMBOLS, Exported, build


def export_onnx(
    model: Module,
    example: Any,
    path: str | os.PathLike[str],
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic: Sequence[str] = SYMBOLS,
    metadata: Mapping[str, Any] | None = None,
) -> Exported:
    """Write `model`, as it computes in eval mode, to an ONNX file. Returns what the file takes and gives; print it.

    example: what the model is called with: a Tensor or an array, a shape such as (1, 3, 256, 256), or a list of several of these. Other
        sizes are tried from its own upwards.
    input_names, output_names: "input" and "output" unless said otherwise, numbered where there are several; of a returned dict, its keys.
    dynamic: which sizes may be left open: "batch", the first axis of (N, C, H, W) and (N, F), and "height" and "width" of images, (C, H, W)
        too. Those that the model does not take otherwise, or that ONNX cannot follow, stay as in `example`; the result says which are
        open. () fixes all.
    metadata: what else to keep in the file, as strings.

    Parameters become initializers with their names in the state dict. Dtypes are kept; where float32 weights meet float16 images, they
    are rounded in the model, too. The file is replaced only when all is done. ExportError, a ValueError, if the model applies a function
    that has no form in ONNX, decides by values of the input (comparisons and argmax are not recorded), or is larger than 2 GiB;
    ValueError for other names in `dynamic`, and for names that are not as many as the inputs or outputs; TypeError for what is no Module or no
    example; ImportError without the package onnx. Whatever a wrong example makes the model raise is raised here. Other threads must not compute with
    minidcnn meanwhile: the kernels that compute shapes only are chosen for all of them.
    """
    if not isinstance(model, Module):
        raise TypeError(f"export_onnx: model must be a Module, got {type(model).__name__}; export_checkpoint takes a checkpoint")
    if wrong := [name for name in dynamic if name not in SYMBOLS]:
        raise ValueError(f"export_onnx: dynamic may name {', '.join(SYMBOLS)}, got {wrong[0]!r}")
    examples = _examples(model, example)
    names = _named("input", input_names, [None] * len(examples))
    done = build(model, examples, lambda graph: names, dynamic=dynamic)
    outputs = _named("output", output_names, [name for name, _ in done.program.main.results])
    about = {key: str(value) for key, value in (metadata or {}).items()}
    return done.save(path, names, done.results, outputs, about, f"{type(model).__name__}, exported by minidcnn")


def _examples(model: Module, example: Any) -> list[Tensor]:
    """The inputs as tensors, where the model lives."""
    weights = [p for p in model.parameters() if p.dtype.kind == "f"]
    dtype, backend = (weights[0].dtype, weights[0].backend) if weights else (np.dtype(np.float32), None)

    def one(value: Any) -> Tensor:
        if _is_shape(value):
            value = np.random.default_rng(0).standard_normal(value).astype(dtype)
        if isinstance(value, Tensor):
            return value
        if not hasattr(value, "dtype"):
            raise TypeError(
                f"export_onnx: example must be a Tensor, an array, a shape in a tuple, or a list of these, got {type(value).__name__}"
            )
        return Tensor(value) if backend is None else Tensor(value).to(backend)

    return [one(value) for value in example] if isinstance(example, list | tuple) and not _is_shape(example) else [one(example)]


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(n, int | np.integer) for n in value)


def _named(what: str, given: Sequence[str] | None, own: Sequence[str | None]) -> list[str]:
    """Names of inputs or outputs."""
    if given is not None:
        if len(given) != len(own) or len({*given} - {""}) != len(own):
            raise ValueError(f"export_onnx: {what}_names must be {len(own)} different names, got {list(given)}")
        return list(given)
    return [name or (what if len(own) == 1 else f"{what}_{i}") for i, name in enumerate(own)]
