"""What NVRTC makes of the kernels, run on the simulator: inline assembly, its operands and all that the compiler did, against the reference.

The simulator compiles .cu files with g++, which takes the C++ that stands in for assembly. Here it gets PTX, which is what a GPU's driver gets.
`MINIDCNN_CUDA=ptx pytest tests/test_cuda_*.py` runs all tests of the kernels so.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import nvrtc
import pytest
from cudasim import SimError, SimModule
from simulated import ON_DEVICE, simulated, why_not
from test_cuda_conv import all_three
from test_cuda_kernels import REFERENCE, same
from test_cuda_training import Counting, train
from test_cuda_wgmma import hopper

from minidcnn.testing import Conv
from minidcnn.window import Window

reason = why_not() or nvrtc.why_not() or (ON_DEVICE and "a device runs machine code") or ""
pytestmark = pytest.mark.skipif(bool(reason), reason=reason or "runs")

Array = np.ndarray[Any, Any]
HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)
HOW: dict[str, Any] = {"ptx": "compute_80", "mode": "check", "order": 2}
TILES = {"128x128": ("SMALL=0",), "128x64": ("SMALL=1", "TALL=1"), "64x64": ("SMALL=1",)}


def tiled(kernels: Any, shape: str) -> Any:
    """Kernels that use tiles of this shape, whatever the size."""
    down, across = map(int, shape.split("x"))
    kernels.tile = lambda rows, columns, like, *_: ((down, across), (*TILES[shape], f"TENSOR={kernels.tensor(like)}"))
    return kernels


def factors(dtype: Any) -> tuple[Array, Array]:
    """Whole numbers, of which products are exact in every precision; several tiles, and a k that fills the ring of stages several times."""
    rng = np.random.default_rng(0)
    return rng.integers(-2, 3, (2, 72, 136)).astype(dtype), rng.integers(-1, 2, (136, 72)).astype(dtype)


def orders_of(a: Array, b: Array) -> list[tuple[Array, Array]]:
    """The same factors with ks, or rows, side by side in memory."""
    turned, along = np.moveaxis(np.moveaxis(a, 1, 2).copy(), 1, 2), b.T.copy().T
    return [(x, y) for x in (a, turned) for y in (b, along)]


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", SINGLE), ("tf32", SINGLE), ("bf16", SINGLE), ("tf32x3", SINGLE), ("float32", HALF)]
)
def test_products(precision: str, dtype: Any, late: bool) -> None:
    """On cores and on tensor cores, by cp.async; its copies end as late as their wait allows, or at once."""
    kernels = tiled(simulated(precision=precision, late_copies=late, **HOW), "64x64")
    for a, b in orders_of(*factors(dtype)):
        same(kernels.matmul(a, b), REFERENCE.matmul(a, b))


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize(("precision", "dtype"), [("tf32", SINGLE), ("float32", HALF)])
def test_products_by_warpgroups(precision: str, dtype: Any, late: bool) -> None:
    kernels, seen = hopper(precision, late_copies=late, **HOW)
    for a, b in orders_of(*factors(dtype)):
        same(kernels.matmul(a, b), REFERENCE.matmul(a, b))
    assert ("gemm", True) in seen


@pytest.mark.parametrize(
    ("precision", "dtype", "shape"),
    [
        ("float32", SINGLE, "128x64"),
        ("tf32", SINGLE, "64x64"),
        ("bf16", SINGLE, "64x64"),
        ("tf32x3", SINGLE, "64x64"),
        ("float32", HALF, "128x64"),
    ],
)
def test_the_three_convolutions(precision: str, dtype: Any, shape: str) -> None:
    kernels = tiled(simulated(precision=precision, **HOW), shape)
    for channels in (8, 5):  # in whole runs of 16 bytes, and number by number
        all_three(kernels, Conv(Window((3, 2), (2, 1), padding=(1, 1)), (7, 6), 2, channels, 2 * channels, 1), dtype, "channels-last", 0)


@pytest.mark.parametrize(("precision", "dtype"), [("tf32", SINGLE), ("float32", HALF)])
def test_the_three_convolutions_by_warpgroups(precision: str, dtype: Any) -> None:
    kernels, seen = hopper(precision, large=False, **HOW)
    all_three(kernels, Conv(Window((3, 2), (2, 1), padding=(1, 1)), (7, 6), 2, 8, 16, 1), dtype, "channels-last", 0)
    assert {("conv_forward", True), ("conv_transposed", True)} <= seen


def test_a_training_step() -> None:
    """A U-Net in float64, through every kernel that it needs, as on NumPy."""
    kernels = Counting.of(simulated(ptx="compute_80"))
    losses, state = train(kernels, 2)
    expected, wanted = train(REFERENCE, 2)
    np.testing.assert_allclose(losses, expected, rtol=1e-10)
    for a, b in zip(state, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)
    assert kernels.launched >= {"conv_forward", "conv_weight", "max_pool", "normalize_grad", "cross_entropy_grad", "sgd_step"}


@pytest.mark.parametrize("arch", ["compute_80", "compute_100"])
@pytest.mark.parametrize("dtype", [SINGLE, HALF])
def test_taps_of_large_windows(dtype: Any, arch: str) -> None:
    """Indices of two bytes lie in runs with the images', which newer compilers read by instructions of 32 bytes."""
    kernels, window, size = simulated(ptx=arch, mode="check"), Window((17, 16), (2, 3)), (20, 23)
    x = np.random.default_rng(0).integers(-9, 9, (2, *size, 8)).astype(dtype).transpose(0, 3, 1, 2)
    out = window.positions(size)
    y, taps = REFERENCE.max_pool2d(x, window, out)
    same(kernels.max_pool2d(x, window, out), (y, taps))
    same(kernels.pool_gather(x, taps, window), REFERENCE.pool_gather(x, taps, window))
    same(kernels.pool_scatter(y, taps, window, size), REFERENCE.pool_scatter(y, taps, window, size))


