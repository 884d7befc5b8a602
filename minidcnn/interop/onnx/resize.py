"""Resizing, borders made of the image and adaptive means as ONNX nodes: each axis by itself, by the rule that made its maps (AxisMap.made)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from ...backend import AxisMap
from ...functional import resize
from ...functional.pad import Mirror
from .graph import END, Size
from .trace import Fixed
from .writer import Op, builds

Sizes = list[tuple[int, int]]  # of a map's input and output, in each trace
FINEST = 16  # a scale is a whole number of so small parts, so that float32 and integers compute with it exactly


@builds(resize.Resample, Mirror)
def resample(op: Op) -> str:
    """Each axis by itself."""
    x = op.x()
    for axis, which in ((2, "rows"), (3, "columns")):
        maps = [getattr(f, which) for f in op.functions]
        if not all(m.is_identity for m in maps):
            x = _along(op, x, axis, maps)
    return x


def _along(op: Op, x: str, axis: int, maps: list[AxisMap]) -> str:
    """One axis by the rule of its maps; where that has no form, but they are all the same one, as positions or as a matrix."""
    g, first, sizes = op.graph, maps[0], [(m.size, m.outputs) for m in maps]
    if all(m.made == first.made for m in maps) and first.made and first.made[0] in WAYS:
        kind, *rest = first.made
        if (way := WAYS[kind](op, x, axis, sizes, *rest)) is not None:
            return way
    if any((m.made, m.size, m.outputs) != (first.made, *sizes[0]) or not m.made for m in maps[1:]):
        raise Fixed("what is done to images depends on their size")
    if first.weights is None and np.array_equal(first.starts, np.arange(first.outputs + 1)):
        return g.node("Gather", x, g.array(first.indices), axis=axis)
    matrix = np.zeros((first.outputs, first.size))
    np.add.at(
        matrix, (np.repeat(np.arange(first.outputs), np.diff(first.starts)), first.indices), 1.0 if first.weights is None else first.weights
    )
    return _product(op, x, axis, g.array(matrix.astype(op.dtype)))


def _product(op: Op, x: str, axis: int, matrix: str) -> str:
    """A matrix (outputs, size) along an axis."""
    g = op.graph
    return g.node("MatMul", matrix, x) if axis == 2 else g.node("MatMul", x, g.node("Transpose", matrix, perm=[1, 0]))


def _exact(scale: float | Fraction) -> Fraction | None:
    """A scale as a fraction, if it is a whole number of FINESTths."""
    return Fraction(scale) if FINEST % Fraction(scale).denominator == 0 else None


def _ratio(sizes: Sizes) -> Fraction | None:
    """By what all sizes grow, if that is the same for all and of FINEST parts."""
    ratios = {Fraction(m, n) for n, m in sizes}
    return _exact(ratios.pop()) if len(ratios) == 1 else None


def _plainest(sizes: Sizes) -> Fraction | None:
    """The plainest factor, in FINESTths at most, that makes each size of the other, rounded down."""
    least, below = max(Fraction(m, n) for n, m in sizes), min(Fraction(m + 1, n) for n, m in sizes)
    factors = (Fraction(-(-least.numerator * parts // least.denominator), parts) for parts in (1, 2, 4, 8, FINEST))
    return next((factor for factor in factors if factor < below), None)


def _wanted(op: Op, axis: int, sizes: Sizes, scale: float | None) -> Size:
    """The size of the result along an axis: a number, that of another value, or so many times this one's, rounded down."""
    try:
        if scale is None or len(set(sizes)) == 1:
            return op.size([m for _, m in sizes])
        factor = _exact(scale)
    except Fixed:
        factor = _plainest(sizes)
    if factor is None:
        raise Fixed("images are resized by a factor that has no exact form")
    return op.line(op.graph.length(op.x(), axis), factor, Fraction(0))


