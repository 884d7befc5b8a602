"""What gradcheck asks of a function at one point: slopes, gradients, and whether these hold however they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .autograd import grad
from .backend import Array, to_backend
from .tensor import Tensor


@dataclass
class Probe:
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
            plain = host(self.apply(self.tensors()))
            if close(plain, out, 1e-12, atol):
                continue
            for _ in range(16):
                again = host(self.apply(self.tensors(range(len(self.arrays)))))
                if not close(again, out, 1e-12, atol):
                    raise ValueError(
                        f"check_grads: {self.name} has other values each time it is called, {apart(out, again)}; let it draw no random "
                        f"numbers (eval(), or manual_seed() within f) and keep no state"
                    )
            raise AssertionError(
                f"check_grads: {self.name} has other values where gradients are recorded than where not, {apart(out, plain)}"
            )

    def demand_kept(self, name: str, tensor: Tensor, before: Array) -> None:
        """AssertionError if a result has changed since."""
        if not np.array_equal(host(tensor), before):
            raise AssertionError(f"check_grads: {name} lies in memory that a later call writes into; return a new array each time")

    def slope(self, i: int, along: Array, v: Array, out: Array, step: float, rtol: float) -> tuple[float, float]:
        """The central difference of <f, v> along a direction of input i, and what rounding may have done to it."""
        up, down, up2, down2 = (host(self.apply(self.tensors((), i, h * along))) for h in (step, -step, 2 * step, -2 * step))
        for moved in (up, down, up2, down2):
            if moved.shape != out.shape:
                raise ValueError(f"check_grads: {self.name} has shape {out.shape} and, a step further, {moved.shape}; it must be the same")
        with np.errstate(all="ignore"):
            slope = float(np.vdot(v, (8 * (up - down) - (up2 - down2)) / (12 * step)))
            size = max(norm(v * moved) for moved in (up, down, up2, down2))
            rough = norm(v * (up2 + down2 - 4 * (up + down) + 6 * out))  # 0 but for rounding, if f is smooth; more at corners, so limited
        if not math.isfinite(slope):
            return slope, 0.0
        large = largest(self.arrays[i])
        most = max(5e-14 * size / step, 1e-3 * rtol)
        return slope, float(min((7e-15 * size + 2e-15 * large) / step, most) + min(4 * rough / step, most * max(1, large)))

    def gradients(self, tensors: list[Tensor], output: Tensor, v: Array, tracked: Sequence[int]) -> list[Tensor]:
        """The gradients of <f, v>. AssertionError if a vjp writes into what it is given."""
        if not output.requires_grad:
            return [Tensor(np.zeros(tensors[i].shape)) for i in tracked]
        seed = Tensor.wrap(to_backend(v, output.backend))
        kept = [("g", seed, host(seed)), ("the output", output, host(output))]
        grads = grad(output, [tensors[i] for i in tracked], seed, allow_unused=True)
        inputs = zip(self.names, tensors, self.arrays, strict=True)
        for what, t, before in (*kept, *((f"input {name}", t, a) for name, t, a in inputs)):
            if not np.array_equal(host(t), before, equal_nan=True):
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
            ("for a g that lies otherwise in memory: read it by its strides", -1024, [with_gaps(part) for part in parts], False),
            ("for inputs that lie otherwise in memory: read them by their strides", -1024, [with_gaps(part) for part in parts], True),
        )

        def differing(factor: int, seeds: list[Array], otherwise: bool) -> str:
            totals = [np.zeros(g.shape) for g in grads]
            for seed in seeds:
                tensors = self.tensors(every, otherwise=otherwise)
                output = self.apply(tensors)
                if not close(host(output), out, 1e-12, atol):
                    return f"{self.name} is another, {apart(host(output), out)},"
                totals = [t + host(g) / factor for t, g in zip(totals, self.gradients(tensors, output, seed, every), strict=True)]
            for name, g, total, noise in zip(self.names, grads, totals, noises, strict=True):
                if not close(total, g, rtol, noise):
                    return f"d{self.name}/d{name} is another, {apart(total, g)},"
            return ""

        if what := differing(*trials[-1][1:]):
            found = ((differing(*trial[1:]), trial[0]) for trial in trials)  # the first that differs says why
            what, reason = next((pair for pair in found if pair[0]), (what, trials[0][0]))
            raise AssertionError(f"check_grads: {what} {reason}")

    def demand_alone(self, grads: list[Array], v: Array, rtol: float, noises: list[float]) -> None:
        """AssertionError if an input has another gradient where it alone requires one."""
        for i, g in enumerate(grads if len(grads) > 1 else []):
            tensors = self.tensors((i,))
            alone = host(self.gradients(tensors, self.apply(tensors), v, (i,))[0])
            if not close(alone, g, rtol, noises[i]):
                raise AssertionError(
                    f"check_grads: d{self.name}/d{self.names[i]} is another where no other input requires gradients, {apart(alone, g)}"
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
            return float(dot(g, direction)), self.slope(i, direction, v, out, step, rtol)[0]

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
        wrong = abs(dot(g, along) - slope)
        up, down = (host(self.apply(self.tensors((), i, h * along))) for h in (step, -step))
        if not (abs(near - slope) <= 0.1 * wrong and abs(dot(v, up - 2 * out + down)) <= 0.1 * step * wrong):
            return (
                f". With a step of {step:.3g} they give {near!r}: f may have a corner, a jump or an end so near (move the inputs), vary "
                f"fast (pass a smaller step), or compute in less than float64 inside"
            )
        if not g.any():
            return ". Does .numpy(), .detach() or no_grad() cut it off, or a vjp return None? Use differentiable functions of Tensors only"
        return ""


def reach(a: Array) -> Array:
    """How far to move: 1 for ordinary numbers, a thousandth of large ones, whose own rounding would else be as large as a step."""
    return np.maximum(1.0, np.abs(np.where(np.isfinite(a), a, 0)) / 1e3)


def largest(a: Array) -> float:
    return float(np.abs(a).max(initial=0, where=np.isfinite(a)))


def with_gaps(a: Array) -> Array:
    """The same numbers with the axes in reverse in memory, and NaN between them."""
    if not a.ndim:
        return a
    view = np.full([2 * n for n in a.shape[::-1]], np.nan).T[tuple(slice(0, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def host(tensor: Tensor) -> Array:
    return np.array(to_backend(tensor._array, "numpy"))


def dot(a: Array, b: Array) -> Any:
    return np.vdot(a.reshape(-1), b.reshape(-1))


def norm(array: Array) -> Any:
    """The root of the sum of squares, which need not be numbers that the dtype holds."""
    top = np.abs(array).max(initial=0)
    return top * np.linalg.norm(array.reshape(-1) / top) if 0 < top < math.inf else top


def close(a: Array, b: Array, rtol: float, atol: float = 0) -> bool:
    """Whether two finite arrays are equal up to rounding, as a whole."""
    with np.errstate(all="ignore"):
        return a.shape == b.shape and norm(a - b) <= rtol * max(norm(a), norm(b)) + atol < math.inf


def apart(a: Array, b: Array) -> str:
    """Where two arrays differ most."""
    if a.shape != b.shape:
        return f"in shape: {a.shape} and {b.shape}"
    with np.errstate(all="ignore"):
        distance = np.abs(a - b)
    at = index(distance == distance.max()) if np.isfinite(distance).all() else index(~np.isfinite(distance))
    return f"most at index {at}: {float(a[at])!r} and {float(b[at])!r}"


def index(mask: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])
