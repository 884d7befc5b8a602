"""Every kernel compiles for real GPUs, by the compiler that CuPy uses, without a GPU or a driver; and no kernel spills registers."""

from __future__ import annotations

import io
import re

import nvrtc
import pytest
from cudasim.translate import kernel_names

from minidcnn.backend.cuda.launcher import NUMBERS
from minidcnn.backend.cuda.source import folder, source

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_90a", "sm_100", "sm_120")
Defines = tuple[tuple[str, str], ...]
TWO, THREE = (f"{k},{k},2,2,0,0,1,1" for k in (2, 3))  # WINDOW of kernels/pool.cu
WIDE = r"(?:nc\.)?(?:v4\.[bu]32|v4\.f32|v2\.f64|v2\.[bu]64)"  # 16 bytes, behind ld.global or st.global in PTX
QUICK = ("sm_75", "sm_80", "sm_90a", "sm_120")  # in the usual run, most with half of the variants; all in the exhaustive one
LARGE, TALL, SQUARE = (("SMALL", "0"),), (("SMALL", "1"), ("TALL", "1")), (("SMALL", "1"),)  # 128 x 128, 128 x 64 and 64 x 64 results
VARIANTS = {
    "conv.cu": (
        *((*shape, ("ASYNC", a)) for shape in (LARGE, TALL, SQUARE) for a in "01"),
        *((*shape, ("ASYNC", a), ("GROUPED", "1")) for shape, a in ((LARGE, "1"), (LARGE, "0"), (TALL, "1"), (SQUARE, "1"))),
        *((*TALL, ("ASYNC", a), ("SWAPPED", "1")) for a in "01"),
    ),
    "gemm.cu": (
        *((*shape, ("ASYNC", "1"), ("A_ALONG_K", a), ("B_ALONG_K", b)) for shape in (LARGE, TALL, SQUARE) for a in "01" for b in "01"),
        *(
            (*shape, ("ASYNC", "0"), ("A_ALONG_K", a), ("B_ALONG_K", b))
            for shape, a, b in ((LARGE, "0", "1"), (TALL, "0", "1"), (SQUARE, "1", "0"))
        ),
    ),
    **dict.fromkeys(("elementwise.cu", "norm.cu", "resize.cu"), ((("WIDE", "0"),), (("WIDE", "1"),))),
    "pool.cu": (
        *((("TAP", f"unsigned {tap}"),) for tap in ("char", "short", "int")),
        *((("WIDE", "1"), ("TAP", f"unsigned {tap}")) for tap in ("char", "int")),
        *((("WIDE", w), ("WINDOW", window)) for w in "01" for window in (TWO, THREE)),
    ),
}


def compile_kernels(name: str, arch: str, dtype: str, *defines: tuple[str, str]) -> tuple[bytes, str]:
    """(machine code, the assembler's report) of kernels/`name`, compiled with the options that CuPy passes."""
    core = nvrtc.program()
    stored, added = NUMBERS[dtype]
    options = core.ProgramOptions(
        name=name,
        std="c++17",
        arch=arch,
        ftz=True,
        device_as_default_execution_space=True,
        ptxas_options=["-v"],
        define_macro=[("REAL", stored), ("SUM", added), *defines],
    )
    log = io.StringIO()
    code = core.Program(source(name), "c++", options).compile("cubin", logs=log)
    return bytes(code.code), log.getvalue()


def files() -> list[str]:
    return sorted(path.name for path in folder().glob("*.cu"))


def variants(name: str, arch: str, dtype: str) -> list[tuple[tuple[str, str], ...]]:
    """The definitions with which the launcher has a file compiled: no large tiles for float64, asynchronous copies and tensor cores from sm_80 on."""
    absent = {("SMALL", "0"), ("TALL", "1")} if dtype == "float64" else set()
    absent |= {("ASYNC", "1")} if arch == "sm_75" else set()
    more = (("TENSOR", "3"),) if dtype == "float16" and arch != "sm_75" and name in ("conv.cu", "gemm.cu") else ()
    return [(*defines, *more) for defines in VARIANTS.get(name, ((),)) if not absent.intersection(defines)]