def _resize(op: Op, x: str, axis: int, scale: Fraction | None, size: Size, **attributes: Any) -> str:
    g = op.graph
    to = ("", g.ints(size)) if scale is None else (g.array(np.array([float(scale)], np.float32)),)
    return g.node("Resize", x, "", *to, axes=[axis], **attributes)


def _linear(op: Op, x: str, axis: int, sizes: Sizes, scale: float | None, align: bool) -> str | None:
    """Bilinear, with aligned corners or without, by a factor or to a size."""
    how = {"mode": "linear", "coordinate_transformation_mode": "align_corners" if align else "half_pixel"}
    factor = _ratio(sizes)
    if not align and scale not in (None, factor) and (factor := _exact(scale)) is None:  # the distance of the samples, whatever the sizes
        return None
    return _resize(op, x, axis, factor, _wanted(op, axis, sizes, scale) if factor is None else 0, **how)


def _nearest(op: Op, x: str, axis: int, sizes: Sizes, scale: float | None) -> str | None:
    """Each pixel so many times; or the positions as float32 computes them while the model runs, also where it rounds 1 / ratio down."""
    g, single, ratio = op.graph, op.graph.onnx.TensorProto.FLOAT, _ratio(sizes)
    if ratio is not None and ratio.denominator == 1 and scale in (None, ratio) and float(np.float32(1 / ratio)) * ratio >= 1:
        return _resize(op, x, axis, ratio, 0, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    if len(set(sizes)) == 1:
        return None
    n, m = g.length(op.x(), axis), _wanted(op, axis, sizes, scale)
    if scale is None:
        step = g.node("Div", g.node("Cast", n, to=single), g.node("Cast", g.ints(m), to=single))
    else:
        step = g.array(np.float32(1 / scale))
    places = g.node("Cast", g.node("Range", g.array(np.int64(0)), g.node("Squeeze", g.ints(m)), g.array(np.int64(1))), to=single)
    found = g.node("Cast", g.node("Floor", g.node("Mul", places, step)), to=g.onnx.TensorProto.INT64)
    return g.node("Gather", x, g.node("Min", found, g.node("Sub", n, g.ints(1))), axis=axis)


def _border(op: Op, x: str, axis: int, sizes: Sizes, mode: str, before: int, after: int) -> str | None:
    """Pixels of the image around it; where all sizes are known, positions say it as well."""
    g = op.graph
    if len(set(sizes)) == 1 or before < 0 or after < 0:
        return None
    if mode == "circular":
        ends = [g.node("Slice", x, g.ints(start), g.ints(stop), g.ints(axis)) for start, stop in ((-before, END), (0, after))]
        return g.node("Concat", *([ends[0]] if before else []), x, *([ends[1]] if after else []), axis=axis)
    pads = [0] * 8
    pads[axis], pads[axis + 4] = before, after
    return g.node("Pad", x, g.ints(*pads), mode="reflect" if mode == "reflect" else "edge")


def _mean(op: Op, x: str, axis: int, sizes: Sizes) -> str | None:
    """Means over windows that divide the image evenly: a matrix that is made for its size while the model runs."""
    g, m = op.graph, sizes[0][1]
    if len(set(sizes)) == 1 or len({m for _, m in sizes}) > 1:
        return None
    n, i = g.length(op.x(), axis), np.arange(m)[:, None]
    starts = g.node("Div", g.node("Mul", g.array(i), n), g.ints(m))
    ends = g.node("Div", g.node("Add", g.node("Mul", g.array(i + 1), n), g.ints(m - 1)), g.ints(m))
    pixels = g.node("Range", g.array(np.int64(0)), g.node("Squeeze", n), g.array(np.int64(1)))
    inside = g.node("And", g.node("GreaterOrEqual", pixels, starts), g.node("Less", pixels, ends))
    ones = g.cast(inside, op.dtype)
    return _product(op, x, axis, g.node("Div", ones, g.node("ReduceSum", ones, g.ints(1), keepdims=1)))


WAYS: dict[str, Callable[..., str | None]] = {"linear": _linear, "nearest": _nearest, "border": _border, "mean": _mean}
