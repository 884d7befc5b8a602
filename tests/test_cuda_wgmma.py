"""Convolutions, products and whole steps by wgmma, against the reference: on the simulator of a GPU of compute capability 9.0, or on a real one.

Its tiles are asked for whatever the size. Small whole numbers are exact in float16 and tf32, so most results are the reference's, bit for bit.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from cudasim import SimModule
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import ON_DEVICE, simulated, why_not
from test_cuda_conv import all_three, passes
from test_cuda_kernels import REFERENCE, same
from test_cuda_training import Counting
from test_half import HALF, ROUNDINGS, SINGLE, U, train, unet

import minidcnn
from minidcnn import Tensor, optim
from minidcnn import functional as F
from minidcnn.backend.cuda.source import source
from minidcnn.testing import Conv, convs, layouts, seeds
from minidcnn.window import Window

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs")

Array = np.ndarray[Any, Any]
HOPPER = (9, 0)
# Every access is checked; copies and products that go on by themselves end as late as they are waited for, or at once.
moments = st.fixed_dictionaries({"mode": st.just("check"), "order": st.sampled_from([0, 1, 2]), "late_copies": st.booleans()})


def hopper(precision: str = "float32", large: bool = True, **how: Any) -> tuple[Any, set[tuple[str, bool]]]:
    """Kernels that ask for tiles of 128, or 128 x 64, and (kernel, whether by wgmma) of all that they launch; a GPU without wgmma skips the test."""
    kernels = simulated(precision=precision, capability=None if ON_DEVICE else HOPPER, **how)
    if kernels.launcher.capability != HOPPER:
        pytest.skip("wgmma needs a GPU of compute capability 9.0")
    seen: set[tuple[str, bool]] = set()
    launch = kernels.launcher.launch

    def spy(grid: Any, block: Any, file: str, kernel: str, *rest: Any, defines: Any = (), **named: Any) -> None:
        if any(d.startswith("TENSOR=") for d in defines) and kernel != "sum_parts":
            seen.add((kernel, "WGMMA=1" in defines))
        launch(grid, block, file, kernel, *rest, defines=defines, **named)

    kernels.launcher.launch = spy
    size, shape = ((128, 128), ("SMALL=0",)) if large else ((128, 64), ("SMALL=1", "TALL=1"))
    kernels.tile = lambda rows, columns, like, *_: (size, (*shape, f"TENSOR={kernels.tensor(like)}"))
    return kernels, seen


def whole_runs(case: Conv, line: int) -> Conv:
    """The same geometry with channels that are multiples of a line of 16 bytes."""
    return dataclasses.replace(case, groups=1, channels=line * case.channels // case.groups, outputs=line * case.outputs // case.groups)


@settings(max_examples=24)
@given(case=convs(), layout=layouts, how=moments, large=st.booleans(), seed=seeds)
def test_the_three_convolutions_of_float16(case: Conv, layout: str, how: dict[str, Any], large: bool, seed: int) -> None:
    kernels, seen = hopper(large=large, **how)
    case = whole_runs(case, 8)
    all_three(kernels, case, HALF, layout, seed)
    assert seen == ({(name, True) for name in ("conv_forward", "conv_transposed", "conv_weight")} if case.batch else set())


@settings(max_examples=16)
@given(case=convs(), layout=layouts, how=moments, seed=seeds)
def test_convolution_of_tf32(case: Conv, layout: str, how: dict[str, Any], seed: int) -> None:
    """A weight that has rows along memory is turned; the weight gradient has two such factors, images both, and stays with mma.sync."""
    kernels, seen = hopper("tf32", **how)
    case = whole_runs(case, 4)
    all_three(kernels, case, SINGLE, layout, seed)
    assert seen == ({("conv_forward", True), ("conv_transposed", True), ("conv_weight", False)} if case.batch else set())


@pytest.mark.parametrize(("precision", "large"), [("float16", True), ("float16", False), ("tf32", True)])
def test_several_tiles_in_many_steps(precision: str, large: bool) -> None:
    """More than one tile each way, a ring of stages that is filled several times, and a weight gradient in parts."""
    kernels, seen = hopper(precision, large, mode="check", order=2)
    case = Conv(Window((3, 2), padding=(1, 1)), (11, 27), 1, 24, 136, 1)
    all_three(kernels, case, HALF if precision == "float16" else SINGLE, "channels-last", 0)
    assert ("conv_forward", True) in seen


@pytest.mark.parametrize("dtype", [HALF, SINGLE])
def test_products_of_every_order(rng: np.random.Generator, dtype: Any) -> None:
    """Several tiles and, of a long k, several parts; of tf32 only what runs along k in both factors."""
    a, b = rng.integers(-2, 3, (2, 136, 528)).astype(dtype), rng.integers(-1, 2, (528, 136)).astype(dtype)
    kernels, seen = hopper("tf32", order=1)
    turned, along = a.transpose(0, 2, 1).copy().transpose(0, 2, 1), b.T.copy().T
    for left, right in ((a, along), (turned, b), (a, b), (turned, along))[: 4 if dtype == HALF else 2]:
        seen.clear()
        same(kernels.matmul(left, right), REFERENCE.matmul(left, right))
        assert seen == {("gemm", dtype == HALF or right is along)}


# -- tf32 cuts off, which is not what mma.sync and cvt do ---------------------------------------------------------------------------------


def cut(a: Array) -> Array:
    """What wgmma sees of float32: 10 bits of mantissa, the rest is dropped."""
    return (a.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


def test_tf32_is_the_product_of_shortened_factors(rng: np.random.Generator) -> None:
    """Against the shortened factors only float32 sums are left, K roundings of at most 2^-24 of the sum of sizes each (on a device, 2^-23: it cuts)."""
    a, b = rng.standard_normal((72, 200)).astype(np.float32), rng.standard_normal((72, 200)).astype(np.float32).T
    kernels, seen = hopper("tf32")
    got = kernels.matmul(a, b).astype(np.float64)
    assert seen == {("gemm", True)}
    sizes = abs(a.astype(np.float64)) @ abs(b)
    assert (abs(got - cut(a).astype(np.float64) @ cut(b.T).T) <= 200 * 2.0**-23 * sizes).all()


def test_tf32_leans_towards_zero_by_no_more_than_theory_says(rng: np.random.Generator) -> None:
    """A factor loses less than 2^-10 of itself: a product less than 2^-9. Rounded factors would be as often too large as too small."""
    a, b = (rng.uniform(0.5, 2, (72, 200)).astype(np.float32) for _ in range(2))
    exact = a.astype(np.float64) @ b.T
    lost = {}
    for name, kernels in (("wgmma", hopper("tf32")[0]), ("mma.sync", simulated(precision="tf32", capability=(8, 0)))):
        lost[name] = 1 - kernels.matmul(a, b.T) / exact
    assert (lost["wgmma"] > 0).all() and (lost["wgmma"] < 2.0**-9).all()
    assert lost["wgmma"].mean() > 2.0**-11 > 8 * abs(lost["mma.sync"].mean())


# -- whole steps ------------------------------------------------------------------------------------------------------------------------


def on_wgmma(precision: str) -> Counting:
    """Simulated kernels with large tiles for whatever has whole runs, as `hopper` asks for them."""
    kernels = Counting.of(simulated(precision=precision, order=2))
    kernels.precision, kernels.launcher.capability = precision, HOPPER
    kernels.tile = lambda rows, columns, like, *_: ((128, 128), ("SMALL=0", f"TENSOR={kernels.tensor(like)}"))  # type: ignore[method-assign]
    return kernels


def arches(kernels: Counting) -> set[str]:
    return {kernel for _, kernel, options in kernels.launcher._functions if "-DWGMMA=1" in options}


@pytest.mark.skipif(ON_DEVICE, reason="looks into simulated kernels")
def test_a_unet_trains_in_float16() -> None:
    """As on mma.sync (test_half_cuda.py): the reference's losses, up to the roundings of one step."""
    kernels = on_wgmma("float16")
    losses = []
    for own in (kernels, REFERENCE):
        with minidcnn.use_kernels(own):
            losses.append(train(unet(8), HALF, 2, optim.GradScaler(2.0**12)))
    np.testing.assert_allclose(*losses, rtol=ROUNDINGS * U)
    assert losses[0][-1] < losses[0][0]
    assert arches(kernels) >= {"conv_forward", "conv_transposed", "conv_weight", "sum_parts"}


