"""Winograd convolution: the factorisation is exact in fractions, and the vector code agrees with the reference for every shape."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidcnn.backend import Kernels, nchw
from minidcnn.backend.cpu import matmul, transforms, vector, winograd
from minidcnn.backend.cpu.jit import jit
from minidcnn.window import Window

REFERENCE = Kernels(np)


# -- the mathematics (T22) --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outputs", "taps", "points", "imaginary"),
    [
        (2, 3, (0, 1, -1), False), (4, 3, (0, 1, -1, 2, -2), False), (4, 3, transforms.POINTS, False), (3, 2, (0, 1, -1), False), (1, 1, (), False),
        (4, 3, (0, 1, -1), True), (2, 3, (1,), True), (3, 3, (0, 2), True), (5, 2, (1, Fraction(1, 2), -3), True), (2, 2, (), True),
    ],
)  # fmt: skip
def test_the_matrices_factor_the_convolution_exactly(outputs: int, taps: int, points: tuple[Fraction | int, ...], imaginary: bool) -> None:
    """C(w) = A^T diag(G w) B^T for every filter w, in fractions."""
    a_t, g, b_t = transforms.matrices(outputs, taps, points, imaginary)
    assert len(g) == outputs + taps - 1 + imaginary
    for j in range(taps):  # the filter that is 1 at tap j, since all is linear in w
        for i in range(outputs):
            row = [sum(a_t[i][p] * g[p][j] * b_t[p][x] for p in range(len(g))) for x in range(outputs + taps - 1)]
            assert row == [Fraction(int(x == i + j)) for x in range(outputs + taps - 1)]


def amplified(points: tuple[Fraction | int, ...], imaginary: bool = False) -> float:
    """How much larger in the definition's place the error is, in two dimensions, if pixels, weights and the factors' roundings are independent."""
    a_t, g, b_t = (np.square(np.array(m, float)) for m in transforms.matrices(4, 3, points, imaginary))
    return float((a_t @ (g.sum(1) * b_t.sum(1))).mean() / 3)


def test_no_other_points_with_small_numerators_lose_fewer_digits() -> None:
    fractions = {Fraction(a, b) for b in range(1, 6) for a in range(1, 2 * b + 1)}
    best = amplified(transforms.POINTS)
    for p, q in itertools.combinations(sorted(fractions), 2):
        assert amplified((Fraction(0), p, -p, q, -q)) >= best
    assert 2.2 < amplified((0, 1, -1, 2, -2)) / best < 2.3


def test_i_and_its_negative_lose_hardly_more_than_the_definition() -> None:
    """And all numbers of A and B are 0, 1 and -1, those of G powers of two."""
    assert 1.8 < amplified((0, 1, -1), True) < 1.85 < 4.7 < amplified(transforms.POINTS)
    for matrix, values in ((transforms.BF16_A_T, {0, 1}), (transforms.BF16_B_T, {0, 1}), (transforms.BF16_G, {0, 1, 0.5, 0.25})):
        assert {abs(v) for row in matrix for v in row} == values


# -- the vector code ------------------------------------------------------------------------------------------------------------


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


multiply = matmul.multiply
add = jit(lambda *arguments: matmul.add(*arguments, None))


@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("more", [0, 1])
def test_product_is_the_sum_of_the_products_of_its_runs(vectors: int, runs: int, more: int, rng: np.random.Generator) -> None:
    block, columns, k = vector.ROWS[vectors - 1], vectors * vector.LANES, 7
    rows = 2 * block
    product = vector.make_product(block, vectors)
    run = jit(lambda a, ar, step, n, b, c, more: product(a, ar, step, n, b, c, columns + 2, k, rows, more, None))
    a, b = rng.integers(-3, 4, (runs, rows, k + 1)).astype("f4"), rng.integers(-3, 4, (runs, k, columns)).astype("f4")
    c = rng.integers(-3, 4, (rows, columns + 2)).astype("f4")
    expected = c.copy()
    expected[:, :columns] = np.einsum("rik,rkj->ij", a[:, :, :k], b) + more * c[:, :columns]
    run(address(a), k + 1, rows * (k + 1), runs, address(b), address(c), more)
    np.testing.assert_array_equal(c, expected)  # and nothing beside the block is touched


@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("runs", "k"), [(1, 5), (1, 2 * matmul.DEEP + 7), (3, matmul.DEEP - 1), (7, matmul.DEEP // 3), (2, 2 * matmul.DEEP)]
)
def test_products_in_parts_that_fit_the_cache_lose_no_part(vectors: int, runs: int, k: int, rng: np.random.Generator) -> None:
    rows, columns = 2 * vector.ROWS[vectors - 1], vectors * vector.LANES
    a, b = rng.integers(-3, 4, (runs, rows, k)).astype("f4"), rng.integers(-3, 4, (runs, k, columns)).astype("f4")
    c = np.full((rows, columns), 7, "f4")
    expected = np.einsum("rik,rkj->ij", a, b)
    multiply(address(a), k, rows * k, runs, address(b), address(c), columns, k, rows, vectors, 0, None)
    np.testing.assert_array_equal(c, expected)
    multiply(address(a), k, rows * k, runs, address(b), address(c), columns, k, rows, vectors, 1, None)
    np.testing.assert_array_equal(c, 2 * expected)


@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [4, 8, 12, 16, 20, 28, 48])
@pytest.mark.parametrize(("k", "more"), [(3, 0), (3, 1), (2 * matmul.LONG + 5, 0), (2 * matmul.LONG + 5, 1)])
def test_sums_of_any_multiple_of_four_rows(vectors: int, rows: int, k: int, more: int, rng: np.random.Generator) -> None:
    columns = vectors * vector.LANES
    a, b = rng.integers(-3, 4, (k, rows)).astype("f4"), rng.integers(-3, 4, (k, columns + 1)).astype("f4")
    c = rng.integers(-3, 4, (rows + 1, columns + 2)).astype("f4")
    expected = c.copy()
    expected[:rows, :columns] = a.T @ b[:, :columns] + more * c[:rows, :columns]
    add(address(a), 1, rows, address(b), columns + 1, address(c), columns + 2, k, rows, vectors, more)
    np.testing.assert_array_equal(c, expected)


@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [*range(1, 20), 31, 67])
def test_sums_write_no_more_rows_than_a_multiple_of_four(vectors: int, rows: int, rng: np.random.Generator) -> None:
    """What lies behind is the next of the 36 planes, another part's sums or the allocator's."""
    columns, k, high = vectors * vector.LANES, 3, -(-rows // matmul.ADDS) * matmul.ADDS
    a, b = rng.integers(-3, 4, (k, high + 2 * matmul.ROWS1)).astype("f4"), rng.integers(-3, 4, (k, columns)).astype("f4")
    for more in (0, 1):
        c = np.full((a.shape[1], columns), 7, "f4")
        add(address(a), 1, a.shape[1], address(b), columns, address(c), columns, k, rows, vectors, more)
        np.testing.assert_array_equal(c[:rows], (a.T @ b)[:rows] + 7 * more)
        assert (c[high:] == 7).all()


@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
def test_sum_adds_the_matrix_product_also_of_a_transpose(vectors: int, rng: np.random.Generator) -> None:
    block, columns, k = vector.ROWS[vectors - 1], vectors * vector.LANES, 7
    rows = 2 * block
    product = vector.make_sum(block, vectors)
    run = jit(lambda a, ar, ak, b, c: product(a, ar, ak, b, columns + 1, c, columns + 2, k, rows, 1, None))
    a, b = rng.integers(-3, 4, (rows, k)).astype("f4"), rng.integers(-3, 4, (k, columns + 1)).astype("f4")
    before = rng.integers(-3, 4, (rows, columns + 2)).astype("f4")
    for matrix, row, step in ((a, k, 1), (np.ascontiguousarray(a.T), 1, rows)):
        c, expected = before.copy(), before.copy()
        expected[:, :columns] += a @ b[:, :columns]
        run(address(matrix), row, step, address(b), address(c))
        np.testing.assert_array_equal(c, expected)


def test_transpose_transposes(rng: np.random.Generator) -> None:
    n, turn = vector.LANES, vector.make_transpose()
    run = jit(lambda a, b: turn(a, n + 3, b, n + 1))
    a, b = rng.standard_normal((n, n + 3)).astype("f4"), np.zeros((n, n + 1), "f4")
    run(address(a), address(b))
    np.testing.assert_array_equal(b[:, :n], a[:, :n].T)
    np.testing.assert_array_equal(b[:, n], 0)


@pytest.mark.parametrize("twos", [None, 1])
@pytest.mark.parametrize("which", ["A_T", "G", "B_T"])
def test_transform_is_the_map_on_both_sides(which: str, twos: int | None, rng: np.random.Generator) -> None:
    matrix, bf16 = getattr(transforms, which), getattr(transforms, f"BF16_{which}")
    exact, count = np.array(matrix if twos is None else bf16, dtype=float), 2 * vector.LANES
    transform = vector.make_transform(matrix, bf16)

    @jit
    def run(src, dst, n, m, total):
        transform(src, n * total, total, dst, m * total, total, total, twos)  # the last vector begins before where the one before it ends

    total = count + 3
    x, y = rng.integers(-8, 9, (exact.shape[1],) * 2 + (total,)).astype("f4"), np.zeros((exact.shape[0],) * 2 + (total,), "f4")
    run(address(x), address(y), exact.shape[1], exact.shape[0], total)
    np.testing.assert_allclose(y, np.einsum("ij,jkc,lk->ilc", exact, x, exact), rtol=1e-5, atol=1e-5)


# -- the convolutions -------------------------------------------------------------------------------------------------------------


def images(rng: np.random.Generator, n: int, c: int, h: int, w: int, layout: str) -> np.ndarray:
    x = nchw(rng.standard_normal((n, h, w, c), dtype="f4"))
    return np.ascontiguousarray(x) if layout == "C" else x


def close(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


@given(
    n=st.integers(1, 3),
    c=st.sampled_from([8, 13, 16, 24, 50, 64, 70]),
    o=st.sampled_from([8, 9, 16, 33, 48, 64, 100]),
    h=st.integers(1, 11),
    w=st.integers(1, 14),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    layout=st.sampled_from(["C", "channels-last"]),
    seed=st.integers(0, 2**16),
)
def test_all_three_agree_with_the_reference(n, c, o, h, w, padding, layout, seed) -> None:
    window = Window((3, 3), padding=padding)
    h, w = max(h, 3 - 2 * padding[0]), max(w, 3 - 2 * padding[1])
    out = window.positions((h, w))
    rng = np.random.default_rng(seed)
    x, y = images(rng, n, c, h, w, layout), images(rng, n, o, *out, layout)
    weight = images(rng, o, c, 3, 3, layout)
    bias, back_bias = rng.standard_normal(o, dtype="f4"), rng.standard_normal(c, dtype="f4")
    close(winograd.conv2d(x, weight, bias, window, out), REFERENCE.conv2d(x, weight, bias, window, out))
    scale = rng.standard_normal(o, dtype="f4")
    for relu in (False, True):
        result = winograd.conv2d(x, weight, bias, window, out, scale, relu)
        close(result, REFERENCE.conv2d_affine(x, weight, scale, bias, relu, window, out))
        assert (result.min() >= 0) or not relu
    close(winograd.conv_transpose2d(y, weight, back_bias, window, (h, w)), REFERENCE.conv_transpose2d(y, weight, back_bias, window, (h, w)))
    close(winograd.conv2d_weight(x, y, window), REFERENCE.conv2d_weight(x, y, window))


class Watched:
    """Scratch that holds NaN before every use and lies between numbers that nobody may change."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []

    def __call__(self, name: str, size: int) -> np.ndarray:
        array = np.full(size + 2 * 4096, np.nan, "f4")
        array[:4096] = array[-4096:] = 7
        self.arrays.append(array)
        return array[4096:-4096]

    def check(self) -> None:
        for array in self.arrays:
            assert (array[:4096] == 7).all() and (array[-4096:] == 7).all()
        self.arrays.clear()


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched = Watched()
    monkeypatch.setattr(winograd, "_scratch", watched)
    return watched


