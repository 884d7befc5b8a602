"""Functions that rearrange as ONNX nodes: shapes, axes, joins, and indexing in all the ways that ONNX has."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backend import to_backend
from ...functional import common, shape
from .graph import END, Size
from .trace import ExportError, Fixed
from .writer import Op, builds


@builds(common.BroadcastTo)
def broadcast_to(op: Op) -> str:
    sizes = [op.size(op.out(axis)) for axis in range(len(op.made()[0]))]
    return op.graph.node("Expand", op.x(), op.graph.ints(*sizes))


@builds(shape.Reshape)
def reshape(op: Op) -> str:
    """Sizes that stay at their place are copied (0), and one that depends on the others is left to be found (-1)."""
    sizes: list[Size] = []
    for axis in range(len(op.made()[0])):
        wanted = op.out(axis)
        if len(set(wanted)) == 1 and wanted[0]:
            sizes.append(wanted[0])
        elif axis < len(op.shapes()[0]) and wanted == op.lengths(axis):
            sizes.append(0)
        elif -1 not in sizes and len(set(wanted)) > 1:
            sizes.append(-1)
        else:
            sizes.append(op.size(wanted))
    return op.graph.node("Reshape", op.x(), op.graph.ints(*sizes))


@builds(shape.Permute)
def permute(op: Op) -> str:
    return op.graph.node("Transpose", op.x(), perm=list(op.same("dims")))


@builds(shape.Cat)
def cat(op: Op) -> str:
    return op.graph.node("Concat", *map(op.x, range(len(op.step.inputs))), axis=op.same("dim"))


@builds(shape.Channels)
def channels(op: Op) -> str:
    g, (start, stop) = op.graph, op.same("start", "stop")
    return g.node("Slice", op.x(), g.ints(start), g.ints(stop), g.ints(1))


@builds(shape.Index)
def index(op: Op) -> str:
    """Slices first, then one array of positions, then axes away (numbers) and new ones (None)."""
    g, x, rank = op.graph, op.x(), len(op.shapes()[0])
    parts = [[slice(None)] * rank if f is None else _parts(f) for f in op.functions]
    if any(isinstance(part, _Several) for each in parts for part in each):
        raise ExportError("export_onnx: indexing with several arrays at once, or with a mask of several axes, has no form in ONNX here")
    if any(f is None for f in op.functions) and any(not isinstance(part, slice) for part in parts[0]):
        raise Fixed("an index is used at some sizes only")
    axis, where = 0, None
    cut: list[tuple[int, Size, Size, int]] = []
    gone: list[int] = []
    new: list[int] = []
    for k, part in enumerate(parts[0]):
        if part is None:
            new.append(k - len(gone))
        elif isinstance(part, np.ndarray):
            if any(not np.array_equal(np.asarray(each[k]), part) for each in parts):
                raise Fixed("an index holds other positions at other sizes")
            where, axis = (axis, part), axis + 1
        else:
            spans = [_span(each[k], n) for each, n in zip(parts, op.lengths(axis), strict=True)]
            if any((start, stop, step) != (0, n, 1) for (start, stop, step), n in zip(spans, op.lengths(axis), strict=True)):
                cut.append((axis, *_ends(op, axis, spans)))
            gone += [axis] if not isinstance(part, slice) else []
            axis += 1
    if cut:
        axes, starts, stops, steps = zip(*cut, strict=True)
        x = g.node("Slice", x, g.ints(*starts), g.ints(*stops), g.ints(*axes), g.ints(*steps))
    if where is not None:
        if gone or new or where[1].ndim != 1:
            raise ExportError(
                "export_onnx: an array as an index has a form in ONNX here only if it has one axis and no numbers or None beside it"
            )
        x = g.node("Gather", x, g.array(where[1]), axis=where[0])
    x = g.node("Squeeze", x, g.ints(*gone)) if gone else x
    return g.node("Unsqueeze", x, g.ints(*new)) if new else x


class _Several:
    """More than one array in an index, or a mask of several axes."""


def _parts(function: shape.Index) -> list[Any]:
    """An index as one part for each axis: slice, int, array of positions, _Several; and None where there is a new axis."""
    items = function.parts()
    arrays = [i for i in items if getattr(i, "ndim", 0)]
    if len(arrays) > 1 or any(a.dtype.kind == "b" and a.ndim > 1 for a in arrays) or any(isinstance(i, bool | np.bool_) for i in items):
        return [_Several()] * len(items)
    found: list[Any] = []
    for i in items:
        if getattr(i, "ndim", 0):
            positions = np.asarray(to_backend(i, "numpy"))
            found.append(np.flatnonzero(positions) if positions.dtype.kind == "b" else positions.astype(np.int64))
        else:
            found.append(i if i is None or isinstance(i, slice) else int(i))
    return found


def _span(part: Any, n: int) -> tuple[int, int, int]:
    """(start, stop, step) of a slice or a position along n elements."""
    if isinstance(part, slice):
        return part.indices(n)
    at = part + n if part < 0 else part
    return at, at + 1, 1


def _ends(op: Op, axis: int, spans: list[tuple[int, int, int]]) -> tuple[Size, Size, int]:
    """start, stop and step of a slice, counted from either end, or from the size of another value."""
    starts, stops, steps = zip(*spans, strict=True)
    lengths, step = op.lengths(axis), steps[0]
    if len(set(steps)) > 1:
        raise Fixed("a slice has another step at other sizes")

    def end(values: tuple[int, ...], last: int) -> Size:
        if all(v == n - (step < 0) for v, n in zip(values, lengths, strict=True)):
            return last
        if step < 0 and set(values) == {-1}:
            return -last
        if len(set(values)) == 1:
            return values[0]
        distances = {v - n for v, n in zip(values, lengths, strict=True)}
        return distances.pop() if len(distances) == 1 and max(distances) < 0 else op.size(values)

    return end(starts, END), end(stops, END), step
