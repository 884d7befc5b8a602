"""Factors in bf16 on the CPU: the vector code to the bit, convolutions as exact as 8 bits of mantissa are, sums in float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidcnn
from minidcnn import Tensor, models, nn
from minidcnn import functional as F
from minidcnn.backend import Kernels, nchw
from minidcnn.backend.cpu import CpuKernels, conv, matmul, threads, transforms, vector, winograd
from minidcnn.backend.cpu.jit import jit
from minidcnn.window import Window

Array = np.ndarray
REFERENCE = Kernels(np)
LANES = vector.LANES
TRIPLE = ("conv2d", "conv_transpose2d", "conv2d_weight")
DEFINITION = 0.003  # what factors in bf16 may lose, relative and on average
TILES = (0.006, 0.006, 0.015)  # what transformed factors may, in each of the triple


@pytest.fixture(autouse=True, scope="module")
def by_shape() -> Iterator[None]:
    """The algorithm is what the shape says, whichever the environment forces: what is lost depends on it. Matrix units: see test_cpu_tiles.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MINIDCNN_CONV", raising=False)
        patch.setattr(conv, "_has_tiles", lambda: False)
        yield


def bits(x: Array) -> Array:
    """float32 -> the bits of the nearest bf16, ties to the even one."""
    u = np.ascontiguousarray(x, "f4").view("u4")
    return ((u + 0x7FFF + (u >> 16 & 1)) >> 16).astype("u2")


def pairs(low: Array, high: Array) -> Array:
    """Two arrays of float32 as one of pairs, in the places of float32."""
    return (bits(low).astype("u4") | bits(high).astype("u4") << 16).view("f4")


def address(array: Array) -> int:
    return array.__array_interface__["data"][0]


# -- the vector code ---------------------------------------------------------------------------------------------------------------------


SPECIAL = [
    0,
    -0.0,
    1,
    1 + 2**-8,
    1 + 3 * 2**-8,
    1 + 2**-8 + 2**-20,
    -3.14159,
    np.inf,
    -np.inf,
    3e38,
    3.4e38,
    2**-100,
    1e-3,
    65504,
    -7,
    255.5,
]


def test_rounding_is_to_the_nearest_even(rng: np.random.Generator) -> None:
    x = np.concatenate([np.array(SPECIAL, "f4"), rng.standard_normal(4 * LANES * 16 - len(SPECIAL), dtype="f4")])
    turn, to = vector.make_round(), np.zeros(len(x), "u2")
    jit(lambda a, b, n: turn(a, b, n))(address(x), address(to), len(x))
    np.testing.assert_array_equal(to, bits(x))
    other, both = x[::-1].copy(), np.zeros(len(x), "f4")
    join = vector.make_pair()
    jit(lambda a, b, c, n: join(a, b, c, n))(address(x), address(other), address(both), len(x))
    np.testing.assert_array_equal(both.view("u4"), pairs(x, other).view("u4"))


def test_not_a_number_stays_one() -> None:
    x = np.full(2 * LANES, 0x7FFFFFFF, "u4").view("f4")
    x[::3] = np.array(0xFF800001, "u4").view("f4")
    turn, to = vector.make_round(), np.zeros(len(x), "u2")
    jit(lambda a, b, n: turn(a, b, n))(address(x), address(to), len(x))
    assert np.isnan((to.astype("u4") << 16).view("f4")).all()


@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
@pytest.mark.parametrize(("runs", "k"), [(1, 5), (3, 7), (1, 2 * matmul.DEEP + 7), (3, matmul.DEEP - 1)])
def test_products_of_pairs_add_both(vectors: int, runs: int, k: int, rng: np.random.Generator) -> None:
    rows, columns = 2 * vector.ROWS[vectors - 1], vectors * LANES
    a, b = rng.integers(-3, 4, (runs, rows, k, 2)).astype("f4"), rng.integers(-3, 4, (runs, k, columns, 2)).astype("f4")
    expected, c = np.einsum("rikt,rkjt->ij", a, b), np.full((rows, columns), 7, "f4")
    pa, pb = (pairs(v[..., 0], v[..., 1]) for v in (a, b))
    for more in (0, 1):
        matmul.multiply(address(pa), k, rows * k, runs, address(pb), address(c), columns, k, rows, vectors, more, 1)
        np.testing.assert_array_equal(c, (1 + more) * expected)


