"""What a network computes, as data: the steps of one run, in order, and where each of their inputs comes from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ... import autograd
from ...autograd import Function, enable_grad
from ...backend import Array, Kernels, random_state, set_random_state, use_kernels
from ...nn import Module
from ...nn.module import evaluating
from ...tensor import Storage, Tensor

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


def trace(call: Callable[..., Any], inputs: Sequence[Tensor], named: Mapping[str, Tensor], kernels: Kernels) -> Trace:
    """The run of `call(*inputs)` on `kernels`, as far as it matters for what comes out. ExportError if that is something else than tensors.

    Inputs and parameters require gradients meanwhile, so that `x += y` makes a new tensor instead of changing one that is known.
    """
    leaves = [Tensor.wrap(t._array.view()) for t in inputs]  # each its own array, by which it is known
    for leaf in leaves:
        leaf.requires_grad = leaf.dtype.kind == "f"
    run = _Run(leaves, named)
    with enable_grad(), use_kernels(run.following(kernels)), autograd.listening(run.applied):
        outputs = _flat(call(*leaves))
    run.trace.results = [(name, run.ref(t)) for name, t in outputs]
    return _reached(run.trace)


class _Run:
    """A trace in the making. A value is known by its array, whatever tensor holds it, unless that was changed in place since."""

    def __init__(self, leaves: Sequence[Tensor], named: Mapping[str, Tensor]) -> None:
        self.trace = Trace([(t.shape, t.dtype) for t in leaves], named)
        self.known: dict[int, tuple[Array, Storage, int, Ref]] = {}  # by the id of the array: it, its memory and the version of that
        self.winners: dict[int, tuple[Array | None, Any]] = {}  # flat plane indices by the id of their memory's owner, and whose they are
        for name, t in reversed(list(named.items())):  # of a shared one the first name
            self.enter(t, Ref("name", name))
        for i, t in enumerate(leaves):
            self.enter(t, Ref("input", i))

    def enter(self, t: Tensor, ref: Ref) -> Ref:
        """A value is known from here on."""
        self.known[id(t._array)] = t._array, t._storage, t._storage.version, ref
        return ref

    def ref(self, t: Tensor) -> Ref:
        """Where a value comes from. What nobody has made becomes a constant."""
        array = t._array
        if (found := self.known.get(id(array))) is not None and found[1].version == found[2]:
            return found[3]
        indices, at = self.winners.get(id(autograd.owner_of(array)), (None, None))
        if indices is not None and indices.size == array.size:  # without the axis of the batch
            return Ref("indices", at, array.ndim)
        self.trace.constants.append(array)
        return self.enter(t, Ref("constant", len(self.trace.constants) - 1))

    def applied(self, function: Function, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """A function was applied; of constants it makes constants."""
        steps, refs = self.trace.steps, tuple(map(self.ref, inputs))
        if any(ref.kind != "constant" for ref in refs):
            for k, t in enumerate(outputs):
                self.enter(t, Ref("step", len(steps), k))
            steps.append(Step(function, refs, tuple((t.shape, t.dtype) for t in outputs)))

    def following(self, kernels: Kernels) -> Kernels:
        """`kernels`, of which it is seen what they turn the winners of a max-pooling into: that is no function."""
        followed = copy.copy(kernels)

        def plane_indices(taps: Array, *rest: Any) -> Array:
            indices = kernels.plane_indices(taps, *rest)
            if (ref := self.ref(Tensor.wrap(taps))).kind == "step":
                self.winners[id(autograd.owner_of(indices))] = indices, ref.at
                self.enter(Tensor.wrap(indices), Ref("indices", ref.at, indices.ndim))
            return indices

        def within(indices: Array, count: int) -> tuple[Array, Array]:
            inside, wrong = kernels.within(indices, count)
            self.enter(Tensor.wrap(inside), self.ref(Tensor.wrap(indices)))
            return inside, wrong

        vars(followed).update(plane_indices=plane_indices, within=within)
        return followed


def _reached(trace: Trace) -> Trace:
    """Without the steps that nothing of the results depends on."""

    def made(refs: Iterable[Ref]) -> set[Any]:
        return {ref.at for ref in refs if ref.kind in ("step", "indices")}

    needed = made(ref for _, ref in trace.results)
    for i in reversed(range(len(trace.steps))):
        needed |= made(trace.steps[i].inputs) if i in needed else set()
    number = {at: i for i, at in enumerate(sorted(needed))}

    def renumbered(ref: Ref) -> Ref:
        return ref._replace(at=number[ref.at]) if ref.kind in ("step", "indices") else ref

    steps = [replace(step, inputs=tuple(map(renumbered, step.inputs))) for i, step in enumerate(trace.steps) if i in needed]
    return replace(trace, steps=steps, results=[(name, renumbered(ref)) for name, ref in trace.results])


def _flat(result: Any, name: str | None = None) -> list[tuple[str | None, Tensor]]:
    """The tensors of a result with their names, where they have any."""
    if isinstance(result, Tensor):
        return [(name, result)]
    if isinstance(result, Mapping):
        return [pair for key, value in result.items() for pair in _flat(value, str(key))]
    if isinstance(result, list | tuple):
        return [pair for value in result for pair in _flat(value)]
    raise ExportError(f"export_onnx: the module returned a {type(result).__name__}, and only tensors can be an ONNX model's outputs")


@contextmanager
def as_in_inference(module: Module) -> Iterator[None]:
    """The module in eval mode with all of its parameters trained; afterwards it is as before, and so are the random numbers."""
    frozen = [p for p in module.parameters() if not p.requires_grad and p.dtype.kind == "f"]
    state = random_state()
    try:
        for p in frozen:
            p.requires_grad = True
        with evaluating(module):
            yield
    finally:
        for p in frozen:
            p.requires_grad = False
        set_random_state(state)
