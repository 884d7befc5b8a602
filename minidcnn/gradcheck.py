"""Checks that a gradient is the gradient and an adjoint the adjoint, for tests and for anyone who writes a function of their own."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .backend import Array, is_cupy, to_backend
from .probe import Probe, apart, close, dot, host, index, largest, norm, reach
from .recording import enable_grad
from .tensor import Tensor, real_array
from .window import integer


def check_adjoint(a: Callable[[Array], Array], b: Callable[[Array], Array], x: Array, y: Array, rtol: float = 1e-12) -> None:
    """<a(x), y> = <x, b(y)>: one number decides whether the linear map `b` is the adjoint of `a`.

    `x`, `y`: arrays in the domain and the range of `a`, of any real dtype; random ones, as zeros tell nothing. Products are taken in
    float64 or wider; tolerance is relative to the norms. AssertionError with both numbers if they differ.
    """
    wide_x, wide_y = _wide("x", x), _wide("y", y)  # copies: a and b may write into what they get
    ax = _wide("a(x)", a(x))
    by = _wide("b(y)", b(y))
    if ax.shape != wide_y.shape or by.shape != wide_x.shape:
        raise AssertionError(
            f"check_adjoint: a(x) has shape {ax.shape} for y of {wide_y.shape}, b(y) has {by.shape} for x of {wide_x.shape}"
        )
    left, right = dot(ax, wide_y), dot(wide_x, by)
    scale = max(norm(ax) * norm(wide_y), norm(wide_x) * norm(by))
    if not abs(left - right) <= rtol * scale < math.inf:
        raise AssertionError(f"check_adjoint: <a(x), y> = {left!s} but <x, b(y)> = {right!s}")


def check_grads(
    f: Callable[..., Tensor],
    arrays: Sequence[Array],
    order: int = 2,
    step: float = 1e-4,
    rtol: float = 1e-6,
    seed: int = 0,
) -> None:
    """The slope of <f, v> along a random direction against a fourth-order central difference, then the same for each gradient of f.

    `f` maps Tensors to one Tensor; `arrays` are float64 inputs, of which all are checked, one at a time. With order 2 the gradient of
    <grad f, v> is checked as well, and so on: of d(df/d0)/dg, g is what the gradient df/d0 is made from, which it must be linear in.

    If `f` is a Module, its parameters that require gradients are inputs as well, called by their names, and all is computed by copies of it,
    so that its statistics stay as they are; others that require gradients, as in a closure, are a ValueError. What a function holds is not
    checked, as in `lambda x: layer(x)` the parameters.

    Steps are `step` times a normal number, times |x| / 1000 if that is more than 1; where they fail, a hundredth of them is tried. An f
    with corners must be as far from them. Errors of less than `rtol`, relative to the gradient's norm, and of less than about 1e-10 of the
    inputs or of the values of f are not seen: give the inputs one scale, and f no large constant. Of a larger one a direction
    may show little: one of k times `rtol` is missed by about one `seed` in k.

    AssertionError where a derivative is wrong, with its order, its input, both numbers and the element that contributes most. So it is
    where gradients differ with `create_graph`, with other inputs requiring one, or when taken again, and where f or a vjp writes into what
    it is given. ValueError and TypeError where nothing can be checked: arrays or an f that are not float64, an f that is random or not
    finite.
    """
    order = integer(order, "check_grads: order", 1)
    if not (0 < step < math.inf and 0 < rtol < math.inf):
        raise ValueError(f"check_grads: step and rtol must be positive numbers, got {step} and {rtol}")
    if hasattr(arrays, "dtype") or not isinstance(arrays, Iterable):
        got = f"one of shape {arrays.shape}" if hasattr(arrays, "shape") else f"a {type(arrays).__name__}"
        raise TypeError(f"check_grads: arrays must be a list with one array for each input of f, got {got}; write [x]")
    given, inputs = f, [a._array if isinstance(a, Tensor) else a for a in arrays]
    names = [str(i) for i in range(len(inputs))]
    if hasattr(f, "named_parameters"):
        parameters = {name: p for name, p in f.named_parameters() if p.requires_grad}
        for name, p in parameters.items():
            if p.dtype != np.float64:
                raise ValueError(f"check_grads: parameter {name} is {p.dtype}; differences need float64: check f.double()")
        given = _by_copies(f, len(inputs), list(parameters.values()))
        inputs += [p._array for p in parameters.values()]
        names += parameters
    if not inputs:
        raise ValueError("check_grads: arrays is empty, so nothing would be checked; give at least one")
    for i, a in enumerate(inputs):
        kind = getattr(a, "dtype", type(a).__name__)
        if kind != np.float64:
            raise ValueError(
                f"check_grads: input {i} is {kind}; differences need float64 arrays. What is not to be checked, such as labels, is no "
                f"input: lambda x: f(x, labels)"
            )
    places = ["cupy" if is_cupy(a) else "numpy" for a in inputs]
    with enable_grad():
        point = Probe(given, [to_backend(a, "numpy") for a in inputs], places, names, "f")
        try:
            _check(point, order, step, rtol, np.random.default_rng(seed))
        except AssertionError:
            point.demand_repeatable(host(point.apply(point.tensors())), 8, rtol)
            raise


def _by_copies(module: Any, inputs: int, parameters: Sequence[Tensor]) -> Callable[..., Tensor]:
    """A module as a function of its inputs and, behind them, of its parameters: a copy for each call, which has these in their place."""

    def function(*tensors: Tensor) -> Tensor:
        instead = {id(p): t for p, t in zip(parameters, tensors[inputs:], strict=True)}
        result: Tensor = copy.deepcopy(module, instead)(*tensors[:inputs])
        if getattr(result, "requires_grad", False) and not any(t.requires_grad for t in tensors):
            raise ValueError(
                "check_grads: f reads tensors that require gradients besides its own parameters, which would not be checked; a Module must "
                "hold them as attributes or in a ModuleList, and read them through self"
            )
        return result

    return function


def _check(
    p: Probe, order: int, step: float, rtol: float, rng: np.random.Generator, expected: Array | None = None, blur: float = 0
) -> None:
    """`expected`: for a gradient, what it was without `create_graph`; `blur`: what rounding did to the differences of its slopes."""
    every = range(len(p.arrays))
    tensors = p.tensors(every)
    output = p.apply(tensors)
    out = host(output)
    if expected is not None and not close(out, expected, rtol, blur):
        raise AssertionError(
            f"check_grads: {p.name} with create_graph=True differs from that without, {apart(out, expected)}; a vjp must return the same "
            f"whether it is recorded or not"
        )
    if not np.isfinite(out).all():
        at = index(~np.isfinite(out))
        raise ValueError(f"check_grads: {p.name} is {out[at]} at index {at}; choose inputs at which it is finite")
    for name, t in zip(p.names, tensors, strict=True):
        if output._storage is not t._storage and output.backend == t.backend == "numpy" and np.may_share_memory(output._array, t._array):
            raise AssertionError(f"check_grads: {p.name} lies in the memory of input {name}; copy it, or set view = True in the Function")
    atol = rtol * step * max(1.0, *(largest(a) for a in p.arrays))
    if expected is None:
        p.demand_repeatable(out, 1, atol)
    v = np.asarray(rng.standard_normal(out.shape))
    along = [reach(a) * rng.standard_normal(a.shape) for a in p.arrays]
    # the other points before the backward pass: a vjp that keeps state finds that of the last one
    slopes = [p.slope(i, along[i], v, out, step, rtol) for i in every]
    still = not output.requires_grad and not any(slope for slope, _ in slopes)
    if expected is None and still and out.size and any(a.size for a in p.arrays):
        raise ValueError("check_grads: f does not depend on what it is given, so there is nothing to check; does it use its arguments?")
    p.demand_kept(p.name, output, out)
    held = p.gradients(tensors, output, v, every)
    grads = [host(g) for g in held]
    for name, g, (slope, _) in zip(p.names, grads, slopes, strict=True):
        if not np.isfinite(g).all():
            at = index(~np.isfinite(g))
            raise AssertionError(f"check_grads: d{p.name}/d{name} is {g[at]} at index {at}; differences give {slope!r} along a direction")
    if expected is None:
        noises = [noise for _, noise in slopes]
        p.demand_linear(out, grads, v, rtol, noises, atol)
        p.demand_alone(grads, v, rtol, noises)
    for i, (g, (slope, noise)) in enumerate(zip(grads, slopes, strict=True)):
        p.demand_kept(f"d{p.name}/d{p.names[i]}", held[i], g)
        exact = float(dot(g, along[i]))
        size = max(abs(exact), norm(g * along[i]))
        if abs(slope - exact) <= rtol * size + noise + blur < math.inf:
            continue
        near, noise = p.slope(i, along[i], v, out, step / 100, rtol)  # which may be right where f has a corner near by, or varies fast
        if not abs(near - exact) <= min(rtol * size + noise + blur, abs(slope - exact) / 100) < math.inf:
            raise AssertionError(
                f"check_grads: d{p.name}/d{p.names[i]} along a direction is {exact!r}, differences give {slope!r}"
                + p.where(i, g, along[i], v, out, step, rtol)
                + p.why(i, g, along[i], v, out, slope, near, step / 100)
            )
    if order > 1:
        for i in every:
            further = Probe(p.derivative(i), [*p.arrays, v], [*p.places, output.backend], [*p.names, "g"], f"(d{p.name}/d{p.names[i]})")
            _check(further, order - 1, step, 10 * rtol, rng, grads[i], slopes[i][1] + blur)


def _wide(name: str, given: Any) -> Array:
    """A copy in the widest dtype: products of whole numbers are not rounded, those of small ones do not vanish. TypeError if not real."""
    array = real_array(f"check_adjoint: {name}", given._array if isinstance(given, Tensor) else given)
    return np.array(to_backend(array, "numpy"), np.longdouble)
