"""Recomputation: keep a function's inputs instead of all that lies inside it, and compute it again in the backward pass.

Griewank & Walther, "Algorithm 799: revolve", 2000; Chen et al., "Training deep nets with sublinear memory cost", 2016.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from ..autograd import Function, Gradient, Node, edge_to, walk
from ..backend import random_state, set_random_state
from ..recording import enable_grad, is_grad_enabled
from ..tensor import Tensor, watch


def checkpoint(function: Callable[..., Any], *inputs: Tensor) -> Any:
    """function(*inputs), of which only the inputs are kept: the backward pass computes it again, once more for each order of derivatives.

    `function` maps Tensors to a Tensor, or to a tuple of Tensors and other things; what it needs besides (numbers, modules) it brings along:
    a module, a functools.partial, a closure. Parameters that it reads get their gradients. Gradients are the same as without, up to the order
    of sums where an input or parameter is used more than once, and else to the bit, as far as `function` does the same when it is called again
    with the same inputs: it draws the same random numbers, and what it changes in place (running statistics) is put back afterwards; but do
    not switch modules between train() and eval() before the backward pass.
    TypeError for inputs that are not Tensors, and for results in lists, dicts or nested tuples; RuntimeError if it reads a tensor with a
    history of its own that is not among its inputs, if it changes an input in place, or if it gives other shapes the second time.
    """
    for i, t in enumerate(inputs):
        if not isinstance(t, Tensor):
            raise TypeError(
                f"checkpoint: input {i} must be a Tensor, got {type(t).__name__}; bind it to the function with functools.partial"
            )
    if not is_grad_enabled():
        return function(*inputs)
    random, first, leaves = random_state(), next(Node.count), [_leaf(t) for t in inputs]
    with _watched() as changed:
        result = function(*leaves)
    results = result if isinstance(result, tuple) else (result,)
    for i, r in enumerate(results):
        if not isinstance(r, Tensor) and _holds_gradients(r):
            raise TypeError(
                f"checkpoint: result {i} is a {type(r).__name__} with tensors that require gradients; return them in one flat tuple"
            )
    if {id(t._storage) for t in changed} & {id(t._storage) for t in inputs}:
        raise RuntimeError("checkpoint: the function changes an input in place, so that it could not be computed again; change a copy")
    computed = _differentiable(results)
    if not computed:
        return result
    read = _read(computed, leaves, first)
    shapes, state = tuple(t.shape for t in computed), tuple({id(t): t for t in changed}.values())
    tensors = (*inputs, *read)
    at = tuple(i for i, r in enumerate(results) if isinstance(r, Tensor) and r.requires_grad)
    node = Node(Checkpoint(function, len(inputs), at, shapes, random, state, len(shapes)), tensors)
    node.keep(tensors)
    index = iter(range(len(shapes)))
    outputs = tuple(
        Tensor.wrap(t._array, node=node, index=next(index), storage=t._storage) if isinstance(t, Tensor) and t.requires_grad else t
        for t in results
    )
    return outputs if isinstance(result, tuple) else outputs[0]


@dataclass(frozen=True, eq=False)
class Checkpoint(Function):
    """A function of tensors: its `inputs`, and behind them the parameters that it reads. Its gradient is a checkpoint itself."""

    function: Callable[..., Any]
    inputs: int
    at: tuple[int, ...]  # which results are differentiable outputs
    shapes: tuple[tuple[int, ...], ...]  # of those
    random: dict[str, Any]  # the state of the random numbers it started from
    state: tuple[Tensor, ...]  # what it changed in place
    differentiable: int  # type: ignore[misc]  # each function has its own number of outputs

    def vjp(self, g: Any, *needed: Tensor) -> tuple[Gradient, ...]:
        grads: tuple[Tensor | None, ...] = (g,) if self.differentiable == 1 else g
        given = [i for i, slope in enumerate(grads) if slope is not None]
        inputs, read = needed[: self.inputs], needed[self.inputs :]

        def pull(*tensors: Tensor) -> tuple[Tensor | None, ...]:
            slopes, xs = tensors[: len(given)], tensors[len(given) :]
            create = is_grad_enabled()
            leaves = xs if create else tuple(map(_leaf, xs))  # recorded itself, it gets leaves
            outputs = self.again(leaves)
            wanted = [edge_to(t) for t in (*leaves, *read)]
            found, _ = walk([(outputs[i], slope) for i, slope in zip(given, slopes, strict=True)], set(wanted), create, create)
            return tuple(map(found.get, wanted))

        return checkpoint(pull, *(grads[i] for i in given), *inputs)  # type: ignore[no-any-return,arg-type]

    def again(self, leaves: tuple[Tensor, ...]) -> list[Tensor]:
        """The differentiable outputs, recorded this time."""
        with _as_before(self.random, self.state), enable_grad():
            result = self.function(*leaves)
        results = result if isinstance(result, tuple) else (result,)
        outputs = [results[i] for i in self.at if i < len(results) and isinstance(results[i], Tensor)]  # some may be frozen by now
        shapes = tuple(t.shape for t in outputs)
        if shapes != self.shapes:
            raise RuntimeError(
                f"checkpoint: the function gave outputs of shapes {self.shapes} in the forward pass and {shapes} when it was computed again; "
                f"it must do the same whenever it is called"
            )
        return outputs


def _leaf(x: Tensor) -> Tensor:
    """x without its history, but with a gradient if it has one."""
    leaf = x.detach()
    leaf.requires_grad = x.requires_grad
    return leaf


def _differentiable(results: tuple[Any, ...]) -> list[Tensor]:
    return [t for t in results if isinstance(t, Tensor) and t.requires_grad]


def _holds_gradients(result: Any) -> bool:
    """Whether there are tensors with gradients anywhere in a result."""
    if isinstance(result, Tensor):
        return result.requires_grad
    if isinstance(result, Mapping):
        return any(map(_holds_gradients, result.values()))
    if is_dataclass(result) and not isinstance(result, type):
        return any(_holds_gradients(getattr(result, field.name)) for field in fields(result))
    return isinstance(result, list | tuple | set | frozenset) and any(map(_holds_gradients, result))


def _read(outputs: list[Tensor], leaves: list[Tensor], first: int) -> list[Tensor]:
    """The parameters from which the outputs were computed, besides `leaves`, by nodes younger than `first`."""
    own = {id(t) for t in leaves}
    found: dict[int, Tensor] = {}
    seen: set[int] = set()
    stack = [edge_to(t) for t in outputs]
    while stack:
        edge = stack.pop()
        if isinstance(edge, Tensor):
            if id(edge) not in own:
                found[id(edge)] = edge
            continue
        node = edge[0]
        if node.serial < first:
            raise RuntimeError(
                f"checkpoint: the function reads a tensor that {type(node.function).__name__} computed from parameters before; pass it as an input"
            )
        if id(node) not in seen:
            seen.add(id(node))
            stack.extend(e for e in node.edges if e is not None)
    return list(found.values())


@contextlib.contextmanager
def _watched() -> Iterator[list[Tensor]]:
    """The tensors that are changed in place meanwhile; whoever watches around learns of them too."""
    before, watch.changed = watch.changed, []
    try:
        yield watch.changed
    finally:
        if before is not None:
            before.extend(watch.changed)
        watch.changed = before


@contextlib.contextmanager
def _as_before(random: dict[str, Any], state: tuple[Tensor, ...]) -> Iterator[None]:
    """Random numbers start from `random`; afterwards they go on as if nothing had been drawn, and `state` is as it was."""
    now, kept = random_state(), [(t, t._array, t._array.copy(), t._storage.version) for t in state]
    watching, watch.changed = watch.changed, None
    set_random_state(random)
    try:
        yield
    finally:
        set_random_state(now)
        watch.changed = watching
        for tensor, array, values, version in kept:
            array[...] = values
            tensor._array, tensor._storage.version = array, version