@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [4, 12, 16, 28])
@pytest.mark.parametrize("k", [1, 2 * matmul.LONG + 5])
def test_sums_of_pairs_add_both(vectors: int, rows: int, k: int, rng: np.random.Generator) -> None:
    columns = vectors * LANES
    a, b = rng.integers(-3, 4, (k, rows, 2)).astype("f4"), rng.integers(-3, 4, (k, columns, 2)).astype("f4")
    pa, pb, c = pairs(a[..., 0], a[..., 1]), pairs(b[..., 0], b[..., 1]), np.full((rows, columns), 7, "f4")
    add = jit(lambda *arguments: matmul.add(*arguments, 1))
    add(address(pa), 1, rows, address(pb), columns, address(c), columns, k, rows, vectors, 0)
    np.testing.assert_array_equal(c, np.einsum("kit,kjt->ij", a, b))


@pytest.mark.parametrize("which", ["A_T", "B_T", "BF16_G", "BF16_B_T"])
def test_transforms_write_the_rounded_numbers(which: str, rng: np.random.Generator) -> None:
    """Pairs of neighbouring channels, and the second of pairs whose first is there already: the bits of the float32 transform, rounded."""
    matrix, total = getattr(transforms, which), 3 * LANES
    m, n = len(matrix), len(matrix[0])
    single, along, second = (vector.make_transform(matrix, write=write) for write in (0, vector.ALONG, vector.SECOND))

    @jit
    def run(src, other, one, two, both, n, m, total):  # type: ignore[no-untyped-def]
        single(src, n * total, total, one, m * total, total, total)
        single(other, n * total, total, two, m * total, total, total)
        single(src, n * total, total, both, m * total, total, total)
        second(other, n * total, total, both, m * total, total, total)

    @jit
    def run_along(src, to, n, m, total):  # type: ignore[no-untyped-def]
        along(src, n * total, total, to, m * total // 2, total // 2, total)

    x, other = rng.standard_normal((2, n, n, total), dtype="f4")
    one, two, both = np.zeros((3, m, m, total), "f4")
    run(address(x), address(other), address(one), address(two), address(both), n, m, total)
    np.testing.assert_array_equal(both.view("u4"), pairs(one, two).view("u4"))
    to = np.zeros((m, m, total), "u2")
    run_along(address(x), address(to), n, m, total)
    np.testing.assert_array_equal(to, bits(one))


# -- convolutions ------------------------------------------------------------------------------------------------------------------------


def images(rng: np.random.Generator, *shape: int) -> Array:
    n, c, h, w = shape
    return nchw(rng.standard_normal((n, h, w, c), dtype="f4"))


def lost(got: Array, expected: Array) -> float:
    assert got.shape == expected.shape and got.dtype == np.float32
    return float(np.sqrt(np.square(got.astype(float) - expected).mean() / np.square(expected).mean()))


def triple(kernels: Any, x: Array, y: Array, w: Array, window: Window) -> list[Array]:
    out, size = y.shape[2:], x.shape[2:]
    return [
        kernels.conv2d(x, w, None, window, out),
        kernels.conv_transpose2d(y, w, None, window, size),
        kernels.conv2d_weight(x, y, window),
    ]


def case(rng: np.random.Generator, n: int, c: int, o: int, size: tuple[int, int], window: Window) -> tuple[Array, Array, Array]:
    return images(rng, n, c, *size), images(rng, n, o, *window.positions(size)), images(rng, o, c, *window.kernel)


def by_winograd(x: Array, y: Array, w: Array, window: Window) -> list[Array]:
    return [
        winograd.conv2d(x, w, None, window, y.shape[2:], bf16=True),
        winograd.conv_transpose2d(y, w, None, window, x.shape[2:], bf16=True),
        winograd.conv2d_weight(x, y, window, bf16=True),
    ]


SAME = Window((3, 3), padding=(1, 1))


@given(
    n=st.integers(1, 3), c=st.integers(1, 4), o=st.integers(1, 6), h=st.integers(3, 40), w=st.integers(3, 40),
    ph=st.integers(0, 2), pw=st.integers(0, 2), seed=st.integers(0, 99),
)  # fmt: skip
def test_winograd_loses_what_transformed_factors_lose(n: int, c: int, o: int, h: int, w: int, ph: int, pw: int, seed: int) -> None:
    window = Window((3, 3), padding=(ph, pw))
    x, y, weight = case(np.random.default_rng(seed), n, c * LANES, o * LANES, (h, w), window)
    exact = triple(REFERENCE, x.astype(float), y.astype(float), weight.astype(float), window)
    for a, b, most in zip(by_winograd(x, y, weight, window), exact, TILES, strict=True):
        many = min(b.size, x.size, y.size) > 2000  # the errors of few numbers, or of sums of few, vary
        assert 0.001 < lost(a, b) < (most if many else 2 * most)


WINDOWS = [
    (1, 64, 128, (32, 48), Window((2, 2), (2, 2))),
    (2, 32, 64, (21, 33), Window((2, 2), (2, 2))),
    (3, 32, 16, (27, 45), Window((3, 3), (3, 3))),
    (2, 16, 32, (24, 41), Window((1, 3), (1, 3))),
    (1, 128, 64, (40, 24), Window((1, 1))),
    (1, 32, 48, (40, 36), Window((7, 5), padding=(3, 2))),
    (2, 48, 32, (33, 31), Window((3, 3), (2, 1), (1, 1))),
    (1, 16, 16, (50, 40), Window((3, 3), padding=(2, 2), dilation=(2, 2))),
    (1, 32, 32, (44, 41), Window((4, 4), (2, 2), (1, 1))),
]


@pytest.mark.parametrize(("n", "c", "o", "size", "window"), WINDOWS)
def test_other_windows_lose_what_factors_lose(
    n: int, c: int, o: int, size: tuple[int, int], window: Window, rng: np.random.Generator
) -> None:
    """Gradients of weights are in bf16 only where windows lie side by side."""
    x, y, w = case(rng, n, c, o, size, window)
    exact = triple(REFERENCE, x.astype(float), y.astype(float), w.astype(float), window)
    errors = [lost(a, b) for a, b in zip(triple(CpuKernels("bf16"), x, y, w, window), exact, strict=True)]
    side_by_side = window == Window(window.stride, window.stride)
    assert all(0.0015 < error < DEFINITION for error in errors[: 2 + side_by_side])
    assert side_by_side or errors[2] < 1e-6


SIDE = Window((2, 2), (2, 2))


@pytest.mark.parametrize(
    ("c", "o", "window", "rounded"),
    [
        (17, 32, SAME, {}), (32, 40, SAME, {}), (8, 8, SAME, {}),  # along both sides in Winograd, and tiles in pairs
        (17, 32, SIDE, {"conv_transpose2d"}), (32, 3, SIDE, {}), (32, 24, SIDE, {"conv2d"}), (8, 8, SIDE, {}),  # along what is summed
    ],
)  # fmt: skip
def test_where_channels_do_not_fill_vectors_it_is_float32(c, o, window, rounded, rng, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("MINIDCNN_CONV", "winograd")
    c, o = (n * LANES // 16 if n % 8 == 0 else n for n in (c, o))  # of vectors of 16
    x, y, w = case(rng, 2, c, o, (24, 30), window)
    both = [triple(CpuKernels(precision), x, y, w, window) for precision in ("bf16", "float32")]
    assert {name for name, a, b in zip(TRIPLE, *both, strict=True) if (a != b).any()} == set(rounded)


def test_few_pixels_and_float64_are_left_as_they_are(rng: np.random.Generator) -> None:
    for size, window, dtype in (((8, 12), SIDE, "f4"), ((24, 30), SAME, "f8"), ((24, 30), SIDE, "f8")):
        arrays = [a.astype(dtype) for a in case(rng, 1, LANES, LANES, size, window)]
        for got, expected in zip(*(triple(CpuKernels(p), *arrays, window) for p in ("bf16", "float32")), strict=True):
            np.testing.assert_array_equal(got, expected)


@given(
    seed=st.integers(0, 99),
    n=st.integers(1, 2),
    h=st.integers(8, 30),
    w=st.integers(8, 30),
    which=st.sampled_from([SAME, Window((2, 2), (2, 2))]),
)
def test_the_adjoint_is_the_adjoint_but_for_rounding(seed: int, n: int, h: int, w: int, which: Window) -> None:
    """<C x, y> = <x, C^T y> = <dC/dw, w>, relative to the magnitudes that are added up."""
    x, y, weight = case(np.random.default_rng(seed), n, 2 * LANES, 3 * LANES, (h, w), which)
    a, b, c = triple(CpuKernels("bf16"), x, y, weight, which)
    values = [float(np.vdot(p.astype(float), q)) for p, q in ((a, y), (b, x), (c, weight))]
    scale = float(np.linalg.norm(a) * np.linalg.norm(y))
    assert max(values) - min(values) < TILES[2] * scale


def test_bias_scale_and_relu_are_float32(rng: np.random.Generator) -> None:
    x, _, w = case(rng, 1, 32, 32, (24, 40), SAME)
    scale, offset = rng.standard_normal((2, 32), dtype="f4")
    kernels = CpuKernels("bf16")
    plain = kernels.conv2d(x, w, None, SAME, (24, 40))
    column = (slice(None), None, None)
    np.testing.assert_array_equal(kernels.conv2d(x, w, offset, SAME, (24, 40)), plain + offset[column])
    got = kernels.conv2d_affine(x, w, scale, offset, True, SAME, (24, 40))
    np.testing.assert_allclose(got, np.maximum(plain * scale[column] + offset[column], 0), rtol=1e-5, atol=1e-5)


def test_whole_numbers_of_eight_bits_are_exact_by_the_definition(rng: np.random.Generator) -> None:
    window = Window((2, 2), (2, 2))
    x, y, w = (np.round(8 * a) for a in case(rng, 2, 2 * LANES, LANES, (26, 30), window))
    for got, expected in zip(triple(CpuKernels("bf16"), x, y, w, window), triple(REFERENCE, x, y, w, window), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"LARGE": 1, "STEP": 8, "PART": (2 * LANES, 4 * LANES)}, {"LARGE": 1 << 30, "L2": 1}, {"L2": 1, "SUMS": 1 << 30}, {"SUMS": 1},
        {"SUMS": 1, "TILES": 1},
    ],
)  # fmt: skip
@pytest.mark.parametrize(("n", "c", "o", "size"), [(1, 2, 16, (13, 9)), (2, 1, 4, (41, 43)), (1, 3, 5, (30, 22))])
def test_every_way_to_cut_the_work_and_any_number_of_threads_agree(settings, n, c, o, size, monkeypatch, rng) -> None:  # type: ignore[no-untyped-def]
    """Scratch holds what is not a number; the last of an odd number of tiles makes a pair with 0. Only the order of sums may change bits."""

    def scratch(name: str, size: int) -> Array:
        return np.full(size, np.nan, "f4")

    window = Window((3, 3), padding=(1, 0))
    x, y, w = case(rng, n, c * LANES, o * LANES, size, window)
    expected = triple(REFERENCE, x.astype(float), y.astype(float), w.astype(float), window)
    for name, value in settings.items():
        monkeypatch.setattr(winograd, name, value)
    monkeypatch.setattr(winograd, "_scratch", scratch)
    first: list[Array] = []
    for count in (1, 3, 2):
        threads.set_num_threads(count)
        got = by_winograd(x, y, w, window)
        for a, b, most in zip(got, expected, TILES, strict=True):
            assert 0.002 < lost(a, b) < most
        for a, b in zip(got, first or got, strict=True):
            np.testing.assert_array_equal(a, b)
        first = got


# -- networks ----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_bf16() -> Any:
    minidcnn.use("numpy", "bf16")
    yield
    minidcnn.use("numpy")


def gradients(x: Array, labels: Array) -> Array:
    minidcnn.manual_seed(0)
    model = models.UNet(3, 4, base=16, depth=2, padding="same", norm="batch")
    F.cross_entropy(model(Tensor(x)), Tensor(labels)).backward()
    return np.concatenate([p.grad.numpy().ravel() for p in model.parameters() if p.grad is not None])


def test_a_step_of_a_unet_points_the_same_way(in_bf16: None, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Layers of random weights make small errors large: those of factors in bf16 by the definition as well, which are the measure."""
    x, labels = images(rng, 2, 3, 48, 64), rng.integers(0, 4, (2, 48, 64))
    ours = gradients(x, labels)
    monkeypatch.setenv("MINIDCNN_CONV", "gemm")
    definition = gradients(x, labels)
    minidcnn.use("numpy")
    exact = gradients(x, labels)
    assert ours.dtype == np.float32
    assert np.vdot(ours, exact) > 0.96 * np.linalg.norm(ours) * np.linalg.norm(exact)
    assert 0.01 < np.linalg.norm(definition - exact) / np.linalg.norm(exact) < np.linalg.norm(ours - exact) / np.linalg.norm(exact) < 0.3
    assert np.linalg.norm(ours - exact) < 2.5 * np.linalg.norm(definition - exact)


def test_kernels_are_those_of_the_precision(in_bf16: None) -> None:
    layer = nn.Conv2d(LANES, LANES, 3, padding=1)
    x = Tensor(np.random.default_rng(0).standard_normal((1, LANES, 12, 16), dtype="f4"))
    rounded = layer(x).numpy()
    minidcnn.use("numpy", "tf32")  # which is of GPUs, and changes nothing here
    exact = layer(x).numpy()
    assert 0.002 < lost(rounded, exact) < TILES[0]
    assert conv.CpuConv.bf16 is False and CpuKernels("bf16").bf16 and not CpuKernels("tf32").bf16