# -- planted bugs: each in assembly that no other simulation sees --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "dtype", "before", "after"),
    [
        ("tf32", SINGLE, "tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}", "tf32.f32 {%0,%1,%2,%3}, {%4,%6,%5,%7}"),
        ("bf16", SINGLE, "bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}", "bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%9,%8}"),
        ("bf16", SINGLE, '"f"(high), "f"(low)', '"f"(high), "f"(high)'),  # the two exchanged, in both factors, would be the same product
        ("tf32", SINGLE, '"+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)', '"+f"(c0), "+f"(c2), "+f"(c1), "+f"(c3)'),
        ("float32", HALF, "f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0", "f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%8}, {%0"),
        ("float32", SINGLE, '"r"(zeros ? 0 : 16)', '"r"(zeros ? 16 : 0)'),
        ("float32", SINGLE, '"n"(LEFT)', '"n"(LEFT + 1)'),
        ("float32", SINGLE, "(unsigned)__cvta_generic_to_shared(to)", "(unsigned)__cvta_generic_to_shared(to) + 16"),
    ],
)
def test_bugs_in_assembly_are_found(precision: str, dtype: Any, before: str, after: str) -> None:
    a, b = factors(dtype)
    for planted in (None, (before, after)):
        kernels = tiled(simulated(planted, precision, **HOW), "64x64")
        try:
            found = (kernels.matmul(a, b) != REFERENCE.matmul(a, b)).any()
        except RuntimeError:
            found = True
        assert found == (planted is not None)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"n"(A_ACROSS), "n"(B_ACROSS)', '"n"(B_ACROSS), "n"(A_ACROSS)'),
        ('"+f"(d[0][2 * q + 1]), "+f"(d[1][2 * q])', '"+f"(d[1][2 * q]), "+f"(d[0][2 * q + 1])'),
        ("wgmma.commit_group.sync.aligned;", ""),
        ("wgmma.fence.sync.aligned;", ""),
        ("fence.proxy.async.shared::cta;", ""),
    ],
)
def test_bugs_in_the_assembly_of_warpgroups_are_found(before: str, after: str) -> None:
    a, b = factors(HALF)
    for planted in (None, (before, after)):
        kernels, _ = hopper(planted=planted, **HOW)
        try:
            found = (kernels.matmul(a, b) != REFERENCE.matmul(a, b)).any()
        except RuntimeError:
            found = True
        assert found == (planted is not None)


def test_a_finding_names_the_line_of_the_source() -> None:
    kernels = tiled(simulated(("__syncthreads();", ""), **HOW), "64x64")
    with pytest.raises(RuntimeError, match=r"(RACE|UNINITIALISED).* at .*tile\.cuh:\d+"):
        kernels.matmul(*factors(SINGLE))


# -- instructions, by their documentation --------------------------------------------------------------------------------------------------

