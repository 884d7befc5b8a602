"""float16 in the CUDA kernels, on the simulator: conversions against NumPy's, kernels against the reference, a whole training step.

What every kernel does with whole numbers in float16 is in test_cuda_kernels.py; here are fractions, which are rounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cudasim import SimModule
from cudasim.build import why_not as why_no_simulator
from hypothesis import given
from hypothesis import strategies as st
from simulated import ON_DEVICE, simulated, why_not
from test_cuda_training import Counting
from test_half import HALF, ROUNDINGS, SINGLE, TINY, U, check_second_derivatives, normal, train, unet, within

import minidcnn
from minidcnn import optim
from minidcnn.backend import AxisMap, Kernels
from minidcnn.backend.cuda.source import source
from minidcnn.testing import Conv, convs, lay_out, layouts, seeds

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs")

Array = np.ndarray[Any, Any]
REFERENCE = Kernels(np)
orders = st.sampled_from([{"order": 0}, {"order": 2}, {"mode": "check", "order": 1}])

CONVERSIONS = r"""
extern "C" __global__ void widen(const Half* x, float* y, int n) { FOR_EACH(e, n) y[e] = x[e]; }
extern "C" __global__ void narrow(const float* x, Half* y, int n) { FOR_EACH(e, n) y[e] = Half(x[e]); }
"""


def same_bits(a: Array, b: Array) -> None:
    """Every bit, save of what NaN is made of."""
    kind = np.uint16 if a.dtype == HALF else np.uint32
    assert a.dtype == b.dtype and ((a.view(kind) == b.view(kind)) | (np.isnan(a) & np.isnan(b))).all()


@pytest.mark.skipif(bool(why_no_simulator()), reason=why_no_simulator() or "runs")
def test_conversions_are_numpys() -> None:
    """All 65536 numbers of float16; all of them, the middles between neighbours, and what lies beside these, back; and a million random bits."""
    module = SimModule(source("elementwise.cu") + CONVERSIONS, options=("-DREAL=Half", "-DSUM=float"))

    def convert(kernel: str, x: Array, dtype: Any) -> Array:
        y = np.empty(x.shape, dtype)
        module.get_function(kernel)((64,), (256,), (x, y, np.int32(x.size)))
        return y

    halves = np.arange(1 << 16, dtype=np.uint16).view(HALF)
    same_bits(convert("widen", halves, SINGLE), halves.astype(SINGLE))
    finite = np.unique(halves[np.isfinite(halves)].astype(np.float64))
    edges = np.concatenate([finite, (finite[1:] + finite[:-1]) / 2, [65520, -65520, 1e30, np.inf, -np.inf, np.nan, 0.0, -0.0]]).astype(
        SINGLE
    )
    beside = [np.nextafter(edges, SINGLE.type(end)) for end in (-np.inf, np.inf)]
    random = np.random.default_rng(0).integers(0, 1 << 32, 1 << 20, dtype=np.uint32).view(SINGLE)
    singles = np.concatenate([edges, *beside, random])
    with np.errstate(over="ignore", invalid="ignore"):
        same_bits(convert("narrow", singles, HALF), singles.astype(HALF))


def step(result: Array, expected: Array) -> None:
    """Both rounded the same sum to float16, added up in another order: at most to neighbours, a step of 2 U of their size."""
    assert result.dtype == expected.dtype == HALF and result.shape == expected.shape
    within(result, expected.astype(np.float64), 2 * U * abs(expected.astype(np.float64)) + 2.0**-18)


@given(case=convs(), layout=layouts, order=orders, seed=seeds, precision=st.sampled_from(["float32", "float16"]))
def test_convolutions_add_up_in_float32(case: Conv, layout: str, order: dict[str, Any], seed: int, precision: str) -> None:
    """With both precisions under which there are float16 images; convolutions in groups compute in float32 and are rounded once."""
    kernels, out = simulated(precision=precision, **order), case.window.positions(case.size)
    x, w, y = (lay_out(normal(*shape, seed=seed + i), layout) for i, shape in enumerate((case.x, case.w, case.y)))
    bias, back = normal(case.outputs, seed=seed), normal(case.channels, seed=seed)
    for name, arguments in (
        ("conv2d", (x, w, bias, case.window, out, case.groups)),
        ("conv_transpose2d", (y, w, back, case.window, case.size, case.groups)),
        ("conv2d_weight", (x, y, case.window, case.groups)),
    ):
        step(getattr(kernels, name)(*arguments), getattr(REFERENCE, name)(*arguments))


def test_long_sums_keep_what_float16_would_lose(rng: np.random.Generator) -> None:
    """1152 products each, and a weight gradient over 600 positions in several parts: within one rounding of the sums in float64."""
    x, w, y = normal(1, 128, 20, 30), normal(70, 128, 3, 3, seed=1), normal(1, 70, 20, 30, seed=2)
    window, kernels = minidcnn.window.Window((3, 3), padding=(1, 1)), simulated(order=2)
    wide = [a.astype(np.float64) for a in (x, w, y)]
    for got, exact in (
        (kernels.conv2d(x, w, None, window, (20, 30)), REFERENCE.conv2d(wide[0], wide[1], None, window, (20, 30))),
        (kernels.conv_transpose2d(y, w, None, window, (20, 30)), REFERENCE.conv_transpose2d(wide[2], wide[1], None, window, (20, 30))),
        (kernels.conv2d_weight(x, y, window), REFERENCE.conv2d_weight(wide[0], wide[2], window)),
    ):
        assert got.dtype == HALF
        within(got, exact, U * abs(exact) + 2.0**-12)


@pytest.mark.parametrize("capability", [(7, 5), (8, 0)])
@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("channels", [16, 19])  # runs of 16 bytes, or not
def test_tiles_of_every_kind(capability: tuple[int, int], small: bool, channels: int) -> None:
    """Several tiles in each direction, on tensor cores and without them, copied at once or number by number: whole numbers, so bit for bit."""
    rng, window = np.random.default_rng(0), minidcnn.window.Window((3, 3), padding=(1, 1))
    x, w = rng.integers(-2, 3, (1, channels, 14, 34)).astype(HALF), rng.integers(-2, 3, (136, channels, 3, 3)).astype(HALF)
    y, bias = rng.integers(-2, 3, (1, 136, 14, 34)).astype(HALF), rng.integers(-2, 3, 136).astype(HALF)
    kernels = simulated(order=2)
    kernels.launcher.capability = capability
    tensor = kernels.tensor(x)
    assert tensor == (3 if capability >= (8, 0) else 0)
    kernels.tile = lambda *_: ((64, 64) if small else (128, 128), (f"SMALL={int(small)}", f"TENSOR={tensor}"))
    for name, arguments in (
        ("conv2d", (x, w, bias, window, (14, 34))),
        ("conv_transpose2d", (y, w, None, window, (14, 34))),
        ("conv2d_weight", (x, y, window)),
    ):
        got, expected = getattr(kernels, name)(*arguments), getattr(REFERENCE, name)(*arguments)
        assert got.dtype == HALF
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("groups", "kernel"), [(1, "conv_forward"), (2, "conv_forward"), (4, "direct_forward")])
def test_a_convolution_with_batch_norm_is_rounded_once(groups: int, kernel: str) -> None:
    """scale and offset are float32, and only the end is float16: nearer to the exact result than the reference, which rounds in between."""
    window = minidcnn.window.Window((3, 3), padding=(1, 1))
    x, w = normal(2, 16, 6, 9), normal(12, 16 // groups, 3, 3, seed=1)
    scale, offset = (normal(12, seed=i, dtype=SINGLE) for i in (2, 3))
    kernels, launched = simulated(mode="check"), []
    launch = kernels.launcher.launch
    kernels.launcher.launch = lambda *args, **named: (launched.append(args[3]), launch(*args, **named))
    got = kernels.conv2d_affine(x, w, scale, offset, True, window, (6, 9), groups)
    wide = [a.astype(np.float64) for a in (x, w, scale, offset)]
    exact = REFERENCE.conv2d_affine(*wide, True, window, (6, 9), groups)
    assert launched == [kernel] and got.dtype == HALF
    within(got, exact, U * abs(exact) + 2.0**-18)
    assert abs(REFERENCE.conv2d_affine(x, w, scale, offset, True, window, (6, 9), groups) - exact).mean() > abs(got - exact).mean()


@given(
    shape=st.tuples(st.integers(2, 3), st.integers(1, 40), st.integers(1, 7), st.integers(2, 7)),
    layout=layouts, order=orders, seed=seeds, relu=st.booleans(),
)  # fmt: skip
def test_batch_norm_of_float16_beside_float32(shape: tuple[int, ...], layout: str, order: dict[str, Any], seed: int, relu: bool) -> None:
    kernels, c = simulated(**order), shape[1]
    x, g = (lay_out(normal(*shape, seed=seed + i), layout) for i in range(2))
    weight, bias = (normal(c, seed=seed + i, dtype=SINGLE) for i in (2, 3))
    mean, var = REFERENCE.batch_norm_stats(x)
    for own, theirs in zip(kernels.batch_norm_stats(x), (mean, var), strict=True):
        np.testing.assert_allclose(own, theirs, rtol=0, atol=1e-5)
    rstd = 1 / np.sqrt(var + 1e-2)
    step(kernels.batch_norm_apply(x, mean, rstd, weight, bias, relu), REFERENCE.batch_norm_apply(x, mean, rstd, weight, bias, relu))
    if relu and abs(REFERENCE.batch_norm_apply(x.astype(SINGLE), mean, rstd, weight, bias)).min() < 1e-4:
        return  # rounding decides where ReLU is open
    results = [k.batch_norm_grad(g, x, mean, rstd, weight, bias if relu else None) for k in (kernels, REFERENCE)]
    size = max(1.0, float(abs(results[1][0]).max()))
    within(results[0][0], results[1][0].astype(np.float64), 2 * U * abs(results[1][0].astype(np.float64)) + 2.0**-16 * size)
    for a, b in zip(*(r[1:] for r in results), strict=True):
        assert a.dtype == b.dtype == SINGLE
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(ON_DEVICE, reason="networks work with simulated kernels")
@pytest.mark.parametrize("used", [0, 1, 2])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_second_derivatives_of_batch_norm_are_rounded_once(training: bool, relu: bool, used: int) -> None:
    with minidcnn.use_kernels(simulated(mode="check", order=2)):
        check_second_derivatives(training, relu, used)


@given(layout=layouts, order=orders, seed=seeds)
def test_resizing_rounds_once_more_between_its_axes(layout: str, order: dict[str, Any], seed: int) -> None:
    """The weights of an output are positive and add up to 1, so each rounding is U of the largest number at most."""
    x = lay_out(normal(2, 3, 5, 7, seed=seed), layout)
    starts, indices = np.arange(0, 13, 2), np.array([0, 1, 1, 2, 2, 3, 3, 4, 0, 4, 1, 3])
    rows = AxisMap(5, starts, indices, np.tile([0.3, 0.7], 6))
    columns = AxisMap(7, starts, indices, np.tile([0.6, 0.4], 6))
    got, once = simulated(**order).resample(x, rows, columns), REFERENCE.resample(x, rows, columns)
    assert got.dtype == HALF
    within(got, once.astype(np.float64), 3 * U * abs(x).max())


def test_products_and_sums_of_float16(rng: np.random.Generator) -> None:
    a, b = normal(3, 9, 700), normal(3, 700, 8, seed=1)
    kernels = simulated(mode="check", order=2)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    within(kernels.matmul(a, b), exact, U * abs(exact) + 2.0**-14)
    x = np.full((4, 3, 30, 40), 0.25, HALF)
    total = kernels.sum(x, (0, 2, 3))
    assert total.dtype == HALF and (total == 1200).all()


def test_a_unet_trains_in_float16_on_the_simulated_kernels() -> None:
    """Every kernel of a step takes float16 and is compiled for it; losses are the reference's up to the roundings of one step (see test_half.py)."""
    kernels = Counting.of(simulated())
    compiled: set[tuple[str, str]] = set()
    function = kernels.launcher.function

    def note(file: str, kernel: str, dtype: Any, *rest: Any) -> Any:
        compiled.add((kernel, np.dtype(dtype).name))
        return function(file, kernel, dtype, *rest)

    kernels.launcher.function = note  # type: ignore[method-assign]
    losses = []
    for own in (kernels, REFERENCE):
        with minidcnn.use_kernels(own):
            losses.append(train(unet(), HALF, 6, optim.GradScaler(2.0**12)))
    np.testing.assert_allclose(*losses, rtol=ROUNDINGS * U)
    assert losses[0][-1] < losses[0][0]
    for kernel in ("conv_forward", "conv_transposed", "conv_weight", "normalize", "normalize_grad", "moments", "max_pool", "pool_scatter"):
        assert (kernel, "float16") in compiled and (kernel, "float32") not in compiled, kernel
    assert ("cross_entropy", "float32") in compiled and ("sgd_step", "float32") in compiled


def test_an_overflow_on_a_device_is_left_out_too() -> None:
    with minidcnn.use_kernels(simulated()):
        scaler = optim.GradScaler(2.0**40)
        model = unet()
        before = [p.numpy().copy() for p in model.parameters()]
        train(model, HALF, 1, scaler)
        assert scaler.get_scale() == 2.0**39
        for p, q in zip(model.parameters(), before, strict=True):
            np.testing.assert_array_equal(p.numpy(), q)


def test_a_bound_is_no_wider_than_a_rounding() -> None:
    """`within` notices one step of float16 too many."""
    x = np.array([1.0], HALF)
    with pytest.raises(AssertionError):
        within(np.nextafter(x, HALF.type(2)), np.array([1.0]), U * 1.0 - TINY)
