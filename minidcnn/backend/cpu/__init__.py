"""The CPU kernels: the reference on NumPy, overridden by numba kernels where those were measured to be faster."""

from __future__ import annotations

import numpy as np

from ..usable import BackendError
from .algorithm import forced_algorithm
from .conv import CpuConv
from .elementwise import CpuElementwise
from .jit import demand_compiler, forced_lanes, forced_unit
from .loss import CpuLoss
from .memory import keep_memory
from .norm import CpuNorm
from .optim import CpuOptim
from .pool import CpuPool
from .threads import num_threads


class CpuKernels(CpuElementwise, CpuConv, CpuLoss, CpuNorm, CpuOptim, CpuPool):
    """Kernels for NumPy arrays.

    BackendError if MINIDCNN_NUM_THREADS, MINIDCNN_CONV, MINIDCNN_LANES, MINIDCNN_AMX or NUMBA_DISABLE_JIT is set to what it cannot be.

    precision: "bf16" rounds the factors of float32 convolutions; any other leaves them as they are. Sums are float32 in any case.
    """

    name = "cpu"

    def __init__(self, precision: str = "float32") -> None:
        super().__init__(np)
        self.bf16 = precision == "bf16"
        try:  # what the environment says wrongly is told now, not in the middle of a training, and not as a ValueError of whoever comes first
            num_threads()
            forced_algorithm()
            forced_lanes()
            forced_unit()
            demand_compiler()
        except ValueError as error:
            raise BackendError(str(error)) from error
        keep_memory()


__all__ = ["CpuKernels"]
