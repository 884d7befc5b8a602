"""PyTorch as a peer: the same expression run with our functions and with PyTorch's, compared in values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidcnn import Tensor, functional, grad

Array = np.ndarray[Any, Any]


class _Theirs:
    """torch.nn.functional, and torch itself for what is not in it."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.torch.nn.functional if hasattr(self.torch.nn.functional, name) else self.torch, name)


def agree(
    f: Callable[..., Any], *arrays: Array, order: int = 2, rtol: float = 1e-12, atol: float = 1e-12, grad_rtol: float | None = None
) -> None:
    """f(F, *tensors) gives the same with F = minidcnn.functional and F = PyTorch: value, dtype, gradients and gradients of gradients.

    Names and signatures being PyTorch's, one expression serves both. Floating arrays require gradients. All comparisons are relative to
    the largest element. Skips where PyTorch is not installed.
    """
    torch = pytest.importorskip("torch")
    results: list[list[tuple[str, Array]]] = []
    for ours in (True, False):
        if ours:
            inputs: list[Any] = [Tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
            y: Any = f(functional, *inputs)
        else:
            inputs = [torch.tensor(a.copy()).requires_grad_(a.dtype.kind == "f") for a in arrays]
            y = f(_Theirs(torch), *inputs)
        results.append([("value", _array(y))])
        wanted = [t for t in inputs if t.requires_grad]
        if not (order and wanted and y.requires_grad):
            continue
        rng = np.random.default_rng(1)
        seed = _leaf(torch, rng.standard_normal(tuple(y.shape)).astype(_array(y).dtype), ours)
        first = _grad(torch, y, wanted, seed, ours)
        results[-1] += [(f"gradient {i}", _array(g)) for i, g in enumerate(first)]
        if order < 2:
            continue
        along = [_leaf(torch, rng.standard_normal(tuple(g.shape)).astype(_array(g).dtype), ours, requires_grad=False) for g in first]
        total = sum((g * v).sum() for g, v in zip(first, along, strict=True))
        if total.requires_grad:
            second = _grad(torch, total, [*wanted, seed], None, ours)
            results[-1] += [(f"second gradient {i}", _array(g)) for i, g in enumerate(second)]
    for (name, a), (_, b) in zip(*results, strict=True):
        assert a.shape == b.shape, f"{name}: shape {a.shape}, PyTorch has {b.shape}"
        assert a.dtype == b.dtype, f"{name}: {a.dtype}, PyTorch has {b.dtype}"
        largest = float(np.abs(b, where=np.isfinite(b), out=np.zeros(b.shape)).max(initial=0)) if b.dtype.kind == "f" else 0.0
        loose = rtol if name == "value" or grad_rtol is None else grad_rtol
        np.testing.assert_allclose(a, b, rtol=loose, atol=atol + loose * largest, err_msg=name)


def _array(t: Any) -> Array:
    return np.asarray(t.numpy() if isinstance(t, Tensor) else t.detach().numpy(force=True))


def _leaf(torch: Any, array: Array, ours: bool, requires_grad: bool = True) -> Any:
    return Tensor(array, requires_grad=requires_grad) if ours else torch.tensor(array).requires_grad_(requires_grad)


def _grad(torch: Any, y: Any, wanted: list[Any], seed: Any, ours: bool) -> tuple[Any, ...]:
    """Differentiable gradients, zeros where y does not depend on an input."""
    if ours:
        return grad(y, wanted, seed, create_graph=True, allow_unused=True)
    found = torch.autograd.grad(y, wanted, seed, create_graph=True, allow_unused=True)
    return tuple(torch.zeros_like(t) if g is None else g for g, t in zip(found, wanted, strict=True))
