"""What only compute capability 9.0 has: how it comes to a kernel, compiled by NVRTC with -arch=sm_90a, and what the compiler makes of it."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

import cupy_stand_in
import numpy as np
import nvrtc
import pytest
import test_cuda_compile
from cudasim.build import why_not as why_no_simulator
from simulated import ON_DEVICE, simulated
from test_cuda_compile import by_kernel, compile_kernels, ptx

from minidcnn.backend.cuda import CudaKernels
from minidcnn.backend.cuda.compiler import ARCH, AS_CUPY, Compiler
from minidcnn.backend.cuda.launcher import VARIABLE
from minidcnn.backend.cuda.source import source

pytestmark = pytest.mark.skipif(ON_DEVICE, reason="plays a GPU")
runs = pytest.mark.skipif(bool(why_no_simulator()), reason=why_no_simulator() or "runs")

HOPPER = (9, 0)
F16, TF32 = "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16", "wgmma.mma_async.sync.aligned.m64n128k8.f32.tf32.tf32"
LARGE = ("SMALL", "0"), ("WGMMA", "1"), ("ASYNC", "1")
TALL = ("SMALL", "1"), ("TALL", "1"), ("WGMMA", "1"), ("ASYNC", "1")

# -- what the compiler makes of it ----------------------------------------------------------------------------------------------------------


def judged(log: str) -> list[int]:
    """Registers of each kernel, after a look at the report: nothing spilled, and products that go on while threads do something else."""
    assert set(re.findall(r"(\d+) bytes spill stores", log)) == {"0"}, log
    assert "serialized" not in log, log
    return [int(n) for n in re.findall(r"Used (\d+) registers", log)]


@pytest.mark.parametrize(("along", "tensor"), [("11", "1"), ("11", "3"), ("10", "3"), ("01", "3"), ("00", "3")])
def test_products_compile_for_two_blocks_on_a_multiprocessor(along: str, tensor: str) -> None:
    defines = *LARGE, ("TENSOR", tensor), ("A_ALONG_K", along[0]), ("B_ALONG_K", along[1])
    _, log = compile_kernels("gemm.cu", "sm_90a", "float16" if tensor == "3" else "float32", *defines)
    assert max(judged(log)) <= 65536 // (2 * 256)
    _, log = compile_kernels("gemm.cu", "sm_90a", "float16" if tensor == "3" else "float32", *TALL, *defines[3:])
    assert max(judged(log)) <= 65536 // (3 * 256) // 8 * 8  # three
    text = by_kernel(ptx("gemm.cu", "sm_90a", *defines, ("REAL", "Half" if tensor == "3" else "float")))
    turned = f", 1, 1, 1, {1 - int(along[0])}, {1 - int(along[1])};" if tensor == "3" else ", 1, 1, 1;"
    found = re.findall(r"(wgmma\.mma_async\S+) [^;]*?(, 1, 1, 1[^;]*;)", text["gemm"])
    assert found == [(F16 if tensor == "3" else TF32, turned)] * 2
    for once in ("wgmma.fence.sync.aligned", "wgmma.commit_group.sync.aligned"):
        assert text["gemm"].count(once) == 1
    assert text["gemm"].count("wgmma.wait_group.sync.aligned \t0") + text["gemm"].count("wgmma.wait_group.sync.aligned 0") == 2
    assert "fence.proxy.async" in text["gemm"] and "mma.sync" not in text["gemm"]
    assert "wgmma" not in text["sum_parts"]


@pytest.mark.parametrize("tensor", ["1", "3"])
def test_convolutions_compile(tensor: str) -> None:
    """All that a module has: in tf32 two of the three are wgmma's, if the weight is turned, and the third is as without it."""
    dtype, turned = "float16" if tensor == "3" else "float32", ("TURNED", str(int(tensor == "1")))
    for shape, grouped in ((LARGE, "1"), (TALL, "0")):
        _, log = compile_kernels("conv.cu", "sm_90a", dtype, *shape, ("TENSOR", tensor), turned, ("GROUPED", grouped))
        judged(log)
    text = by_kernel(ptx("conv.cu", "sm_90a", *LARGE, turned, ("TENSOR", tensor), ("REAL", "Half" if tensor == "3" else "float")))
    for name in ("conv_forward", "conv_transposed", "conv_weight"):
        own = tensor == "3" or name != "conv_weight"
        assert (f"wgmma.mma_async.sync.aligned.m64n128k{'16' if tensor == '3' else '8'}" in text[name]) == own
        assert ("mma.sync" in text[name]) != own