def some(name: str, arch: str, dtype: str) -> list[tuple[tuple[str, str], ...]]:
    """Half of the variants, the other half falls to the next of QUICK; of sm_75, which has the fewest, all.

    Pairs take turns in which of them is first: many differ in ASYNC alone.
    """
    found, turn = variants(name, arch, dtype), QUICK.index(arch)
    return found if turn == 0 or len(found) == 1 else [v for i, v in enumerate(found) if (i + i // 2 + turn) % 2 == 0]


def check_spills(name: str, arch: str, dtype: str, *defines: tuple[str, str]) -> None:
    """Compiles every kernel of the file, and none of them keeps registers in local memory."""
    _, log = compile_kernels(name, arch, dtype, *defines)
    compiled = set(re.findall(r"Compiling entry function '(\w+)'", log))
    assert compiled == set(kernel_names(source(name)))
    spills = re.findall(r"(\d+) bytes spill stores", log)
    assert len(spills) >= len(compiled)
    assert set(spills) == {"0"}, log


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("arch", QUICK)
@pytest.mark.parametrize("name", files())
def test_kernels_compile_without_spills(name: str, arch: str, dtype: str) -> None:
    for defines in some(name, arch, dtype):
        check_spills(name, arch, dtype, *defines)


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("name", files())
def test_every_variant_is_compiled_for_some_architecture(name: str, dtype: str) -> None:
    found = [some(name, arch, dtype) for arch in QUICK]
    assert all(found)
    assert {v for each in found for v in each} == {v for arch in QUICK for v in variants(name, arch, dtype)}


@pytest.mark.exhaustive
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", files())
def test_every_variant_compiles_for_every_architecture(name: str, arch: str) -> None:
    for dtype in NUMBERS:
        for defines in variants(name, arch, dtype):
            check_spills(name, arch, dtype, *defines)


def by_kernel(text: str) -> dict[str, str]:
    """Assembly text cut into the kernels in it."""
    return dict(re.findall(r"\.entry (\w+)\((.*?)(?=\.entry|\Z)", text, re.S))


@pytest.mark.parametrize(
    ("shape", "arch"),
    [
        *((shape, "sm_80") for shape in (LARGE, TALL, SQUARE)),
        (SQUARE, "sm_90a"),  # whose large tiles are wgmma's, see test_cuda_sm90a.py; those of mma.sync can be asked for
        *(pytest.param(shape, "sm_90a", marks=pytest.mark.exhaustive) for shape in (LARGE, TALL)),
    ],
)
@pytest.mark.parametrize(
    ("tensor", "dtype", "instruction"),
    [
        ("1", "float32", "mma.sync.aligned.m16n8k8.row.col.f32.tf32"),
        ("4", "float32", "mma.sync.aligned.m16n8k8.row.col.f32.tf32"),
        ("2", "float32", "mma.sync.aligned.m16n8k16.row.col.f32.bf16"),
        ("3", "float16", "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"),
    ],
)
def test_tensor_core_kernels_contain_their_instruction(tensor: str, dtype: str, instruction: str, shape: Defines, arch: str) -> None:
    defines = *shape, ("TENSOR", tensor), ("REAL", NUMBERS[dtype][0])
    for fetch in "01" if dtype == "float32" else "":  # of float16 there is nothing else, and it was checked above
        for grouped in "01" if shape == LARGE else "0":  # large tiles have the fewest registers left
            check_spills("conv.cu", arch, dtype, *defines[:-1], ("ASYNC", fetch), ("GROUPED", grouped))
        if shape == TALL:
            check_spills("conv.cu", arch, dtype, *defines[:-1], ("ASYNC", fetch), ("SWAPPED", "1"))
    kernels = by_kernel(ptx("conv.cu", arch, *defines))
    for name in ("conv_forward", "conv_transposed", "conv_weight"):
        assert instruction in kernels[name]
    assert "mma.sync" not in kernels["sum_parts"]
    assert "mma.sync" not in ptx("conv.cu", arch)
    for variant in VARIANTS["gemm.cu"]:
        if variant[: len(shape) + 1] == (*shape, ("ASYNC", "1")) and dtype == "float32":
            check_spills("gemm.cu", arch, dtype, *variant, ("TENSOR", tensor))
    assert instruction in ptx("gemm.cu", arch, *defines)


@pytest.mark.parametrize("shape", [LARGE, SQUARE])
def test_three_products_in_the_place_of_one(shape: Defines) -> None:
    """tf32x3: of high and low parts, added up from zero, which takes as many additions as results and no other multiplication."""
    once, split = (by_kernel(ptx("conv.cu", "sm_80", *shape, ("TENSOR", tensor), ("ASYNC", "1"))) for tensor in "14")
    for name in ("conv_forward", "conv_transposed", "conv_weight"):
        found = [text[name].count("mma.sync.aligned.m16n8k8.row.col.f32.tf32") for text in (once, split)]
        assert found == ([32, 96] if shape == LARGE else [8, 24])
        assert "cvt.rna.tf32" in once[name] and "cvt.rna" not in split[name]


@pytest.mark.parametrize("grouped", ["0", "1"])
@pytest.mark.parametrize("tensor", ["0", "1"])
def test_convolutions_copy_16_bytes_and_divide_outside_their_loop(tensor: str, grouped: str) -> None:
    """cp.async in every convolution that asks for it; neighbours in memory are read by one instruction; no division between barrier and product."""
    wide = {"conv_forward": "v4", "conv_transposed": "v4" if tensor == "1" else "v2"}  # where k runs along memory, in at least one factor
    wide |= {} if tensor == "1" else {"conv_weight": "v4"}  # neighbouring rows
    quick, slow = (by_kernel(ptx("conv.cu", "sm_80", ("TENSOR", tensor), ("GROUPED", grouped), ("ASYNC", fetch))) for fetch in "10")
    for name in ("conv_forward", "conv_transposed", "conv_weight"):
        assert "cp.async.cg.shared.global" in quick[name] and "cp.async.wait_group 1" in quick[name]
        assert "cp.async" not in slow[name]
        assert re.findall(r"ld\.shared\.(v\d)", quick[name])[:1] == [wide[name]] if name in wide else "ld.shared.v" not in quick[name]
        for text in (quick[name], slow[name]):
            loop = text[text.index("bar.sync") : text.rindex("mma.sync" if tensor == "1" else "fma.rn.f32")]
            assert len(loop) > 4000
            assert not re.search(r"\b(div|rem)\.", loop), name
            assert re.search(r"\b(div|rem)\.", text), name
    assert "cp.async" not in quick["sum_parts"]


@pytest.mark.parametrize(
    ("tensor", "real", "most"),
    [("0", "float", (2, 2, 2)), ("1", "float", (2, 5, 8)), ("2", "float", (2, 5, 8)), ("3", "Half", (4, 6, 12))],
)
def test_a_thread_works_out_few_addresses_of_shared_memory(tensor: str, real: str, most: tuple[int, int, int]) -> None:
    """All that it reads in a step are so many addresses and offsets from them, not an address for each read: on tensor cores one for each exchange of lines."""
    kernels = by_kernel(ptx("conv.cu", "sm_80", ("TENSOR", tensor), ("REAL", real), ("ASYNC", "1")))
    for name, bases in zip(("conv_forward", "conv_transposed", "conv_weight"), most, strict=True):
        read = re.findall(r"ld\.shared\.\S+\s+[^;]*\[(%\w+)(?:\+-?\d+)?\]", kernels[name])
        assert len(set(read)) == bases < len(read) / 3, name


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("im2col.cu", {"im2col": 2}),  # a row's image, and the tap of KH elements
        ("norm.cu", {"normalize": 0, "normalize_grad": 0}),
        ("pool.cu", {"gather": 0, "scatter_link": 0, "scatter_sum": 0, "max_pool": 1, "avg_pool": 1, "pool_gather": 2}),
    ],
)
def test_kernels_on_rows_do_not_divide_to_know_their_place(name: str, most: dict[str, int]) -> None:
    assert divisions(name) == divisions(name) | most


