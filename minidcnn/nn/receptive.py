"""Receptive fields, read off the functions that a forward pass applies.

Along a path of windows the field grows by r += (K - 1) j and the jump, the distance in the input between neighbouring outputs, by
j *= s, with K = dilation (k - 1) + 1 (Dumoulin & Visin, 2016; Araujo et al., "Computing receptive fields", 2019). Behind a transposed
convolution or an upsampling outputs differ in what they see, periodically; so what is kept is the interval that each output of one
period sees, and the formula above is what comes of it where the period is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any

from ..autograd import Function
from ..backend import AxisMap
from ..functional import conv, pool, resize, shape
from ..functional import reduce as reductions
from ..functional.pad import Mirror, Pad
from ..functional.unfold import Col2im, Im2col
from ..tensor import Tensor

Interval = tuple[int, int] | None  # first and last input pixel that an output sees; None if it sees nothing


@dataclass(frozen=True)
class Axis:
    """Along one axis: output i + period sees what output i sees, `shift` pixels further on. The border is thought away."""

    seen: tuple[Interval, ...] = ((0, 0),)
    shift: int = 1

    def at(self, i: int) -> Interval:
        turns, rest = divmod(i, len(self.seen))
        interval = self.seen[rest]
        return interval and (interval[0] + turns * self.shift, interval[1] + turns * self.shift)

    def follow(self, sources: Callable[[int], Iterable[int]], outputs: int, inputs: int) -> Axis:
        """The axis of a function whose output o sees its inputs sources(o); `outputs` outputs further on, `inputs` inputs further on."""
        times = len(self.seen) // math.gcd(len(self.seen), inputs)
        seen = tuple(_hull(self.at(i) for i in sources(o)) for o in range(outputs * times))
        return Axis(seen, self.shift * (inputs * times) // len(self.seen))

    def through(self, k: int, s: int, p: int, d: int) -> Axis:
        """Behind a window: output o sees inputs o s + a d - p."""
        return self.follow(lambda o: (o * s + a * d - p for a in range(k)), 1, s)

    def back_through(self, k: int, s: int, p: int, d: int) -> Axis:
        """Behind a transposed window: output o sees the inputs i with i s + a d - p = o."""
        return self.follow(lambda o: ((o + p - a * d) // s for a in range(k) if (o + p - a * d) % s == 0), s, 1)

    def resampled(self, taps: AxisMap) -> Axis:
        """Behind a resizing of a pixels to b in lowest terms: the b outputs in the middle stand for all, as the border is thought away."""
        common = math.gcd(taps.size, taps.outputs)
        a, b, middle = taps.size // common, taps.outputs // common, common // 2

        def sources(o: int) -> Iterable[int]:
            turns, rest = divmod(o, b)
            start, end = taps.starts[middle * b + rest : middle * b + rest + 2]
            return (int(i) + (turns - middle) * a for i in taps.indices[start:end])

        return self.follow(sources, b, a)

    def join(self, other: Axis) -> Axis:
        """What two branches see together; if they do not run in step, what the farther-seeing one sees."""
        a, b = len(self.seen), len(other.seen)
        if self.shift * b != other.shift * a:
            return max(self, other, key=lambda axis: axis.size)
        period = math.lcm(a, b)
        return Axis(tuple(_hull((self.at(i), other.at(i))) for i in range(period)), self.shift * period // a)

    @property
    def size(self) -> int:
        return max((i[1] - i[0] + 1 for i in self.seen if i), default=0)

    @property
    def jump(self) -> Fraction:
        return Fraction(self.shift, len(self.seen))


def _hull(intervals: Iterable[Interval]) -> Interval:
    some = [i for i in intervals if i]
    return (min(i[0] for i in some), max(i[1] for i in some)) if some else None


@dataclass(frozen=True)
class Field:
    """What the outputs of a layer see of the input. `whole`: the whole image, as behind a flatten or a mean over all pixels."""

    rows: Axis = Axis()
    columns: Axis = Axis()
    whole: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the part of the input that one output sees, at most."""
        return self.rows.size, self.columns.size

    @property
    def jump(self) -> tuple[Fraction, Fraction]:
        """Distance between neighbouring outputs in input pixels, down and across."""
        return self.rows.jump, self.columns.jump

    def each(self, change: Callable[[Axis, int], Axis]) -> Field:
        """The field with both axes changed by change(axis, number of the axis)."""
        return Field(change(self.rows, 0), change(self.columns, 1), self.whole)

    def join(self, other: Field) -> Field:
        return Field(self.rows.join(other.rows), self.columns.join(other.columns), self.whole or other.whole)


