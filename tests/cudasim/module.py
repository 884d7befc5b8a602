"""SimModule: the shape of cupy.RawModule, on NumPy arrays. The code that launches kernels on a GPU runs unchanged on it."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .build import build
from .translate import SimError, launch_bounds

GUARD = 64 << 10  # bytes around a checked array that belong to nobody, as in runtime/scheduler.h
ERROR_BYTES = 2048


class _Parameter(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_char), ("size", ctypes.c_int), ("element", ctypes.c_char), ("element_size", ctypes.c_int)]


class _Kernel(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("count", ctypes.c_int),
        ("parameters", ctypes.POINTER(_Parameter)),
        ("call", ctypes.c_void_p),
        ("low", ctypes.c_void_p),
        ("high", ctypes.c_void_p),
    ]


class _Array(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("bytes", ctypes.c_size_t), ("itemsize", ctypes.c_int)]


class _Launch(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_size_t),
        ("shared_limit", ctypes.c_size_t),
        ("order", ctypes.c_int),
        ("seed", ctypes.c_uint),
        ("host_threads", ctypes.c_int),
        ("late_copies", ctypes.c_int),
        ("array_count", ctypes.c_int),
        ("arrays", ctypes.POINTER(_Array)),
        ("error", ctypes.c_char_p),
        ("error_size", ctypes.c_size_t),
    ]


class SimModule:
    """The kernels of one source, compiled for the CPU.

    code or path: a .cu source with its headers inlined, or PTX, which a CUDA compiler made of one (it has no types of parameters to check).
    options: -D definitions count, others are ignored. name_expressions: instances of templates.
    mode: "fast", "check" for bounds, races and uninitialised reads (a launch then raises SimError with file and line), or of PTX "traffic",
    which adds up in `traffic` what memory does.
    order: of threads and blocks, 0 forward, 1 reverse, 2 random by `seed`. late_copies: cp.async copies and wgmma products happen at the wait
    (True) or at once: a kernel must be right under both.
    """

    def __init__(
        self,
        code: str | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        options: Sequence[str] = (),
        name_expressions: Sequence[str] | None = None,
        filename: str | None = None,
        mode: str = "fast",
        order: int = 0,
        seed: int = 1,
        late_copies: bool = True,
        host_threads: int = 1,
    ) -> None:
        if (code is None) == (path is None):
            raise ValueError("SimModule: give either code or path")
        source = Path(path).read_text() if path is not None else code or ""
        self.filename = filename or (str(path) if path is not None else "kernel.cu")
        self.binary, runtime, self.names = build(source, name_expressions or (), options, mode, self.filename)
        self.runtime, self._library = ctypes.CDLL(str(runtime)), ctypes.CDLL(str(self.binary))
        self.mode, self.order, self.seed, self.late_copies, self.host_threads = mode, order, seed, late_copies, host_threads
        self.bounds = launch_bounds(source)
        self.traffic: dict[
            tuple[str, str, str, str, int], list[int]
        ] = {}  # (kernel, line, read or write, memory, bytes): requests, units, the least

    def get_function(self, name: str) -> SimKernel:
        """The kernel called `name`. SimError with the known names if there is none."""
        if name not in self.names:
            raise SimError(f"{self.filename} has no kernel {name}; it has {', '.join(self.names)}")
        return SimKernel(self, name, _Kernel.in_dll(self._library, f"sim_kernel_{self.names.index(name)}"))


class SimKernel:
    """One kernel, called as cupy.RawKernel is: kernel(grid, block, args, shared_mem=bytes)."""

    def __init__(self, module: SimModule, name: str, record: _Kernel) -> None:
        self.module, self.name, self._record = module, name, record
        self.max_dynamic_shared_size_bytes: int | None = None
        self.behind: Sequence[Any] = ()  # arrays whose addresses stand in an int64 array of the next launch

    def __call__(self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], *, shared_mem: int = 0) -> None:
        arguments = _Arguments(self.name, self._record, args, self.behind, separate=self.module.mode != "fast")
        self.behind = ()
        full_grid, full_block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        self._check_shape(full_grid, full_block, shared_mem)
        error = ctypes.create_string_buffer(ERROR_BYTES)
        arrays = (_Array * max(1, len(arguments.arrays)))(*arguments.arrays)
        launch = _Launch(
            (ctypes.c_uint * 3)(*full_grid),
            (ctypes.c_uint * 3)(*full_block),
            shared_mem,
            227 << 10 if self.max_dynamic_shared_size_bytes else 48 << 10,
            self.module.order,
            self.module.seed,
            self.module.host_threads,
            int(self.module.late_copies),
            len(arguments.arrays),
            arrays,
            ctypes.cast(error, ctypes.c_char_p),
            ERROR_BYTES,
        )
        checking = int(self.module.mode == "check")
        if self.module.runtime.sim_launch(ctypes.byref(self._record), arguments.pointers, ctypes.byref(launch), checking):
            raise SimError(self._with_lines(error.value.decode()))
        arguments.copy_back()
        if self.module.mode == "traffic":
            self._count()

    def _count(self) -> None:
        """Adds what memory had to do in this launch to the module's `traffic`."""
        read = self.module.runtime.sim_traffic
        read.restype = ctypes.c_char_p
        for line in read(ctypes.byref(self._record)).decode().splitlines():
            code, kind, space, *numbers = line.split()
            place = self._with_lines(code).removeprefix("at ")
            key = self.name, Path(place).name, {"r": "read", "w": "write"}[kind], {"s": "shared", "g": "global"}[space], int(numbers[0])
            self.module.traffic[key] = [a + int(b) for a, b in zip(self.module.traffic.get(key, (0, 0, 0)), numbers[1:], strict=True)]

    def _check_shape(self, grid: tuple[int, ...], block: tuple[int, ...], shared_mem: int) -> None:
        threads = block[0] * block[1] * block[2]
        if not 0 < threads <= 1024 or block[2] > 64 or min(grid) < 1 or grid[0] >= 2**31 or max(grid[1:]) > 65535:
            raise SimError(f"{self.name}: no GPU accepts a launch of grid {grid} and block {block}")
        bounds = self.module.bounds.get(self.name.split("<")[0], "").split(",")[0].strip()
        if bounds.isdigit() and threads > int(bounds):
            raise SimError(f"{self.name}: {threads} threads, but __launch_bounds__ says {bounds}")
        if shared_mem > (self.max_dynamic_shared_size_bytes or 48 << 10):
            raise SimError(f"{self.name}: {shared_mem} bytes of dynamic shared memory; set max_dynamic_shared_size_bytes above 48 KiB")

    def _with_lines(self, message: str) -> str:
        """The message with each @code0x123 turned into the line of the .cu source."""

        def line(match: re.Match[str]) -> str:
            command = ["addr2line", "-i", "-e", str(self.module.binary), hex(int(match[1], 16) - 1)]
            try:
                places = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
            except OSError:
                return match[0]
            ours = ("device.h", "mma.h", "ptx.h")
            return "at " + next((p for p in places if not any(name in p for name in ours)), (places or ["?"])[0]).split(" (")[0]

        return re.sub(r"@code(0x[0-9a-f]+)", line, message)


