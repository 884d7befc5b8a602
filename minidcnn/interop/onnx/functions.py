"""Functions that compute, of any arrays, as ONNX nodes: arithmetic, activations, reductions, products, normalisation."""

from __future__ import annotations

import math

import numpy as np

from ...backend import HALF, sum_dtype, to_backend
from ...functional import activation, common, elementwise, linalg, norm, reduce
from ...functional.shape import Permute
from .graph import plain
from .trace import Fixed, Ref
from .writer import Op, builds

# -- elementwise --------------------------------------------------------------------------------------------------------------

_SAME = {
    elementwise.Add: "Add",
    elementwise.Sub: "Sub",
    elementwise.Mul: "Mul",
    elementwise.PowerOf: "Pow",
    elementwise.Maximum: "Max",
    elementwise.Minimum: "Min",
    elementwise.Where: "Where",
    elementwise.Exp: "Exp",
    elementwise.Log: "Log",
    elementwise.Sqrt: "Sqrt",
    elementwise.Abs: "Abs",
    activation.ReLU: "Relu",
    activation.Sigmoid: "Sigmoid",
    activation.Tanh: "Tanh",
}


@builds(*_SAME)
def same(op: Op) -> str:
    return op.graph.node(_SAME[type(op.function)], *op.operands())


@builds(elementwise.Div, elementwise.Scale)
def divide(op: Op) -> str:
    """A sum over so many elements as it is divided by is a mean."""
    g, sums = op.graph, op.maker()
    if sums and all(type(f) is reduce.Sum and f.axes == sums[0].axes for f in sums) and sums[0].axes:
        counts = [math.prod(f.source[i] for i in f.axes) for f in sums]
        if counts == _divisors(op):
            source = op.writer.program.main.steps[op.step.inputs[0].at].inputs[0]
            return g.node("ReduceMean", op.writer.value(source), g.ints(*sums[0].axes), keepdims=int(sums[0].keepdim))
    if any(type(f) is not type(op.function) for f in op.functions):
        raise Fixed("what is divided by depends on the size")
    if isinstance(op.function, elementwise.Div):
        return g.node("Div", *op.operands())
    factor = op.same("factor")
    if factor == -1:
        return g.node("Neg", op.x())
    if op.dtype != HALF:
        return g.node("Mul", op.x(), op.number(factor))
    single = sum_dtype(HALF)  # the factor keeps its digits
    return g.cast(g.node("Mul", g.cast(op.x(), single), op.number(factor, single)), HALF)


def _divisors(op: Op) -> list[float]:
    """The number that input 0 is divided by in each trace, 0 where it is none."""
    found = []
    for step, trace in zip(op.steps, op.writer.program.traces, strict=True):
        assert step is not None
        if isinstance(step.function, elementwise.Scale):
            found.append(1 / step.function.factor if step.function.factor else 0.0)
        else:
            ref = step.inputs[1]
            array = to_backend(plain(trace.constants[ref.at]), "numpy") if ref.kind == "constant" else np.zeros(0)
            found.append(float(array.flat[0]) if array.size == 1 else 0.0)
    return found


@builds(elementwise.Power)
def power(op: Op) -> str:
    exponent = op.same("exponent")
    return op.graph.node("Mul", op.x(), op.x()) if exponent == 2 else op.graph.node("Pow", op.x(), op.number(exponent))


@builds(elementwise.Log1p)
def log1p(op: Op) -> str:
    """x log(u) / (u - 1) with u = 1 + x rounded, and x where u = 1: exact for small x.

    Goldberg, "What every computer scientist should know about floating-point arithmetic", 1991, theorem 4.
    """
    g, one, x = op.graph, op.number(1), op.x()
    u = g.node("Add", x, one)
    none = g.node("Equal", u, one)
    below = g.node("Where", none, one, g.node("Sub", u, one))
    infinite = g.node("Equal", x, op.number(math.inf))
    quotient = g.node("Div", g.node("Mul", x, g.node("Log", u)), g.node("Where", infinite, one, below))
    return g.node("Where", none, x, quotient)


@builds(elementwise.Clamp)
def clamp(op: Op) -> str:
    limits = ["" if limit is None else op.number(limit) for limit in op.same("low", "high")]
    return op.graph.node("Clip", op.x(), *limits)


@builds(activation.LeakyReLU)
def leaky_relu(op: Op) -> str:
    """LeakyRelu's slope has the digits of float32."""
    g, slope = op.graph, op.same("slope")
    if op.dtype != np.float64:
        return g.node("LeakyRelu", op.x(), alpha=slope)
    return g.node("Where", g.node("Greater", op.x(), op.number(0)), op.x(), g.node("Mul", op.x(), op.number(slope)))


@builds(activation.Softmax, activation.LogSoftmax)
def softmax(op: Op) -> str:
    return op.graph.node(type(op.function).__name__, op.x(), axis=op.same("axis"))