def loops_that_run(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> set[str]:
    """With these settings: the names of the loops of whole convolutions that run from now on are put into the set."""
    names: set[str] = set()
    for name in ("weight_stream", "image_blocks", "weight_parts", "weight_items", "some_sums"):
        run = getattr(winograd, name)
        monkeypatch.setattr(winograd, name, lambda *arguments, name=name, run=run: (names.add(name), run(*arguments)))
    for name, value in settings.items():
        monkeypatch.setattr(winograd, name, value)
    return names


several_of_each = pytest.mark.parametrize(("n", "c", "h", "w"), [(1, 31, 12, 6), (2, 19, 9, 20), (1, 67, 41, 43), (2, 265, 19, 27)])
some_panels = pytest.mark.parametrize("o", [16, 32, 33, 64, 256])


@pytest.mark.parametrize(
    "settings",
    [{"LARGE": 1, "STEP": 8, "PART": (vector.LANES, 2 * vector.LANES)}, {"LARGE": 1 << 30, "L2": 1}, {"LARGE": 1, "MANY": 7, "L2": 1}],
)
@some_panels
@several_of_each
def test_every_way_to_cut_an_image_agrees_with_the_reference(settings, o, n, c, h, w, scratch, monkeypatch, rng) -> None:
    """Several blocks, parts and panels, the last of them not full: nothing beside the scratch is written, nothing left in it counts."""
    window, out = Window((3, 3), padding=(1, 0)), (h, w - 2)
    ran, tiles = loops_that_run(monkeypatch, settings), n * -(-h // 4) * -(-out[1] // 4)
    x, y, weight = images(rng, n, c, h, w, "channels-last"), images(rng, n, o, *out, "channels-last"), images(rng, o, c, 3, 3, "C")
    scale, bias = rng.standard_normal((2, o), dtype="f4")
    close(winograd.conv2d(x, weight, bias, window, out), REFERENCE.conv2d(x, weight, bias, window, out))
    if o % 16 == 0:
        assert ran == {"weight_stream" if settings["LARGE"] == 1 and tiles <= o else "image_blocks"}
    scratch.check()
    got = winograd.conv2d(x, weight, bias, window, out, scale, True)
    close(got, REFERENCE.conv2d_affine(x, weight, scale, bias, True, window, out))
    scratch.check()
    close(winograd.conv_transpose2d(y, weight, None, window, (h, w)), REFERENCE.conv_transpose2d(y, weight, None, window, (h, w)))
    scratch.check()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"L2": 1, "SUMS": 1 << 30}, "weight_parts"), ({"SUMS": 1}, "weight_items"), ({"SUMS": 1, "TILES": 1}, "some_sums")],
)
@some_panels
@several_of_each
def test_every_way_to_sum_a_weight_agrees_with_the_reference(settings, expected, o, n, c, h, w, scratch, monkeypatch, rng) -> None:
    window, out = Window((3, 3), padding=(1, 0)), (h, w - 2)
    ran, tiles = loops_that_run(monkeypatch, settings), n * -(-h // 4) * -(-out[1] // 4)
    x, y = images(rng, n, c, h, w, "channels-last"), images(rng, n, o, *out, "channels-last")
    close(winograd.conv2d_weight(x, y, window), REFERENCE.conv2d_weight(x, y, window))
    assert ran == {expected if tiles > {"weight_parts": 12, "some_sums": 64}.get(expected, 0) else "weight_items"}
    scratch.check()


def test_not_a_number_goes_through_the_relu_of_inference(rng: np.random.Generator) -> None:
    window, x = Window((3, 3), padding=(1, 1)), images(rng, 1, 16, 8, 8, "channels-last")
    weight, ones = images(rng, 16, 16, 3, 3, "C"), np.ones(16, "f4")
    x[0, 3, 1, 1] = np.nan
    y = winograd.conv2d(x, weight, ones, window, (8, 8), ones, True)
    assert np.isnan(y[0, :, :3, :3]).all() and not np.isnan(y[0, :, 4:, 4:]).any()


def test_results_lie_in_the_memory_that_the_next_layer_reads(rng: np.random.Generator) -> None:
    window = Window((3, 3), padding=(1, 1))
    x, y, weight = images(rng, 2, 16, 9, 6, "C"), images(rng, 2, 24, 9, 6, "C"), rng.standard_normal((24, 16, 3, 3), dtype="f4")
    assert winograd.conv2d(x, weight, None, window, (9, 6)).transpose(0, 2, 3, 1).flags.c_contiguous
    assert winograd.conv_transpose2d(y, weight, None, window, (9, 6)).transpose(0, 2, 3, 1).flags.c_contiguous
    assert winograd.conv2d_weight(x, y, window).transpose(0, 2, 3, 1).flags.c_contiguous


def test_the_same_call_gives_the_same_bits(rng: np.random.Generator) -> None:
    window = Window((3, 3), padding=(1, 1))
    x, y = images(rng, 2, 32, 21, 30, "channels-last"), images(rng, 2, 40, 21, 30, "channels-last")
    weight = rng.standard_normal((40, 32, 3, 3), dtype="f4")
    for run in (
        lambda: winograd.conv2d(x, weight, None, window, (21, 30)),
        lambda: winograd.conv_transpose2d(y, weight, None, window, (21, 30)),
        lambda: winograd.conv2d_weight(x, y, window),
    ):
        first = run()
        for _ in range(5):
            np.testing.assert_array_equal(run(), first)
