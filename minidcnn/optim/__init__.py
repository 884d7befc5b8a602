"""Optimizers, clipping, loss scaling and schedules, with torch.optim's names and formulas."""

from __future__ import annotations

from . import lr_scheduler
from .adam import Adam, AdamW
from .clip import clip_grad_norm_, clip_grad_value_, grad_norm, grads_finite, power_sum, scale_grads_
from .grad_scaler import GradScaler
from .optimizer import Optimizer
from .sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "GradScaler",
    "Optimizer",
    "clip_grad_norm_",
    "clip_grad_value_",
    "grad_norm",
    "grads_finite",
    "lr_scheduler",
    "power_sum",
    "scale_grads_",
]