HEAD = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry f(.param .u64 f_param_0)
{
	.reg .pred %p<4>;
	.reg .b16 %rs<4>;
	.reg .b32 %r<9>;
	.reg .f32 %f<4>;
	.reg .b64 %rd<4>;
	.reg .f64 %fd<4>;
	ld.param.u64 %rd1, [f_param_0];
"""


def run(instructions: str, result: str = "%r1") -> int:
    """The 32 bits that instructions leave in a register."""
    out = np.zeros(1, np.uint32)
    module = SimModule(f"{HEAD}{instructions}\nst.global.b32 [%rd1], {result};\nret;\n}}\n", mode="check")
    module.get_function("f")((1,), (1,), (out,))
    return int(out[0])


@pytest.mark.parametrize(
    ("instructions", "bits"),
    [
        ("mov.u32 %r2, 2147483647; add.s32 %r1, %r2, 2;", 0x80000001),  # wraps
        ("mov.u32 %r2, -3; mul.wide.s32 %rd2, %r2, 5; shr.s64 %rd3, %rd2, 1; cvt.u32.u64 %r1, %rd3;", 0xFFFFFFF8),
        ("mov.u32 %r2, -3; mul.wide.u32 %rd2, %r2, 5; shr.u64 %rd3, %rd2, 32; cvt.u32.u64 %r1, %rd3;", 4),
        ("mov.u32 %r2, -7; div.s32 %r1, %r2, 2;", 0xFFFFFFFD),  # towards zero
        ("mov.u32 %r2, -7; rem.s32 %r1, %r2, 2;", 0xFFFFFFFF),
        ("mov.u32 %r2, 1; shl.b32 %r1, %r2, 32;", 0),  # further than there are bits
        ("mov.u32 %r2, -5; shr.s32 %r1, %r2, 40;", 0xFFFFFFFF),
        ("mov.u32 %r2, -5; shr.u32 %r1, %r2, 40;", 0),
        ("mov.u32 %r2, 5; mov.u32 %r3, -1; bfi.b32 %r1, %r2, %r3, 4, 8;", 0xFFFFF05F),
        ("mov.u32 %r2, 0x33221100; mov.u32 %r3, 0x77665584; prmt.b32 %r1, %r2, %r3, 0xC740;", 0xFF778400),
        ("mov.f32 %f1, 0f7FC00000; setp.ne.f32 %p1, %f1, %f1; selp.u32 %r1, 1, 0, %p1;", 0),  # ordered: false for NaN
        ("mov.f32 %f1, 0f7FC00000; setp.neu.f32 %p1, %f1, %f1; selp.u32 %r1, 1, 0, %p1;", 1),
        ("mov.f32 %f1, 0f7FC00000; setp.leu.f32 %p1, %f1, 0f00000000; selp.u32 %r1, 1, 0, %p1;", 1),
        ("mov.f32 %f1, 0f7FC00000; max.f32 %f2, %f1, 0f40000000; mov.b32 %r1, %f2;", 0x40000000),  # the number
        ("mov.f32 %f1, 0f3F801000; cvt.rna.tf32.f32 %r1, %f1;", 0x3F802000),  # halves away from zero
        ("mov.f32 %f1, 0f3F800FFF; cvt.rna.tf32.f32 %r1, %f1;", 0x3F800000),
        ("mov.f32 %f1, 0f3F808000; mov.f32 %f2, 0f3F818000; cvt.rn.bf16x2.f32 %r1, %f1, %f2;", 0x3F803F82),  # halves to even
        ("mov.f32 %f1, 0f477FF000; cvt.rn.f16.f32 %rs1, %f1; cvt.u32.u16 %r1, %rs1;", 0x7C00),  # 65520
        ("mov.f32 %f1, 0f33000000; cvt.rn.f16.f32 %rs1, %f1; cvt.u32.u16 %r1, %rs1;", 0),  # half of the smallest
        ("mov.u16 %rs1, 0x0001; cvt.f32.f16 %f1, %rs1; mov.b32 %r1, %f1;", 0x33800000),
        ("mov.f32 %f1, 0f7FC00000; cvt.sat.f32.f32 %f2, %f1; mov.b32 %r1, %f2;", 0),
        ("mov.f32 %f1, 0fBF800000; fma.rm.f32 %f2, %f1, 0f33000000, 0f3F800000; mov.b32 %r1, %f2;", 0x3F7FFFFF),  # downwards
        ("mov.f32 %f1, 0fBF800000; fma.rn.f32 %f2, %f1, 0f32800000, 0f3F800000; mov.b32 %r1, %f2;", 0x3F800000),
        ("mov.u16 %rs1, 1; mov.u16 %rs2, 2; mov.b32 %r1, {%rs1, %rs2};", 0x00020001),
        ("mov.u32 %r2, 0x00020001; mov.b32 {%rs1, %rs2}, %r2; cvt.u32.u16 %r1, %rs2;", 2),
        ("mov.u16 %rs1, 0x80; cvt.s32.s8 %r1, %rs1;", 0xFFFFFF80),
        ("mov.u32 %r1, 1; setp.eq.s32 %p1, %r1, 1; @%p1 bra $L_end; mov.u32 %r1, 2; $L_end:", 1),
        ("mov.u32 %r1, 1; setp.eq.s32 %p1, %r1, 1; @!%p1 bra $L_end; mov.u32 %r1, 2; $L_end:", 2),
    ],
)
def test_instructions(instructions: str, bits: int) -> None:
    assert run(instructions) == bits


@pytest.mark.parametrize(
    "unknown",
    ["add.cc.s32 %r1, %r2, %r3;", "tex.2d.v4.f32 {%f1, %f2, %f3, %f1}, [t, {%f1, %f2}];", "bar.sync 1;", "mul.hi.s32 %r1, %r2, %r3;"],
)
def test_an_instruction_that_the_simulator_does_not_know_is_named(unknown: str) -> None:
    with pytest.raises(SimError, match=f"a PTX instruction that the simulator does not know: {re.escape(unknown[:-1])}"):
        run(unknown)


def test_ptx_is_checked_as_sources_are() -> None:
    with pytest.raises(SimError, match="OUT OF BOUNDS global write"):
        run("st.global.b32 [%rd1+4], 1;")
    with pytest.raises(SimError, match="f, argument 0: pass a NumPy scalar"):
        SimModule(HEAD + "ret;\n}\n").get_function("f")((1,), (1,), (5,))
    with pytest.raises(ValueError, match='mode "traffic" counts on what a compiler made: give PTX'):
        SimModule("", mode="traffic")