class _Arguments:
    """What a kernel is called with, checked as a GPU never would: exact dtypes, NumPy scalars, C-contiguous arrays."""

    def __init__(self, kernel: str, record: _Kernel, values: Sequence[Any], behind: Sequence[Any], separate: bool) -> None:
        if len(values) != record.count:
            raise SimError(f"{kernel} takes {record.count} arguments, got {len(values)}")
        self.kernel, self.separate = kernel, separate
        self.arrays: list[_Array] = []
        self._kept: list[Any] = []
        self._changed: list[tuple[Any, Any]] = []
        self._known: dict[int, Any] = {}  # aliases stay aliases
        self._behind = {array.ctypes.data: self._place(array) for array in behind if array.size}
        self.pointers = (ctypes.c_void_p * max(1, record.count))()
        for i, value in enumerate(values):
            parameter = record.parameters[i]
            if isinstance(value, np.ndarray) and (parameter.kind == b"s" or (parameter.kind == b"b" and value.dtype.kind == "V")):
                kept: Any = self._struct(i, value, parameter)
            elif isinstance(value, np.ndarray):
                kept = self._array(i, value, parameter)
            elif parameter.kind in b"pb" and isinstance(value, np.uint64) and not value:
                kept = ctypes.c_void_p(None)
            else:
                kept = self._scalar(i, value, parameter)
            self._kept.append(kept)
            self.pointers[i] = ctypes.addressof(kept)

    def _array(self, i: int, array: Any, parameter: _Parameter) -> ctypes.c_void_p:
        where = f"{self.kernel}, argument {i}"
        untyped = parameter.kind == b"b" and parameter.size == 8
        if parameter.kind != b"p" and not untyped:
            raise SimError(f"{where}: an array where the kernel takes a number")
        if not array.flags.c_contiguous:
            raise SimError(f"{where}: the array is not C-contiguous")
        if untyped:
            return self._pointer(array)
        kinds = {b"f": "f", b"i": "i", b"u": "ub", b"s": "fiuV", b"?": "fiubV"}[parameter.element]
        whole = parameter.element == b"?" or (parameter.element == b"s" and parameter.element_size % array.itemsize == 0)
        if array.dtype.kind not in kinds or not (whole or array.itemsize == parameter.element_size):
            raise SimError(f"{where}: an array of {array.dtype} for a pointer to {parameter.element.decode()}{parameter.element_size * 8}")
        return self._pointer(array)

    def _pointer(self, array: Any) -> ctypes.c_void_p:
        if not array.size:
            return ctypes.c_void_p(None)
        if self._behind and array.dtype == np.int64:
            array = self._with_addresses(array)
        return ctypes.c_void_p(self._place(array).ctypes.data)

    def _place(self, array: Any) -> Any:
        """`array` as the kernel sees it: itself, or if accesses are checked a copy between guard zones, the same one each time."""
        device = self._known.get(array.ctypes.data)
        if device is None:
            device = self._known[array.ctypes.data] = _guarded(array) if self.separate else array
            self.arrays.append(_Array(device.ctypes.data, array.nbytes, array.itemsize))
            if self.separate and array.flags.writeable:
                self._changed.append((array, device))
        return device

    def _with_addresses(self, table: Any) -> Any:
        """A read-only table in which the addresses of arrays are those of the copies that the kernel sees."""
        moved = table.copy()
        for address, device in self._behind.items():
            moved[table == address] = device.ctypes.data
        moved.flags.writeable = False
        self._kept.append(moved)
        return moved

    def _scalar(self, i: int, value: Any, parameter: _Parameter) -> Any:
        where = f"{self.kernel}, argument {i}"
        if not isinstance(value, np.generic):
            raise SimError(f"{where}: pass a NumPy scalar, not {type(value).__name__}: on a GPU it would arrive as 8 bytes")
        kinds = {b"f": "f", b"i": "i", b"u": "ub", b"s": "V", b"p": "", b"b": "fiub"}[parameter.kind]
        if value.dtype.kind not in kinds or value.itemsize != parameter.size:
            raise SimError(f"{where}: {value.dtype} for a parameter of kind {parameter.kind.decode()}{parameter.size * 8}")
        return ctypes.create_string_buffer(value.tobytes(), value.itemsize)

    def _struct(self, i: int, value: Any, parameter: _Parameter) -> Any:
        """A struct by value: an array without axes of a structured dtype, as CuPy takes it. Addresses in its int64 fields are those that the kernel sees."""
        where = f"{self.kernel}, argument {i}"
        if value.ndim or value.dtype.kind != "V" or value.nbytes != parameter.size:
            raise SimError(
                f"{where}: an array of shape {value.shape}, {value.nbytes} bytes of {value.dtype}, for a struct of {parameter.size} bytes by value"
            )
        moved = value.copy()
        for name in moved.dtype.names or ():
            if moved.dtype[name].base == np.int64:
                moved[name] = self._with_addresses(np.atleast_1d(moved[name])).reshape(moved[name].shape)
        return ctypes.create_string_buffer(moved.tobytes(), moved.nbytes)

    def copy_back(self) -> None:
        """What the kernel wrote into guarded copies goes back into the caller's arrays."""
        for array, device in self._changed:
            np.copyto(array, device)


def _guarded(array: Any) -> Any:
    """A copy of `array` in the middle of memory that belongs to nobody, so that no overrun can land in another array."""
    memory = np.empty(array.nbytes + 2 * GUARD + 512, np.uint8)
    start = GUARD + -(memory.ctypes.data + GUARD) % 512  # 512 bytes: as the device's allocator aligns
    device = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    np.copyto(device, array)
    return device
