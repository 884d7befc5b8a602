"""Compiles CUDA sources on a GPU: by cupy.RawModule, and by NVRTC itself for what CuPy does not ask it for.

CuPy compiles for the GPU's capability, "sm_90"; instructions of one capability only, such as wgmma, want "sm_90a", and an option of ours beside its
own is refused by NVRTC before 12.9. So a source with ARCH among its options goes to the same NVRTC, with the options that CuPy passes save for folders
of headers, and its machine code to the same folder of compiled kernels.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

ARCH = "-arch=sm_90a"
AS_CUPY = ("-ftz=true", "--device-as-default-execution-space")


class Compiler:
    """Called as cupy.RawModule is, with code and options; what it returns has get_function(name). RuntimeError with NVRTC's words."""

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy

    def __call__(self, *, code: str, options: tuple[str, ...]) -> Any:
        if ARCH not in options:
            return self.cupy.RawModule(code=code, options=options)
        module = self.cupy.cuda.Module()
        module.load(self._kept(code, (*options, *AS_CUPY)))
        return module

    def _kept(self, code: str, options: tuple[str, ...]) -> bytes:
        """Machine code, from the folder of kernels if it was compiled before. A folder that cannot be used is none."""
        made_by = self.cupy.__version__, self.cupy.cuda.nvrtc.getVersion()
        name = hashlib.sha256(repr((made_by, options, code)).encode()).hexdigest()
        folder = Path(os.environ.get("CUPY_CACHE_DIR") or os.path.expanduser("~/.cupy/kernel_cache"))  # never raises
        path = folder / f"minidcnn-{name}.cubin"
        try:
            return path.read_bytes()
        except OSError:
            pass
        binary = self._compiled(code, options)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as apart:
                (Path(apart) / "made").write_bytes(binary)
                os.replace(Path(apart) / "made", path)  # whole or not at all, whoever else does the same
        except OSError:
            pass
        return binary

    def _compiled(self, code: str, options: tuple[str, ...]) -> bytes:
        nvrtc = self.cupy.cuda.nvrtc
        program = nvrtc.createProgram(code, "minidcnn.cu", (), ())
        try:
            nvrtc.compileProgram(program, options)
            return bytes(nvrtc.getCUBIN(program))
        except nvrtc.NVRTCError as error:
            raise RuntimeError(f"{error}\n{nvrtc.getProgramLog(program)}".strip()) from error
        finally:
            nvrtc.destroyProgram(program)
