"""Checks that a gradient is the gradient and an adjoint the adjoint, for tests and for anyone who writes a function of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .autograd import grad
from .backend import Array, is_cupy, to_backend
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
    left, right = _dot(ax, wide_y), _dot(wide_x, by)
    scale = max(_norm(ax) * _norm(wide_y), _norm(wide_x) * _norm(by))
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

    Steps are `step` times a normal number, times |x| / 1000 if that is more than 1; where they fail, a hundredth of them is tried. An f
    with corners must be as far from them. Differences of less than `rtol`, relative to the gradient's norm, and of less than about 1e-10
    of the inputs or of the values of f are not seen: give the inputs one scale, and f no large constant.

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
    inputs = [a._array if isinstance(a, Tensor) else a for a in arrays]
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
        point = _Point(f, [to_backend(a, "numpy") for a in inputs], places, [str(i) for i in range(len(inputs))], "f")
        try:
            _check(point, order, step, rtol, np.random.default_rng(seed))
        except AssertionError:
            point.demand_repeatable(_host(point.apply(point.tensors())), 8, rtol)
            raise


def _check(
    p: _Point, order: int, step: float, rtol: float, rng: np.random.Generator, expected: Array | None = None, blur: float = 0
) -> None:
    """`expected`: for a gradient, what it was without `create_graph`; `blur`: what rounding did to the differences of its slopes."""
    every = range(len(p.arrays))
    tensors = p.tensors(every)
    output = p.apply(tensors)
    out = _host(output)
    if expected is not None and not _close(out, expected, rtol, blur):
        raise AssertionError(
            f"check_grads: {p.name} with create_graph=True differs from that without, {_apart(out, expected)}; a vjp must return the same "
            f"whether it is recorded or not"
        )
    if not np.isfinite(out).all():
        at = _index(~np.isfinite(out))
        raise ValueError(f"check_grads: {p.name} is {out[at]} at index {at}; choose inputs at which it is finite")
    for name, t in zip(p.names, tensors, strict=True):
        if output._storage is not t._storage and output.backend == t.backend == "numpy" and np.may_share_memory(output._array, t._array):
            raise AssertionError(f"check_grads: {p.name} lies in the memory of input {name}; copy it, or set view = True in the Function")
    atol = rtol * step * max(1.0, *(_largest(a) for a in p.arrays))
    if expected is None:
        p.demand_repeatable(out, 1, atol)
    v = np.asarray(rng.standard_normal(out.shape))
    along = [_reach(a) * rng.standard_normal(a.shape) for a in p.arrays]
    # the other points before the backward pass: a vjp that keeps state finds that of the last one
    slopes = [p.slope(i, along[i], v, out, step, rtol) for i in every]
    still = not output.requires_grad and not any(slope for slope, _ in slopes)
    if expected is None and still and out.size and any(a.size for a in p.arrays):
        raise ValueError("check_grads: f does not depend on what it is given, so there is nothing to check; does it use its arguments?")
    p.demand_kept(p.name, output, out)
    held = p.gradients(tensors, output, v, every)
    grads = [_host(g) for g in held]
    for name, g, (slope, _) in zip(p.names, grads, slopes, strict=True):
        if not np.isfinite(g).all():
            at = _index(~np.isfinite(g))
            raise AssertionError(f"check_grads: d{p.name}/d{name} is {g[at]} at index {at}; differences give {slope!r} along a direction")
    if expected is None:
        noises = [noise for _, noise in slopes]
        p.demand_linear(out, grads, v, rtol, noises, atol)
        p.demand_alone(grads, v, rtol, noises)
    for i, (g, (slope, noise)) in enumerate(zip(grads, slopes, strict=True)):
        p.demand_kept(f"d{p.name}/d{p.names[i]}", held[i], g)
        exact = float(_dot(g, along[i]))
        size = max(abs(exact), _norm(g) * float(np.abs(along[i]).max(initial=0)))
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
            further = _Point(p.derivative(i), [*p.arrays, v], [*p.places, output.backend], [*p.names, "g"], f"(d{p.name}/d{p.names[i]})")
            _check(further, order - 1, step, 10 * rtol, rng, grads[i], slopes[i][1] + blur)


@dataclass
class _Point:
    """A function at the arrays where it is checked: on which backends they lie, and what all of it is called."""

    f: Callable[..., Tensor]
    arrays: list[Array]
    places: list[str]
    names: list[str]
    name: str

    def tensors(self, tracked: Iterable[int] = (), i: int = -1, move: Any = 0.0, otherwise: bool = False) -> list[Tensor]:
        """The inputs, of which those `tracked` require gradients, with input i moved, or with all lying `otherwise` in memory."""
        arrays = [np.asarray(a + move) if j == i else a for j, a in enumerate(self.arrays)]
        if otherwise:
            arrays = [np.array(a, order="C" if a.flags.f_contiguous else "F") for a in arrays]
        return [
            Tensor(to_backend(a, place), requires_grad=j in tracked) for j, (a, place) in enumerate(zip(arrays, self.places, strict=True))
        ]

    def apply(self, tensors: list[Tensor]) -> Tensor:
        """f of them. TypeError and ValueError unless it is one float64 Tensor."""
        output: Any = self.f(*tensors)
        if not isinstance(output, Tensor):
            way = "check one at a time: lambda x: f(x)[0]" if isinstance(output, tuple | list) else "compute it with minidcnn's functions"
            raise TypeError(f"check_grads: f must return one Tensor, got a {type(output).__name__}; {way}")
        if output.dtype != np.float64:
            raise ValueError(
                f"check_grads: {self.name} returns {output.dtype}; differences need float64 throughout, without casts and with constants "
                f"in float64"
            )
        return output

    def demand_repeatable(self, out: Array, times: int, atol: float) -> None:
        """ValueError if f is random, AssertionError if its values depend on whether a graph is recorded."""
        for _ in range(times):
            plain = _host(self.apply(self.tensors()))
            if _close(plain, out, 1e-12, atol):
                continue
            for _ in range(16):
                again = _host(self.apply(self.tensors(range(len(self.arrays)))))
                if not _close(again, out, 1e-12, atol):
                    raise ValueError(
                        f"check_grads: {self.name} has other values each time it is called, {_apart(out, again)}; let it draw no random "
                        f"numbers (eval(), or manual_seed() within f) and keep no state"
                    )
            raise AssertionError(
                f"check_grads: {self.name} has other values where gradients are recorded than where not, {_apart(out, plain)}"
            )

    def demand_kept(self, name: str, tensor: Tensor, before: Array) -> None:
        """AssertionError if a result has changed since."""
        if not np.array_equal(_host(tensor), before):
            raise AssertionError(f"check_grads: {name} lies in memory that a later call writes into; return a new array each time")

    def slope(self, i: int, along: Array, v: Array, out: Array, step: float, rtol: float) -> tuple[float, float]:
        """The central difference of <f, v> along a direction of input i, and what rounding may have done to it."""
        up, down, up2, down2 = (_host(self.apply(self.tensors((), i, h * along))) for h in (step, -step, 2 * step, -2 * step))
        for moved in (up, down, up2, down2):
            if moved.shape != out.shape:
                raise ValueError(f"check_grads: {self.name} has shape {out.shape} and, a step further, {moved.shape}; it must be the same")
        with np.errstate(all="ignore"):
            slope = float(np.vdot(v, (8 * (up - down) - (up2 - down2)) / (12 * step)))
            size = max(_norm(v * moved) for moved in (up, down, up2, down2))
            rough = _norm(v * (up2 + down2 - 4 * (up + down) + 6 * out))  # 0 but for rounding, if f is smooth; more at corners, so limited
        if not math.isfinite(slope):
            return slope, 0.0
        large = _largest(self.arrays[i])
        most = max(5e-14 * size / step, 1e-3 * rtol)
        return slope, float(min((7e-15 * size + 2e-15 * large) / step, most) + min(4 * rough / step, most * max(1, large)))

    def gradients(self, tensors: list[Tensor], output: Tensor, v: Array, tracked: Sequence[int]) -> list[Tensor]:
        """The gradients of <f, v>. AssertionError if one is not float64, or if a vjp writes into what it is given."""
        if not output.requires_grad:
            return [Tensor(np.zeros(tensors[i].shape)) for i in tracked]
        seed = Tensor.wrap(to_backend(v, output.backend))
        kept = [("g", seed, _host(seed)), ("the output", output, _host(output))]
        grads = grad(output, [tensors[i] for i in tracked], seed, allow_unused=True)
        for i, g in zip(tracked, grads, strict=True):
            if g.dtype != np.float64:
                raise AssertionError(
                    f"check_grads: {self.name} gives input {self.names[i]} a gradient of {g.shape} {g.dtype} for {g.shape} float64"
                )
        inputs = zip(self.names, tensors, self.arrays, strict=True)
        for what, t, before in (*kept, *((f"input {name}", t, a) for name, t, a in inputs)):
            if not np.array_equal(_host(t), before, equal_nan=True):
                raise AssertionError(
                    f"check_grads: {self.name} changes {what} in place, in forward or in a vjp; others may need it, so compute a new array"
                )
        return list(grads)

    def demand_linear(self, out: Array, grads: list[Array], v: Array, rtol: float, noises: list[float], atol: float) -> None:
        """AssertionError if gradients are others for -1024 g in two parts with zeros, or where g or the inputs lie otherwise in memory."""
        every = range(len(self.arrays))
        odd = np.arange(v.size).reshape(v.shape) % 2 == 1
        parts = [np.where(odd, -1024 * v, 0), np.where(odd, 0, -1024 * v)]
        trials: tuple[tuple[str, int, list[Array], bool], ...] = (
            ("when it is taken again: a vjp must keep no state and change nothing in place", 1, [v], False),
            ("times -1024 for g times -1024: a vjp must be linear in g", -1024, [-1024 * v], False),
            ("in sum for two g, each 0 where the other is not: a vjp must be linear in g", -1024, parts, False),
            ("for a g that lies otherwise in memory: read it by its strides", -1024, [_with_gaps(part) for part in parts], False),
            ("for inputs that lie otherwise in memory: read them by their strides", -1024, [_with_gaps(part) for part in parts], True),
        )

        def differing(factor: int, seeds: list[Array], otherwise: bool) -> str:
            totals = [np.zeros(g.shape) for g in grads]
            for seed in seeds:
                tensors = self.tensors(every, otherwise=otherwise)
                output = self.apply(tensors)
                if not _close(_host(output), out, 1e-12, atol):
                    return f"{self.name} is another, {_apart(_host(output), out)},"
                totals = [t + _host(g) / factor for t, g in zip(totals, self.gradients(tensors, output, seed, every), strict=True)]
            for name, g, total, noise in zip(self.names, grads, totals, noises, strict=True):
                if not _close(total, g, rtol, noise):
                    return f"d{self.name}/d{name} is another, {_apart(total, g)},"
            return ""

        if what := differing(*trials[-1][1:]):
            found = ((differing(*trial[1:]), trial[0]) for trial in trials)  # the first that differs says why
            what, reason = next((pair for pair in found if pair[0]), (what, trials[0][0]))
            raise AssertionError(f"check_grads: {what} {reason}")

    def demand_alone(self, grads: list[Array], v: Array, rtol: float, noises: list[float]) -> None:
        """AssertionError if an input has another gradient where it alone requires one."""
        for i, g in enumerate(grads if len(grads) > 1 else []):
            tensors = self.tensors((i,))
            alone = _host(self.gradients(tensors, self.apply(tensors), v, (i,))[0])
            if not _close(alone, g, rtol, noises[i]):
                raise AssertionError(
                    f"check_grads: d{self.name}/d{self.names[i]} is another where no other input requires gradients, {_apart(alone, g)}"
                )

    def derivative(self, i: int) -> Callable[..., Tensor]:
        """The gradient of input i, as a function of the inputs and of g."""

        def gradient(*t: Tensor) -> Tensor:
            for s in t:
                s.requires_grad_()
            out = self.f(*t[:-1])
            if not out.requires_grad:
                return t[i] * 0
            return grad(out, t[:-1], t[-1], create_graph=True, allow_unused=True)[i]

        return gradient

    def where(self, i: int, g: Array, along: Array, v: Array, out: Array, step: float, rtol: float) -> str:
        """Which element contributes most to a failure: halve the direction, and keep the half that fails more."""
        if g.size < 2:
            return ""

        def part(kept: Array) -> tuple[float, float]:
            direction = np.where(np.isin(np.arange(g.size), kept).reshape(g.shape), along, 0)
            return float(_dot(g, direction)), self.slope(i, direction, v, out, step, rtol)[0]

        def failure(kept: Array) -> float:
            exact, slope = part(kept)
            return abs(exact - slope) if math.isfinite(slope) else math.inf

        left = np.arange(g.size)
        while len(left) > 1:
            left = max(np.array_split(left, 2), key=failure)
        exact, slope = part(left)
        at = tuple(int(k) for k in np.unravel_index(left[0], g.shape))
        return f"; at index {at} alone {exact!r} and {slope!r}"

    def why(self, i: int, g: Array, along: Array, v: Array, out: Array, slope: float, near: float, step: float) -> str:
        """What may be the matter with f, as far as one can tell from outside: by a smaller step, and by what differs between its sides."""
        wrong = abs(_dot(g, along) - slope)
        up, down = (_host(self.apply(self.tensors((), i, h * along))) for h in (step, -step))
        if not (abs(near - slope) <= 0.1 * wrong and abs(_dot(v, up - 2 * out + down)) <= 0.1 * step * wrong):
            return (
                f". With a step of {step:.3g} they give {near!r}: f may have a corner, a jump or an end so near (move the inputs), vary "
                f"fast (pass a smaller step), or compute in less than float64 inside"
            )
        if not g.any():
            return ". Does .numpy(), .detach() or no_grad() cut it off, or a vjp return None? Use differentiable functions of Tensors only"
        return ""


def _reach(a: Array) -> Array:
    """How far to move: 1 for ordinary numbers, a thousandth of large ones, whose own rounding would else be as large as a step."""
    return np.maximum(1.0, np.abs(np.where(np.isfinite(a), a, 0)) / 1e3)


def _largest(a: Array) -> float:
    return float(np.abs(a).max(initial=0, where=np.isfinite(a)))


def _with_gaps(a: Array) -> Array:
    """The same numbers with the axes in reverse in memory, and NaN between them."""
    if not a.ndim:
        return a
    view = np.full([2 * n for n in a.shape[::-1]], np.nan).T[tuple(slice(0, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def _wide(name: str, given: Any) -> Array:
    """A copy in the widest dtype: products of whole numbers are not rounded, those of small ones do not vanish. TypeError if not real."""
    array = real_array(f"check_adjoint: {name}", given._array if isinstance(given, Tensor) else given)
    return np.array(to_backend(array, "numpy"), np.longdouble)


def _host(tensor: Tensor) -> Array:
    return np.array(to_backend(tensor._array, "numpy"))


def _dot(a: Array, b: Array) -> Any:
    return np.vdot(a.reshape(-1), b.reshape(-1))


def _norm(array: Array) -> Any:
    """The root of the sum of squares, which need not be numbers that the dtype holds."""
    top = np.abs(array).max(initial=0)
    return top * np.linalg.norm(array.reshape(-1) / top) if 0 < top < math.inf else top


def _close(a: Array, b: Array, rtol: float, atol: float = 0) -> bool:
    """Whether two finite arrays are equal up to rounding, as a whole."""
    with np.errstate(all="ignore"):
        return a.shape == b.shape and _norm(a - b) <= rtol * max(_norm(a), _norm(b)) + atol < math.inf


def _apart(a: Array, b: Array) -> str:
    """Where two arrays differ most."""
    if a.shape != b.shape:
        return f"in shape: {a.shape} and {b.shape}"
    with np.errstate(all="ignore"):
        distance = np.abs(a - b)
    at = _index(distance == distance.max()) if np.isfinite(distance).all() else _index(~np.isfinite(distance))
    return f"most at index {at}: {float(a[at])!r} and {float(b[at])!r}"


def _index(mask: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])
