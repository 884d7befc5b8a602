"""What a network computes, as data: the steps of one run, in order, and where each of their inputs comes from.

A graph of nodes remembers only inputs with gradients, since nothing flows to the others. An export needs the others as well (constants,
the winners of a pooling), so that nodes made during a trace remember all of their inputs.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np

from ... import autograd
from ...autograd import Function, enable_grad
from ...backend import Array, Kernels, random_state, set_random_state, use_kernels
from ...functional.pool import MaxPool2d
from ...nn import Module
from ...tensor import Tensor

Shape = tuple[int, ...]


class ExportError(ValueError):
    """A network cannot be written as ONNX. The message is one sentence: what is in the way, and the way out."""


class Fixed(Exception):
    """Something depends on a size in a way that cannot be said in ONNX, or is not known: that size has to stay as it is."""


class Ref(NamedTuple):
    """Where a value comes from.

    kind, at: "input" and its number, "name" and the name of a parameter or buffer, "constant" and its number, "step" and its number, of
    whose outputs `out` is meant; "indices" and the number of a max-pooling: its winners as flat plane indices, an array of `out` axes.
    """

    kind: str
    at: Any
    out: int = 0


@dataclass(frozen=True, eq=False)
class Step:
    """One application of a function: its inputs, and shape and dtype of each output."""

    function: Function
    inputs: tuple[Ref, ...]
    outputs: tuple[tuple[Shape, Any], ...]


@dataclass(eq=False)
class Trace:
    """One run: `inputs` are the shapes and dtypes given; `results` what came out, with names where the network returned a dict."""

    inputs: list[tuple[Shape, Any]]
    named: Mapping[str, Tensor]
    steps: list[Step] = field(default_factory=list)
    constants: list[Array] = field(default_factory=list)
    results: list[tuple[str | None, Ref]] = field(default_factory=list)

    def kind(self, ref: Ref) -> tuple[Shape, Any]:
        """Shape and dtype of a value."""
        if ref.kind == "input":
            return self.inputs[int(ref.at)]
        if ref.kind == "name":
            return self.named[ref.at].shape, self.named[ref.at].dtype
        if ref.kind == "constant":
            return self.constants[ref.at].shape, self.constants[ref.at].dtype
        outputs = self.steps[int(ref.at)].outputs
        return outputs[ref.out] if ref.kind == "step" else (outputs[0][0][-ref.out :], np.dtype(np.int64))


# -- running ------------------------------------------------------------------------------------------------------------------


class _Node(autograd.Node):
    """A node that remembers all inputs and what its outputs look like."""

    __slots__ = ("inputs", "outputs")
    poolings: ClassVar[list[tuple[Array, _Node]]] = []  # winning taps, and which node found them

    def __init__(self, function: Function, inputs: Sequence[Tensor]) -> None:
        super().__init__(function, inputs)
        self.inputs: tuple[Tensor, ...] = tuple(inputs)
        self.outputs: tuple[tuple[Shape, Any], ...] = ()

    def save(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        super().save(inputs, outputs)
        self.outputs = tuple((t.shape, t.dtype) for t in outputs)
        if isinstance(self.function, MaxPool2d):
            self.poolings.append((outputs[1]._array, self))


_one_at_a_time = threading.RLock()


def trace(call: Callable[..., Any], inputs: Sequence[Tensor], named: Mapping[str, Tensor], kernels: Kernels) -> Trace:
    """The run of `call(*inputs)` on `kernels`. Parameters must require gradients: what is made of others alone counts as constant.

    ExportError if something other than tensors comes out.
    """
    followed, winners = _following(kernels)
    leaves = [t.detach() for t in inputs]
    for leaf in leaves:
        leaf.requires_grad = leaf.dtype.kind == "f"
    with _one_at_a_time:
        before, autograd.Node = autograd.Node, _Node  # type: ignore[misc]
        try:
            with enable_grad(), use_kernels(followed):
                outputs = _flat(call(*leaves))
            return _collected(outputs, leaves, named, winners)
        finally:
            autograd.Node = before  # type: ignore[misc]
            _Node.poolings.clear()


Winners: TypeAlias = dict[
    int, tuple[Array, Array]
]  # flat plane indices by the id of their array, and of those that it is a view of; and their taps


def _following(kernels: Kernels) -> tuple[Kernels, Winners]:
    """`kernels`, and what they will turn winning taps into."""
    followed, winners = copy.copy(kernels), Winners()

    def plane_indices(taps: Array, *rest: Any) -> Array:
        indices = kernels.plane_indices(taps, *rest)
        winners.update({id(array): (array, taps) for array in _owners(indices)})
        return indices

    def within(indices: Array, count: int) -> tuple[Array, Array]:
        inside, wrong = kernels.within(indices, count)
        if (taps := _taps(indices, winners)) is not None:
            winners[id(inside)] = inside, taps
        return inside, wrong

    vars(followed).update(plane_indices=plane_indices, within=within)
    return followed, winners


def _owners(array: Array) -> Iterator[Array]:
    """An array, and those that it is a view of."""
    owner: Any = array
    while hasattr(owner, "dtype"):
        yield owner
        owner = owner.base


def _taps(indices: Array, winners: Winners) -> Array | None:
    """The winning taps that an array tells the places of, if it does."""
    found = (winners[id(owner)][1] for owner in _owners(indices) if id(owner) in winners)
    return next((taps for taps in found if taps.size == indices.size), None)


def _flat(result: Any, name: str | None = None) -> list[tuple[str | None, Tensor]]:
    """The tensors of a result with their names, where they have any."""
    if isinstance(result, Tensor):
        return [(name, result)]
    if isinstance(result, Mapping):
        return [pair for key, value in result.items() for pair in _flat(value, str(key))]
    if isinstance(result, list | tuple):
        return [pair for value in result for pair in _flat(value)]
    raise ExportError(f"export_onnx: the module returned a {type(result).__name__}, and only tensors can be an ONNX model's outputs")


def _collected(outputs: list[tuple[str | None, Tensor]], leaves: list[Tensor], named: Mapping[str, Tensor], winners: Winners) -> Trace:
    """The steps behind `outputs`, in the order in which they ran."""
    makers = {id(taps): node for taps, node in _Node.poolings}

    def pooling(t: Tensor) -> _Node | None:
        """The max-pooling whose winners `t` holds, as flat plane indices."""
        return makers.get(id(_taps(t._array, winners)))

    reached: dict[int, _Node] = {}
    stack = [t for _, t in outputs]
    while stack:
        tensor = stack.pop()
        node = tensor._node if tensor._node is not None else pooling(tensor)
        if isinstance(node, _Node) and id(node) not in reached:
            reached[id(node)] = node
            stack.extend(node.inputs)
    nodes = sorted(reached.values(), key=lambda node: node.serial)
    number = {id(node): i for i, node in enumerate(nodes)}
    places = {id(t): Ref("name", name) for name, t in reversed(list(named.items()))}  # of a shared one the first name
    places |= {id(t): Ref("input", i) for i, t in enumerate(leaves)}
    result = Trace([(t.shape, t.dtype) for t in leaves], named)
    arrays: dict[int, int] = {}

    def ref(t: Tensor) -> Ref:
        if isinstance(t._node, _Node):
            return Ref("step", number[id(t._node)], t._index)
        if id(t) in places:
            return places[id(t)]
        if (found := pooling(t)) is not None:
            return Ref("indices", number[id(found)], t.ndim)
        if id(t._array) not in arrays:
            arrays[id(t._array)] = len(result.constants)
            result.constants.append(t._array)
        return Ref("constant", arrays[id(t._array)])

    result.steps += [Step(node.function, tuple(map(ref, node.inputs)), node.outputs) for node in nodes]
    result.results += [(name, ref(t)) for name, t in outputs]
    return result


@contextmanager
def as_in_inference(module: Module) -> Iterator[None]:
    """The module in eval mode with all of its parameters recorded; afterwards it is as before, and so are the random numbers."""
    modes = [(m, m.training) for m in module.modules()]
    frozen = [p for p in module.parameters() if not p.requires_grad and p.dtype.kind == "f"]
    state = random_state()
    try:
        module.eval()
        for p in frozen:
            p.requires_grad = True
        yield
    finally:
        for m, training in modes:
            m.training = training
        for p in frozen:
            p.requires_grad = False
        set_random_state(state)
