"""Theorems T1 to T23 on transposed convolution, unpooling and im2col, as properties of the engine: exact, in integers or rationals, where possible.

The number is in each test's name. Per axis: kernel k, stride s, padding p, dilation d, span K = d (k - 1) + 1,
output_padding op; m positions on an image of n pixels. What is special to one axis is tested on images of one row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from strategies import Conv, Pool, convs, integers, pools, seeds, tie_free

from minidcnn import Tensor, grad, nn
from minidcnn import functional as F
from minidcnn.models import FCN8s, FCN16s, FCN32s, FCNAlexNet, UNet
from minidcnn.models.geometry import Placement, size_behind
from minidcnn.models.vgg import vgg_features
from minidcnn.nn.init import bilinear_filter
from minidcnn.window import Window

Array = np.ndarray[Any, Any]


# -- images of one row ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One axis: kernel k, stride s, padding p, dilation d, output_padding op, and the m pixels that a transposed convolution gets."""

    k: int
    s: int = 1
    p: int = 0
    d: int = 1
    op: int = 0
    m: int = 3

    @property
    def span(self) -> int:
        return self.d * (self.k - 1) + 1

    @property
    def full(self) -> int:
        """Size of the output before it is cropped."""
        return (self.m - 1) * self.s + self.span

    @property
    def window(self) -> Window:
        return Window((1, self.k), (1, self.s), (0, self.p), (1, self.d))

    def phase(self, r: int) -> list[int]:
        """The taps that reach every s-th pixel of the whole output from pixel r on."""
        return [a for a in range(self.k) if (a * self.d - r) % self.s == 0]