@pytest.mark.parametrize("window", [TWO, THREE])
def test_usual_windows_are_pooled_without_divisions(window: str) -> None:
    """But for the number of the block, which is an image and a row of it."""
    found, most = divisions("pool.cu", ("WINDOW", window), ("WIDE", "1")), {"max_pool": 1, "pool_gather": 1, "pool_scatter": 2}
    assert found == found | most
    assert divisions("pool.cu")["pool_scatter"] > 4


@pytest.mark.parametrize("dtype", NUMBERS)
def test_several_rows_are_read_before_any_is_used(dtype: str) -> None:
    """Loads of four rows, or eight shares, stand side by side, with no store and no branch among them but for the last: so many are under way at once."""
    text = by_kernel(ptx("norm.cu", "sm_80", ("WIDE", "1"), *zip(("REAL", "SUM"), NUMBERS[dtype], strict=True)))
    together = {
        "moments": 3,
        "row_sums": 3,
        "normalize": 3,
        "gradient_sums": 6,
        "normalize_grad": 6,
        "combine_moments": 14,
        "add_shares": 7,
    }
    for kernel, loads in together.items():
        width = r"nc\.f64" if "shares" in kernel or "combine" in kernel else WIDE
        pieces = re.split(r"\bbra\b|\bst\.global", text[kernel])
        assert max(len(re.findall(rf"\bld\.global\.{width}", piece)) for piece in pieces) >= loads, kernel