def test_products_that_wait_for_each_other_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler's report names them: here, sums are touched while wgmma adds to them."""
    before = "            if constexpr (ASYNC) copies_commit();  // of nothing"
    broken = source("gemm.cu").replace(before, "            result[0][0] *= 2;\n" + before)
    assert broken != source("gemm.cu")
    monkeypatch.setattr(test_cuda_compile, "source", lambda name: broken)
    _, log = compile_kernels("gemm.cu", "sm_90a", "float16", *LARGE, ("TENSOR", "3"))
    with pytest.raises(AssertionError, match="serialized"):
        judged(log)


def test_other_architectures_do_not_have_it() -> None:
    with pytest.raises(Exception, match="wgmma"):
        compile_kernels("gemm.cu", "sm_90", "float16", *LARGE, ("TENSOR", "3"))


# -- which kernels get it -------------------------------------------------------------------------------------------------------------------


def spied(kernels: Any) -> list[bool]:
    """Of every product from now on, whether it is wgmma's; nothing is compiled or launched."""
    seen: list[bool] = []

    def launch(grid: Any, block: Any, file: str, kernel: str, *rest: Any, defines: Any = (), **named: Any) -> None:
        if kernel == "gemm":
            seen.append("WGMMA=1" in defines)

    kernels.launcher.launch = launch
    return seen


@pytest.mark.parametrize(
    ("capability", "precision", "dtype", "along", "expected"),
    [
        (HOPPER, "float32", np.float16, False, True),
        (HOPPER, "float32", np.float16, True, True),
        (HOPPER, "tf32", np.float32, True, True),
        (HOPPER, "tf32", np.float32, False, False),  # read along k only
        (HOPPER, "bf16", np.float32, True, False),  # would have to be converted on the way
        (HOPPER, "float32", np.float32, True, False),
        (HOPPER, "tf32", np.float64, True, False),
        ((8, 9), "tf32", np.float32, True, False),
        ((10, 0), "float32", np.float16, True, False),
        ((12, 0), "tf32", np.float32, True, False),
    ],
)
def test_who_gets_it(capability: tuple[int, int], precision: str, dtype: Any, along: bool, expected: bool) -> None:
    kernels = simulated(precision=precision, capability=capability)
    seen = spied(kernels)
    a, b = np.zeros((2048, 64), dtype), np.zeros((64, 2048), dtype)
    kernels.matmul(a, np.asfortranarray(b) if along else b)
    assert seen == [expected]


def test_small_tiles_and_broken_runs_do_without() -> None:
    kernels = simulated(capability=HOPPER)
    seen = spied(kernels)
    for m, k, n in ((64, 64, 64), (2048, 60, 2048), (2048, 64, 2044)):
        kernels.matmul(np.zeros((m, k), np.float16), np.zeros((k, n), np.float16))
    assert seen == [False] * 3


@pytest.mark.parametrize(("said", "expected"), [("0", False), ("1", True), ("", True)])
def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, said: str, expected: bool) -> None:
    monkeypatch.setenv(VARIABLE, said)
    assert simulated(capability=HOPPER).launcher.warpgroups is expected


# -- how it is compiled and loaded ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cupy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "kernels"))
    return cupy_stand_in.make_module()


def products(kernels: CudaKernels, cupy: Any, rng: np.random.Generator) -> None:
    """A product in tiles of 128, right and on the stand-in's device."""
    kernels.tile = lambda *_: ((128, 128), ("SMALL=0", "TENSOR=3"))  # type: ignore[method-assign]
    a, b = rng.integers(-3, 4, (136, 72)).astype(np.float16), rng.integers(-3, 4, (72, 136)).astype(np.float16)
    result: Any = kernels.matmul(cupy.asarray(a), cupy.asarray(b))
    np.testing.assert_array_equal(result.get(), a.astype(np.float32) @ b.astype(np.float32))


