"""summary: what a network is made of, layer by layer in the order in which they run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from ..autograd import Node, listening
from ..backend import kernels, random_state, set_random_state, use_kernels
from ..recording import enable_grad
from ..tensor import Tensor
from ..window import integer, integers, listed
from ..words import size
from .module import Module, evaluating
from .receptive import Field, Fields
from .shapes import ShapeKernels


@dataclass(frozen=True)
class Row:
    """One layer, each time it runs. `parameters` are its own, counted at its first run; `field` is None where nothing of the image arrives."""

    name: str
    type: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    field: Field | None
    output_bytes: int


@dataclass(frozen=True)
class Summary:
    """A table of the layers (print it), and the totals.

    `multiply_adds` are those of the direct algorithm for convolutions and matrix products; other layers count as 0. `output_bytes` is
    the sum of all layers' outputs, `backward_bytes` what a backward pass needs of them, both for the input given.
    """

    name: str
    input_shapes: tuple[tuple[int, ...], ...]
    rows: tuple[Row, ...]
    parameters: int
    trainable: int
    parameter_bytes: int
    multiply_adds: int
    output_bytes: int
    backward_bytes: int

    def __str__(self) -> str:
        head = ("Layer", "Type", "Output", "Parameters", "Multiply-adds", "Sees", "Jump")
        lines = [head, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        table = [
            "  ".join(c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))) for line in lines
        ]
        rule = "-" * max(map(len, table))
        shapes = ", ".join(_shape(s) for s in self.input_shapes)
        totals = (
            f"parameters {self.parameters:,} ({self.trainable:,} trainable, {size(self.parameter_bytes)}), multiply-adds "
            f"{_count(self.multiply_adds)}, outputs {size(self.output_bytes)}, kept for backward {size(self.backward_bytes)}"
        )
        return "\n".join(line.rstrip() for line in (f"{self.name} on {shapes}", rule, table[0], rule, *table[1:], rule, totals))


def summary(module: Module, input_size: Sequence[int] | Sequence[Sequence[int]]) -> Summary:
    """Run `module` once on inputs of `input_size`, (N, C, H, W) or several of them, and describe each layer that ran.

    Only shapes are computed, so that a network of any size takes milliseconds and no memory; the module runs as in eval(), and neither
    it nor the random numbers are changed. Whatever a wrong size makes the module raise is raised here;
    TypeError for sizes that are no integers, ValueError for negative ones.
    """
    first_size = next(iter(listed(input_size) or ()), None)
    several: Any = [input_size] if listed(first_size) is None else input_size
    sizes = [tuple(integer(n, "summary: input_size", 0) for n in integers(size, "summary: input_size")) for size in several]
    parameters = list(module.parameters())
    first = parameters[0] if parameters else None
    shaper = ShapeKernels(kernels(first.backend if first is not None else None).xp)
    inputs = [Tensor.wrap(shaper.blank(s, first.dtype if first is not None else np.float32)).requires_grad_() for s in sizes]
    recorder = _Recorder(module, shaper, inputs)
    buffers = [(m, dict(m._buffers)) for m in module.modules()]
    values = [(b, b._array.copy(), b._storage.version) for b in module.buffers()]
    state = random_state()
    try:
        with evaluating(module), enable_grad(), use_kernels(shaper), listening(recorder.fields.applied):
            result = module(*inputs)
    finally:
        for m, own in buffers:
            m._buffers.update(own)
        for buffer, array, version in values:
            if buffer._storage.version != version:  # forward changed it
                buffer._array[...] = array
                buffer._storage.version = version
        recorder.remove()
        set_random_state(state)
    return Summary(
        type(module).__name__,
        tuple(sizes),
        tuple(recorder.rows),
        sum(p.size for p in parameters),
        sum(p.size for p in parameters if p.requires_grad),
        sum(_bytes(p) for p in parameters),
        sum(row.multiply_adds for row in recorder.rows),
        sum(row.output_bytes for row in recorder.rows),
        _kept([t for t in _tensors(result) if t._node], [*parameters, *inputs]),
    )


class _Recorder:
    """Hooks on all modules: a row for each layer without children, and for a parent that has parameters or products of its own."""

    def __init__(self, root: Module, shaper: ShapeKernels, inputs: list[Tensor]) -> None:
        self.rows: list[Row] = []
        self.shaper, self.fields = shaper, Fields(inputs)
        self.names = {id(m): name or type(m).__name__ for name, m in root.named_modules()}
        self.seen: set[int] = set()
        self.open: list[int] = []  # multiply-adds when each running module began, those of its children added
        self.handles = [m.register_forward_pre_hook(self.begin) for m in root.modules()]
        self.handles += [m.register_forward_hook(self.end) for m in root.modules()]

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()

    def begin(self, module: Module, inputs: tuple[Any, ...]) -> None:
        self.open.append(self.shaper.multiply_adds)

    def end(self, module: Module, inputs: tuple[Any, ...], result: Any) -> None:
        products = self.shaper.multiply_adds - self.open.pop()
        self.open = [before + products for before in self.open]
        outputs = _tensors(result)
        own = sum(p.size for p in module.parameters(recurse=False) if id(p) not in self.seen)
        self.seen.update(id(p) for p in module.parameters(recurse=False))
        if any(True for _ in module.children()) and not own and not products:
            return
        shape = outputs[0].shape if outputs else ()
        field = self.fields.of(outputs[0]) if outputs else None
        self.rows.append(Row(self.names[id(module)], type(module).__name__, shape, own, products, field, sum(_bytes(t) for t in outputs)))


def _tensors(result: Any) -> list[Tensor]:
    """The tensors in what a module returned."""
    if isinstance(result, Tensor):
        return [result]
    values = result.values() if isinstance(result, dict) else result if isinstance(result, list | tuple) else ()
    return [t for value in values for t in _tensors(value)]


def _bytes(tensor: Tensor) -> int:
    return math.prod(tensor.shape) * int(tensor.dtype.itemsize)


def _kept(outputs: list[Tensor], besides: list[Tensor]) -> int:
    """Bytes of the arrays that the graph behind `outputs` keeps for a backward pass."""
    counted = {id(t._storage) for t in besides}
    seen: set[int] = set()
    total = 0
    stack: list[Node] = [t._node for t in outputs if t._node is not None]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        for tensor, *_ in node.saved:
            if id(tensor._storage) not in counted:
                counted.add(id(tensor._storage))
                total += _bytes(tensor)
        stack.extend(e[0] for e in node.edges if isinstance(e, tuple))
    return total


# -- printing ----------------------------------------------------------------------------------------------------------------------


def _cells(row: Row) -> tuple[str, ...]:
    sees = jump = "-"
    if row.field is not None:
        sees, jump = ("all", "-") if row.field.whole else (_pair(*row.field.size), _pair(*row.field.jump))
    return (
        row.name,
        row.type,
        _shape(row.output_shape),
        f"{row.parameters:,}" if row.parameters else "-",
        _count(row.multiply_adds) if row.multiply_adds else "-",
        sees,
        jump,
    )


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "-"


def _pair(height: Fraction | int, width: Fraction | int) -> str:
    return str(height) if height == width else f"{height} x {width}"


def _count(n: int) -> str:
    for factor, unit in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if n >= factor:
            return f"{n / factor:.2f} {unit}"
    return str(n)
