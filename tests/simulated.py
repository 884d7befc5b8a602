"""CUDA kernels on the simulator, as the tests use them: kernels for NumPy arrays, with faults planted if wanted."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from cudasim import SimModule

from minidcnn.backend.cuda import CudaKernels


@functools.cache
def _module(code: str, options: tuple[str, ...], settings: tuple[tuple[str, Any], ...]) -> SimModule:
    return SimModule(code, options=options, **dict(settings))


def simulated(planted: tuple[str, str] | None = None, precision: str = "float32", **settings: Any) -> CudaKernels:
    """CudaKernels on NumPy arrays; settings as SimModule takes them. `planted`: (text, what stands there instead) in every source with it."""

    def module(*, code: str, options: tuple[str, ...]) -> SimModule:
        if planted is not None:
            code = code.replace(*planted)
        return _module(code, options, tuple(sorted(settings.items())))

    return CudaKernels(np, module, precision)
