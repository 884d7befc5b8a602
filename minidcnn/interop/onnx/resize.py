"""Resizing, borders made of the image and adaptive means as ONNX nodes: each axis by itself, in the way that its maps are recognised.

A function of this kind holds maps from pixels to pixels, and no word of how they were made. At several sizes they tell.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from ...backend import Array, AxisMap
from ...functional import pool, resize
from ...functional.pad import MODES, Mirror, border
from .graph import END, Size
from .trace import Fixed
from .writer import Op, builds


@builds(resize.Resample, Mirror)
def resample(op: Op) -> str:
    """Each axis by itself, in the way that its maps are recognised."""
    x = op.x()
    for axis, which in ((2, "rows"), (3, "columns")):
        maps = [getattr(f, which) for f in op.functions]
        if not all(m.is_identity for m in maps):
            x = _along(op, x, axis, maps)
    return x


def _along(op: Op, x: str, axis: int, maps: list[AxisMap]) -> str:
    """Write one axis."""
    sizes = [(m.size, m.outputs) for m in maps]
    way = next(
        (found for way in (_repeated, _interpolated, _bordered, _averaged, _nearest) if (found := way(op, x, axis, maps, sizes))), None
    )
    if way is not None:
        return way
    if any(not _equal(m, maps[0]) for m in maps):
        raise Fixed("what is done to images depends on their size")
    g = op.graph
    if maps[0].weights is None and np.array_equal(maps[0].starts, np.arange(maps[0].outputs + 1)):
        return g.node("Gather", x, g.array(maps[0].indices), axis=axis)
    return _product(op, x, axis, g.array(_dense(maps[0]).astype(op.dtype)))


def _equal(a: AxisMap, b: AxisMap) -> bool:
    """Whether two maps are the same."""
    if a is b:
        return True
    if a.size != b.size or (a.weights is None) != (b.weights is None) or not np.array_equal(a.starts, b.starts):
        return False
    if a.weights is None or b.weights is None:
        return np.array_equal(a.indices, b.indices)
    return np.array_equal(a.indices, b.indices) and np.allclose(a.weights, b.weights, rtol=1e-12, atol=1e-12)


def _all(maps: list[AxisMap], of: Any) -> bool:
    """Whether each map is the one that `of` makes for its sizes."""
    return all(_equal(m, of(m.size, m.outputs)) for m in maps)


def _dense(m: AxisMap) -> Array:
    matrix = np.zeros((m.outputs, m.size))
    np.add.at(matrix, (np.repeat(np.arange(m.outputs), np.diff(m.starts)), m.indices), 1.0 if m.weights is None else m.weights)
    return matrix


def _product(op: Op, x: str, axis: int, matrix: str) -> str:
    """A matrix (outputs, size) along an axis."""
    g = op.graph
    return g.node("MatMul", matrix, x) if axis == 2 else g.node("MatMul", x, g.node("Transpose", matrix, perm=[1, 0]))


def _repeated(op: Op, x: str, axis: int, maps: list[AxisMap], sizes: list[tuple[int, int]]) -> str | None:
    """Nearest, enlarged by a whole number: each pixel so many times."""
    factor = sizes[0][1] // sizes[0][0]
    if factor < 1 or any(m != factor * n for n, m in sizes) or not _all(maps, lambda n, m: AxisMap.gather(np.arange(m) // factor, n)):
        return None
    return _resize(op, x, axis, Fraction(factor), None, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")


def _interpolated(op: Op, x: str, axis: int, maps: list[AxisMap], sizes: list[tuple[int, int]]) -> str | None:
    """Bilinear, with aligned corners or without, by a factor or to a size."""
    factor = _factor(sizes)
    for align in (False, True):
        attributes = {"mode": "linear", "coordinate_transformation_mode": "align_corners" if align else "half_pixel"}
        if _all(maps, lambda n, m, align=align: resize.linear(n, m, None, align)):
            if factor is not None and all(m == factor * n for n, m in sizes):
                return _resize(op, x, axis, factor, None, **attributes)
            return _resize(op, x, axis, None, _wanted(op, axis, sizes), **attributes)
    if factor is not None and _all(maps, lambda n, m: resize.linear(n, m, float(factor))):  # the distance of the samples, though rounded
        return _resize(op, x, axis, factor, None, mode="linear", coordinate_transformation_mode="half_pixel")
    return None


def _wanted(op: Op, axis: int, sizes: list[tuple[int, int]]) -> Size:
    """The size of the result along an axis."""
    try:
        return op.size([m for _, m in sizes])
    except Fixed:
        if (factor := _factor(sizes)) is None:
            raise
        return op.line(op.graph.length(op.x(), axis), factor, Fraction(0))


def _factor(sizes: list[tuple[int, int]]) -> Fraction | None:
    """The plainest factor, in sixteenths at most, that makes each size of the other, rounded down."""
    least, below = max(Fraction(m, n) for n, m in sizes), min(Fraction(m + 1, n) for n, m in sizes)
    for parts in (1, 2, 4, 8, 16):
        factor = Fraction(-(-least.numerator * parts // least.denominator), parts)
        if factor < below:
            return factor
    return None


def _resize(op: Op, x: str, axis: int, factor: Fraction | None, size: Size | None, **attributes: Any) -> str:
    g = op.graph
    if factor is not None:
        return g.node("Resize", x, "", g.array(np.array([float(factor)], np.float32)), axes=[axis], **attributes)
    assert size is not None
    return g.node("Resize", x, "", "", g.ints(size), axes=[axis], **attributes)


def _bordered(op: Op, x: str, axis: int, maps: list[AxisMap], sizes: list[tuple[int, int]]) -> str | None:
    """Pixels of the image around it; where all sizes are known, positions say it as well."""
    g, more = op.graph, {m - n for n, m in sizes}
    if len(set(sizes)) == 1 or len(more) > 1 or max(more) < 0:
        return None
    total = more.pop()
    for mode in MODES[1:]:
        for before in range(total + 1):
            after = total - before
            if not _all(maps, lambda n, m, b=before, a=after, mode=mode: border(n, b, a, mode)):
                continue
            if mode == "circular":
                ends = [g.node("Slice", x, g.ints(start), g.ints(stop), g.ints(axis)) for start, stop in ((-before, END), (0, after))]
                return g.node("Concat", *([ends[0]] if before else []), x, *([ends[1]] if after else []), axis=axis)
            pads = [0] * 8
            pads[axis], pads[axis + 4] = before, after
            return g.node("Pad", x, g.ints(*pads), mode="reflect" if mode == "reflect" else "edge")
    return None


def _averaged(op: Op, x: str, axis: int, maps: list[AxisMap], sizes: list[tuple[int, int]]) -> str | None:
    """Means over windows that divide the image evenly: a matrix that is made for its size while the model runs."""
    g, m = op.graph, sizes[0][1]
    if len(set(sizes)) == 1 or len({m for _, m in sizes}) > 1 or not _all(maps, pool.even_windows):
        return None
    n, i = g.length(op.x(), axis), np.arange(m)[:, None]
    starts = g.node("Div", g.node("Mul", g.array(i), n), g.ints(m))
    ends = g.node("Div", g.node("Add", g.node("Mul", g.array(i + 1), n), g.ints(m - 1)), g.ints(m))
    pixels = g.node("Range", g.array(np.int64(0)), g.node("Squeeze", n), g.array(np.int64(1)))
    inside = g.node("And", g.node("GreaterOrEqual", pixels, starts), g.node("Less", pixels, ends))
    ones = g.cast(inside, op.dtype)
    return _product(op, x, axis, g.node("Div", ones, g.node("ReduceSum", ones, g.ints(1), keepdims=1)))


def _nearest(op: Op, x: str, axis: int, maps: list[AxisMap], sizes: list[tuple[int, int]]) -> str | None:
    """Nearest of any sizes, or by a factor: the positions as float32 computes them, while the model runs."""
    g, factor, single = op.graph, _factor(sizes), op.graph.onnx.TensorProto.FLOAT
    if len(set(sizes)) == 1:
        return None
    n = g.length(op.x(), axis)
    if _all(maps, resize.nearest):
        m = _wanted(op, axis, sizes)
        step = g.node("Div", g.node("Cast", n, to=single), g.node("Cast", g.ints(m), to=single))
    elif factor is not None and _all(maps, lambda n, m: resize.nearest(n, m, float(factor))):
        m, step = _wanted(op, axis, sizes), g.array(np.float32(1 / float(factor)))
    else:
        return None
    count = g.node("Squeeze", g.ints(m))
    places = g.node("Cast", g.node("Range", g.array(np.int64(0)), count, g.array(np.int64(1))), to=single)
    found = g.node("Cast", g.node("Floor", g.node("Mul", places, step)), to=g.onnx.TensorProto.INT64)
    return g.node("Gather", x, g.node("Min", found, g.node("Sub", n, g.ints(1))), axis=axis)
