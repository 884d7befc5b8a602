"""Theorems T15 to T18, on max-pooling and unpooling: a gather and its adjoint, ties, sizes."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, example, given
from hypothesis import strategies as st
from theorems import Array, numbers, row

from minidcnn import Tensor, grad
from minidcnn import functional as F
from minidcnn.testing import Pool, integers, pools, seeds, tie_free
from minidcnn.window import Window

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
