"""From the steps of a trace to the nodes of an ONNX graph: what the builders of the functions share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

from ...backend import Array, to_backend
from ...functional.common import BroadcastTo
from ...nn import Module
from .graph import Graph, Size, plain
from .sizes import Program
from .trace import ExportError, Fixed, Ref, Shape

#: Writes the nodes of one step; returns the name of its first output, the only one that others read.
Builder: TypeAlias = "Callable[[Op], str]"
#: What is known of each kind of function.
BUILDERS: dict[type, Builder] = {}


def builds(*kinds: type) -> Callable[[Builder], Builder]:
    """Enter a builder for functions of these kinds."""

    def enter(builder: Builder) -> Builder:
        BUILDERS.update(dict.fromkeys(kinds, builder))
        return builder

    return enter


class Writer:
    """Writes a program into `graph`. inputs: the names of its inputs there; real: how many of its traces, the first, have real numbers."""

    def __init__(self, program: Program, graph: Graph, inputs: Sequence[str], modules: dict[str, Module], real: int) -> None:
        self.program, self.graph, self.modules, self.real = program, graph, modules, real
        self.names: dict[Ref, str] = {Ref("input", i): name for i, name in enumerate(inputs)}

    def write(self) -> list[str]:
        """All steps; the names of the results. ExportError names a function that has no builder."""
        for at, step in enumerate(self.program.main.steps):
            kind = type(step.function)
            if kind not in BUILDERS:
                raise ExportError(
                    f"export_onnx: the function {kind.__name__} ({kind.__module__}) has no form in ONNX here; compute what it is for "
                    f"outside of the exported module"
                )
            self.names[Ref("step", at)] = BUILDERS[kind](Op(self, at))
        return [self.value(ref) for _, ref in self.program.main.results]

    def value(self, ref: Ref) -> str:
        """The name of a value; parameters and constants become initializers when they are first asked for."""
        if ref not in self.names:
            if ref.kind == "name":
                self.names[ref] = self.graph.array(to_backend(self.program.main.named[ref.at]._array, "numpy"), ref.at)
            elif ref.kind == "constant":
                return self.graph.array(self.constant(ref, lambda a: a))
            elif ref.kind == "indices" and ref.out == 3:
                self.names[ref] = self.graph.node("Squeeze", self.value(ref._replace(out=4)), self.graph.ints(0))
            else:
                raise Fixed(f"the winners of {type(self.program.main.steps[ref.at].function).__name__} are not at hand")
        return self.names[ref]

    def constant(self, ref: Ref, of: Callable[[Array], Array] = plain) -> Array:
        """The numbers of a constant, once `of` has looked at them. Fixed if they depend on the size."""
        pairs = list(zip(self.program.traces, self.program.places, strict=True))[: self.real]
        arrays = [to_backend(of(trace.constants[place.get(ref, ref).at]), "numpy") for trace, place in pairs]
        if any(a.shape != arrays[0].shape or not np.array_equal(a, arrays[0], equal_nan=True) for a in arrays[1:]):
            raise Fixed("numbers that are computed from the size are stored in the model")
        return arrays[0]

    def source(self, ref: Ref) -> Ref:
        """What was broadcast to make a value, or the value itself."""
        while ref.kind == "step" and type(self.program.main.steps[ref.at].function) is BroadcastTo:
            ref = self.program.main.steps[ref.at].inputs[0]
        return ref


class Op:
    """One step while its nodes are written."""

    def __init__(self, writer: Writer, at: int) -> None:
        self.writer, self.graph, self.at = writer, writer.graph, at
        self.step = writer.program.main.steps[at]
        self.function: Any = self.step.function
        self.steps = writer.program.steps(at)
        self.functions: list[Any] = [None if step is None else step.function for step in self.steps]

    @property
    def dtype(self) -> Any:
        """Of the first output."""
        return self.step.outputs[0][1]

    def x(self, i: int = 0) -> str:
        """The name of input `i`."""
        return self.writer.value(self.step.inputs[i])

    def same(self, *names: str) -> Any:
        """Parameters of the function, which must not depend on the size."""
        for name in names:
            if any(getattr(f, name) != getattr(self.function, name) for f in self.functions if f is not None):
                raise Fixed(f"{type(self.function).__name__} has another {name} at other sizes")
        found = [getattr(self.function, name) for name in names]
        return found[0] if len(found) == 1 else found

    def shapes(self, i: int = 0) -> list[Shape]:
        """The shape of input `i` in each trace."""
        return self.writer.program.shapes(self.step.inputs[i])

    def made(self, k: int = 0) -> list[Shape]:
        """The shape of output `k` in each trace."""
        return self.writer.program.shapes(Ref("step", self.at, k))

    def lengths(self, axis: int, i: int = 0) -> tuple[int, ...]:
        """The size of input `i` along an axis in each trace."""
        return tuple(shape[axis] for shape in self.shapes(i))

    def out(self, axis: int) -> tuple[int, ...]:
        """The size of the output along an axis in each trace."""
        return tuple(shape[axis] for shape in self.made())

    def size(self, lengths: Sequence[int]) -> Size:
        """A size that is `lengths` in the traces: a number, or computed from the size of an earlier value. Fixed if it is neither."""
        if len(set(lengths)) == 1:
            return lengths[0]
        found = self.writer.program.linear(lengths, self.at)
        if found is None:
            raise Fixed(f"{type(self.function).__name__} has sizes that are at no fixed distance from those of other values")
        ref, axis, a, b = found
        return self.line(self.graph.length(self.writer.value(ref), axis), a, b)

    def line(self, size: Size, a: Fraction, b: Fraction) -> Size:
        """a size + b, rounded down; b is a whole number of a's parts."""
        result = self.graph.compute("Mul", size, a.numerator)
        result = self.graph.compute("Add", result, int(b * a.denominator))
        return self.graph.compute("Div", result, a.denominator)

    def operands(self) -> list[str]:
        """The inputs of an elementwise function, before they were broadcast, where broadcasting them at once gives the same."""
        refs, program = [self.writer.source(ref) for ref in self.step.inputs], self.writer.program
        constants = {ref: self.writer.constant(ref) for ref in refs if ref.kind == "constant"}  # Fixed if they depend on the size
        shapes = [[constants[r].shape] * len(program.traces) if r in constants else program.shapes(r) for r in refs]
        if [np.broadcast_shapes(*each) for each in zip(*shapes, strict=True)] != self.made():
            return [self.writer.value(ref) for ref in self.step.inputs]
        return [self.graph.array(constants[ref]) if ref in constants else self.writer.value(ref) for ref in refs]

    def number(self, value: float, dtype: Any = None) -> str:
        """A constant without axes, in the output's dtype unless said otherwise."""
        return self.graph.array(np.asarray(value, self.dtype if dtype is None else dtype))

    def maker(self, i: int = 0) -> list[Any]:
        """The functions that made input `i`, in each trace; none where no step did, or not always."""
        ref = self.step.inputs[i]
        steps = self.writer.program.steps(ref.at) if ref.kind == "step" else []
        return [] if None in steps else [step.function for step in steps if step is not None]
