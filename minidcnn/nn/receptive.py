"""Receptive fields, read off the graph that a forward pass recorded.

Along a path of windows the field grows by r += (K - 1) j and the jump, the distance in the input between neighbouring outputs, by
j *= s, with K = dilation (k - 1) + 1 (Dumoulin & Visin, 2016; Araujo et al., "Computing receptive fields", 2019). A transposed
convolution goes back: one of its outputs sees at most floor((K - 1) / s) + 1 inputs, so r += floor((K - 1) / s) j and then j /= s.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..autograd import Node
from ..functional import conv, pool, shape
from ..functional import reduce as reductions
from ..tensor import Tensor
from ..window import Window

Numbers = tuple[Fraction, Fraction]


@dataclass(frozen=True)
class Field:
    """Pixels of the input that one output sees, and the distance between two outputs in input pixels, as (height, width).

    `whole` means the whole image, whatever its size: behind a flatten or a mean over all pixels.
    """

    size: Numbers = (Fraction(1), Fraction(1))
    jump: Numbers = (Fraction(1), Fraction(1))
    whole: bool = False

    def through(self, window: Window) -> Field:
        """The field of a window's output."""
        grown = ((k - 1) * j for k, j in zip(window.span, self.jump, strict=True))
        return Field(_add(self.size, grown), _times(self.jump, window.stride), self.whole)

    def back_through(self, window: Window) -> Field:
        """The field of a transposed window's output."""
        grown = ((k - 1) // s * j for k, s, j in zip(window.span, window.stride, self.jump, strict=True))
        return Field(_add(self.size, grown), _times(self.jump, (Fraction(1, s) for s in window.stride)), self.whole)

    def resized(self, source: tuple[int, ...], target: tuple[int, ...], taps: int) -> Field:
        """The field of an image resized from `source` to `target` pixels, each from `taps` neighbours per axis."""
        grown = ((taps - 1) * j for j in self.jump)
        return Field(_add(self.size, grown), _times(self.jump, (Fraction(a, b) for a, b in zip(source, target, strict=True))), self.whole)


def _add(a: Any, b: Any) -> Numbers:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _times(a: Any, b: Any) -> Numbers:
    return tuple(x * y for x, y in zip(a, b, strict=True))


def _joined(fields: list[Field]) -> Field:
    """What several inputs see together, as branches share their centre: the largest."""
    if len(fields) == 1:
        return fields[0]
    sizes = [f.size for f in fields]
    size = (max(s[0] for s in sizes), max(s[1] for s in sizes))
    return Field(size, fields[-1].jump if len({f.jump for f in fields}) == 1 else max(f.jump for f in fields), any(f.whole for f in fields))


class Fields:
    """Receptive fields of the tensors that come out of a forward pass on `input`, which must require gradients."""

    def __init__(self, inputs: list[Tensor]) -> None:
        self.inputs = {id(t) for t in inputs}
        self.known: dict[int, Field] = {}
        self.nodes: list[Node] = []  # kept alive, so that an id is not used twice

    def of(self, tensor: Tensor) -> Field | None:
        """The receptive field of `tensor`; None if it does not depend on the inputs."""
        if tensor._node is None:
            return Field() if id(tensor) in self.inputs else None
        reached: dict[int, Node] = {}
        stack = [tensor._node]
        while stack:
            node = stack.pop()
            if id(node) not in reached and id(node) not in self.known:
                reached[id(node)] = node
                stack.extend(e[0] for e in node.edges if isinstance(e, tuple))
        for node in sorted(reached.values(), key=lambda n: n.depth):
            self.nodes.append(node)
            fields = [f for e in node.edges if (f := self._edge(e)) is not None]
            if fields:
                self.known[id(node)] = _after(node.function, _joined(fields))
        return self.known.get(id(tensor._node))

    def _edge(self, edge: Any) -> Field | None:
        if isinstance(edge, Tensor):
            return Field() if id(edge) in self.inputs else None
        return self.known.get(id(edge[0])) if edge is not None else None


def _after(function: Any, field: Field) -> Field:
    """The field behind a function; functions that move no pixels leave it as it is."""
    if isinstance(function, conv.ConvTranspose2d | conv.Col2im):
        return field.back_through(function.window)
    if isinstance(function, conv.Conv2d | conv.Im2col | pool.MaxPool2d | pool.AvgPool2d):
        return field.through(function.window)
    if isinstance(function, pool.Scatter):  # unpooling: the size that was pooled is a multiple of the pooled one, but for rounding
        pooled = function.indices.shape[2:]
        ratio = [-(-n // m) for n, m in zip(function.size, pooled, strict=True)]
        return Field(field.size, _times(field.jump, (Fraction(1, r) for r in ratio)), field.whole)
    spatial = isinstance(function, reductions.Sum) and len(function.source) == 4 and {2, 3} <= set(function.axes)
    flat = isinstance(function, shape.Reshape) and len(function.source) == 4 and len(function.shape) == 2
    if spatial or flat:
        return Field(field.size, field.jump, True)
    return field
