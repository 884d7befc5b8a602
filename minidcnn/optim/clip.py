"""Clipping gradients, and asking whether they are finite."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..backend import Array, Kernels, kernels_of
from ..tensor import Tensor
from .checks import iterated


def _tensors(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """The parameters in a list. TypeError unless they are tensors."""
    tensors = [parameters] if isinstance(parameters, Tensor) else iterated("parameters", parameters)
    for i, p in enumerate(tensors):
        if not isinstance(p, Tensor):
            raise TypeError(f"parameter {i} must be a Tensor, got {type(p).__name__}")
    return tensors


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [p.grad for p in _tensors(parameters) if p.grad is not None]


def _together(tensors: Iterable[Tensor]) -> dict[Kernels, list[Tensor]]:
    """Tensors by the kernels that work on them: each backend is asked once."""
    together: dict[Kernels, list[Tensor]] = {}
    for t in tensors:
        together.setdefault(kernels_of(t._array), []).append(t)
    return together


def scale_all(gradients: Iterable[Tensor], factor: float, look: bool = False) -> list[Any]:
    """Tensors times `factor`, in place, all of a backend at once. For each backend, with `look`, whether all were finite before: nobody has waited for it."""
    together = _together(gradients)
    results = [kernels.scale_all([g._array for g in some], float(factor), look) for kernels, some in together.items()]
    for some in together.values():
        for g in some:
            g.changed()
    return results


def grad_norm(parameters: Tensor | Iterable[Tensor], norm_type: float = 2.0) -> float:
    """The norm of all gradients taken as one vector, summed in float64; NaN or infinite if one of them is. 0 without gradients.

    ValueError for a norm_type that is not above 0.
    """
    total = power_sum(parameters, norm_type)
    if total is None:
        return 0.0
    return float(total) if norm_type == math.inf else float(total) ** (1 / norm_type)


def power_sum(parameters: Tensor | Iterable[Tensor], norm_type: float = 2.0) -> Array | None:
    """The same to the power `norm_type` (inf: as it is), as an array without axes that stays where the gradients are; None without any.

    Two launches on a GPU for all gradients of one dtype, and nothing is waited for. If they live on several backends, the sum is made on NumPy.
    ValueError for a norm_type that is not above 0.
    """
    if not norm_type > 0:
        raise ValueError(f"grad_norm: norm_type must be above 0 (inf for the largest element), got {norm_type}")
    together = _together(_gradients(parameters))
    parts = [kernels.power_sum([g._array for g in some], float(norm_type)) for kernels, some in together.items()]
    if len(parts) <= 1:
        return parts[0] if parts else None
    values = np.array([float(part) for part in parts])
    return np.asarray(values.max() if norm_type == math.inf else values.sum())


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> float:
    """Scale all gradients together, in place, so that their norm is at most `max_norm`. Returns the norm before.

    As torch.nn.utils.clip_grad_norm_: they are scaled by min(1, max_norm / (norm + 1e-6)). A norm that is not finite raises RuntimeError
    with `error_if_nonfinite`, and otherwise spoils them all, as in PyTorch: look at what is returned. ValueError for a negative max_norm and for a
    norm_type that is not above 0.
    """
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm_: max_norm must not be negative, got {max_norm}")
    parameters = _tensors(parameters)
    norm = grad_norm(parameters, norm_type)
    if error_if_nonfinite and not math.isfinite(norm):
        raise RuntimeError(f"clip_grad_norm_: the gradients' norm is {norm}; lower the learning rate, or look for NaN in the data")
    scale_grads_(parameters, max_norm, norm)
    return norm


def scale_grads_(parameters: Tensor | Iterable[Tensor], max_norm: float, norm: float) -> None:
    """The second half of clip_grad_norm_, for who has the norm already: asking a GPU for it twice would mean to wait twice."""
    scale = max_norm / (norm + 1e-6)
    if not scale >= 1:
        scale_all(_gradients(parameters), scale)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit every element of the gradients to [-clip_value, clip_value], in place. ValueError for a negative clip_value."""
    if not clip_value >= 0:
        raise ValueError(f"clip_grad_value_: clip_value must not be negative, got {clip_value}")
    for g in _gradients(parameters):
        kernels_of(g._array).xp.clip(g._array, -clip_value, clip_value, out=g._array)
        g.changed()


def grads_finite(parameters: Tensor | Iterable[Tensor]) -> bool:
    """Whether no gradient holds NaN or an infinity. TypeError unless `parameters` are tensors."""
    together = _together(_gradients(parameters))
    return all(bool(kernels.all_finite([g._array for g in some])) for kernels, some in together.items())