@pytest.mark.skipif(ON_DEVICE, reason="looks into simulated kernels")
def test_a_step_in_tf32() -> None:
    """Loss and gradients of a U-Net by cut and rounded factors are those of whole ones, up to a product's 2^-9 in each of its convolutions."""
    kernels, found = on_wgmma("tf32"), []
    rng = np.random.default_rng(0)
    images, masks = rng.standard_normal((2, 3, 16, 32)).astype(np.float32), rng.integers(0, 3, (2, 16, 32))
    for own in (kernels, REFERENCE):
        with minidcnn.use_kernels(own):
            model = unet(8)
            loss = F.cross_entropy(model(Tensor(images)), Tensor(masks))
            loss.backward()
            found.append((loss.item(), [p.grad.numpy() for p in model.parameters() if p.grad is not None]))
    (loss, gradients), (expected, wanted) = found[0], found[1]
    layers = sum(p.ndim == 4 for p in wanted)
    assert abs(loss - expected) < layers * 2.0**-9 * expected and loss != expected
    errors = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(gradients, wanted, strict=True) if np.linalg.norm(b) > 1e-5]
    assert errors[-1] < layers * 2.0**-9
    assert arches(kernels) == {"conv_forward", "conv_transposed"}


# -- banks of shared memory ---------------------------------------------------------------------------------------------------------------

