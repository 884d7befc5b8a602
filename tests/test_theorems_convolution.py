"""Theorems T1 to T14, on transposed convolution and im2col, as properties of the engine: exact, in integers or rationals.

The number is in each test's name; docs/math/13-theorems.md says where each theorem is proved. Letters are those of theorems.py.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from theorems import Line, along, conv, conv_t, lines, matrix, numbers, row

from minidcnn import Tensor, grad
from minidcnn import functional as F
from minidcnn.nn.init import bilinear_filter
from minidcnn.testing import Conv, convs, integers, seeds

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


@given(
    s=st.integers(1, 4), u=st.tuples(st.integers(1, 4), st.integers(1, 4)), c=st.tuples(st.integers(0, 3), st.integers(0, 3)), seed=seeds
)
def test_t06_conversely_a_shuffled_convolution_is_a_transposed_one(s: int, u: tuple[int, int], c: tuple[int, int], seed: int) -> None:
    """W[:, o, r::s, q::s] = flip(V[(o, r, q)]); a padding of u - 1 - c instead of u - 1 is a padding of s c here."""
    c = (min(c[0], u[0] - 1), min(c[1], u[1] - 1))
    y, v = integers((2, 3, 4, 5), seed, np.int64), integers((2 * s * s, 3, *u), seed + 1, np.int64)
    w = np.empty((3, 2, s * u[0], s * u[1]), np.int64)
    for part, (o, r, q) in zip(v, np.ndindex(2, s, s), strict=True):
        w[:, o, r::s, q::s] = np.flip(part, (1, 2))
    shuffled = F.pixel_shuffle(F.conv2d(Tensor(y), Tensor(v), padding=(u[0] - 1 - c[0], u[1] - 1 - c[1])), s)
    out = F.conv_transpose2d(Tensor(y), Tensor(w), stride=s, padding=(s * c[0], s * c[1]))
    np.testing.assert_array_equal(shuffled.numpy(), out.numpy())


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
