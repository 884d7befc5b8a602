"""Compiles kernels, once per source and dtype, and launches them with arguments that were checked.

Modules come from compiler.py on a GPU. Anything with the shape of `cupy.RawModule` will do: the tests run the same launches, same grids and same
arguments, on a simulator.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arrays import Array
from ..compiling import told_if_long
from .compiler import ARCH
from .source import source

BLOCK = 256  # threads of a block, for kernels with one thread per element
MOST_BLOCKS = 1 << 16  # threads loop over the rest
NOWHERE = np.uint64(0)  # the address of no array: CuPy fills half of a pointer for None, and not with 0 (its issue 9046)
LIMIT = (1 << 31) - (1 << 25)  # elements of an array: kernels count in 32 bits, and step past the end by a grid at most

VARIABLE = "MINIDCNN_WGMMA"
WGMMA = "WGMMA=1"  # among a module's definitions: it is compiled for sm_90a
WARPGROUPS = (9, 0)  # the one compute capability with the instructions of kernels/wgmma.cuh
NUMBERS = {  # dtype -> how values are stored, how they are added up
    "float32": ("float", "float"),
    "float64": ("double", "double"),
    "float16": ("Half", "float"),
}


class Launcher:
    """Launches the kernels of kernels/*.cu on arrays of the module `xp`, compiled by `module(code=..., options=...)`."""

    def __init__(self, xp: Any, module: Callable[..., Any]) -> None:
        self.xp, self._module = xp, module
        self._functions: dict[tuple[str, str, tuple[str, ...]], Any] = {}

    @functools.cached_property
    def capability(self) -> tuple[int, int]:
        """The GPU's compute capability. What runs kernels on NumPy arrays can do all that they ask for."""
        if self.xp is np:
            return 99, 0
        runtime = self.xp.cuda.runtime
        properties = runtime.getDeviceProperties(runtime.getDevice())
        return properties["major"], properties["minor"]

    @functools.cached_property
    def warpgroups(self) -> bool:
        """Whether kernels/wgmma.cuh is to be used: the GPU has the instructions, MINIDCNN_WGMMA=0 does not say no, and they have not failed to compile."""
        return self.capability == WARPGROUPS and os.environ.get(VARIABLE, "") != "0"

    def suits(self, *arrays: Array | None, result: int = 1) -> bool:
        """Whether the kernels take these arrays: one dtype of NUMBERS, and like the `result` not empty, with few enough elements for 32-bit counting.

        result: its elements, or those of the largest array on the way to it. It need not be said where it is no larger than one of the arrays.
        """
        present = [a for a in arrays if a is not None]
        alike = len({a.dtype for a in present}) == 1 and present[0].dtype.name in NUMBERS
        return alike and all(0 < count < LIMIT for count in (result, *(a.size for a in present)))

    def function(self, file: str, kernel: str, dtype: Any, defines: Sequence[str] = ()) -> Any:
        """Kernel `kernel` of kernels/`file`, compiled for `dtype` when first asked for.

        RuntimeError that names both if it does not compile or load; MemoryError if the GPU has no room for it.
        """
        stored, added = NUMBERS[np.dtype(dtype).name]
        special = WGMMA in defines
        options = ("-std=c++17", f"-DREAL={stored}", f"-DSUM={added}", *(f"-D{d}" for d in defines), *((ARCH,) if special else ()))
        key = (file, kernel, options)
        if key not in self._functions:
            try:
                with told_if_long():
                    self._functions[key] = self._module(code=source(file), options=options).get_function(kernel)
            except MemoryError:
                raise
            except Exception as error:
                said = str(error).lower().replace("_", " ")
                if "out of memory" in said:  # the driver's words: what is compiled is loaded at once
                    raise MemoryError(f"kernel {kernel} of {file}: {error}") from error
                if "illegal address" in said or "illegal memory access" in said or "launch failed" in said:  # of a kernel before
                    raise RuntimeError(f"kernel {kernel} of {file} cannot be loaded: {error}") from error
                if special:  # the same tile on the tensor cores that every GPU of its generation has
                    if self.warpgroups:
                        first = str(error).splitlines()[0]
                        warnings.warn(f"kernels for sm_90a do not compile or load, slower ones are used: {first}", stacklevel=2)
                    self.warpgroups = False
                    self._functions[key] = self.function(file, kernel, dtype, [d for d in defines if d != WGMMA])
                    return self._functions[key]
                raise RuntimeError(f"kernel {kernel} of {file} does not compile for {np.dtype(dtype).name}: {error}") from error
        return self._functions[key]

    def over(self, count: int, file: str, kernel: str, dtype: Any, *arguments: Any, defines: Sequence[str] = ()) -> None:
        """Launch a kernel that has one thread for each of `count` elements. Nothing is launched for none."""
        if count:
            blocks = min(-(-count // BLOCK), MOST_BLOCKS)
            self.launch((blocks,), (BLOCK,), file, kernel, dtype, *arguments, defines=defines)

    def launch(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        file: str,
        kernel: str,
        dtype: Any,
        *arguments: Any,
        defines: Sequence[str] = (),
        shared: int = 0,
        behind: Sequence[Array] = (),
    ) -> None:
        """Launch with `grid` blocks of `block` threads; arrays are C-contiguous.

        Python ints and bools arrive as int, floats as SUM, None as a null pointer, NumPy scalars as they are.

        shared: bytes of shared memory beside the kernel's own, up to the 48 KiB that every GPU gives a block.
        behind: arrays whose addresses stand in an argument; a simulator, which checks every access, has to be told.
        RuntimeError that names the kernel, its grid and its arguments if the device refuses.
        """
        function = self.function(file, kernel, dtype, defines)
        added = np.float64 if NUMBERS[np.dtype(dtype).name][1] == "double" else np.float32
        values = tuple(self._argument(file, kernel, i, a, added) for i, a in enumerate(arguments))
        if behind and hasattr(function, "behind"):
            function.behind = behind
        try:
            function(tuple(grid), tuple(block), values, shared_mem=shared)
        except MemoryError:  # says more than we could
            raise
        except Exception as error:
            if "out of memory" in str(error).lower().replace("_", " "):  # for registers or code: not CuPy's own error
                raise MemoryError(f"kernel {kernel} of {file}: {error}") from error
            shapes = ", ".join(map(_told, values))
            raise RuntimeError(
                f"kernel {kernel} of {file}, grid {tuple(grid)}, block {tuple(block)}, arguments ({shapes}): {error}"
            ) from error

    def address(self, array: Array | None) -> int:
        """Where the memory of `array` begins, for a table of addresses; 0 for None."""
        if array is None:
            return 0
        return int(array.ctypes.data if self.xp is np else array.data.ptr)  # type: ignore[attr-defined]

    def _argument(self, file: str, kernel: str, i: int, value: Any, added: Any) -> Any:
        if value is None:
            return NOWHERE
        if isinstance(value, int):  # bool too
            if not -LIMIT <= value < LIMIT:
                raise ValueError(f"kernel {kernel} of {file}, argument {i}: {value} does not fit 32 bits")
            return np.int32(value)
        if type(value) is float:  # np.float64 is one too, and stays
            return added(value)
        if hasattr(value, "flags") and not value.flags.c_contiguous:
            raise ValueError(f"kernel {kernel} of {file}, argument {i}: the array of shape {value.shape} must be C-contiguous")
        return value


def _told(value: Any) -> str:
    """An argument in an error message: the shape of an array, the size of a struct, else the value."""
    if getattr(value, "shape", ()):
        return str(value.shape)
    return f"{value.nbytes} bytes" if hasattr(value, "dtype") and value.dtype.kind == "V" else str(value)
