"""The reference kernels: complete, slow, obvious, and the judge of every fast one.

Each kernel is plain array code on `self.xp`, so the same lines run on NumPy and on CuPy. They take and return raw arrays of any strides;
images are (N, C, H, W), results lie in channels-last memory. Geometry comes as a `Window`; output sizes are always said, never guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from .conv import ConvKernels
from .dropout import DropoutKernels
from .loss import LossKernels
from .metrics import MetricKernels
from .norm import NormKernels
from .optim import OptimKernels
from .pool import PoolKernels
from .resize import ResizeKernels


class Kernels(ConvKernels, DropoutKernels, LossKernels, MetricKernels, NormKernels, OptimKernels, PoolKernels, ResizeKernels):
    """Every kernel of the library on one array module, `Kernels(numpy)` or `Kernels(cupy)`."""

    if not TYPE_CHECKING:  # or every name would be an attribute

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"{type(self).__name__} has no kernel {name!r}; kernels of your own are there within use_kernels(...), where backward() must "
                f"run, too"
            )


__all__ = ["Kernels"]
