"""The compiler that CuPy uses, asked without a GPU and without a driver."""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

import pytest
from cudasim.build import cached


def why_not() -> str:
    """Why it is not at hand, and what to do, or ""."""
    for package in ("cuda.core", "cuda.bindings"):
        try:
            found = importlib.util.find_spec(package) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            return 'compiling CUDA without a GPU needs NVRTC: pip install -e ".[nvrtc]"'
    return ""


@functools.cache
def program() -> Any:
    """cuda.core's Program and ProgramOptions, or a skip that says what is missing."""
    if why_not():
        pytest.skip(why_not())
    core: Any = __import__("cuda.core", fromlist=["Program"])
    return core


class Nvrtc:
    """cupy.cuda.nvrtc with NVRTC behind it."""

    class NVRTCError(RuntimeError):
        """What does not compile."""

    def __init__(self) -> None:
        program()
        self.nvrtc: Any = __import__("cuda.bindings.nvrtc", fromlist=["nvrtc"])

    def call(self, function: str, *arguments: Any) -> Any:
        status, *values = getattr(self.nvrtc, function)(*arguments)
        if status != self.nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise self.NVRTCError(f"{status.name} ({int(status)})")
        return values[0] if values else None

    def text(self, what: str, program: Any) -> bytes:
        found = bytes(self.call(f"nvrtcGet{what}Size", program))
        self.call(f"nvrtcGet{what}", program, found)
        return found

    def getVersion(self) -> tuple[int, int]:
        return 13, 0

    def createProgram(self, code: str, name: str, headers: Any, names: Any) -> Any:
        return self.call("nvrtcCreateProgram", code.encode(), name.encode(), 0, [], [])

    def compileProgram(self, program: Any, options: tuple[str, ...]) -> None:
        self.call("nvrtcCompileProgram", program, len(options), [o.encode() for o in options])

    def getCUBIN(self, program: Any) -> bytes:
        return self.text("CUBIN", program)

    def getPTX(self, program: Any) -> str:
        return self.text("PTX", program).rstrip(b"\0").decode()

    def getProgramLog(self, program: Any) -> str:
        return self.text("ProgramLog", program).decode()

    def destroyProgram(self, program: Any) -> None:
        self.call("nvrtcDestroyProgram", program)


def compiled(code: str, options: tuple[str, ...]) -> str:
    """PTX of a source. RuntimeError with the compiler's words if it does not compile."""
    compiler = Nvrtc()
    made = compiler.createProgram(code, "kernel.cu", (), ())
    try:
        compiler.compileProgram(made, options)
        return compiler.getPTX(made)
    except compiler.NVRTCError as error:
        raise RuntimeError(f"{error}\n{compiler.getProgramLog(made)}") from error
    finally:
        compiler.destroyProgram(made)


@functools.cache
def build_id() -> str:
    """Which compiler it is, as it says itself above the PTX of nothing."""
    return compiled("", ())


@functools.cache
def ptx(code: str, options: tuple[str, ...]) -> str:
    """What the compiler makes of a source, as text: cuda.core would ask a driver whether it could load it. Kept beside the simulator's libraries."""
    return cached([code, *options, build_id()], ".ptx", lambda out: out.write_text(compiled(code, options))).read_text()
