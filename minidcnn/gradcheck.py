"""Checks that a gradient is the gradient and an adjoint the adjoint, for tests and for anyone who writes a function of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .autograd import grad
from .backend import Array, to_backend
from .tensor import Tensor


def check_adjoint(a: Callable[[Array], Array], b: Callable[[Array], Array], x: Array, y: Array, rtol: float = 1e-12) -> None:
    """<a(x), y> = <x, b(y)>: one number decides whether the linear map `b` is the adjoint of `a`.

    `x`, `y`: arrays in the domain and the range of `a`; tolerance is relative to the norms. AssertionError with both numbers if not.
    """
    ax, by = _host(a(x)), _host(b(y))
    x, y = _host(x), _host(y)
    if ax.shape != y.shape or by.shape != x.shape:
        raise AssertionError(f"check_adjoint: a(x) has shape {ax.shape} for y of {y.shape}, b(y) has {by.shape} for x of {x.shape}")
    left, right = float(np.vdot(ax, y)), float(np.vdot(x, by))
    scale = max(float(np.linalg.norm(ax) * np.linalg.norm(y)), float(np.linalg.norm(x) * np.linalg.norm(by)), 1e-300)
    if not abs(left - right) <= rtol * scale:
        raise AssertionError(f"check_adjoint: <a(x), y> = {left!r} but <x, b(y)> = {right!r}")


def check_grads(
    f: Callable[..., Tensor],
    arrays: Sequence[Array],
    order: int = 2,
    step: float = 1e-4,
    rtol: float = 1e-6,
    seed: int = 0,
) -> None:
    """The slope of <f, v> along a random direction against a fourth-order central difference, then the same for each gradient of f.

    `f` maps Tensors to one Tensor; `arrays` are float64 inputs, of which all are checked. With order 2 the gradient of <grad f, v> is
    checked as well, and so on. AssertionError names the order, the input and both numbers; ValueError for arrays that are not float64.
    """
    for i, a in enumerate(arrays):
        kind = getattr(a, "dtype", type(a).__name__)
        if kind != np.float64:
            raise ValueError(f"check_grads: input {i} is {kind}; differences need float64 arrays")
    _check(f, list(arrays), order, step, rtol, np.random.default_rng(seed), "f")


def _check(f: Callable[..., Tensor], arrays: list[Array], order: int, step: float, rtol: float, rng: Any, name: str) -> None:
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    output = f(*tensors)
    v = rng.standard_normal(output.shape)
    along = [rng.standard_normal(a.shape) for a in arrays]
    if output.requires_grad:
        grads = grad(output, tensors, to_backend(v, output.backend), allow_unused=True)
    else:
        grads = tuple(Tensor(np.zeros(a.shape)) for a in arrays)
    for i, g in enumerate(grads):
        if g.shape != arrays[i].shape or g.dtype != np.float64:
            raise AssertionError(f"check_grads: {name} gives input {i} a gradient of {g.shape} {g.dtype} for {arrays[i].shape} float64")
        values = []
        for h in (step, -step, 2 * step, -2 * step):
            moved = [Tensor(a + h * along[i] if j == i else a) for j, a in enumerate(arrays)]
            values.append(float(np.vdot(_host(f(*moved)._array), v)))
        slope = (8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * step)
        exact = float(np.vdot(_host(g._array), along[i]))
        size = float(np.linalg.norm(_host(g._array)) * np.linalg.norm(along[i]))
        noise = 1e-15 * max(map(abs, values)) / step * 50  # what rounding leaves of a difference of nearly equal numbers
        if not abs(slope - exact) <= rtol * max(abs(exact), size, 1e-3) + noise:
            raise AssertionError(f"check_grads: d{name}/d{i} along a direction is {exact!r}, differences give {slope!r}")
    if order > 1:
        for i in range(len(arrays)):

            def gradient(*t: Tensor, i: int = i) -> Tensor:
                for s in t:
                    s.requires_grad_()
                out = f(*t[:-1])
                if not out.requires_grad:
                    return Tensor(np.zeros(arrays[i].shape))
                return grad(out, t[:-1], t[-1], create_graph=True, allow_unused=True)[i]

            _check(gradient, [*arrays, v], order - 1, step, 10 * rtol, rng, f"(d{name}/d{i})")


def _host(array: Array) -> Array:
    return to_backend(array, "numpy")
