"""Building the graph of a model, with as many of its sizes open as can be."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from ...backend import is_cupy, kernels, to_backend
from ...functional.norm import BatchNorm
from ...nn import Module
from ...nn.shapes import ShapeKernels
from ...tensor import Tensor
from ..atomic import replacing
from .graph import Graph, Size, rename
from .sizes import FEW, Program, axes_of, enlarged, steps_to_try
from .trace import ExportError, Fixed, Ref, Trace, as_in_inference, trace
from .writer import Writer

SYMBOLS = ("batch", "height", "width")
__all__ = ["SYMBOLS", "Built", "Exported", "build"]


@dataclass(frozen=True)
class Exported:
    """What an ONNX file takes and gives: (name, shape, dtype) each, sizes that are open by name; `open` are their names."""

    inputs: tuple[tuple[str, tuple[Size, ...], str], ...]
    outputs: tuple[tuple[str, tuple[Size, ...], str], ...]
    open: tuple[str, ...]

    def __str__(self) -> str:
        def side(values: Sequence[tuple[str, tuple[Size, ...], str]]) -> str:
            return ", ".join(f"{name} ({', '.join(map(str, shape))}) {dtype}" for name, shape, dtype in values)

        *first, last = self.open or ("",)
        sizes = (
            f"{', '.join(first)}{' and ' if first else ''}{last} may have any size that the model takes" if last else "all sizes are fixed"
        )
        return f"{side(self.inputs)} -> {side(self.outputs)}; {sizes}"


@dataclass(frozen=True)
class Built:
    """A graph in which a program has been written: the names of its results there, and the sizes left open."""

    graph: Graph
    program: Program
    results: list[str]
    open: tuple[str, ...]

    def shape(self, ref: Ref, name: str) -> tuple[Size, ...]:
        """A value's shape: numbers, and for what is open the name of the input's size that it equals, or one of its own."""
        ours: list[Size] = []
        lengths = {
            self.program.lengths(Ref("input", i), axis): symbol
            for i, (shape, _) in enumerate(self.program.main.inputs)
            for symbol, axis in axes_of(shape).items()
        }
        for axis, n in enumerate(self.program.main.kind(ref)[0]):
            sizes = self.program.lengths(ref, axis)
            ours.append(n if len(set(sizes)) == 1 else lengths.get(sizes, f"{name}_{axis}"))
        return tuple(ours)

    def save(
        self,
        path: str | os.PathLike[str],
        inputs: Sequence[str],
        results: Sequence[str],
        names: Sequence[str],
        about: Mapping[str, str],
        doc: str,
        outputs: Sequence[tuple[tuple[Size, ...], Any]] | None = None,
    ) -> Exported:
        """Write the file: `results` under `names`. outputs: shapes and dtypes of the results, if they are not the program's."""
        main, graph = self.program.main, self.graph
        own = {name for node in graph.nodes for name in node.output}
        if taken := [name for name in (*inputs, *names) if name in own or name in graph.initializers or [*inputs, *names].count(name) > 1]:
            raise ExportError(f"export_onnx: two values would be called {taken[0]!r}; choose other input_names or output_names")
        ends = [r if r in own and r not in results[:i] else graph.node("Identity", r) for i, r in enumerate(results)]
        rename(graph.nodes, dict(zip(ends, names, strict=True)))
        given = [(name, self.shape(Ref("input", i), name), main.inputs[i][1]) for i, name in enumerate(inputs)]
        if outputs is None:
            outputs = [(self.shape(ref, name), main.kind(ref)[1]) for name, (_, ref) in zip(names, main.results, strict=True)]
        made = [(name, shape, dtype) for name, (shape, dtype) in zip(names, outputs, strict=True)]
        contents = graph.model([(n, d, s) for n, s, d in given], [(n, d, s) for n, s, d in made], about, doc)
        with replacing(path) as temporary:
            temporary.write_bytes(contents)
        sides = [tuple((name, shape, str(np.dtype(dtype))) for name, shape, dtype in side) for side in (given, made)]
        return Exported(sides[0], sides[1], self.open)


def build(
    model: Module,
    examples: Sequence[Tensor],
    begin: Callable[[Graph], Sequence[str]],
    *,
    dynamic: Sequence[str] = SYMBOLS,
    takes: Callable[[int], bool] = lambda n: True,
) -> Built:
    """The model behind what `begin` writes, which returns the names of its inputs, with as many sizes open as can be.

    takes: which heights and widths it will be given.
    """
    Graph()  # or say what is missing, before any work
    with as_in_inference(model):
        runs = _Runs(model, examples, takes)
        wanted = tuple(symbol for symbol in SYMBOLS if symbol in dynamic and runs.steps(symbol))
        try:
            return runs.attempt(wanted, begin)
        except Fixed as reason:
            if not wanted:
                raise ExportError(f"export_onnx: {reason}") from None
        best = None
        for symbol in wanted:  # one more each time, as far as it goes
            try:
                best = runs.attempt((*(best.open if best else ()), symbol), begin)
            except Fixed:
                continue
        return best or build(model, examples, begin, dynamic=())


