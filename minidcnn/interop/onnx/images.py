"""Functions of images (N, C, H, W) as ONNX nodes: convolution, pooling and unpooling, padding."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backend import HALF, sum_dtype, to_backend
from ...functional import conv, pool
from ...functional.pad import Pad
from ...window import Window
from .graph import END, Size
from .trace import ExportError, Fixed, Ref
from .writer import Op, builds

# -- convolution --------------------------------------------------------------------------------------------------------------


def _attributes(window: Window, groups: int) -> dict[str, Any]:
    pads = (*window.padding, *window.padding)
    return {"kernel_shape": window.kernel, "strides": window.stride, "pads": pads, "dilations": window.dilation, "group": groups}


@builds(conv.Conv2d)
def conv2d(op: Op) -> str:
    window, groups = op.same("window", "groups")
    return op.graph.node("Conv", *map(op.x, range(len(op.step.inputs))), **_attributes(window, groups))


@builds(conv.ConvTranspose2d)
def conv_transpose2d(op: Op) -> str:
    window, groups = op.same("window", "groups")
    extras = {tuple(n - m for n, m in zip(f.size, window.image_size(f.out), strict=True)) for f in op.functions}
    if len(extras) > 1:
        raise Fixed("a transposed convolution has another output padding at other sizes")
    extra = extras.pop()
    if any(e >= s for e, s in zip(extra, window.stride, strict=True)):
        raise ExportError(
            f"export_onnx: output padding {extra} reaches the stride {window.stride}, which onnxruntime refuses; use less and F.pad"
        )
    inputs = map(op.x, range(len(op.step.inputs)))
    return op.graph.node("ConvTranspose", *inputs, **_attributes(window, groups), **({"output_padding": extra} if any(extra) else {}))


# -- pooling ------------------------------------------------------------------------------------------------------------------


def _roomy(op: Op, value: float, x: str | None = None) -> str:
    """The input padded so far that no window hangs over: with ceil_mode by a stride more, but not so far that one would begin behind the image."""
    window = op.same("window")
    ends = [
        min(p + s - 1, span - 1) if window.ceil_mode else p for p, s, span in zip(window.padding, window.stride, window.span, strict=True)
    ]
    pads = op.graph.ints(0, 0, *window.padding, 0, 0, *ends)
    return op.graph.node("Pad", op.x() if x is None else x, pads, op.number(value))


@builds(pool.MaxPool2d)
def max_pool2d(op: Op) -> str:
    """Maxima, and where they are in the plane: ONNX counts them through the whole array."""
    g, window = op.graph, op.same("window")
    attributes = {"kernel_shape": window.kernel, "strides": window.stride, "dilations": window.dilation}
    height, width = g.length(op.x(), 2), g.length(op.x(), 3)
    if _directly(window):
        pads = (*window.padding, *window.padding)
        y, at = g.several("MaxPool", op.x(), outputs=2, **attributes, pads=pads, ceil_mode=int(window.ceil_mode))
        plane = g.node("Mod", at, g.once("Mul", height, width))
    else:
        x = _roomy(op, -np.inf)
        y, at = g.several("MaxPool", x, outputs=2, **attributes)
        wide = g.length(x, 3)
        plane = g.node("Mod", at, g.once("Mul", g.length(x, 2), wide))
        rows = g.node("Sub", g.node("Div", plane, wide), g.ints(window.padding[0]))
        columns = g.node("Sub", g.node("Mod", plane, wide), g.ints(window.padding[1]))
        plane = g.node("Add", g.node("Mul", rows, width), columns)
    op.writer.names[Ref("indices", op.at, 4)] = plane
    return y


def _directly(window: Window) -> bool:
    """Whether onnxruntime takes the window as it is: with less padding than taps, and with ceil_mode none that begins behind the image."""
    if any(p >= k for p, k in zip(window.padding, window.kernel, strict=True)):
        return False
    return not window.ceil_mode or all(span >= s + p for span, s, p in zip(window.span, window.stride, window.padding, strict=True))


@builds(pool.Scatter)
def scatter(op: Op) -> str:
    """Max unpooling: added at plane indices into zeros (N, C, H W)."""
    g, single = op.graph, sum_dtype(op.dtype)
    height, width = op.size(op.out(2)), op.size(op.out(3))
    narrow = op.dtype == HALF
    y = g.cast(op.x(), single) if narrow else op.x()
    flat = g.ints(0, 0, -1)
    lead = g.length(op.x(), 0, 2)
    zeros = g.node(
        "ConstantOfShape",
        g.once("Concat", lead, g.ints(g.compute("Mul", height, width)), axis=0),
        value=g.onnx.numpy_helper.from_array(np.zeros(1, single)),
    )
    placed = g.node("ScatterElements", zeros, g.node("Reshape", op.x(1), flat), g.node("Reshape", y, flat), axis=2, reduction="add")
    image = g.node("Reshape", placed, g.ints(0, 0, height, width))
    return g.cast(image, op.dtype) if narrow else image


@builds(pool.AvgPool2d)
def avg_pool2d(op: Op) -> str:
    """Means where all windows have as many pixels; else divided by the same mean of ones, or times what is known for one size."""
    g, window = op.graph, op.same("window")
    weights = [to_backend(f.weight, "numpy") for f in op.functions]
    factors = [weight * window.taps for weight in weights]
    # onnxruntime takes padding into the pooling behind it, where it has to count as it did
    attributes = {"kernel_shape": window.kernel, "strides": window.stride, "count_include_pad": 1}
    if window.ceil_mode:
        y = g.node("AveragePool", _roomy(op, 0), **attributes)
    else:
        y = g.node("AveragePool", op.x(), **attributes, pads=(*window.padding, *window.padding))
    low, high = min(f.min() for f in factors), max(f.max() for f in factors)
    if low == high:
        return y if np.isclose(low, 1, rtol=1e-6) else g.node("Mul", y, op.number(low))
    if all(np.array_equal(f, factors[0]) for f in factors):
        return g.node("Mul", y, g.array(factors[0].astype(op.dtype)))
    for f, weight in zip(op.functions, weights, strict=True):  # padding does not count: all means of ones are 1
        if not np.allclose(pool.AvgPool2d(window, weight, f.size).forward(np.ones((1, 1, *f.size))), 1):
            raise Fixed("an average pooling with ceil_mode counts padding, whose share at the border is known for the size given only")
    ones = g.node("Expand", op.number(1), g.ints(1, 1, g.length(op.x(), 2), g.length(op.x(), 3)))
    return g.node("Div", y, g.node("AveragePool", _roomy(op, 0, ones), **attributes))


# -- padding ------------------------------------------------------------------------------------------------------------------


@builds(Pad)
def padding(op: Op) -> str:
    """Crops first, where widths are negative. A width that depends on the size fills up to the size of another value."""
    g, x, rank = op.graph, op.x(), len(op.shapes()[0])
    if any(f.value != op.function.value for f in op.functions if f is not None):
        raise Fixed("what is padded with depends on the size")
    widths = [((0, 0),) * rank if f is None else f.widths for f in op.functions]
    befores: list[Size] = []
    afters: list[Size] = []
    for axis in range(rank):
        before, after = ({w[axis][k] for w in widths} for k in (0, 1))
        if len(before) > 1:
            raise Fixed("a padding before the image depends on its size")
        befores.append(before.pop())
        if len(after) == 1:
            afters.append(after.pop())
        else:
            more = g.compute("Sub", op.size(op.out(axis)), g.length(op.x(), axis))
            afters.append(g.compute("Sub", more, befores[-1]))
        cut = [n if isinstance(n, int) and n < 0 else 0 for n in (befores[-1], afters[-1])]
        if any(cut):
            x = g.node("Slice", x, g.ints(-cut[0]), g.ints(cut[1] or END), g.ints(axis))
            befores[-1], afters[-1] = (0 if c else n for c, n in zip(cut, (befores[-1], afters[-1]), strict=True))
    return g.node("Pad", x, g.ints(*befores, *afters), op.number(op.function.value))
