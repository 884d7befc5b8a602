"""What property tests draw: windows, convolutions, poolings, shapes and memory layouts, as Hypothesis strategies; and data to go with them.

Sizes are small, so that searches are quick, and drawn per axis, so that nothing is square but by chance. Every strategy shrinks towards
the plainest case: kernel 1, stride 1, no padding, one image, one channel.

    @settings(deadline=None)  # the first call of a kernel compiles or loads it
    @given(case=convs(), seed=seeds)
    def test_gradients(case, seed):
        x, w = integers(case.x, seed), integers(case.w, seed + 1)
        minidcnn.check_grads(lambda x, w: my_conv2d(x, w, **case.options), [x, w])

It needs the package hypothesis, which minidcnn itself does without: pip install hypothesis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .window import Pair, Window

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError(f"minidcnn.testing needs the package hypothesis ({error}); install it with: pip install hypothesis") from error

__all__ = [
    "LAYOUTS",
    "Conv",
    "Pool",
    "batches",
    "convs",
    "float_dtypes",
    "image_shapes",
    "integers",
    "lay_out",
    "layouts",
    "pairs",
    "pools",
    "seeds",
    "stored_dtypes",
    "tie_free",
    "windows",
]

Array = np.ndarray[Any, Any]

#: a seed of NumPy's random generators
seeds = st.integers(0, 2**32 - 1)
#: float64 or float32
float_dtypes = st.sampled_from([np.dtype(np.float64), np.dtype(np.float32)])
#: what images may be kept in: float64, float32 or float16
stored_dtypes = st.sampled_from([np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.float16)])
#: a number of images: 1, 2, 3, or none at all
batches = st.sampled_from([1, 2, 3, 0])
#: (N, C, H, W): a batch of up to three images, also of none, of 1 to 4 channels and 1 to 9 pixels a side
image_shapes = st.tuples(batches, st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))


# -- geometry -----------------------------------------------------------------------------------------------------------------


def pairs(low: int, high: int) -> st.SearchStrategy[Pair]:
    """(height, width), each from `low` to `high`."""
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def windows(draw: st.DrawFn, pooling: bool = False, dilated: bool = True) -> tuple[Window, Pair]:
    """A window and the size (H, W) of an image that it fits.

    Kernels and strides are 1 to 4, dilations 1 to 3 (1 if not `dilated`), padding up to one more than the span: so kernels may be larger
    than the image, strides larger than the kernel, and images of one pixel. With `pooling`, padding is at most half of the span, no window
    sees padding only, and ceil_mode may be set.
    """
    kernel, stride, dilation = draw(pairs(1, 4)), draw(pairs(1, 4)), draw(pairs(1, 3)) if dilated else (1, 1)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    most = [span // 2 if pooling else span + 1 for span in spans]
    padding = (draw(st.integers(0, most[0])), draw(st.integers(0, most[1])))
    least = [max(1, span - 2 * p) for span, p in zip(spans, padding, strict=True)]
    size = (draw(st.integers(least[0], least[0] + 6)), draw(st.integers(least[1], least[1] + 6)))
    window = Window(kernel, stride, padding, dilation, pooling and draw(st.booleans()))
    if pooling and any(
        all(not 0 <= i * s + a * d - p < n for a in range(k))
        for n, m, k, s, p, d in zip(size, window.positions(size), kernel, stride, padding, dilation, strict=True)
        for i in range(m)
    ):  # two taps with the whole image between them
        window = Window(kernel, stride, (min(padding[0], kernel[0] // 2), min(padding[1], kernel[1] // 2)), (1, 1), window.ceil_mode)
    return window, size


@dataclass(frozen=True)
class Conv:
    """One case of the convolution triple: the shapes of the image x, the weight w and the output y, and the arguments that go with them.

    conv2d(x, w, **options) gives y, conv_transpose2d(y, w, output_padding=output_padding, **options) gives x again.
    """

    window: Window
    size: Pair
    batch: int
    channels: int
    outputs: int
    groups: int

    @property
    def x(self) -> tuple[int, ...]:
        """(N, C, H, W)"""
        return self.batch, self.channels, *self.size

    @property
    def w(self) -> tuple[int, ...]:
        """(O, C / groups, KH, KW)"""
        return self.outputs, self.channels // self.groups, *self.window.kernel

    @property
    def y(self) -> tuple[int, ...]:
        """(N, O, OH, OW)"""
        return self.batch, self.outputs, *self.window.positions(self.size)

    @property
    def output_padding(self) -> Pair:
        """What conv_transpose2d needs to come back to `size`; always below the stride."""
        least = self.window.image_size(self.window.positions(self.size))
        return self.size[0] - least[0], self.size[1] - least[1]

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of conv2d, conv_transpose2d and conv2d_weight."""
        return {"stride": self.window.stride, "padding": self.window.padding, "dilation": self.window.dilation, "groups": self.groups}


