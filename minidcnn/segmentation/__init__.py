"""Training, evaluating and predicting: the main job, its numbers and its pictures. Rooms open when first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import figures, metrics
    from .boundary import BoundaryF1, boundary_f1
    from .command import main
    from .config import TrainConfig
    from .evaluate import Evaluation
    from .metrics import ConfusionMatrix, constant_prediction
    from .predict import predict_mask, scores
    from .runs import RunFolder
    from .train import Trainer

_HOME = {
    "BoundaryF1": "boundary",
    "ConfusionMatrix": "metrics",
    "Evaluation": "evaluate",
    "RunFolder": "runs",
    "TrainConfig": "config",
    "Trainer": "train",
    "boundary_f1": "boundary",
    "constant_prediction": "metrics",
    "main": "command",
    "predict_mask": "predict",
    "scores": "predict",
}
_MODULES = ("figures", "metrics")

__all__ = [
    "BoundaryF1",
    "ConfusionMatrix",
    "Evaluation",
    "RunFolder",
    "TrainConfig",
    "Trainer",
    "boundary_f1",
    "constant_prediction",
    "figures",
    "main",
    "metrics",
    "predict_mask",
    "scores",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
