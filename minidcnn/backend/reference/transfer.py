"""What goes between host and device: numbers and small constants up, errors down, without anyone waiting."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from ..arrays import Array
from ..pending import defer
from ..uploads import PinnedUploads, Uploads
from ..usable import BackendError
from .base import BaseKernels


class TransferKernels(BaseKernels):
    """scalar, constant, uploads and demand: on NumPy each is the obvious thing, at once."""

    def __init__(self, xp: ModuleType) -> None:
        super().__init__(xp)
        self._constants: dict[tuple[bytes, tuple[int, ...], str], Array] = {}

    def scalar(self, value: Any, dtype: Any) -> Array:
        """`value` as an array without axes. On a GPU it travels as an argument of a launch, not as a copy."""
        return self.xp.asarray(value, dtype) if self.xp is np else self.xp.full((), value, dtype)  # type: ignore[no-any-return]

    def constant(self, host: Array) -> Array:
        """A small NumPy array, read only, where this works. The same numbers are copied to a GPU once and kept there."""
        if self.xp is np:
            return host
        host = np.ascontiguousarray(host)
        key = host.tobytes(), host.shape, host.dtype.str
        if key not in self._constants:
            self._constants[key] = self.xp.asarray(host)
        return self._constants[key]

    def uploads(self) -> Uploads:
        """A way for batches to where these kernels work."""
        return Uploads() if self.xp is np else PinnedUploads(self.xp)

    def graphs(self, work: Callable[..., tuple[Any, ...]]) -> Any:
        """`work` as cuda.graph.Graphs makes it; BackendError where there is no such thing."""
        raise BackendError(
            f"a step can be recorded as a CUDA graph (--graph) by the CUDA kernels on a GPU only, and here the {self.name} kernels of {self.xp.__name__} "
            f"work: use --backend cupy, or leave out --graph"
        )

    def demand(self, wrong: Array, error: Callable[[int], Exception]) -> None:
        """Raise error(i) if the integer without axes `wrong` holds i >= 0: on NumPy at once, on a GPU when a value is next read."""
        if self.xp is not np:
            defer(wrong, error)
        elif wrong >= 0:
            raise error(int(wrong))

    def first(self, wrong: Array) -> Array:
        """The flat index of the first True, as an integer without axes; -1 where there is none."""
        flat = wrong.reshape(-1)
        if not flat.size:
            return self.scalar(-1, "int64")
        return self.xp.where(flat.any(), flat.argmax(), -1)  # type: ignore[no-any-return]
