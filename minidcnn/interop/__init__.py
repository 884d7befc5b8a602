"""Files that others read and write: checkpoints, weights, exchange formats. Rooms open when first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import atomic, checkpoints, weights
    from .checkpoints import Checkpoint, CheckpointError, load_checkpoint, model_of, save_checkpoint
    from .onnx.build import Exported
    from .onnx.checkpoint import export_checkpoint
    from .onnx.export import export_onnx
    from .onnx.trace import ExportError
    from .weights import Loaded, WeightsError, load_classifier, load_trunk, load_weights, read_weights, save_weights

_HOME = {
    "Checkpoint": "checkpoints",
    "CheckpointError": "checkpoints",
    "ExportError": "onnx.trace",
    "Exported": "onnx.build",
    "export_checkpoint": "onnx.checkpoint",
    "export_onnx": "onnx.export",
    "load_checkpoint": "checkpoints",
    "model_of": "checkpoints",
    "save_checkpoint": "checkpoints",
    "Loaded": "weights",
    "WeightsError": "weights",
    "load_classifier": "weights",
    "load_trunk": "weights",
    "load_weights": "weights",
    "read_weights": "weights",
    "save_weights": "weights",
}
_MODULES = ("atomic", "checkpoints", "weights")

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "ExportError",
    "Exported",
    "Loaded",
    "WeightsError",
    "atomic",
    "checkpoints",
    "export_checkpoint",
    "export_onnx",
    "load_checkpoint",
    "load_classifier",
    "load_trunk",
    "load_weights",
    "model_of",
    "read_weights",
    "save_checkpoint",
    "save_weights",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