class _Runs:
    """A model's traces at many sizes."""

    def __init__(self, model: Module, examples: Sequence[Tensor], takes: Callable[[int], bool]) -> None:
        self.model, self.examples, self.takes = model, list(examples), takes
        self.shapes = [t.shape for t in examples]
        self.named = {name: tensor for name, _, _, tensor in model.named_state()} | dict(model.named_buffers())
        self.modules = dict(model.named_modules())
        self.kernels = kernels(examples[0].backend if examples else None)
        self.found: dict[str, list[int]] = {}

    def shaped(self, by: Mapping[str, int]) -> Trace:
        """The model at larger sizes, computing nothing but sizes."""
        shaper = ShapeKernels(self.kernels.xp)
        inputs = [Tensor.wrap(shaper.blank(shape, t.dtype)) for shape, t in zip(enlarged(self.shapes, by), self.examples, strict=True)]
        return trace(self.model, inputs, self.named, shaper)

    def real(self, by: Mapping[str, int], seed: int = 0) -> Trace:
        """The model with numbers, at larger sizes. With seed 0 they are the example's where these have its sizes, else random ones."""
        rng, inputs = np.random.default_rng(seed), []
        for shape, t in zip(enlarged(self.shapes, by), self.examples, strict=True):
            if seed == 0 and shape == t.shape:
                inputs.append(t)
            else:
                values = rng.standard_normal(shape) if t.dtype.kind == "f" else rng.integers(0, int(t._array.max(initial=0)) + 1, shape)
                inputs.append(Tensor(values.astype(t.dtype)).to(t.backend))
        with np.errstate(all="ignore"):  # random numbers may lie where a root or a logarithm has no value
            return trace(self.model, inputs, self.named, self.kernels)

    def steps(self, symbol: str) -> list[int]:
        """By how much a size may be enlarged, the others being the example's."""
        if symbol not in self.found:
            lengths = [shape[axes[symbol]] for shape in self.shapes if symbol in (axes := axes_of(shape))]
            first, more = steps_to_try(lengths[0], symbol) if lengths else ([], [])
            self.found[symbol] = [step for step in first if self._works(symbol, lengths[0], step)]
            for step in more:
                if len(self.found[symbol]) >= FEW:
                    break
                self.found[symbol] += [step] if self._works(symbol, lengths[0], step) else []
        return self.found[symbol]

    def _works(self, symbol: str, n: int, step: int) -> bool:
        try:
            return bool((symbol == "batch" or self.takes(n + step)) and self.shaped({symbol: step}))
        except Exception:  # whatever a network says to a size that it does not take
            return False

    def attempt(self, symbols: tuple[str, ...], begin: Callable[[Graph], Sequence[str]]) -> Built:
        """The graph with these sizes open. Fixed if that cannot be."""
        steps = {symbol: self.steps(symbol) for symbol in symbols}
        sizes: list[dict[str, int]] = [{}]
        for i in range(max(map(len, steps.values()), default=0)):  # no two sizes grow alike
            pick = {s: (i * factor + factor // 2) % len(steps[s]) for s, factor in zip(symbols, (1, 5, 7), strict=False)}
            sizes.append({s: steps[s][at] for s, at in pick.items()})
        traces = [self.shaped({})]
        try:
            traces += [self.shaped(by) for by in sizes[1:]]
        except Exception as error:
            raise Fixed(str(error)) from error
        most = max(len(t.steps) for t in traces)
        main = min((k for k, t in enumerate(traces) if len(t.steps) == most), key=lambda k: sum(sizes[k].values()))
        real = [self.real(sizes[main])]
        _same_numbers(real[0], self.real(sizes[main], 1))
        if symbols:
            real.append(self.real(sizes[0 if main else 1], 2))
        program = Program(real[0], [*real[1:], *(t for k, t in enumerate(traces) if k != main)])
        graph = Graph()
        writer = Writer(program, graph, begin(graph), self.modules, len(real))
        return Built(graph, program, writer.write(), symbols)


def _same_numbers(a: Trace, b: Trace) -> None:
    """ExportError unless two runs at the same sizes, with other numbers, use the same constants: those are what the file will hold."""
    try:
        place = Program(a, [b]).places[1]
    except Fixed:
        raise ExportError(
            "export_onnx: what the model computes depends on the values of its input, and a graph of nodes has no branches"
        ) from None
    said = (
        "is computed from the input by something that is not recorded, such as a comparison, sign, argmax, .item(), a cast to integers or "
        "y += x within no_grad(); leave it out of the exported module"
    )
    for i, array in enumerate(a.constants):
        other = place.get(Ref("constant", i))
        if other is not None and not _equal(array, b.constants[other.at]):
            raise ExportError(f"export_onnx: an array of shape {array.shape} ({array.dtype}) {said}")
    for step, there in zip(a.steps, b.steps, strict=True):
        if not isinstance(step.function, BatchNorm) and not _equal(step.function, there.function):  # that by the batch is computed anew
            raise ExportError(f"export_onnx: an argument of {type(step.function).__name__} {said}")
    used = {ref for step in a.steps for ref in step.inputs} | {ref for _, ref in a.results}
    if unused := [i for i in range(len(a.inputs)) if Ref("input", i) not in used]:
        raise ExportError(
            f"export_onnx: input {unused[0]} does not reach the result, or only by something that is not recorded, such as a cast"
        )


def _equal(a: Any, b: Any) -> bool:
    """Whether two arguments of functions are the same, down to the arrays in them."""
    if a is b:
        return True
    if isinstance(a, np.ndarray) or is_cupy(a):
        return np.array_equal(to_backend(a, "numpy"), to_backend(b, "numpy"), equal_nan=a.dtype.kind == "f")
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    if is_dataclass(a):
        return type(a) is type(b) and all(_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return bool(a == b)