@st.composite
def convs(draw: st.DrawFn) -> Conv:
    """A convolution: a window with its image size, a batch (also empty), 1 to 3 groups, and 1 to 3 channels a group on either side."""
    window, size = draw(windows())
    groups = draw(st.integers(1, 3))
    return Conv(window, size, draw(batches), groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3)), groups)


@dataclass(frozen=True)
class Pool:
    """One case of pooling: the shapes of the image x and the output y, and the arguments that go with them."""

    window: Window
    size: Pair
    batch: int
    channels: int

    @property
    def x(self) -> tuple[int, ...]:
        """(N, C, H, W)"""
        return self.batch, self.channels, *self.size

    @property
    def y(self) -> tuple[int, ...]:
        """(N, C, OH, OW)"""
        return self.batch, self.channels, *self.window.positions(self.size)

    @property
    def in_pytorch(self) -> bool:
        """Whether PyTorch takes it: it asks for padding of at most half the kernel, as if that were not dilated."""
        return all(2 * p <= k for p, k in zip(self.window.padding, self.window.kernel, strict=True))

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of max_pool2d."""
        w = self.window
        return {"kernel_size": w.kernel, "stride": w.stride, "padding": w.padding, "dilation": w.dilation, "ceil_mode": w.ceil_mode}


@st.composite
def pools(draw: st.DrawFn, dilated: bool = True) -> Pool:
    """A pooling: a window with its image size, ceil_mode on or off, a batch (also empty), and 1 to 4 channels."""
    window, size = draw(windows(pooling=True, dilated=dilated))
    return Pool(window, size, draw(batches), draw(st.integers(1, 4)))


# -- data -----------------------------------------------------------------------------------------------------------------------


def tie_free(shape: Sequence[int], seed: int = 0, dtype: Any = np.float64) -> Array:
    """Numbers between -1 and 1, shuffled, 2 / size apart: no two are equal, and none is 0.

    Where the size is odd, the one in the middle stands a quarter of that off 0, so every maximum is clear by at least 1.5 / size.
    """
    size = math.prod(shape)
    values = (np.random.default_rng(seed).permutation(size) + 0.5) * 2 / max(size, 1) - 1
    return np.where(values == 0, 1 / (2 * max(size, 1)), values).reshape(shape).astype(dtype)


def integers(shape: Sequence[int], seed: int = 0, dtype: Any = np.float64, most: int = 4) -> Array:
    """Whole numbers from -most to most, in `dtype`: sums and products of them are exact, so results can be compared bit by bit."""
    return np.random.default_rng(seed).integers(-most, most + 1, shape).astype(dtype)


# -- memory -------------------------------------------------------------------------------------------------------------------

#: the names of the memory layouts that `lay_out` knows
LAYOUTS = ("C", "channels-last", "sliced", "reversed", "permuted", "read-only")
#: one of LAYOUTS
layouts = st.sampled_from(LAYOUTS)


def lay_out(array: Array, layout: str) -> Array:
    """A copy of `array` that lies in memory as `layout` says; gaps hold NaN, or of integers an extreme, so that reading one is noticed."""
    if layout == "channels-last":
        return np.moveaxis(np.array(np.moveaxis(array, 1, -1), order="C"), -1, 1) if array.ndim > 2 else np.array(array, order="F")
    if layout == "sliced":  # every other element of a larger array, off its first one
        kind = array.dtype.kind
        gap = np.nan if kind in "fc" else np.iinfo(array.dtype).min if kind == "i" else np.iinfo(array.dtype).max if kind == "u" else 0
        larger = np.full([2 * n + 1 for n in array.shape], gap, array.dtype)
        view = larger[tuple(slice(1, 1 + 2 * n, 2) for n in array.shape)]
        view[...] = array
        return view
    if layout == "reversed":
        backwards = (slice(None, None, -1),) * array.ndim
        return np.array(array[backwards], order="C")[backwards]
    if layout == "permuted":
        return np.array(array.T, order="C").T
    result = np.array(array, order="C")
    result.flags.writeable = layout != "read-only"
    return result