def divisions(name: str, *defines: tuple[str, str]) -> dict[str, int]:
    """How many there are in each kernel."""
    return {kernel: len(re.findall(r"\b(?:div|rem)\.", text)) for kernel, text in by_kernel(ptx(name, "sm_80", *defines)).items()}


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize(
    ("name", "loads"),
    [
        ("norm.cu", {"moments": 1, "row_sums": 1, "normalize": 1, "gradient_sums": 2, "normalize_grad": 2}),
        ("pool.cu", {"max_pool": 1, "pool_scatter": 1, "avg_pool": 1, "avg_pool_adjoint": 1}),
        ("resize.cu", {"along_axis": 1}),
        ("elementwise.cu", {"relu": 1, "relu_grad": 2, "dropout": 1}),
    ],
)
def test_runs_are_read_by_one_instruction(name: str, loads: dict[str, int], dtype: str) -> None:
    """16 bytes each: as many loads as there are images, for each of the rows that a loop takes at a time; and they are stored so."""
    wide, narrow = (by_kernel(ptx(name, "sm_80", ("WIDE", w), *(zip(("REAL", "SUM"), NUMBERS[dtype], strict=True)))) for w in "10")
    for kernel, images in loads.items():
        assert len(re.findall(rf"ld\.global\.{WIDE}", wide[kernel])) >= images, kernel
        assert not re.search(rf"(ld|st)\.global\.{WIDE}", narrow[kernel]), kernel
        if kernel not in ("moments", "row_sums", "gradient_sums"):
            assert re.search(rf"st\.global\.{WIDE}", wide[kernel])


def ptx(name: str, arch: str, *defines: tuple[str, str]) -> str:
    """The assembly text of kernels/`name`."""
    given = (f"-D{key}={value}" for key, value in defines)
    return nvrtc.ptx(source(name), ("-std=c++17", f"-arch={arch.replace('sm', 'compute')}", *given))


def test_a_kernel_that_is_wrong_does_not_compile() -> None:
    core = nvrtc.program()
    with pytest.raises(Exception, match="undefined"):
        core.Program("__global__ void f() { missing(); }", "c++", core.ProgramOptions(arch="sm_80")).compile("cubin")
