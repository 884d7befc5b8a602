"""CUDA kernels as the tests use them, on NumPy arrays: on the simulator, or with MINIDCNN_CUDA=device on a real GPU.

MINIDCNN_CUDA=ptx simulates not the sources but what NVRTC makes of them, inline assembly included.

MINIDCNN_CUDA_POOL=none there gives every array memory of its own, so that compute-sanitizer sees where one ends. MINIDCNN_CUDA=stand-in does what is
done on a device with the stand-in for CuPy in its place: whether the tests themselves are fit for one.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import nvrtc
import pytest
from cudasim import SimModule
from cudasim.build import why_not as why_no_simulator

from minidcnn.backend import Kernels, to_backend
from minidcnn.backend.cuda import CudaKernels
from minidcnn.backend.cuda.compiler import ARCH, AS_CUPY

PTX = os.environ.get("MINIDCNN_CUDA", "") == "ptx"
ON_DEVICE = os.environ.get("MINIDCNN_CUDA", "") in ("device", "stand-in")
if os.environ.get("MINIDCNN_CUDA", "") == "stand-in":
    sys.modules["cupy"] = importlib.import_module("cupy_stand_in").make_module()
if ON_DEVICE and os.environ.get("MINIDCNN_CUDA_POOL", "") == "none":
    importlib.import_module("cupy").cuda.set_allocator(None)


def why_not() -> str:
    """Why these kernels cannot run here, or "": a GPU needs no simulator."""
    return "" if ON_DEVICE else why_no_simulator() or (PTX and nvrtc.why_not()) or ""


@functools.cache
def _module(code: str, options: tuple[str, ...], ptx: str, settings: tuple[tuple[str, Any], ...]) -> SimModule:
    if ptx:
        arch = () if ARCH in options else (f"-arch={ptx}",)
        code = nvrtc.ptx(code, (*options, *AS_CUPY, "-lineinfo", *arch))
    return SimModule(code, options=options, **dict(settings))


def simulated(
    planted: tuple[str, str] | None = None,
    precision: str = "float32",
    capability: tuple[int, int] | None = None,
    ptx: str = "compute_80" if PTX else "",
    **settings: Any,
) -> Any:
    """CudaKernels on NumPy arrays; settings as SimModule takes them. `planted`: (text, what stands there instead) in every source with it.

    capability: of the GPU that is simulated; one that can do what all can, and has no wgmma, without. ptx: NVRTC's name of an architecture, and what
    it makes of the sources is simulated (what is for sm_90a stays so). On a device, settings mean nothing, and what plants a bug is skipped.
    """
    if ON_DEVICE:
        if planted is not None:
            pytest.skip("bugs are planted on the simulator only")
        return OnDevice(CudaKernels(precision=precision))

    def module(*, code: str, options: tuple[str, ...]) -> SimModule:
        if planted is not None:
            code = code.replace(*planted)
        return _module(code, options, ptx, tuple(sorted(settings.items())))

    kernels = CudaKernels(np, module, precision)
    if capability is not None:
        kernels.launcher.capability = capability
    return kernels


class OnDevice:
    """Kernels for the GPU that take and return NumPy arrays, in the same memory order; arrays changed in place come back too."""

    def __init__(self, kernels: Kernels) -> None:
        object.__setattr__(self, "_kernels", kernels)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._kernels, name, value)

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Any] = getattr(self._kernels, name)
        if not callable(method):
            return method

        def call(*args: Any, **named: Any) -> Any:
            there, by_name = _there(args), {name: _there(value) for name, value in named.items()}
            result = method(*there, **by_name)
            _change((args, *named.values()), (there, *by_name.values()))
            return _back(result)

        return call


def _there(value: Any) -> Any:
    """Every array on the device, also those in tuples and lists."""
    if type(value) in (tuple, list):  # windows and rules, which are tuples with names, hold no arrays
        return type(value)(map(_there, value))
    return to_backend(value, "cupy") if isinstance(value, np.ndarray) else value


def _change(host: Any, device: Any) -> None:
    """What was changed in place on the device is changed here too."""
    if isinstance(host, tuple | list):
        for a, b in zip(host, device, strict=True):
            _change(a, b)
    elif isinstance(host, np.ndarray) and host.flags.writeable:
        host[...] = to_backend(device, "numpy")


def _back(result: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(map(_back, result))
    return to_backend(result, "numpy") if hasattr(result, "get") else result
