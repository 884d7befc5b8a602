"""Files that others read and write: checkpoints, weights, exchange formats. Rooms open when first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import atomic, checkpoints
    from .checkpoints import Checkpoint, CheckpointError, load_checkpoint, model_of, save_checkpoint

_HOME = {
    "Checkpoint": "checkpoints",
    "CheckpointError": "checkpoints",
    "load_checkpoint": "checkpoints",
    "model_of": "checkpoints",
    "save_checkpoint": "checkpoints",
}
_MODULES = ("atomic", "checkpoints")

__all__ = ["Checkpoint", "CheckpointError", "atomic", "checkpoints", "load_checkpoint", "model_of", "save_checkpoint"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
