"""Theorems T8 to T14, on overlap, checkerboards, bilinear upsampling and im2col, as properties of the engine: exact, in integers or rationals.

The number is in each test's name; docs/math/13-theorems.md says where each theorem is proved. Letters are those of theorems.py.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from theorems import Line, conv, conv_t, lines, matrix, numbers

from minidcnn import Tensor
from minidcnn import functional as F
from minidcnn.nn.init import bilinear_filter
from minidcnn.testing import Conv, convs, integers, pairs, seeds
from minidcnn.window import Pair

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


@given(kernel=pairs(1, 4), stride=pairs(1, 3), dilation=pairs(1, 2), clean=st.lists(st.booleans(), min_size=6, max_size=6), seed=seeds)
@example(kernel=(3, 4), stride=(2, 3), dilation=(1, 2), clean=[True, True, True, False, True, True], seed=0)
def test_t09_every_pair_of_channels_has_its_phase_sums(kernel: Pair, stride: Pair, dilation: Pair, clean: list[bool], seed: int) -> None:
    """Constant channels c become the sum of c_i W_(r, i, o) at phase r of output channel o: even for every c iff every pair has equal sums."""
    w = integers((2, 3, *kernel), seed, np.int64)
    axes = [Line(k, s, d=d) for k, s, d in zip(kernel, stride, dilation, strict=True)]
    phases = [(axes[0].phase(r), axes[1].phase(q)) for r in range(stride[0]) for q in range(stride[1])]
    for even, pair in zip(clean, w.reshape(6, *kernel), strict=True):
        for rows, columns in phases:
            if even and rows and columns:
                pair[rows[-1], columns[-1]] += 2 - pair[np.ix_(rows, columns)].sum()
    sums = np.stack([w[:, :, rows][:, :, :, columns].sum((2, 3)) for rows, columns in phases]).reshape(*stride, 2, 3)
    m = [line.span // line.s + 3 for line in axes]
    inside = [np.arange(line.span - 1, (n - 1) * line.s + 1) for line, n in zip(axes, m, strict=True)]
    flat = [True] * 3
    for c in ((3, -2), (1, 0), (0, 1)):
        image = np.broadcast_to(np.reshape(c, (1, 2, 1, 1)), (1, 2, *m))
        out = F.conv_transpose2d(Tensor(image), Tensor(w), stride=stride, dilation=dilation).numpy()[0]
        expected = np.moveaxis(sums[np.ix_(*(j % s for j, s in zip(inside, stride, strict=True)))], 3, 0) @ np.array(c)
        np.testing.assert_array_equal(out[:, inside[0]][:, :, inside[1]], expected)
        flat = [even and len(set(channel.ravel().tolist())) == 1 for even, channel in zip(flat, expected, strict=True)]
    assert flat == (sums == sums[0, 0]).all((0, 1, 2)).tolist()


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


@given(case=convs(), seed=seeds)
def test_t13_with_channels_it_acts_on_each_by_itself(case: Conv, seed: int) -> None:
    """The columns of a channel are P times its pixels; w has a row for each output channel, a column for each tap of each input channel."""
    case = replace(case, groups=1)
    window, options = case.window, (case.window.kernel, case.window.dilation, case.window.padding, case.window.stride)
    x, w = integers(case.x, seed, np.int64), integers(case.w, seed + 1, np.int64)
    pixels, positions = math.prod(case.size), math.prod(case.y[2:])
    p = matrix(lambda v: F.unfold(Tensor(v.reshape(1, 1, *case.size)), *options).numpy().ravel(), pixels)
    columns = F.unfold(Tensor(x), *options).numpy()
    apart = x.reshape(case.batch, case.channels, pixels) @ p.T  # (N, C, taps positions)
    np.testing.assert_array_equal(columns, apart.reshape(case.batch, case.channels * window.taps, positions))
    y = F.conv2d(Tensor(x), Tensor(w), **case.options).numpy()
    np.testing.assert_array_equal(y, (w.reshape(case.outputs, -1) @ columns).reshape(case.y))


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
