"""Which sizes an exported network leaves open: it runs at many, on kernels that compute shapes only, and what stays the same is compared.

Sizes that a function was given (where to crop, how much to pad) are numbers in a trace. Over several traces they are constant, or a
fixed distance from the size of some value: then the ONNX model takes them from that value while it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from ...functional.elementwise import Div, Scale
from ...functional.pad import Pad
from ...functional.shape import Index
from .trace import Fixed, Ref, Shape, Step, Trace

#: The axes of an input that may be left open, by its number of axes.
AXES: dict[int, dict[str, int]] = {
    0: {},
    1: {},
    2: {"batch": 0},
    3: {"height": 1, "width": 2},
    4: {"batch": 0, "height": 2, "width": 3},
}
FEW = 4  # sizes at least, where they are rare
FIRST, LAST = 33, 257  # as many sizes in a row are tried, and so far where those that fit are rare


def enlarged(shapes: Sequence[Shape], by: Mapping[str, int]) -> list[Shape]:
    """The inputs' shapes with the axes named in `by` so much larger."""
    return [
        tuple(n + next((by[s] for s, at in axes_of(shape).items() if at == i and s in by), 0) for i, n in enumerate(shape))
        for shape in shapes
    ]


def axes_of(shape: Shape) -> dict[str, int]:
    """The axes of an input that may be left open."""
    return AXES.get(len(shape), {"batch": 0})


def steps_to_try(n: int, symbol: str) -> tuple[list[int], list[int]]:
    """By how much to enlarge an axis of n: by 1, 2, 3, ..., and to sizes that many halvings leave odd; then, where few fit, further on."""
    if symbol == "batch":
        return [1, 2, 3], []
    odd = [(-(-(n + 2) >> k) << k) - 1 - n for k in range(6, 10)]
    return [*range(1, FIRST), *odd], list(range(FIRST, LAST))


class Program:
    """A trace, and others of the same network at other sizes, each of whose values has a counterpart.

    `traces[0]` is the main one, with the most steps: where another lacks a crop or a padding, nothing was to be done at its size.
    Fixed if they differ otherwise.
    """

    def __init__(self, main: Trace, others: Sequence[Trace] = ()) -> None:
        self.main = main
        self.traces = [main, *others]
        self.places: list[dict[Ref, Ref]] = [{}]
        self.places += [_counterparts(main, other) for other in others]

    def shapes(self, ref: Ref) -> list[Shape]:
        """A value's shape in each trace."""
        return [trace.kind(place.get(ref, ref))[0] for trace, place in zip(self.traces, self.places, strict=True)]

    def lengths(self, ref: Ref, axis: int) -> tuple[int, ...]:
        """A value's size along an axis in each trace."""
        return tuple(shape[axis] for shape in self.shapes(ref))

    def steps(self, at: int) -> list[Step | None]:
        """A step in each trace; None where there was nothing to do."""
        found: list[Step | None] = []
        for trace, place in zip(self.traces, self.places, strict=True):
            there = Ref("made", at) if trace is self.main else place.get(Ref("made", at))
            found.append(None if there is None else trace.steps[there.at])
        return found

    def linear(self, lengths: Sequence[int], upto: int) -> tuple[Ref, int, Fraction, Fraction] | None:
        """(value, axis, a, b) such that `lengths` is a (its size along the axis) + b in each trace, of values before step `upto`.

        Equal sizes come first, then those at a fixed distance; inputs before all others, and later values before earlier ones.
        """
        values = [Ref("input", i) for i in range(len(self.main.inputs))]
        values += [Ref("step", i, k) for i in reversed(range(upto)) for k in range(len(self.main.steps[i].outputs))]
        found: list[tuple[bool, bool, int, tuple[Ref, int, Fraction, Fraction]]] = []
        seen: set[tuple[int, ...]] = set()
        for ref in values:
            for axis in range(len(self.main.kind(ref)[0])):
                sizes = self.lengths(ref, axis)
                if sizes in seen or len(set(sizes)) < 2:
                    continue
                seen.add(sizes)
                if (line := _line(sizes, lengths)) is not None:
                    found.append((bool(line[1]) or line[0] != 1, line[0] != 1, len(found), (ref, axis, *line)))
        return min(found)[-1] if found else None


def _line(x: Sequence[int], y: Sequence[int]) -> tuple[Fraction, Fraction] | None:
    """(a, b) with y = a x + b everywhere, a > 0."""
    other = next(i for i in range(len(x)) if x[i] != x[0])
    a = Fraction(y[other] - y[0], x[other] - x[0])
    b = y[0] - a * x[0]
    return (a, b) if a > 0 and all(a * u + b == v for u, v in zip(x, y, strict=True)) else None


def _counterparts(main: Trace, other: Trace) -> dict[Ref, Ref]:
    """What each value of `main` is in `other`."""
    place: dict[Ref, Ref] = {}

    def same(a: Ref, b: Ref) -> bool:
        if a.kind == b.kind == "constant":
            place[a] = b
            return True
        return place.get(a, a if a.kind in ("input", "name") else None) == b

    def alike(step: Step, there: Step) -> bool:
        kinds, (a, b) = {type(step.function), type(there.function)}, (step.inputs, there.inputs)
        if kinds == {Div, Scale}:  # a division by a power of two is a product: which it is depends on the size that divides a mean
            return all(len(inputs) == 1 or inputs[1].kind == "constant" for inputs in (a, b)) and same(a[0], b[0])
        return len(kinds) == 1 and len(a) == len(b) and all(map(same, a, b))

    at = 0
    for i, step in enumerate(main.steps):
        if at < len(other.steps) and alike(step, other.steps[at]):
            place[Ref("made", i)] = Ref("made", at)
            place |= {Ref("step", i, k): Ref("step", at, k) for k in range(len(step.outputs))}
            place |= {Ref("indices", i, axes): Ref("indices", at, axes) for axes in (3, 4)}
            at += 1
            continue
        if not isinstance(step.function, Pad | Index):
            raise Fixed(f"at other sizes {type(step.function).__name__} is not among what is computed")
        place[Ref("step", i)] = place.get(step.inputs[0], step.inputs[0])
    pairs = list(zip(main.results, other.results, strict=False))
    if at < len(other.steps) or len(main.results) != len(other.results) or not all(same(a, b) for (_, a), (_, b) in pairs):
        raise Fixed("at other sizes other things are computed")
    return place