@st.composite
def lines(draw: st.DrawFn, kernels: int = 5, dilations: int = 3, m: int = 5, most_op: Any = lambda line: line.s - 1) -> Line:
    """A line whose output has at least one pixel; output_padding up to most_op(line)."""
    line = Line(draw(st.integers(1, kernels)), draw(st.integers(1, 4)), 0, draw(st.integers(1, dilations)), 0, draw(st.integers(1, m)))
    op = draw(st.integers(0, most_op(line)))
    p = draw(st.integers(0, (line.full + op - 1) // 2))
    return Line(line.k, line.s, p, line.d, op, line.m)


def row(numbers: Any) -> Tensor:
    return Tensor(np.asarray(numbers).reshape(1, 1, 1, -1))


def conv(x: Any, w: Any, s: int = 1, p: int = 0, d: int = 1) -> Array:
    return F.conv2d(row(x), row(w), stride=(1, s), padding=(0, p), dilation=(1, d)).numpy()[0, 0, 0]


def conv_t(y: Any, w: Any, s: int = 1, p: int = 0, op: int = 0, d: int = 1) -> Array:
    return F.conv_transpose2d(
        row(y), row(w), stride=(1, s), padding=(0, p), output_padding=(0, op), dilation=(1, d)
    ).numpy()[0, 0, 0]  # fmt: skip


def along(line: Line, y: Any, w: Any) -> Array:
    return conv_t(y, w, line.s, line.p, line.op, line.d)


def numbers(n: int, seed: int, most: int = 4) -> Array:
    return integers((n,), seed, np.int64, most)


def matrix(f: Any, n: int) -> Array:
    """The matrix of the linear map f from n numbers: its columns are the images of the unit vectors."""
    return np.stack([np.asarray(f(unit)) for unit in np.eye(n, dtype=np.int64)], 1)


# -- the transpose, its gradients, its sizes ----------------------------------------------------------------------------------------


@given(case=convs(), seed=seeds)
def test_t01_conv_transpose_is_the_adjoint_of_conv(case: Conv, seed: int) -> None:
    """<Cx, y> = <x, C^T y>, with the same weight, in any geometry, any number of channels and groups."""
    x, w, y = (integers(shape, seed + i, np.int64) for i, shape in enumerate((case.x, case.w, case.y)))
    forward = F.conv2d(Tensor(x), Tensor(w), **case.options).numpy()
    back = F.conv_transpose2d(Tensor(y), Tensor(w), output_padding=case.output_padding, **case.options).numpy()
    assert np.vdot(forward, y) == np.vdot(x, back)


@given(line=lines(), seed=seeds)
def test_t01_the_matrix_of_conv_transpose_is_the_transposed_matrix(line: Line, seed: int) -> None:
    """C[i, j] = w[a] where j = i s + a d - p, and 0 elsewhere."""
    w, n = numbers(line.k, seed), line.window.image_size((1, line.m), (0, line.op))[1]
    c = np.zeros((line.m, n), np.int64)
    for i in range(line.m):
        for a in range(line.k):
            if 0 <= i * line.s + a * line.d - line.p < n:
                c[i, i * line.s + a * line.d - line.p] = w[a]
    np.testing.assert_array_equal(matrix(lambda x: conv(x, w, line.s, line.p, line.d), n), c)
    np.testing.assert_array_equal(matrix(lambda y: along(line, y, w), line.m), c.T)


@given(case=convs(), seed=seeds)
def test_t02_gradients_are_convolutions_without_a_flip(case: Conv, seed: int) -> None:
    """dL/dx: the transposed convolution with the same weight. dL/dw: x^T convolved with g^T, stride and dilation swapped, cropped."""
    assume(case.groups == 1 and case.batch)
    x, w, g = (integers(shape, seed + i) for i, shape in enumerate((case.x, case.w, case.y)))
    window, options = case.window, case.options
    a, b = Tensor(x, requires_grad=True), Tensor(w, requires_grad=True)
    dx, dw = grad(F.conv2d(a, b, **options), [a, b], g)
    np.testing.assert_array_equal(
        dx.numpy(), F.conv_transpose2d(Tensor(g), Tensor(w), output_padding=case.output_padding, **options).numpy()
    )
    xt, gt = F.transpose(Tensor(x), 0, 1), F.transpose(Tensor(g), 0, 1)  # channels become images
    whole = F.conv2d(xt, gt, stride=window.dilation, padding=window.padding, dilation=window.stride)
    kh, kw = window.kernel
    np.testing.assert_array_equal(dw.numpy(), F.transpose(whole, 0, 1).numpy()[:, :, :kh, :kw])


@given(line=lines())
def test_t03_s_image_sizes_have_m_positions(line: Line) -> None:
    """n0 = (m - 1) s - 2p + K is the smallest size with m positions, n0 + s - 1 the largest: hence 0 <= output_padding < s."""
    window, n0 = line.window, line.window.image_size((1, line.m))[1]
    fits = {n for n in range(max(1, n0 - 9), n0 + 2 * line.s + 9) if n + 2 * line.p >= line.span and window.positions((1, n))[1] == line.m}
    assert fits == {n for n in range(n0, n0 + line.s) if n >= 1}


def test_t03_pytorchs_rule_allows_more_than_the_theorem() -> None:
    """output_padding < max(s, d) lets s=1, d=3, op=2 pass, although a convolution of that output has two positions more."""
    y = np.ones(4)
    out = conv_t(y, np.ones(2), s=1, d=3, op=2)
    assert len(out) == 9 and len(conv(out, np.ones(2), s=1, d=3)) == 6 != len(y)


@given(line=lines(most_op=lambda line: max(line.s, line.d) - 1), seed=seeds, bias=st.integers(-3, 3))
def test_t04_padding_and_output_padding_crop_the_whole_output(line: Line, seed: int, bias: int) -> None:
    """p columns off the left, p - op off the right; what op asks for beyond p are columns that hold the bias alone."""
    y, w = numbers(line.m, seed), numbers(line.k, seed + 1)
    whole = row(conv_t(y, w, line.s, d=line.d))
    assert whole.shape[3] == line.full
    expected = F.pad(whole, (-line.p, line.op - line.p)) + bias
    got = F.conv_transpose2d(row(y), row(w), Tensor(np.array([bias])), (1, line.s), (0, line.p), (0, line.op), 1, (1, line.d))
    np.testing.assert_array_equal(got.numpy(), expected.numpy())


def test_t04_tensorflows_same_crops_the_other_side() -> None:
    whole = conv_t([1, 2, 3], [1, 10, 100], s=2)
    assert whole.tolist() == [1, 10, 102, 20, 203, 30, 300]
    assert conv_t([1, 2, 3], [1, 10, 100], s=2, p=1, op=1).tolist() == whole[1:].tolist()  # PyTorch and we; TensorFlow keeps whole[:-1]
    assert conv_t(np.ones(3), np.ones(3), s=2, op=1).tolist() == [1, 1, 2, 1, 2, 1, 1, 0]  # op > p: a column that nothing reaches
    with pytest.raises(ValueError, match="output_padding"):
        conv_t([1, 2, 3], [1, 10, 100], s=2, op=-1)  # what TensorFlow's crop would be


# -- the other algorithms -----------------------------------------------------------------------------------------------------------


@given(line=lines(), seed=seeds)
def test_t05_zero_insertion_and_a_flipped_kernel(line: Line, seed: int) -> None:
    """s - 1 zeros between pixels, K - 1 - p before, K - 1 - p + op behind (negative: cropped), the flipped kernel at stride 1."""
    y, w = numbers(line.m, seed), numbers(line.k, seed + 1)
    spread = F.reshape(F.pad(F.reshape(Tensor(y), (line.m, 1)), (0, line.s - 1)), (1, 1, 1, line.m * line.s))
    edge = line.span - 1 - line.p
    padded = F.pad(spread, (edge, edge + line.op - (line.s - 1)))  # without the zeros behind the last pixel
    flipped = F.flip(row(w), 3)
    np.testing.assert_array_equal(F.conv2d(padded, flipped, dilation=(1, line.d)).numpy()[0, 0, 0], along(line, y, w))


@given(line=lines(), seed=seeds)
def test_t06_each_phase_has_taps_of_its_own(line: Line, seed: int) -> None:
    """Pixels r, r + s, ... of the whole output come from the taps with a d = r (mod s), and those taps reach no others."""
    y, w = numbers(line.m, seed), numbers(line.k, seed + 1)
    whole = conv_t(y, w, line.s, d=line.d)
    for r in range(line.s):
        taps = line.phase(r)
        alone = conv_t(y, [w[a] if a in taps else 0 for a in range(line.k)], line.s, d=line.d)
        np.testing.assert_array_equal(alone[r :: line.s], whole[r :: line.s])
        assert np.count_nonzero(alone) == np.count_nonzero(alone[r :: line.s])


@given(
    s=st.integers(1, 4), k=st.tuples(st.integers(1, 7), st.integers(1, 7)), channels=st.tuples(st.integers(1, 3), st.integers(1, 3)), seed=seeds
)  # fmt: skip
def test_t06_a_convolution_and_pixel_shuffle(s: int, k: tuple[int, int], channels: tuple[int, int], seed: int) -> None:
    """V[(c, r, q)] = flip(W[:, c, r::s, q::s]); a kernel that s does not divide is filled up with zeros, and the output cropped."""
    y, w = integers((2, channels[0], 3, 4), seed, np.int64), integers((*channels, *k), seed + 1, np.int64)
    out = F.conv_transpose2d(Tensor(y), Tensor(w), stride=s)
    u = [-(-n // s) for n in k]
    filled = F.pad(Tensor(w), (0, s * u[1] - k[1], 0, s * u[0] - k[0])).numpy()
    parts = [np.flip(filled[:, c, r::s, q::s], (1, 2)) for c in range(channels[1]) for r in range(s) for q in range(s)]
    v = Tensor(np.stack(parts))  # (out s s, in, u, u)
    shuffled = F.pixel_shuffle(F.conv2d(Tensor(y), v, padding=(u[0] - 1, u[1] - 1)), s)
    np.testing.assert_array_equal(F.crop(shuffled, 0, 0, *out.shape[2:]).numpy(), out.numpy())


@given(line=lines(kernels=6, dilations=6), seed=seeds)
@example(line=Line(3, 2, d=2), seed=0)
def test_t07_a_common_factor_of_stride_and_dilation_kills_phases(line: Line, seed: int) -> None:
    """With g = gcd(s, d), s - s/g phases are 0 whatever the weights; with at least s/g taps no others are."""
    y, w = 1 + abs(numbers(line.m, seed)), 1 + abs(numbers(line.k, seed + 1))
    whole = conv_t(y, w, line.s, d=line.d)
    g = math.gcd(line.s, line.d)
    dead = [r for r in range(line.s) if not whole[r :: line.s].any()]
    assert set(dead) >= {r for r in range(line.s) if r % g}
    assert len(dead) == line.s - min(line.k, line.s // g)


# -- overlap, phase sums, checkerboards ---------------------------------------------------------------------------------------------


@given(line=lines())
def test_t08_the_overlap_repeats_with_the_stride(line: Line) -> None:
    """The interior counts as many taps as its phase has: ceil(k/s) or floor(k/s) for d = 1; equal iff s divides k and gcd(s, d) = 1."""
    m = line.span // line.s + 3
    count = conv_t(np.ones(m, int), np.ones(line.k, int), line.s, d=line.d)
    inside = range(line.span - 1, (m - 1) * line.s + 1)
    assert [count[j] for j in inside] == [len(line.phase(j % line.s)) for j in inside]
    if line.d == 1:
        assert [count[j] for j in inside] == [line.k // line.s + (j % line.s < line.k % line.s) for j in inside]
    assert len(inside) >= line.s
    assert (len({count[j] for j in inside}) == 1) == (line.k % line.s == 0 and math.gcd(line.s, line.d) == 1)


@given(s=st.integers(1, 4), u=st.integers(1, 3), data=st.data())
def test_t08_constant_up_to_the_edge(s: int, u: int, data: st.DataObject) -> None:
    """With d = 1, s | k and m >= k/s: iff p >= k - s and p - op >= k - s."""
    k, m, op = s * u, data.draw(st.integers(u, u + 3)), data.draw(st.integers(0, s - 1))
    p = data.draw(st.integers(0, ((m - 1) * s + k + op - 1) // 2))
    count = conv_t(np.ones(m, int), np.ones(k, int), s, p, op)
    assert bool((count == u).all()) == (p >= k - s and p - op >= k - s)


@given(case=convs())
def test_t08_in_two_dimensions_it_is_the_outer_product(case: Conv) -> None:
    window, (oh, ow) = case.window, case.window.positions(case.size)
    count = F.fold(
        Tensor(np.ones((1, window.taps, oh * ow), int)), case.size, window.kernel, window.dilation, window.padding, window.stride
    )
    axes = []
    for i, positions in enumerate((oh, ow)):
        one = np.ones(positions, int)
        axes.append(
            conv_t(one, np.ones(window.kernel[i], int), window.stride[i], window.padding[i], case.output_padding[i], window.dilation[i])
        )
    np.testing.assert_array_equal(count.numpy()[0, 0], np.outer(*axes))


@given(line=lines(), seed=seeds, even=st.booleans())
@example(line=Line(3, 2), seed=0, even=True)
def test_t09_clean_means_equal_phase_sums(line: Line, seed: int, even: bool) -> None:
    """A constant image stays constant inside iff every phase of the kernel has the same sum; s | k is neither needed nor enough."""
    w = numbers(line.k, seed)
    if even:  # make the sums equal where a phase has a tap to do it with
        for r in range(line.s):
            if taps := line.phase(r):
                w[taps[-1]] += 2 - sum(w[a] for a in taps)
    sums = {int(sum(w[a] for a in line.phase(r))) for r in range(line.s)}
    m = line.span // line.s + 3
    out = conv_t(np.ones(m, int), w, line.s, d=line.d)
    inside = out[line.span - 1 : (m - 1) * line.s + 1]
    assert (len(set(inside.tolist())) == 1) == (len(sums) == 1)


def test_t09_the_stride_need_not_divide_the_kernel() -> None:
    assert conv_t(np.ones(5), [0.5, 1, 0.5], s=2)[1:-1].tolist() == [1] * 9  # clean, though 2 does not divide 3
    assert conv_t(np.ones(5, int), [1, 2, 3, 1], s=2)[2:-2].tolist() == [4, 3] * 4  # not clean, though 2 divides 4


@given(
    s=st.integers(1, 4), k=st.tuples(st.integers(1, 4), st.integers(1, 4)), q=st.tuples(st.integers(0, 3), st.integers(0, 3)), seed=seeds
)
def test_t10_resize_convolution_is_clean_for_every_kernel(s: int, k: tuple[int, int], q: tuple[int, int], seed: int) -> None:
    """Nearest neighbour by s and a convolution = a transposed convolution with box * flip(w), all of whose phase sums are sum(w)."""
    x, w = integers((1, 1, 4, 5), seed, np.int64), integers((1, 1, *k), seed + 1, np.int64)
    q = (min(q[0], k[0] - 1), min(q[1], k[1] - 1))
    resized = F.conv2d(F.interpolate(Tensor(x), scale_factor=s), Tensor(w), padding=q)
    kernel = F.conv_transpose2d(Tensor(np.ones((1, 1, s, s), int)), F.flip(Tensor(w), (2, 3)))
    assert kernel.shape[2:] == (k[0] + s - 1, k[1] + s - 1)
    same = F.conv_transpose2d(Tensor(x), kernel, stride=s, padding=(k[0] - 1 - q[0], k[1] - 1 - q[1]))
    np.testing.assert_array_equal(resized.numpy(), same.numpy())
    assert {int(kernel.numpy()[0, 0, r::s, c::s].sum()) for r in range(s) for c in range(s)} == {int(w.sum())}


@given(
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    kernels=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    seed=seeds,
)
def test_t11_two_in_a_row_are_one(strides: tuple[int, ...], kernels: tuple[int, ...], seed: int) -> None:
    """Strides s1, then s2: stride s1 s2, and the kernel is the first one, itself upsampled by the second."""
    y = integers((2, 2, 2, 3), seed, np.int64)
    w1, w2 = integers((2, 3, *kernels[:2]), seed + 1, np.int64), integers((3, 2, *kernels[2:]), seed + 2, np.int64)
    s1, s2 = strides[:2], strides[2:]
    twice = F.conv_transpose2d(F.conv_transpose2d(Tensor(y), Tensor(w1), stride=s1), Tensor(w2), stride=s2)
    kernel = F.conv_transpose2d(Tensor(w1), Tensor(w2), stride=s2)  # w1's input channels are its images
    once = F.conv_transpose2d(Tensor(y), kernel, stride=(s1[0] * s2[0], s1[1] * s2[1]))
    np.testing.assert_array_equal(once.numpy(), twice.numpy())


# -- bilinear upsampling --------------------------------------------------------------------------------------------------------------


@given(s=st.integers(1, 32), m=st.integers(1, 5), seed=seeds)
@example(s=2, m=3, seed=0)
def test_t12_bilinear_upsampling_is_a_transposed_convolution_but_for_the_border(s: int, m: int, seed: int) -> None:
    """k = 2s - s%2, p = floor(s/2), in whole multiples of 1/(2s); dividing by what becomes of ones, or padding the edge, mends the border."""
    k, p = 2 * s - s % 2, s // 2
    triangle = np.array([2 * s - abs(2 * a - (k - 1)) for a in range(k)])  # 2s times the filter
    np.testing.assert_allclose(bilinear_filter(k), triangle / (2 * s), rtol=0, atol=1e-15)
    x = numbers(m, seed, 9)
    ours, gain = conv_t(x, triangle, s, p), conv_t(np.ones(m, int), triangle, s, p)
    exact = []  # 2s times the value at (j + 1/2) / s - 1/2, clamped to the pixels' centres
    for j in range(m * s):
        i, part = divmod(min(max(2 * j + 1 - s, 0), 2 * s * (m - 1)), 2 * s)
        exact.append(int((2 * s - part) * x[i] + part * x[min(i + 1, m - 1)]))
    inside = slice(p, m * s - p)
    assert ours[inside].tolist() == exact[inside]
    image = Tensor(np.stack([x, x])[None, None].astype(float))
    np.testing.assert_allclose(
        F.interpolate(image, scale_factor=s, mode="bilinear").numpy()[0, 0, 0] * 2 * s, exact, rtol=1e-12, atol=1e-12
    )
    assert [Fraction(int(a) * 2 * s, int(b)) for a, b in zip(ours, gain, strict=True)] == exact
    assert conv_t(np.pad(x, 1, "edge"), triangle, s, p + s).tolist() == exact
    if p:
        assert Fraction(int(gain[0]), 2 * s) == Fraction(1, 2) + Fraction(1, 2 * s)
    assert {sum(triangle[r::s]) for r in range(s)} == {2 * s}
    odd = [s - abs(a - (s - 1)) for a in range(2 * s - 1)]  # k = 2s - 1 has unit phase sums as well
    assert {sum(odd[r::s]) for r in range(s)} == {s}


# -- im2col and its adjoint --------------------------------------------------------------------------------------------------------------


@given(case=convs(), seed=seeds)
def test_t13_im2col_is_a_map_of_zeros_and_ones(case: Conv, seed: int) -> None:
    """P has at most one 1 in a row, col2im is P^T, P^T P counts overlaps, C = (w (x) I) P, and diag(1/c) P^T undoes P where it can."""
    window, (h, w), (oh, ow) = case.window, case.size, case.window.positions(case.size)
    shape, options = (1, 1, h, w), (window.kernel, window.dilation, window.padding, window.stride)
    p = matrix(lambda v: F.unfold(Tensor(v.reshape(shape)), *options).numpy().ravel(), h * w)
    assert set(p.ravel().tolist()) <= {0, 1} and (p.sum(1) <= 1).all()
    back = matrix(lambda v: F.fold(Tensor(v.reshape(1, window.taps, -1)), (h, w), *options).numpy().ravel(), len(p))
    np.testing.assert_array_equal(back, p.T)
    count = p.sum(0)
    np.testing.assert_array_equal(p.T @ p, np.diag(count))
    kernel = integers((1, 1, *window.kernel), seed, np.int64)
    c = matrix(
        lambda v: F.conv2d(
            Tensor(v.reshape(shape)), Tensor(kernel), None, window.stride, window.padding, window.dilation
        ).numpy().ravel(),
        h * w,
    )  # fmt: skip
    np.testing.assert_array_equal(np.kron(kernel.ravel(), np.eye(oh * ow, dtype=int)) @ p, c)
    x = integers((h * w,), seed + 1, np.int64)
    seen = count > 0
    np.testing.assert_array_equal((p.T @ (p @ x))[seen] // count[seen], x[seen])
    assert not (p.T @ (p @ x))[~seen].any()


def test_t13_the_overlap_of_four_pixels_and_three_taps() -> None:
    count = F.fold(F.unfold(Tensor(np.ones((1, 1, 4, 4))), 3), (4, 4), 3).numpy()[0, 0]
    assert count.tolist() == np.outer([1, 2, 2, 1], [1, 2, 2, 1]).tolist() and count.sum() == 36


@given(line=lines(), seed=seeds)
def test_t14_the_transpose_is_not_the_inverse(line: Line, seed: int) -> None:
    """Without padding, C C^T is the autocorrelation of the kernel at multiples of the stride: ||w||^2 I if s >= K, rarely else."""
    y, w = numbers(line.m, seed), numbers(line.k, seed + 1)
    taps = np.zeros(line.span, np.int64)
    taps[:: line.d] = w  # the dilated kernel
    r = [int(taps[: max(0, line.span - t)] @ taps[t:]) for t in range(0, line.m * line.s, line.s)]
    product = matrix(lambda v: conv(conv_t(v, w, line.s, d=line.d), w, line.s, d=line.d), line.m)
    assert product.tolist() == [[r[abs(i - j)] for j in range(line.m)] for i in range(line.m)]
    if line.s >= line.span:
        np.testing.assert_array_equal(product @ y, int(w @ w) * y)


def test_t14_one_two_one() -> None:
    c = matrix(lambda x: conv(x, [1, 2, 1]), 4)
    assert (c @ c.T).tolist() == [[6, 4], [4, 6]]


# -- max-pool and unpooling ----------------------------------------------------------------------------------------------------------------


def pool(case: Pool, x: Array) -> tuple[Array, Array]:
    y, indices = F.max_pool2d(Tensor(x), return_indices=True, **case.options)
    return y.numpy(), indices.numpy()


def unpool(case: Pool, y: Array, indices: Array) -> Array:
    """Back to the size before pooling; a dilated window is unpooled as one that spans as much."""
    w = case.window
    return F.max_unpool2d(Tensor(y), Tensor(indices), w.span, w.stride, w.padding, output_size=case.size).numpy()


def gather(x: Array, indices: Array) -> Array:
    (n, c, oh, ow), (h, w) = indices.shape, x.shape[2:]
    return np.take_along_axis(x.reshape(n, c, h * w), indices.reshape(n, c, oh * ow), 2).reshape(indices.shape)


@given(case=pools(), seed=seeds)
def test_t15_max_pool_is_a_gather_and_unpooling_its_adjoint(case: Pool, seed: int) -> None:
    """With G taken from the indices: pool(x) = G x, <G x, y> = <x, G^T y>; G G^T = I where windows are disjoint."""
    x, z, y = integers(case.x, seed), integers(case.x, seed + 1), integers(case.y, seed + 2)
    best, indices = pool(case, x)
    np.testing.assert_array_equal(best, gather(x, indices))
    back = unpool(case, y, indices)
    assert np.vdot(gather(z, indices), y) == np.vdot(z, back)
    if all(s >= span for s, span in zip(case.window.stride, case.window.span, strict=True)):
        np.testing.assert_array_equal(gather(back, indices), y)


@given(kernel=st.tuples(st.integers(1, 3), st.integers(2, 3)), more=st.tuples(st.integers(0, 2), st.integers(0, 2)), seed=seeds)
def test_t15_pooling_after_unpooling_is_relu(kernel: tuple[int, int], more: tuple[int, int], seed: int) -> None:
    """Disjoint windows of at least two pixels: beside y each holds a 0, which wins over negative numbers."""
    stride = (kernel[0] + more[0], kernel[1] + more[1])
    case = Pool(Window(kernel, stride), (kernel[0] + stride[0], kernel[1] + 2 * stride[1]), 2, 2)
    _, indices = pool(case, tie_free(case.x, seed))
    y = integers(case.y, seed + 1)
    np.testing.assert_array_equal(pool(case, unpool(case, y, indices))[0], F.relu(Tensor(y)).numpy())


@given(case=pools(), seed=seeds)
@example(case=Pool(Window((1, 3), (1, 2)), (1, 5), 1, 1), seed=0)
def test_t16_where_windows_overlap_gradients_add(case: Pool, seed: int) -> None:
    """The gradient of pooling at a pixel is the sum over the windows that it wins: unpooling that adds, not one that overwrites."""
    x, g = integers(case.x, seed), 1 + abs(integers(case.y, seed + 1))
    _, indices = pool(case, x)
    t = Tensor(x, requires_grad=True)
    (dx,) = grad(F.max_pool2d(t, **case.options), t, g)
    expected = np.zeros((*case.x[:2], case.size[0] * case.size[1]))
    overwritten = expected.copy()
    for n, c in np.ndindex(*case.y[:2]):
        for i, value in zip(indices[n, c].ravel(), g[n, c].ravel(), strict=True):
            expected[n, c, i] += value
            overwritten[n, c, i] = value
    np.testing.assert_array_equal(dx.numpy(), expected.reshape(case.x))
    np.testing.assert_array_equal(unpool(case, g, indices), expected.reshape(case.x))
    repeats = any(len(set(i.tolist())) < i.size for i in indices.reshape(-1, case.y[2] * case.y[3]))
    assert np.array_equal(expected, overwritten) == (not repeats)


def test_t16_a_pixel_that_wins_twice() -> None:
    x = Tensor(np.array([1.0, 2, 5, 3, 0]).reshape(1, 1, 1, 5), requires_grad=True)
    y, indices = F.max_pool2d(x, (1, 3), (1, 2), return_indices=True)
    assert indices.numpy().ravel().tolist() == [2, 2]
    assert F.max_unpool2d(y.detach(), indices, (1, 3), (1, 2)).numpy().ravel().tolist() == [0, 0, 10, 0, 0]
    assert grad(y.sum(), x)[0].numpy().ravel().tolist() == [0, 0, 2, 0, 0]


def row_max(x: Array) -> float:
    return float(F.max_pool2d(row(x), (1, len(x))).item())


def row_max_grad(x: Array) -> Array:
    t = Tensor(row(x), requires_grad=True)
    return grad(F.max_pool2d(t, (1, len(x))), t, np.ones((1, 1, 1, 1)))[0].numpy()[0, 0, 0]


@given(n=st.integers(2, 6), ties=st.integers(2, 6), seed=seeds, j=st.integers(1, 20))
def test_t17_at_ties_differences_are_a_half_and_ours_is_a_subgradient(n: int, ties: int, seed: int, j: int) -> None:
    """Of tied maxima the first gets the gradient, and max(z) >= max(x) + <gradient, z - x> for every z; no difference can agree."""
    ties, h = min(ties, n), 2.0**-j
    x = -1.0 - abs(numbers(n, seed))
    tied = np.sort(np.random.default_rng(seed).permutation(n)[:ties])
    x[tied] = 0
    g = row_max_grad(x)
    assert g.tolist() == [float(i == tied[0]) for i in range(n)]
    differences = [(row_max(x + h * e) - row_max(x - h * e)) / (2 * h) for e in np.eye(n)]
    assert differences == [0.5 * (i in tied) for i in range(n)]
    z = numbers(n, seed + 1, 9).astype(float)
    assert row_max(z) >= row_max(x) + g @ (z - x)


@given(n=st.integers(2, 6), seed=seeds, gap=st.integers(0, 8), data=st.data())
def test_t17_differences_need_gaps_of_twice_the_step(n: int, seed: int, gap: int, data: st.DataObject) -> None:
    """Along any direction with entries in [-1, 1]: exact if the maximum leads by 2h; against the direction (1, -1), only then."""
    h = 0.5
    x = -9.0 - abs(numbers(n, seed))
    first, second = (int(i) for i in np.random.default_rng(seed).permutation(n)[:2])
    x[first], x[second] = 0, -gap / 4
    v = np.array(data.draw(st.lists(st.integers(-4, 4), min_size=n, max_size=n))) / 4
    worst = np.zeros(n)
    worst[first], worst[second] = 1, -1
    for direction, enough in ((v, False), (worst, True)):
        exact = (row_max(x + h * direction) - row_max(x - h * direction)) / (2 * h) == row_max_grad(x) @ direction
        if gap / 4 >= 2 * h:
            assert exact
        elif enough and gap:
            assert not exact


@given(n=st.integers(1, 30), k=st.integers(1, 6), s=st.integers(1, 6), data=st.data())
def test_t18_ceil_mode_keeps_windows_that_start_in_the_image(n: int, k: int, s: int, data: st.DataObject) -> None:
    """One more window where pixels are left over, unless it would start in the padding on the right."""
    p = data.draw(st.integers(0, k // 2))
    assume(n + 2 * p >= k)
    starts = [0]
    while starts[-1] + k < n + 2 * p and starts[-1] + s < n + p:  # the padded image is not covered yet; the next window starts inside
        starts.append(starts[-1] + s)
    y = F.max_pool2d(row(np.arange(n, dtype=float)), (1, k), (1, s), (0, p), ceil_mode=True)
    assert y.shape[3] == len(starts)
    floor = [i for i in range(n + 2 * p) if i % s == 0 and i + k <= n + 2 * p]
    assert F.max_pool2d(row(np.arange(n, dtype=float)), (1, k), (1, s), (0, p)).shape[3] == len(floor)


@given(n=st.integers(16, 400), depth=st.integers(1, 4), seed=seeds)
@example(n=360, depth=5, seed=0)
def test_t18_unpooling_must_be_told_the_size(n: int, depth: int, seed: int) -> None:
    """Doubling comes back to n only if 2^depth divides it; the stored sizes always do, and every maximum is where it was."""
    x = row(tie_free((n,), seed))
    y, sizes, winners = x, [], []
    for _ in range(depth):
        sizes.append(y.shape[3])
        y, indices = F.max_pool2d(y, (1, 2), return_indices=True)
        winners.append(indices)
    assert (y.shape[3] << depth == n) == (n % 2**depth == 0)
    kept = y.numpy().ravel()
    for size, indices in zip(reversed(sizes), reversed(winners), strict=True):
        y = F.max_unpool2d(y, indices, (1, 2), output_size=(1, size))
    back, before = y.numpy().ravel(), x.numpy().ravel()
    assert len(back) == n and sorted(back[back != 0]) == sorted(kept)
    np.testing.assert_array_equal(back[back != 0], before[back != 0])


def test_t18_examples() -> None:
    assert F.max_pool2d(row(np.arange(6.0)), (1, 2), (1, 3), ceil_mode=True).shape[3] == 2
    sizes = [360]
    while sizes[-1] > 11:
        sizes.append(Window((2, 2), (2, 2)).positions((sizes[-1], sizes[-1]))[0])
    assert sizes == [360, 180, 90, 45, 22, 11] and 11 * 2 * 2 == 44 != 45


# -- receptive fields, FCN, U-Net -------------------------------------------------------------------------------------------------------


@st.composite
def stacks(draw: st.DrawFn) -> list[Line]:
    """One to three windows, one after the other."""
    return [
        Line(draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(0, 2)), draw(st.integers(1, 2)))
        for _ in range(draw(st.integers(1, 3)))
    ]


def field(stack: list[Line]) -> tuple[int, Fraction, int]:
    """(size, centre of output 0, jump) of the receptive field."""
    size, start, jump = 1, Fraction(0), 1
    for line in stack:
        size += (line.span - 1) * jump
        start += (Fraction(line.span - 1, 2) - line.p) * jump
        jump *= line.s
    return size, start, jump


def down(stack: list[Line], x: Tensor) -> Tensor:
    for line in stack:
        x = F.conv2d(x, row(np.ones(line.k)), stride=(1, line.s), padding=(0, line.p), dilation=(1, line.d))
    return x


def reached(v: Array) -> tuple[int, int]:
    """First and last number that is not 0."""
    where = np.flatnonzero(v)
    return int(where[0]), int(where[-1])


@given(stack=stacks())
def test_t19_receptive_fields(stack: list[Line]) -> None:
    """r += (K - 1) j, start += ((K - 1)/2 - p) j, j *= s: what an output in the middle of the image depends on."""
    size, start, jump = field(stack)
    n = 4 * size + 8 * jump + 40
    x = row(np.zeros(n))
    x.requires_grad_()
    y = down(stack, x)
    middle = y.shape[3] // 2
    (g,) = grad(y[0, 0, 0, middle], x)
    first, last = reached(g.numpy()[0, 0, 0])
    assert last - first + 1 == size
    assert Fraction(first + last, 2) == start + middle * jump


def test_t19_vgg16() -> None:
    vgg = [*([Line(3, 1, 1)] * 2 + [Line(2, 2)]) * 2, *([Line(3, 1, 1)] * 3 + [Line(2, 2)]) * 3]
    assert (field(vgg)[0], field(vgg)[2]) == (212, 32)
    assert field([*vgg, Line(7)])[0] == 404


@given(stack=stacks(), more=st.integers(0, 3))
def test_t20_offsets_follow_from_where_windows_put_their_pixels(stack: list[Line], more: int) -> None:
    """Down, b <- (b + p - (K - 1)/2) / s; up, b <- b s + (K - 1)/2 - p: the distance from what a coarse pixel sees to what it paints."""
    _, _, jump = field(stack)
    kernel, p = 2 * jump, more
    n = 4 * field(stack)[0] + 12 * jump + 40
    x = row(np.zeros(n))
    x.requires_grad_()
    y = down(stack, x)
    middle = y.shape[3] // 2
    (sees,) = grad(y[0, 0, 0, middle], x)
    unit = np.zeros(y.shape[3])
    unit[middle] = 1
    paints = conv_t(unit, np.ones(kernel), jump, p)
    place = Placement()
    for line in stack:
        place = place.window(line.window, 1)
    up = place.transposed(Window((1, kernel), (1, jump), (0, p)), 1)
    assert up.scale == 1
    assert up.shift == Fraction(sum(reached(paints)), 2) - Fraction(sum(reached(sees.numpy()[0, 0, 0])), 2)


@given(pad=st.integers(81, 130))
def test_t20_fcn_crops(pad: int) -> None:
    """The last offset is pad - 81, - 73 and - 69 for FCN-32s, -16s and -8s; those of the skips, 5 and 9, do not depend on pad."""
    layers = list(vgg_features(16, 1, 1, pad=pad, ceil_mode=True))
    pools = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    score = Placement().through(layers).window(Window((7, 7)))
    by2, by8, by16, by32 = (Window((2 * s, 2 * s), (s, s)) for s in (2, 8, 16, 32))
    pool4, pool3 = (Placement().through(layers[: pools[i] + 1]) for i in (3, 2))
    assert score.transposed(by32).offset(Placement()) == pad - 81
    assert pool4.offset(score.transposed(by2)) == 5
    assert score.transposed(by2).transposed(by16).offset(Placement()) == pad - 73
    assert pool3.offset(score.transposed(by2).transposed(by2)) == 9
    assert score.transposed(by2).transposed(by2).transposed(by8).offset(Placement()) == pad - 69


def test_t20_the_published_offsets() -> None:
    networks = ((FCN32s, (19,)), (FCN16s, (5, 27)), (FCN8s, (5, 9, 31)))
    for network, offsets in networks:
        assert network(classes=2, in_channels=1, width=1).offsets == offsets
    assert FCNAlexNet(classes=2, in_channels=1, width=6).offsets == (18,)
    layers = list(vgg_features(16, 1, 1, pad=100, ceil_mode=True))
    score = Placement().through(layers).window(Window((7, 7)))
    assert (score.scale, score.shift) == (Fraction(1, 32), Fraction(-25, 64))
    assert [float(Placement().through(layers[:n]).shift) for n in (1, 5)] == [99, 49.25]  # behind conv1_1 and pool1


@given(n=st.integers(1, 1024))
def test_t20_padding_by_100_and_rounding_up_cover_every_image(n: int) -> None:
    layers = [*vgg_features(16, 1, 1, pad=100, ceil_mode=True), nn.Conv2d(1, 1, 7), nn.ConvTranspose2d(1, 1, 64, 32)]
    assert size_behind(layers, n) >= n + 19


def test_t20_rounding_down_does_not() -> None:
    """12 of every 32 sizes miss the last pixels, and below 26 no pixel is left to score: 397 of 1024."""
    layers = [*vgg_features(16, 1, 1, pad=100, ceil_mode=False), nn.Conv2d(1, 1, 7), nn.ConvTranspose2d(1, 1, 64, 32)]
    missed = [n for n in range(1, 1025) if size_behind(layers, n) < n + 19]
    assert missed == [n for n in range(1, 1025) if n < 26 or (n + 198) % 32 >= 20]
    assert len(missed) == 397


@given(n=st.integers(1, 700))
@example(n=572)
@example(n=188)
@example(n=172)
def test_t21_unet_without_padding(n: int) -> None:
    """No pooling drops a pixel and something is left over iff n = 12 (mod 16) and n >= 188; then n - 184 pixels come out."""
    size, maps, fits = n, [], True
    for _ in range(4):
        size -= 4
        maps.append(size)
        fits = fits and size > 0 and size % 2 == 0
        size //= 2
    size -= 4
    crops = []
    for map in reversed(maps):
        size *= 2
        crops.append((map - size) // 2)
        size -= 4
    fits = fits and size > 0
    assert fits == (n % 16 == 12 and n >= 188) == UNet(base=1).takes(n)
    if fits:
        assert size == n - 184 and crops == [4, 16, 40, 88] == list(UNet(base=1).crops)


def test_t21_on_the_network_itself() -> None:
    y = UNet(in_channels=1, classes=2, base=1)(Tensor(np.zeros((1, 1, 188, 204), np.float32)))
    assert y.shape == (1, 2, 4, 20) and 572 - 184 == 388


# -- Winograd ---------------------------------------------------------------------------------------------------------------------------


def winograd(points: list[int], taps: int) -> tuple[list[list[Fraction]], ...]:
    """(A^T, G, B^T) of F(m, taps) from n - 1 = m + taps - 2 points and infinity: Toom and Cook's product of polynomials, transposed.

    A polynomial of n coefficients is known from its values at n - 1 points and its leading coefficient; V takes them, V^-1 gives it back.
    The product of w and y is V^-1 [(V w) * (V y)]; read for fixed w as a matrix and transposed, that is the convolution.
    """
    n = len(points) + 1
    outputs = n + 1 - taps

    def values(size: int) -> list[list[Fraction]]:
        return [*([Fraction(p) ** i for i in range(size)] for p in points), [Fraction(int(i == size - 1)) for i in range(size)]]

    v = values(n)
    inverse = [[Fraction(int(i == j)) for j in range(n)] for i in range(n)]
    for i in range(n):  # Gauss and Jordan
        pivot = next(r for r in range(i, n) if v[r][i])
        v[i], v[pivot], inverse[i], inverse[pivot] = v[pivot], v[i], inverse[pivot], inverse[i]
        inverse[i], v[i] = [a / v[i][i] for a in inverse[i]], [a / v[i][i] for a in v[i]]
        for r in range(n):
            if r != i and v[r][i]:
                inverse[r] = [a - v[r][i] * b for a, b in zip(inverse[r], inverse[i], strict=True)]
                v[r] = [a - v[r][i] * b for a, b in zip(v[r], v[i], strict=True)]
    return [list(c) for c in zip(*values(outputs), strict=True)], values(taps), [list(c) for c in zip(*inverse, strict=True)]


def times(matrix: list[list[Fraction]], v: Any) -> list[Fraction]:
    return [sum((a * int(b) if isinstance(b, np.integer) else a * b for a, b in zip(r, v, strict=True)), Fraction(0)) for r in matrix]


@given(points=st.lists(st.integers(-4, 4), min_size=2, max_size=6, unique=True), data=st.data(), seed=seeds)
@example(points=[0, 1, -1], data=None, seed=0)
@example(points=[0, 1, -1, 2, -2], data=None, seed=0)
def test_t22_winograd_and_its_transpose(points: list[int], data: st.DataObject | None, seed: int) -> None:
    """C = A^T diag(G w) B^T, hence C^T = B diag(G w) A: a transposed convolution in as many multiplications, m + taps - 1."""
    taps = 3 if data is None else data.draw(st.integers(1, len(points)))
    a_t, g, b_t = winograd(points, taps)
    outputs, n = len(a_t), len(points) + 1
    x, w, y = numbers(n, seed), numbers(taps, seed + 1), numbers(outputs, seed + 2)
    a, b = ([list(c) for c in zip(*m, strict=True)] for m in (a_t, b_t))
    gw = times(g, w)
    assert len(gw) == outputs + taps - 1
    assert times(a_t, [p * q for p, q in zip(gw, times(b_t, x), strict=True)]) == conv(x, w).tolist()
    assert times(b, [p * q for p, q in zip(gw, times(a, y), strict=True)]) == conv_t(y, w).tolist()


# -- checking gradients -----------------------------------------------------------------------------------------------------------------


@given(case=convs(), seed=seeds, j=st.integers(0, 10))
def test_t23_differences_of_a_linear_function_are_exact(case: Conv, seed: int, j: int) -> None:
    """conv2d is linear in x and in w apart, so with whole numbers and h = 2^-j the central difference is the slope, bit for bit."""
    h = 2.0**-j
    x, w, v, u, g = (integers(shape, seed + i) for i, shape in enumerate((case.x, case.w, case.x, case.w, case.y)))
    a, b = Tensor(x, requires_grad=True), Tensor(w, requires_grad=True)
    dx, dw = grad(F.conv2d(a, b, **case.options), [a, b], g)

    def loss(x: Array, w: Array) -> float:
        return float(np.vdot(F.conv2d(Tensor(x), Tensor(w), **case.options).numpy(), g))

    assert (loss(x + h * v, w) - loss(x - h * v, w)) / (2 * h) == np.vdot(dx.numpy(), v)
    assert (loss(x, w + h * u) - loss(x, w - h * u)) / (2 * h) == np.vdot(dw.numpy(), u)


@pytest.mark.parametrize(("dtype", "step"), [(np.float64, 8.7e-6), (np.float32, 7.1e-3)])
@given(seed=seeds)
def test_t23_of_others_the_best_step_is_the_cube_root_of_three_eps(dtype: Any, step: float, seed: int) -> None:
    """The error of e^x is at most e^x (h^2 / 6 + eps / h) for reasonable h; least at h = (3 eps)^(1/3), thirty times h is worse, and a thirtieth."""
    eps = float(np.finfo(dtype).eps)
    best = (3 * eps) ** (1 / 3)
    assert abs(best - step) < step / 100
    x = np.random.default_rng(seed).uniform(0, 1, 200).astype(dtype)
    t = Tensor(x, requires_grad=True)
    (slope,) = grad(F.exp(t), t, np.ones_like(x))

    def error(h: float) -> Array:
        up, down = x + dtype(h), x - dtype(h)  # what the sums really are, rounded: the difference is divided by their distance
        difference = (F.exp(Tensor(up)).numpy() - F.exp(Tensor(down)).numpy()).astype(np.float64) / (up.astype(np.float64) - down)
        return abs(difference / slope.numpy() - 1)

    errors = {scale: error(scale * best) for scale in (1 / 30, 1, 30)}
    for scale, e in errors.items():
        h = scale * best
        assert (e <= 1.05 * h * h / 6 + 3 * eps / h).all()
    assert errors[1].mean() < errors[30].mean() / 30 and errors[1].mean() < errors[1 / 30].mean() / 5
