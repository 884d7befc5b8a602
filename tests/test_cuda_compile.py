"""Every kernel compiles for real GPUs, by the compiler that CuPy uses, without a GPU or a driver; and no kernel spills registers."""

from __future__ import annotations

import functools
import importlib.util
import io
import re
from typing import Any

import pytest
from cudasim.translate import kernel_names

from minidcnn.backend.cuda.launcher import NUMBERS
from minidcnn.backend.cuda.source import folder, source

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_90a", "sm_100", "sm_120")
QUICK = ("sm_75", "sm_80", "sm_90a", "sm_120")  # in the usual run; the others in the exhaustive one
VARIANTS = {"conv.cu": (("SMALL", "0"), ("SMALL", "1")), "pool.cu": (("TAP", "unsigned char"), ("TAP", "unsigned short"))}


@functools.cache
def program() -> Any:
    """cuda.core's Program and ProgramOptions, or a skip that says what is missing."""
    for package in ("cuda.core", "cuda.bindings"):
        try:
            found = importlib.util.find_spec(package) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            pytest.skip('compiling CUDA without a GPU needs NVRTC: pip install -e ".[nvrtc]"')
    core: Any = __import__("cuda.core", fromlist=["Program"])
    return core


def compile_kernels(name: str, arch: str, dtype: str, *defines: tuple[str, str]) -> tuple[bytes, str]:
    """(machine code, the assembler's report) of kernels/`name`, compiled with the options that CuPy passes."""
    core = program()
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


def check(name: str, arch: str, dtype: str) -> None:
    for define in VARIANTS.get(name, ((),)):
        _, log = compile_kernels(name, arch, dtype, *([define] if define else []))
        compiled = set(re.findall(r"Compiling entry function '(\w+)'", log))
        assert compiled == set(kernel_names(source(name)))
        spills = re.findall(r"(\d+) bytes spill stores", log)
        assert len(spills) >= len(compiled)
        assert set(spills) == {"0"}, log


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("arch", QUICK)
@pytest.mark.parametrize("name", files())
def test_kernels_compile_without_spills(name: str, arch: str, dtype: str) -> None:
    check(name, arch, dtype)


@pytest.mark.exhaustive
@pytest.mark.parametrize("arch", [a for a in ARCHITECTURES if a not in QUICK])
@pytest.mark.parametrize("name", files())
def test_kernels_compile_for_every_architecture(name: str, arch: str) -> None:
    for dtype in NUMBERS:
        check(name, arch, dtype)


def test_a_kernel_that_is_wrong_does_not_compile() -> None:
    core = program()
    with pytest.raises(Exception, match="undefined"):
        core.Program("__global__ void f() { missing(); }", "c++", core.ProgramOptions(arch="sm_80")).compile("cubin")