class Fields:
    """Receptive fields of what a forward pass on `inputs` makes: `applied` is told of its functions (`autograd.listening`).

    A value is known by its array, whatever tensor holds it: `checkpoint` hands the same arrays on in tensors of its own.
    """

    def __init__(self, inputs: list[Tensor]) -> None:
        self.known = {id(t._array): (t._array, Field()) for t in inputs}  # with the array, so that no other takes its id

    def of(self, tensor: Tensor) -> Field | None:
        """The receptive field of `tensor`; None if it does not depend on the inputs."""
        return self.known.get(id(tensor._array), (None, None))[1]

    def applied(self, function: Function, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """What a function makes sees what its inputs see together, and what the function does to that."""
        if fields := [field for t in inputs if (field := self.of(t)) is not None]:
            field = _after(function, reduce(Field.join, fields))
            self.known.update((id(t._array), (t._array, field)) for t in outputs[: function.differentiable])


def _after(function: Any, field: Field) -> Field:
    """The field behind a function; functions that move no pixels leave it as it is."""
    if isinstance(function, conv.ConvTranspose2d | Col2im | pool.Scatter):
        return field.each(lambda axis, i: axis.back_through(*_window(function.window, i)))
    if isinstance(function, conv.Conv2d | Im2col | pool.MaxPool2d | pool.AvgPool2d):
        return field.each(lambda axis, i: axis.through(*_window(function.window, i)))
    if isinstance(function, Mirror):
        return field.each(lambda axis, i: axis.through(1, 1, function.before[i], 1))
    if isinstance(function, resize.Resample):
        return field.each(lambda axis, i: axis.resampled((function.rows, function.columns)[i]))
    if isinstance(function, shape.Index) and len(function.source) == 4:
        return field.each(lambda axis, i: axis.through(1, *_slice(function, i), 1))
    if isinstance(function, Pad) and len(function.widths) == 4:
        return field.each(lambda axis, i: axis.through(1, 1, function.widths[2 + i][0], 1))
    if isinstance(function, reductions.Sum) and len(function.source) == 4 and {2, 3} <= set(function.axes):
        return Field(field.rows, field.columns, True)
    if isinstance(function, shape.Reshape):
        return _reshaped(function, field)
    return field


def _reshaped(function: shape.Reshape, field: Field) -> Field:
    """Behind a flatten, and behind the steps of pixel_shuffle and pixel_unshuffle that move pixels; other reshapes move none."""
    source, result = function.source, function.shape
    if len(source) == 4 and len(result) == 2:
        return Field(field.rows, field.columns, True)
    if len(source) == 6 and result == _joined(source):  # (N, H, R, W, R, C) as (N, H R, W R, C)
        return field.each(lambda axis, i: axis.back_through(source[2 + 2 * i], source[2 + 2 * i], 0, 1))
    if len(result) == 6 and source == _joined(result):
        return field.each(lambda axis, i: axis.through(result[2 + 2 * i], result[2 + 2 * i], 0, 1))
    return field


def _joined(sizes: tuple[int, ...]) -> tuple[int, ...]:
    n, h, r, w, s, c = sizes
    return n, h * r, w * s, c


def _window(window: Any, i: int) -> tuple[int, int, int, int]:
    return window.kernel[i], window.stride[i], window.padding[i], window.dilation[i]


def _slice(function: Any, i: int) -> tuple[int, int]:
    """(step, -start) of a crop along image axis i; (1, 0) if it is not cut by a slice."""
    parts = [part for part in function.parts() if part is not None]  # a new axis takes none of the old ones
    part = parts[2 + i] if len(parts) > 2 + i else None
    if not isinstance(part, slice):
        return 1, 0
    start, _, step = part.indices(function.source[2 + i])
    return (step, -start) if step > 0 else (1, 0)