PLACES = """
extern "C" __global__ void places(int* along, int* across) {
    Real *a = (Real*)along, *b = (Real*)across;
    for (int e = threadIdx.x; e < BM * BK; e += blockDim.x) {
        along[e] = Panel<true, BM, true>{a}.at(e / BK, e % BK) - a;
        across[e] = Panel<false, BM, true>{b}.at(e / BK, e % BK) - b;
    }
}"""


@pytest.mark.skipif(ON_DEVICE, reason="asks the sources, not the device")
@pytest.mark.parametrize("kind", ["Half", "float"])
def test_copies_write_different_banks(kind: str) -> None:
    """Each number has a place of its own, lines of 16 bytes stay together, and no 8 threads that copy at once wait for each other."""
    line, ks = (8, 32) if kind == "Half" else (4, 16)
    options = "-DASYNC=1", "-DWGMMA=1", f"-DREAL={kind}", "-DSUM=float", f"-DTENSOR={3 if kind == 'Half' else 1}"
    along, across = (np.full((128, ks), -1, np.int32) for _ in range(2))  # (rows, ks)
    SimModule(source("gemm.cu") + PLACES, options=options).get_function("places")((1,), (256,), (along, across))
    for places, lines in ((along, along.reshape(-1, line)), (across, across.T.reshape(-1, line))):
        np.testing.assert_array_equal(np.sort(places.ravel()), np.arange(128 * ks))
        assert (lines[:, 0] % line == 0).all() and (np.diff(lines, axis=1) == 1).all()
    thread = np.arange(256)
    words = 4 // (16 // line)  # bytes of a number
    copied = along[thread // 4 % 128, thread % 4 * line], across[thread % (128 // line) * line, thread // (128 // line) % ks]
    for places in copied:
        assert passes(places * words // 4, 4) == 1
