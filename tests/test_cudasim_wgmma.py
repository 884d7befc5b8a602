"""wgmma in the simulator: it reads factors where the documentation of PTX says, and finds what goes wrong around them, planted and small."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from cudasim import SimError, SimModule
from cudasim.build import why_not
from simulated import simulated

from minidcnn.backend.cuda.source import source

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs")

Array = np.ndarray[Any, Any]
OPTIONS = ("-DASYNC=1", "-DWGMMA=1", "-DSUM=float")
HALVES, SINGLES = (*OPTIONS, "-DREAL=Half", "-DTENSOR=3"), (*OPTIONS, "-DREAL=float", "-DTENSOR=1")

# -- descriptors: factors written into memory by the pictures of the documentation, atom by atom ------------------------------------------

READ = """
extern "C" __global__ void __launch_bounds__(128) read(const Real* memory, float* out, int a_across, int b_across, int mode, int a_leading, int a_stride,
                                                       int b_leading, int b_stride) {
    __shared__ __align__(1024) Real a[16384 / sizeof(Real)];
    __shared__ __align__(1024) Real b[16384 / sizeof(Real)];
    for (int e = threadIdx.x; e < 16384 / sizeof(Real); e += 128) {
        a[e] = memory[e];
        b[e] = memory[e + 16384 / sizeof(Real)];
    }
    proxy_fence();
    __syncthreads();
    float d[2][16] = {};
    const unsigned long long x = descriptor(a, a_leading, a_stride, mode), y = descriptor(b, b_leading, b_stride, mode);
    warpgroup_fence();
    if (a_across && b_across) warpgroup_multiply<64, true, true>(d, x, y);
    else if (a_across) warpgroup_multiply<64, true, false>(d, x, y);
    else if (b_across) warpgroup_multiply<64, false, true>(d, x, y);
    else warpgroup_multiply<64, false, false>(d, x, y);
    warpgroup_commit();
    warpgroup_wait<64>(d);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 16; j++) out[(threadIdx.x / 32 * 16 + i * 8 + threadIdx.x % 32 / 4) * 64 + j / 2 * 8 + threadIdx.x % 4 * 2 + j % 2] = d[i][j];
}"""
WIDE = (1, 8, 4, 2)  # lines of 16 bytes in a row of an atom, by swizzle


def placed(matrix: Array, mode: int, across: bool, leading: int, stride: int) -> Array:
    """16 KiB with `matrix` (rows, ks) in atoms of 8 by so many lines. Lines lie along k, or `across` it, and change places within an atom's row."""
    memory = np.full(16384 // matrix.itemsize, np.nan, matrix.dtype)
    line, wide = 16 // matrix.itemsize, WIDE[mode]
    beside, below = (stride, leading) if across and mode == 0 else (leading, stride)  # from atom to atom
    for i, numbers in enumerate(matrix.T if across else matrix):
        for j, run in enumerate(numbers.reshape(-1, line)):
            at = j // wide * beside + i // 8 * below + i % 8 * wide * 16 + (j % wide ^ i % 8 * wide // 8) * 16
            memory[at // matrix.itemsize :][:line] = run
    return memory


def read(
    a: Array, b: Array, mode: int, a_across: bool, b_across: bool, strides: dict[bool, tuple[int, int]], told: bool | None = None
) -> Array:
    """a b^T by one wgmma; `told`: what it is told of a's order, if that is not the truth."""
    memory = np.concatenate([placed(v, mode, c, *strides[c]) for v, c in ((a, a_across), (b, b_across))])
    out = np.empty((64, 64), np.float32)
    module = SimModule(source("gemm.cu") + READ, options=HALVES if a.itemsize == 2 else SINGLES)
    numbers = a_across if told is None else told, b_across, mode, *strides[a_across], *strides[b_across]
    module.get_function("read")((1,), (128,), (memory, out, *map(np.int32, numbers)))
    return out


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_factors_are_read_where_the_documentation_says(rng: np.random.Generator, mode: int, dtype: Any) -> None:
    a, b = (rng.integers(-3, 4, (64, 32 // np.dtype(dtype).itemsize)).astype(dtype) for _ in range(2))
    group = WIDE[mode] * 128  # bytes of 8 rows, or of 8 ks
    strides = {False: (2048, group), True: (4096, 256) if mode == 0 else (2048, group)}  # (leading, stride), by `across`
    for a_across in (False, True) if dtype == np.float16 else (False,):
        for b_across in (False, True) if dtype == np.float16 else (False,):
            expected = a.astype(np.float32) @ b.astype(np.float32).T
            np.testing.assert_array_equal(read(a, b, mode, a_across, b_across, strides), expected)
            if dtype == np.float16:
                assert not np.array_equal(read(a, b, mode, a_across, b_across, strides, not a_across), expected)


def test_tf32_cuts_off_what_it_does_not_read(rng: np.random.Generator) -> None:
    a, b = (rng.standard_normal((64, 8)).astype(np.float32) for _ in range(2))
    short = [(v.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64) for v in (a, b)]
    exact = short[0] @ short[1].T
    assert (abs(read(a, b, 2, False, False, {False: (16, 512)}) - exact) <= 8 * 2.0**-24 * (abs(short[0]) @ abs(short[1]).T)).all()


# -- small kernels that go wrong in one way each -------------------------------------------------------------------------------------------

SMALL = """
extern "C" __global__ void __launch_bounds__(128) small(float* out, int wrong) {
    __shared__ __align__(1024) Real s[64 * 32];
    for (int e = threadIdx.x; e < 64 * 32; e += 128) s[e] = Real(1.0f);
    if (wrong != FENCE && wrong != LATE_FENCE) proxy_fence();
    if (wrong != BARRIER) __syncthreads();
    if (wrong == LATE_FENCE) proxy_fence();
    float d[2][16] = {};
    unsigned long long at = descriptor(wrong == BEYOND ? s + 64 : s, 16, 512, 2);
    if (wrong == OFFSET) at |= 1ull << 49;
    if (wrong == MINDS) at += threadIdx.x / 32;
    if (wrong != REGISTERS) warpgroup_fence();
    if (wrong != LANE || threadIdx.x != 5) warpgroup_multiply<64, false, false>(d, at, at);
    if (wrong == BETWEEN) {
        d[0][0] = 5;
        warpgroup_multiply<64, false, false>(d, at, at);
    }
    if (wrong == TURNED) warpgroup_multiply<64, false, true>(d, at, at);
    if (wrong != COMMIT) warpgroup_commit();
    if (wrong == ON_THE_WAY) d[1][3] = 1;
    if (wrong == OVERWRITTEN) s[threadIdx.x] = Real(2.0f);
    if (wrong != WAIT) warpgroup_wait<64>(d);
    out[threadIdx.x] = d[1][15];
}"""
WRONG = {
    "REGISTERS": r"registers that were written without wgmma\.fence at .*wgmma\.cuh",
    "FENCE": r"UNFENCED: .* that thread \d+ wrote at .*small\.cu:3, without fence\.proxy\.async before the barrier",
    "LATE_FENCE": "UNFENCED",  # behind the barrier
    "BARRIER": "RACE|UNINITIALISED|UNFENCED",
    "COMMIT": "exits with a wgmma never waited for",
    "WAIT": "exits with a wgmma never waited for",
    "ON_THE_WAY": "wrote registers of a wgmma under way",
    "BETWEEN": "under way were written before another",
    "OVERWRITTEN": r"RACE \(.*wgmma\.cuh:\d+, an earlier one by .*small\.cu:20",
    "OFFSET": "base offset or reserved bits",
    "LANE": "never waited for|DEADLOCK",
    "MINDS": "begin different wgmmas",
    "BEYOND": "OUT OF BOUNDS shared read",
    "TURNED": "reads tf32 along k only",
}


def run_small(wrong: str = "", threads: int = 128, options: tuple[str, ...] = HALVES, **settings: Any) -> Array:
    out = np.zeros(128, np.float32)
    names = f"enum {{ NOTHING, {', '.join(WRONG)} }};"
    module = SimModule(f'{source("gemm.cu")}\n{names}\n#line 1 "small.cu"{SMALL}', options=options, mode="check", **settings)
    number = list(WRONG).index(wrong) + 1 if wrong else 0
    module.get_function("small")((1,), (threads,), (out, np.int32(number)))
    return out


@pytest.mark.parametrize("late", [True, False])
def test_a_sound_one_has_no_findings(late: bool) -> None:
    assert (run_small(late_copies=late) == 16).all()


@pytest.mark.parametrize("name", WRONG)
def test_it_says_what_is_wrong(name: str) -> None:
    with pytest.raises(SimError, match=WRONG[name]):
        run_small(name, options=SINGLES if name == "TURNED" else HALVES)


def test_three_warps_are_no_warpgroup() -> None:
    with pytest.raises(SimError, match="needs four whole warps"):
        run_small(threads=96)


# -- bugs planted in the kernels -----------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
A, B = RNG.integers(-3, 4, (136, 104)).astype(np.float16), RNG.integers(-3, 4, (104, 136)).astype(np.float16)


def product(kernels: Any, run: str) -> Array:
    """Four tiles, four steps: of float16 along k, of float16 along rows and columns, or of tf32."""
    kernels.tile = lambda *_: ((128, 128), ("SMALL=0", f"TENSOR={1 if run == 'tf32' else 3}"))
    if run == "tf32":
        return kernels.matmul(A.astype(np.float32), np.asfortranarray(B.astype(np.float32)))  # type: ignore[no-any-return]
    return kernels.matmul(A, np.asfortranarray(B)) if run == "along" else kernels.matmul(np.asfortranarray(A), B)  # type: ignore[no-any-return]


# what is wrong -> (run, text of a source, what stands there instead)
PLANTED: dict[str, tuple[str, str, str]] = {
    "nobody waits": ("along", "        warpgroup_wait<BN>(result);\n", ""),
    "the last products are not waited for": ("along", "        this->settle();\n    }\n};", "    }\n};"),
    "copies are not made visible to the asynchronous proxy": ("along", "        proxy_fence();\n    }", "    }"),
    "copies are made visible before they have come": (
        "along",
        "copies_wait<STAGES - 2>();\n            this->settle();",
        "this->settle();\n            copies_wait<STAGES - 2>();",
    ),
    "the barrier comes before the wait": (
        "along",
        "this->settle();\n            __syncthreads();",
        "__syncthreads();\n            this->settle();",
    ),
    "into the stage that is read": ("along", "feed_a.fetch({as[to]})", "feed_a.fetch({as[stage]})"),
    "products are not committed": ("tf32", "        warpgroup_commit();\n    }", "    }"),
    "sums are zeroed without a fence": ("tf32", "        warpgroup_fence();\n        #pragma", "        #pragma"),
    "another swizzle": ("along", "16, 512, 2)", "16, 512, 1)"),
    "leading and stride exchanged": ("across", "1024, P::LENGTH / 64 * 1024, 1)", "P::LENGTH / 64 * 1024, 1024, 1)"),
    "rows along memory taken for ks": ("across", "<BN, !A::ALONG_K, !B::ALONG_K>", "<BN, !A::ALONG_K, false>"),
    "lines of an atom stay in place": ("across", "(line % 8 ^ k % 8)", "(line % 8)"),
    "atoms in the other order": ("across", "k / 8 * (ROWS / LINE / 8) + line / 8", "line / 8 * (BK / 8) + k / 8"),
    "both warpgroups with the first rows": ("tf32", "threadIdx.x / 128 * 64), y", "0), y"),
    "results: rows 8 apart exchanged": ("tf32", "return m + i * 8;", "return m + (1 - i) * 8;"),
    "panels that begin anywhere": ("across", "__align__(1024) Real bs", "__align__(128) Real bs"),
}
FOUND = "RACE|OUT OF BOUNDS|UNINITIALISED|UNFENCED|DEADLOCK|never waited for|wgmma"


@pytest.mark.parametrize("run", ["along", "across", "tf32"])
@pytest.mark.parametrize("late", [True, False])
def test_sound_products_have_no_findings(run: str, late: bool) -> None:
    result = product(simulated(mode="check", order=2, late_copies=late, precision="tf32", capability=(9, 0)), run)
    np.testing.assert_array_equal(result, A.astype(np.float32) @ B.astype(np.float32))


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bugs_are_caught(bug: str) -> None:
    """Either check mode objects, or the numbers are wrong, with copies and products as late as they may be or at once."""
    run, text, instead = PLANTED[bug]
    assert text in source("gemm.cu"), "the text to change is gone from the sources"

    def caught(late: bool) -> bool:
        try:
            result = product(simulated((text, instead), mode="check", late_copies=late, precision="tf32", capability=(9, 0)), run)
        except RuntimeError as error:
            return bool(re.search(FOUND, str(error)))
        return not np.array_equal(result, A.astype(np.float32) @ B.astype(np.float32))

    assert caught(True) or caught(False)