@runs
def test_a_gpu_of_9_0_compiles_it_by_nvrtc_once(cupy: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    products(CudaKernels(cupy), cupy, rng)
    assert len(cupy.cuda.nvrtc.programs) == 1
    (kept,) = (tmp_path / "kernels").iterdir()
    assert re.fullmatch(r"minidcnn-[0-9a-f]{64}\.cubin", kept.name) and all(o.encode() in kept.read_bytes() for o in (ARCH, *AS_CUPY))
    again = cupy_stand_in.make_module()
    products(CudaKernels(again), again, rng)
    assert not again.cuda.nvrtc.programs  # from the folder


@runs
def test_a_folder_that_cannot_be_used_is_none(cupy: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    (tmp_path / "kernels").write_text("no folder")
    products(CudaKernels(cupy), cupy, rng)
    assert len(cupy.cuda.nvrtc.programs) == 1


@runs
def test_what_does_not_compile_is_said_once_and_slower_kernels_take_over(cupy: Any, rng: np.random.Generator) -> None:
    cupy.cuda.nvrtc.refuses = "kernel.cu(3): error: nobody knows wgmma"
    kernels = CudaKernels(cupy)
    with pytest.warns(
        UserWarning, match=r"kernels for sm_90a do not compile or load, slower ones are used: NVRTC_ERROR_COMPILATION \(6\)"
    ) as said:
        products(kernels, cupy, rng)
    assert len(said) == 1 and not kernels.launcher.warpgroups
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        products(kernels, cupy, rng)
        kernels.matmul(cupy.asarray(np.ones((136, 72), np.float16)), cupy.asarray(np.ones((136, 72), np.float16)).T)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("CUDA_ERROR_OUT_OF_MEMORY: out of memory", MemoryError),
        ("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered", RuntimeError),
        ("CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure", RuntimeError),
    ],
)
@pytest.mark.parametrize("defines", [(), ("WGMMA=1", "TENSOR=3", "SMALL=0", "ASYNC=1")])
def test_what_the_driver_says_while_it_loads_is_not_the_compilers(said: str, expected: type[Exception], defines: tuple[str, ...]) -> None:
    """Without memory, or after a fault of an earlier kernel, machine code is not loaded: nothing is wrong with wgmma, and nobody is told so."""

    def loads(**_: Any) -> Any:
        raise ValueError(said)

    kernels = CudaKernels(np, loads)
    kernels.launcher.capability = HOPPER
    with warnings.catch_warnings(), pytest.raises(expected, match=f"kernel gemm of gemm.cu.*: {said}") as raised:
        warnings.simplefilter("error")
        kernels.launcher.function("gemm.cu", "gemm", np.float16, defines)
    assert "compile" not in str(raised.value) and kernels.launcher.warpgroups


def test_everything_else_is_cupys(cupy: Any) -> None:
    made: list[tuple[str, tuple[str, ...]]] = []
    cupy.RawModule = lambda *, code, options: made.append((code, options))
    Compiler(cupy)(code="text", options=("-DREAL=float",))
    assert made == [("text", ("-DREAL=float",))]


def test_nvrtc_takes_these_options(cupy: Any) -> None:
    """Machine code for the GPU, and in an error what the compiler says."""
    cupy.cuda.nvrtc = nvrtc.Nvrtc()
    options = ("-std=c++17", "-DREAL=Half", "-DSUM=float", *(f"-D{k}={v}" for k, v in LARGE), "-DTENSOR=3", ARCH, *AS_CUPY)
    compiler = Compiler(cupy)
    binary = compiler._compiled(source("gemm.cu"), options)
    assert binary[:4] == b"\x7fELF" and b"sm_90a" in binary
    with pytest.raises(RuntimeError, match=r'NVRTC_ERROR_COMPILATION \(6\)\nminidcnn\.cu\(1\): error: identifier "missing" is undefined'):
        compiler._compiled("__global__ void f() { missing(); }", options)


def test_the_folder_of_kernels_is_cupys(cupy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUPY_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    Compiler(cupy)._kept("text", (ARCH,))
    assert os.listdir(tmp_path / ".cupy" / "kernel_cache")


def test_who_has_no_home_has_a_folder_of_kernels_as_cupy_does(cupy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a container's user whom its list of users does not know."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUPY_CACHE_DIR")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert Compiler(cupy)._kept("text", (ARCH,))
    assert os.listdir(tmp_path / "~" / ".cupy" / "kernel_cache")