@builds(common.Cast)
def cast(op: Op) -> str:
    return op.graph.cast(op.x(), op.same("dtype"))


@builds(common.Move)
def move(op: Op) -> str:
    return op.x()


# -- reductions ---------------------------------------------------------------------------------------------------------------


@builds(reduce.Sum)
def total(op: Op) -> str:
    axes, keep = op.same("axes", "keepdim")
    return op.graph.node("ReduceSum", op.x(), op.graph.ints(*axes), keepdims=int(keep)) if axes else op.x()


@builds(reduce.Extremum)
def extremum(op: Op) -> str:
    axes, largest = op.same("axes", "largest")
    return op.graph.node("ReduceMax" if largest else "ReduceMin", op.x(), op.graph.ints(*axes), keepdims=1) if axes else op.x()


@builds(reduce.LogSumExp)
def logsumexp(op: Op) -> str:
    axes = op.same("axes")
    return op.graph.node("ReduceLogSumExp", op.x(), op.graph.ints(*axes), keepdims=1) if axes else op.x()


# -- products -----------------------------------------------------------------------------------------------------------------


@builds(linalg.MatMul)
def matmul(op: Op) -> str:
    """Of x (N, I) with a transposed matrix (O, I), a linear layer: Gemm, which takes the weight as it is stored."""
    if len(op.shapes()[0]) == 2 and op.maker(1)[:1] == [Permute((1, 0))]:
        weight = op.writer.program.main.steps[op.step.inputs[1].at].inputs[0]
        return op.graph.node("Gemm", op.x(), op.writer.value(weight), transB=1)
    return op.graph.node("MatMul", op.x(), op.x(1))


# -- normalisation ------------------------------------------------------------------------------------------------------------


@builds(norm.Normalize)
def normalize(op: Op) -> str:
    """Batch norm by running statistics, under their own names where they are those beside the weight."""
    g, (mean, rstd) = op.graph, (to_backend(a, "numpy") for a in (op.function.mean, op.function.rstd))
    weight = op.step.inputs[1]
    if weight.kind == "name":
        path, named = str(weight.at).removesuffix("weight"), op.writer.program.main.named
        refs = [Ref("name", f"{path}running_{name}") for name in ("mean", "var")]
        eps = getattr(op.writer.modules.get(path[:-1]), "eps", 0.0)
        if all(ref.at in named for ref in refs):
            running = [named[ref.at].numpy().astype("float64") for ref in refs]
            if np.array_equal(running[0], mean) and np.array_equal(1 / np.sqrt(running[1] + eps), rstd):
                return g.node("BatchNormalization", op.x(), op.x(1), op.x(2), *map(op.writer.value, refs), epsilon=eps)
    kind = op.writer.program.main.kind(weight)[1]
    statistics = (g.array(mean.astype(kind)), g.array((rstd**-2).astype(kind)))
    return g.node("BatchNormalization", op.x(), op.x(1), op.x(2), *statistics, epsilon=0.0)


@builds(norm.BatchNorm, norm.BatchNormReLU)
def batch_norm(op: Op) -> str:
    """Batch norm by the batch's own statistics: (x - mean) / sqrt(variance + eps) weight + bias."""
    g, rank, single = op.graph, len(op.shapes()[0]), sum_dtype(op.dtype)
    axes = g.ints(0, *range(2, rank))
    x = op.graph.cast(op.x(), single) if op.dtype == HALF else op.x()
    centred = g.node("Sub", x, g.node("ReduceMean", x, axes, keepdims=1))
    variance = g.node("ReduceMean", g.node("Mul", centred, centred), axes, keepdims=1)
    unit = g.node("Div", centred, g.node("Sqrt", g.node("Add", variance, op.number(op.same("eps"), single))))
    weight, bias = (g.node("Reshape", op.x(i), g.ints(-1, *(1,) * (rank - 2))) for i in (1, 2))
    y = g.node("Add", g.node("Mul", unit, weight), bias)
    y = op.graph.cast(y, HALF) if op.dtype == HALF else y
    return g.node("Relu", y) if isinstance(op.function, norm.BatchNormReLU) else y


@builds(norm.ChannelSum)
def channel_sum(op: Op) -> str:
    """The channels shifted by each distance, zeros beyond the ends, added up."""
    g, (before, after), rank = op.graph, op.same("before", "after"), len(op.shapes()[0])
    channels = op.lengths(1)[0]
    padded = g.node("Pad", op.x(), g.ints(0, before, *(0,) * (rank - 2), 0, after, *(0,) * (rank - 2)))
    shifted = [g.node("Slice", padded, g.ints(k), g.ints(k + channels), g.ints(1)) for k in range(before + after + 1)]
    return g.node("Sum", *shifted)
