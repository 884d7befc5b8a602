"""Theorems T1 to T7, on transposed convolution, as properties of the engine: exact, in whole numbers.

The number is in each test's name; docs/math/13-theorems.md says where each theorem is proved. Letters are those of theorems.py.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from theorems import Line, along, conv, conv_t, lines, matrix, numbers, row

from minidcnn import Tensor, grad
from minidcnn import functional as F
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
    """dL/dx: the transposed convolution with the same weight. dL/dw: x^T convolved with g^T, stride and dilation swapped, cropped.

    What is cropped are floor(rho / d) rows or columns, where rho pixels lie behind the last window.
    """
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
    behind = case.output_padding  # rho: as many pixels as the smallest image with these windows lacks
    kh, kw = window.kernel
    assert whole.shape[2:] == tuple(k + rho // d for k, rho, d in zip(window.kernel, behind, window.dilation, strict=True))
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
    """Pixels r, r + s, ... of the whole output come from the taps with a d = r (mod s), and those taps reach no others.

    With g = gcd(s, d) these are every (s/g)-th tap from the first, a0, on, and the phase is the transposed convolution with them at stride 1 and
    dilation d/g, moved by (a0 d - r) / s.
    """
    y, w = numbers(line.m, seed), numbers(line.k, seed + 1)
    whole = conv_t(y, w, line.s, d=line.d)
    g = math.gcd(line.s, line.d)
    for r in range(line.s):
        taps = line.phase(r)
        alone = conv_t(y, [w[a] if a in taps else 0 for a in range(line.k)], line.s, d=line.d)
        np.testing.assert_array_equal(alone[r :: line.s], whole[r :: line.s])
        assert np.count_nonzero(alone) == np.count_nonzero(alone[r :: line.s])
        if taps:
            assert taps == list(range(taps[0], line.k, line.s // g))
            part, before = conv_t(y, w[taps], d=line.d // g), (taps[0] * line.d - r) // line.s
            behind = len(whole[r :: line.s]) - before - len(part)
            np.testing.assert_array_equal(whole[r :: line.s], np.pad(part, (before, behind)))


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
