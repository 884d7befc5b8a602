"""Exported networks run by onnxruntime, or by onnx's own reference where that lacks a dtype, and compared with ours."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented

from minidcnn import Tensor, no_grad
from minidcnn.interop import Exported, export_onnx
from minidcnn.nn import Module

Array = np.ndarray[Any, Any]
TOLERANCE = {"float64": 1e-12, "float32": 2e-5, "float16": 4e-3}  # of the largest number of a result

onnxruntime.set_default_logger_severity(4)  # it tells of every initializer that it folds away


class Of(Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def answers(model: bytes | onnx.ModelProto, *inputs: Array) -> list[Array]:
    """What onnxruntime makes of the inputs; of float64, which many of its kernels lack, the reference of the package onnx."""
    model = onnx.load_from_string(model) if isinstance(model, bytes) else model
    feeds = dict(zip((i.name for i in model.graph.input), inputs, strict=True))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except NotImplemented:
        assert any(x.dtype == np.float64 for x in inputs)
        return list(onnx.reference.ReferenceEvaluator(model).run(None, feeds))
    return list(session.run(None, feeds))


def agree(
    module: Module | Callable[..., Any],
    *inputs: Array,
    others: Sequence[Sequence[Array]] = (),
    tolerance: float | None = None,
    **options: Any,
) -> Exported:
    """The exported module gives what the module gives: shapes, dtypes and values, for the inputs it was exported with and for `others`."""
    network = (module if isinstance(module, Module) else Of(module)).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        exported = export_onnx(network, [Tensor(x) for x in inputs], path, **options)
        model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    for arrays in (inputs, *others):
        with no_grad():
            ours = network(*(Tensor(x) for x in arrays))
        theirs = answers(model, *arrays)
        ours = list(ours.values()) if isinstance(ours, dict) else list(ours) if isinstance(ours, tuple | list) else [ours]
        assert len(ours) == len(theirs)
        for a, b in zip((t.numpy() for t in ours), theirs, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            if a.dtype.kind != "f":
                np.testing.assert_array_equal(b, a)
                continue
            limit = TOLERANCE[a.dtype.name] if tolerance is None else tolerance
            np.testing.assert_allclose(
                b, a, rtol=0, atol=limit * max(float(np.abs(a, where=np.isfinite(a), out=np.zeros_like(a)).max(initial=0)), 1e-30)
            )
    return exported
