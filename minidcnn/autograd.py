"""Reverse-mode differentiation: functions as data, a graph walked without recursion, derivatives of any order.

A Function maps arrays forward; its vjp maps Tensors by differentiable functions, so the gradient of a gradient needs nothing new
(Griewank & Walther, "Evaluating Derivatives", 2008, chapter 3).
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, TypeAlias

from .backend import Array, kernels_of, to_backend
from .operators import writable
from .recording import Recording, is_grad_enabled
from .recording import enable_grad as enable_grad
from .recording import no_grad as no_grad
from .tensor import Tensor, not_a_tensor, real_array

Gradient: TypeAlias = "Tensor | Callable[[], Tensor] | None"  # a vjp may return functions: they run only if somebody needs the result
Edge: TypeAlias = "Tensor | tuple[Node, int]"  # to a leaf, or to an output of a node
Listener: TypeAlias = "Callable[[Function, Sequence[Tensor], Sequence[Tensor]], None]"


# -- functions and the graph ------------------------------------------------------------------------------------------------


class Function:
    """A differentiable function; subclasses are frozen dataclasses of their static parameters.

    `forward(*arrays)` returns an array, or a tuple of them. `vjp(g, *needed)` returns one gradient per input, of its shape and dtype: a
    Tensor, None, or a function that makes it. `needed` are the inputs at positions `needs_inputs`, then the outputs at `needs_outputs`:
    nothing else is kept alive. Of several outputs, those from `differentiable` on are plain results (winners, statistics); with one
    differentiable output `g` is a Tensor, with more a tuple of Tensor or None.
    """

    needs_inputs: ClassVar[tuple[int, ...]] = ()
    needs_outputs: ClassVar[tuple[int, ...]] = ()
    differentiable: ClassVar[int] = 1
    view: ClassVar[bool] = False  # the output shares the first input's memory, if the array library can make it so

    def forward(self, *inputs: Any, **_: Any) -> Any:
        """The function itself: arrays in, an array or a tuple of arrays out. Subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def vjp(self, *g_and_needed: Any, **_: Any) -> tuple[Gradient, ...]:
        """The gradient of each input from that of the output, in Tensors, by differentiable functions. Subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__} does not define vjp")

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Apply to tensors; the first output. Errors as of outputs()."""
        return self.outputs(*inputs)[0]

    def outputs(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Apply to tensors; all outputs. TypeError for an input that is no Tensor, and if forward() returns anything but arrays."""
        try:
            inside = [t._array for t in inputs]
        except AttributeError:
            raise not_a_tensor(type(self).__name__.lower(), *inputs) from None
        result = self.forward(*inside)
        arrays: tuple[Array, ...] = result if isinstance(result, tuple) else (result,)
        for a in arrays:
            if isinstance(a, Tensor) or not hasattr(a, "dtype"):
                raise TypeError(f"{type(self).__name__}.forward: return an array or a tuple of arrays, got a {type(a).__name__}")
        storage = inputs[0]._storage if self.view and owner_of(arrays[0]) is owner_of(inside[0]) else None
        if not is_grad_enabled() or True not in [t._requires_grad for t in inputs]:
            tensors = tuple([Tensor.wrap(a, None, 0, storage) for a in arrays])
        else:
            node, last = Node(self, inputs), self.differentiable
            tensors = tuple([Tensor.wrap(a, node if i < last else None, i, storage) for i, a in enumerate(arrays)])
            node.save(inputs, tensors)
        if _listener.told is not None:
            _listener.told(self, inputs, tensors)
        return tensors


class _Listener(threading.local):
    told: Listener | None = None


_listener = _Listener()


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """`listener(function, inputs, outputs)` is told of each function that this thread applies."""
    before, _listener.told = _listener.told, listener
    try:
        yield
    finally:
        _listener.told = before


class Node:
    """One application of a function: where its inputs came from and what its backward pass needs."""

    __slots__ = ("__weakref__", "depth", "edges", "freed", "function", "inputs", "saved", "serial")
    count: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self, function: Function, inputs: Sequence[Tensor]) -> None:
        # what the backward pass needs, with its version, to notice changes, and as which output, else -1; without its node: that were a cycle
        self.saved: list[tuple[Tensor, int, int]] = []
        self.function = function
        self.serial = next(Node.count)  # later nodes have larger ones
        self.depth, self.freed = 1, False
        self.edges: list[Edge | None] = []  # None: an input without gradient
        for t in inputs:
            if t._node is None:
                self.edges.append(t if t._requires_grad else None)
            else:
                self.edges.append((t._node, t._index))
                if t._node.depth >= self.depth:
                    self.depth = t._node.depth + 1
        self.inputs = [(t._array.shape, t._array.dtype) for t in inputs]  # which their gradients must have

    def save(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Keep what the function says it needs; optional inputs may be absent."""
        if self.function.needs_inputs:
            self.keep([inputs[i] for i in self.function.needs_inputs if i < len(inputs)])
        if self.function.needs_outputs:
            self.keep([outputs[i].detach() for i in self.function.needs_outputs], self.function.needs_outputs)

    def keep(self, tensors: Iterable[Tensor], outputs: Iterable[int] = itertools.repeat(-1)) -> None:
        """Keep tensors for the backward pass, whose arrays are read-only until then; `outputs`: which outputs they are, if they are."""
        for tensor, output in zip(tensors, outputs, strict=False):
            storage = tensor._storage
            storage.needed += 1
            self.saved.append((tensor, storage.version, output))

    def pull(self, grads: list[Tensor | None]) -> Sequence[Gradient]:
        """The gradients of the inputs from those of the outputs."""
        needed, last = [], self.function.differentiable
        for tensor, version, output in self.saved:
            if tensor._storage.version != version:
                raise RuntimeError(
                    f"backward: an array of shape {tensor.shape} that {type(self.function).__name__} needs was changed in place after the "
                    f"forward pass; change it after backward(), or work on a copy"
                )
            needed.append(Tensor.wrap(tensor._array, self, output, tensor._storage) if 0 <= output < last else tensor)
        return self.function.vjp(grads[0] if last == 1 else tuple(grads[:last]), *needed)

    def free(self) -> None:
        """Let go of what was kept, and of the graph behind."""
        for tensor, _, _ in self.saved:
            tensor._storage.needed -= 1
        self.saved, self.edges, self.freed = [], [], True

    def __reduce__(self) -> Any:
        raise RuntimeError(
            f"a tensor made by {type(self.function).__name__} cannot be copied or pickled with its history; detach() it before"
        )

    def __del__(self) -> None:
        for tensor, _, _ in self.saved:
            tensor._storage.needed -= 1


# -- the backward pass ----------------------------------------------------------------------------------------------------


def backward(output: Tensor, grad: Tensor | Array | float | None = None, retain_graph: bool = False, create_graph: bool = False) -> None:
    """Add the gradients of <output, grad> to `.grad` of the leaves; see Tensor.backward."""
    if not output.requires_grad:
        raise RuntimeError("backward: this tensor does not depend on anything that requires gradients (no_grad, detach, or no parameters?)")
    seed = _seed(output, grad, "backward")
    found, _ = walk([(output, seed)], None, retain_graph or create_graph, create_graph)
    taken = {id(owner_of(seed._array))}
    with Recording(create_graph):
        for leaf, g in found.items():
            before = leaf._grad
            if before is None:
                leaf._grad = _apart(g, taken)
            elif create_graph or before.requires_grad or before.dtype != g.dtype:
                leaf._grad = before + g
            else:
                before._array += g._array
                before.changed()


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Array | float | Sequence[Tensor | Array | float | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor, ...]:
    """Gradients of sum <outputs, grad_outputs> with respect to `inputs`, returned instead of collected in `.grad`.

    `inputs` may lie anywhere in the graph. `retain_graph` defaults to `create_graph`. An input that does not influence the outputs is a
    RuntimeError, or with `allow_unused` gets zeros. ValueError for another number of grad_outputs or for other shapes, TypeError for what is no
    Tensor.
    """
    outs, ins = _tensors("output", outputs), _tensors("input", inputs)
    given: Any = grad_outputs
    seeds = [given] * len(outs) if given is None or isinstance(given, int | float) or hasattr(given, "dtype") else list(given)
    if len(seeds) != len(outs):
        raise ValueError(f"grad: {len(outs)} outputs need as many grad_outputs, got {len(seeds)}")
    for i, t in enumerate(ins):
        if not t.requires_grad:
            raise RuntimeError(f"grad: input {i} does not require gradients; make it with requires_grad=True")
    starts = [(o, _seed(o, s, "grad")) for o, s in zip(outs, seeds, strict=True) if o.requires_grad]
    found, reached = walk(starts, set(map(edge_to, ins)), create_graph if retain_graph is None else retain_graph, create_graph)
    taken = {id(owner_of(g._array)) for _, g in starts}

    def result(i: int, t: Tensor) -> Tensor:
        g = found.get(edge_to(t))
        if g is None:
            if not allow_unused and edge_to(t) not in reached:
                raise RuntimeError(f"grad: the outputs do not depend on input {i}; pass allow_unused=True to get zeros for it")
            g = Tensor.wrap(kernels_of(t._array).xp.zeros_like(t._array))
        return _apart(g, taken)

    with Recording(create_graph):
        return tuple([result(i, t) for i, t in enumerate(ins)])


def _tensors(role: str, given: Any) -> list[Tensor]:
    """One tensor or several as a list. TypeError if one of them is none."""
    tensors = [given] if hasattr(given, "dtype") or not isinstance(given, Iterable) else list(given)
    for i, t in enumerate(tensors):
        if not isinstance(t, Tensor):
            raise TypeError(f"grad: {role} {i} must be a Tensor, got {type(t).__name__}; wrap arrays as minidcnn.Tensor(array)")
    return tensors


def _apart(g: Tensor, taken: set[int]) -> Tensor:
    """A gradient whose memory is its own from here on: a copy if it is among the owners `taken`, a part of something, or a broadcast."""
    owner = owner_of(g._array)
    if id(owner) in taken or owner.size != g.size or not writable(g._array):
        g = g * 1 if g.requires_grad else Tensor.wrap(g._array.copy(order="K"))
    taken.add(id(owner_of(g._array)))
    g._owned = False
    return g


def edge_to(tensor: Tensor) -> Edge:
    """Where a gradient of `tensor` goes, by which it is also known: tensors of one output of a node have the same edge."""
    return tensor if tensor._node is None else (tensor._node, tensor._index)


def _seed(output: Tensor, grad: Tensor | Array | float | None, name: str) -> Tensor:
    """The gradient to start from, checked: shape and dtype of `output`."""
    if grad is None:
        if output.size != 1:
            raise RuntimeError(
                f"{name}: a tensor of shape {output.shape} needs a grad argument of that shape; only one element has a default"
            )
        return Tensor.wrap(kernels_of(output._array).xp.ones_like(output._array))
    tensor = grad if isinstance(grad, Tensor) else Tensor.wrap(to_backend(real_array(f"{name}: grad", grad), output.backend))
    if tensor.shape != output.shape:
        raise ValueError(f"{name}: grad has shape {tensor.shape}, the tensor has {output.shape}")
    if tensor.dtype != output.dtype:
        tensor = tensor.astype(output.dtype)
    return tensor


def walk(starts: list[tuple[Tensor, Tensor]], wanted: set[Edge] | None, retain: bool, create: bool) -> tuple[dict[Any, Tensor], set[Edge]]:
    """Pull gradients from `starts` back through the graph, deepest node first, so that each runs once, with all of its gradient.

    Returns the gradients of all leaves that require one or, if `wanted` is given, of these edges alone, and then only nodes on the way are
    run; and which of `wanted` lie in the graph: those without a gradient have a derivative of 0.
    """
    nodes = [t._node for t, _ in starts if t._node is not None]
    useful, reached = (None, set()) if wanted is None else _ancestors_of(nodes, wanted)
    found: dict[Any, Tensor] = {}
    pending: dict[Node, list[Tensor | None]] = {}
    heap: list[tuple[int, int, Node]] = []
    order = itertools.count()

    def arrive(edge: Edge, g: Tensor) -> None:
        if isinstance(edge, Tensor):
            if edge._requires_grad if wanted is None else edge in wanted:  # a leaf may have been frozen since the forward pass
                before = found.get(edge)
                found[edge] = g if before is None else _add(before, g, create)
            return
        node, index = edge
        if useful is not None and id(node) not in useful:
            return
        slots = pending.get(node)
        if slots is None:
            slots = pending[node] = [None] * node.function.differentiable
            heapq.heappush(heap, (-node.depth, next(order), node))
        waiting = slots[index]
        slots[index] = g if waiting is None else _add(waiting, g, create)

    with Recording(create):
        for tensor, g in starts:
            arrive(edge_to(tensor), g)
        while heap:
            node = heapq.heappop(heap)[2]
            grads = pending.pop(node)
            for i, g_out in enumerate(grads):
                if g_out is not None:
                    g_out._owned = False  # from here on functions may pass it on to several inputs
                    if wanted is not None and (node, i) in wanted:
                        found[node, i] = g_out
            if useful is not None and not useful[id(node)]:  # wanted itself, but nothing wanted lies behind it
                continue
            if node.freed:
                raise RuntimeError(
                    "backward: this graph was run backward already and its memory freed; pass retain_graph=True the first time, or run the "
                    "forward pass again"
                )
            edges = node.edges
            results = node.pull(grads)
            if type(results) is not tuple or len(results) != len(edges):
                _demand_gradients(node.function, results, len(edges))
            if not retain:
                node.free()
            del grads
            for i, (edge, result) in enumerate(zip(edges, results, strict=False)):
                if edge is None or result is None or (useful is not None and not _is_useful(edge, useful, wanted)):
                    continue
                g = result() if callable(result) else result
                if not isinstance(g, Tensor) or (g._array.shape, g._array.dtype) != node.inputs[i]:
                    raise _no_gradient(node.function, i, g, *node.inputs[i])
                arrive(edge, g)
                del g
            del results, edges, node
    return found, reached


def _demand_gradients(function: Function, results: Any, inputs: int) -> None:
    """TypeError unless `results` of a vjp hold a gradient for each input; more may follow, not computed yet, of optional ones left out."""
    if isinstance(results, tuple | list) and len(results) >= inputs and not any(isinstance(r, Tensor) for r in results[inputs:]):
        return
    got = f"{len(results)} of them" if isinstance(results, tuple | list) else f"a {type(results).__name__}"
    raise TypeError(
        f"{type(function).__name__}.vjp: return a tuple with one gradient for each of {inputs} inputs (None where there is none), got {got}"
    )


def _no_gradient(function: Function, i: int, g: Any, shape: tuple[int, ...], dtype: Any) -> Exception:
    """The error of a vjp whose gradient of input `i` is no Tensor, or one of another shape or dtype than the input."""
    where = f"{type(function).__name__}.vjp: the gradient of input {i}"
    if not isinstance(g, Tensor):
        return TypeError(f"{where} must be a Tensor or None, got {type(g).__name__}; compute it by minidcnn's functions, not NumPy's")
    if g.shape != shape:
        return RuntimeError(f"{where} has shape {g.shape}, the input has {shape}; sum it over axes that were broadcast")
    return TypeError(f"{where} is {g.dtype}, the input {dtype}; give constants the input's dtype, as Tensor(array, dtype=x.dtype)")


def _is_useful(edge: Edge, useful: dict[int, bool], wanted: Any) -> bool:
    return edge in wanted if isinstance(edge, Tensor) else id(edge[0]) in useful


def _ancestors_of(starts: list[Node], wanted: set[Edge]) -> tuple[dict[int, bool], set[Edge]]:
    """Nodes from which something wanted is reached, by id; True where it lies behind the node, False where only the node itself is wanted.

    And what is reached of `wanted`.
    """
    reached: dict[int, Node] = {}
    stack = list(starts)
    while stack:
        node = stack.pop()
        if id(node) not in reached:
            reached[id(node)] = node
            stack.extend(e[0] for e in node.edges if isinstance(e, tuple))
    nodes_wanted = {id(e[0]) for e in wanted if isinstance(e, tuple)}
    useful: dict[int, bool] = {}
    for node in sorted(reached.values(), key=lambda n: n.depth):
        behind = any(e is not None and _is_useful(e, useful, wanted) for e in node.edges)
        if behind or node.freed or id(node) in nodes_wanted:
            useful[id(node)] = behind or (node.freed and id(node) not in nodes_wanted)
    leaves = {e for node in reached.values() for e in node.edges if isinstance(e, Tensor)}
    return useful, {e for e in wanted if (id(e[0]) in reached if isinstance(e, tuple) else e in leaves)}


def _add(a: Tensor, b: Tensor, create: bool) -> Tensor:
    """a + b; into a's memory where an earlier sum of this walk allocated it, nobody else has seen it and no graph is recorded."""
    if a._owned and not create:
        a._array += b._array
        return a
    total = a + b
    total._owned = not create
    return total


def owner_of(array: Array) -> Array:
    """The array that owns the memory."""
    owner: Any = array
    while hasattr(base := owner.base, "dtype"):
        owner = base
    return owner  # type: ignore[no-any-return]
